"""The runs of a list, shared by the processes that train them.

Importing torch takes longer than an epoch of a small run, so each process trains many runs, one after the other.
Beside the list, the file `run<n>` holds the state of the run on line n. The process that takes the run creates it, so
that no other process can take the run too. It holds one line: "running", "done SECONDS", "failed REASON" or, if an
unrelated process is training the run, "elsewhere REASON".
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
    """The state of a run: "waiting", "running", "done", "failed" or "elsewhere". since: time of the last change, in
    seconds since the epoch. more: the seconds that the run took, or the reason."""

    name: str
    since: float = 0
    more: str = ""


def once(folder: Path, train: Callable[["Run"], None]) -> None:
    """Train one run, if it is not done. Raises UserError if another process is training it."""
    from ser.runs import read_run

    run = read_run(folder)
    if not run.is_done:
        with alone(folder / "lock", str(folder)):
            if not run.is_done:  # another process may have finished it just now
                run.refuse_changes()
                train(run)
                return
    print(f"{folder}: already done")


def work(runs: Path, train: Callable[[Path], None]) -> None:
    """Train the runs of a list that no other process has taken. A failed run does not stop the others.

    Raises UserError at the end if one failed.
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
        raise UserError(f"{len(failed)} runs failed (see above): {' '.join(failed)}")


def state_file(runs: Path, number: int) -> Path:
    """The file with the state of the run on line `number` of the list `runs`."""
    return runs.with_name(f"run{number}")


def read_state(runs: Path, number: int) -> State:
    """The current state of the run on line `number`."""
    path = state_file(runs, number)
    try:
        name, _, more = path.read_text(encoding="utf-8").strip().partition(" ")
        return State(name or "running", path.stat().st_mtime, more)
    except FileNotFoundError:
        return State("waiting")
