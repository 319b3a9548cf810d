"""The runs of a list, shared by the processes that train them.

Importing torch takes longer than a small run's epoch: a process trains one run after the other, each
run taken by one process. Beside the list, `run<n>` says what became of the run on line n: it is
created by the process that takes the run (so no other can), and holds one line: "running", "done
SECONDS", "failed REASON" or, where a process that is none of these has the run, "elsewhere REASON".
"""

import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ser import cli
from ser.cli import UserError
from ser.files import InUse, alone, whole

if TYPE_CHECKING:
    from ser.runs import Run


class State(NamedTuple):
    """What became of a run: "waiting", "running", "done", "failed" or "elsewhere"; since: seconds of the
    clock; more: the seconds that it took, or the reason."""

    name: str
    since: float = 0
    more: str = ""


def once(folder: Path, train: Callable[["Run"], None]) -> None:
    """Train one run, if it is not done. Raises UserError where another process is at it."""
    from ser.runs import read_run

    run = read_run(folder)
    if not run.is_done:
        with alone(folder / "lock", str(folder)):
            if not run.is_done:  # another process may just have ended it
                run.refuse_changes()
                train(run)
                return
    print(f"{folder}: done already")


def work(runs: Path, train: Callable[[Path], None]) -> None:
    """Train the runs of a list that no other process takes. A run that fails does not stop the others.

    Raises UserError at the end where one failed.
    """
    failed = []
    for number, folder in enumerate(runs.read_text(encoding="utf-8").splitlines(), 1):
        state = state_file(runs, number)
        try:
            with open(state, "x") as stream:
                stream.write("running\n")
        except FileExistsError:
            continue
        print(f"== {folder}", flush=True)
        started = time.monotonic()
        try:
            train(Path(folder))
            outcome = f"done {time.monotonic() - started:.1f}"
        except InUse as error:
            print(error, flush=True)
            outcome = f"elsewhere {error}"
        except Exception as error:
            failed.append(folder)
            reason = cli.explain(error)
            if reason is None:
                traceback.print_exc()
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
            print(f"error: {reason}", file=sys.stderr, flush=True)
            outcome = f"failed {reason}"
        with whole(state) as stream:
            stream.write(f"{outcome}\n")
    if failed:
        raise UserError(f"{len(failed)} runs failed, as said above: {' '.join(failed)}")


def state_file(runs: Path, number: int) -> Path:
    """The file that says what became of the run on line `number` of the list `runs`."""
    return runs.with_name(f"run{number}")


def read_state(runs: Path, number: int) -> State:
    """What became of the run on line `number` so far."""
    path = state_file(runs, number)
    try:
        name, _, more = path.read_text(encoding="utf-8").strip().partition(" ")
        return State(name or "running", path.stat().st_mtime, more)
    except FileNotFoundError:
        return State("waiting")
