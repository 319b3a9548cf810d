"""Damage files in many ways, and check that each reader returns a valid value or prints one line that names the file.

    python tests/fuzz/run.py [--target NAME ...] [--seed N] [--mutants N] [--first N] [--keep FOLDER]

A fault is a traceback, a message of several lines or without a file of the target, an invalid value, a call that
takes more than 5 s or 1 GB, or a process that dies. Prints one line per target, `name mutants accepted refused faults`,
and each kind of fault; the exit status is 1 if there is any. A mutant is determined by seed, target and number:
--first and --mutants 1 reproduce it, and --keep writes the files of the faults to a folder.
"""

import argparse
import json
import os
import resource
import select
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # a process with threads cannot fork safely
ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from mutate import mutant  # noqa: E402
from targets import TARGETS, Target  # noqa: E402

from ser import cli  # noqa: E402

SECONDS = 5  # limit per reader
MEMORY = 1 << 30  # bytes, limit per reader in addition to the imported modules
TO_MAKE = 120  # seconds, limit for making the undamaged files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--target", nargs="+", default=list(TARGETS), choices=list(TARGETS), metavar="NAME", help=", ".join(TARGETS)
    )
    parser.add_argument("--seed", type=int, default=1, help="default 1")
    parser.add_argument("--mutants", type=int, default=500, help="of each target; default 500")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant; default 0")
    parser.add_argument("--keep", type=Path, help="folder for the files of the faults")
    args = parser.parse_args()
    print(f"{'target':16} mutants accepted refused faults")
    failed = False
    for name in args.target:
        counts: Counter[str] = Counter()
        kinds: dict[str, list[str]] = {}
        numbers = range(args.first, args.first + args.mutants)
        for number, file, outcome, what in fuzz(name, args.seed, numbers, args.keep and args.keep.resolve()):
            counts[outcome] += 1
            if outcome == "fault":
                kinds.setdefault(": ".join(what.split(": ")[:2]), []).append(f"mutant {number}, {file}: {what}")
        print(
            f"{name:16} {counts.total():7} {counts['accepted']:8} {counts['refused']:7} {counts['fault']:6}", flush=True
        )
        for places in kinds.values():
            print(f"  fault: {name}, seed {args.seed}, {places[0]} (and {len(places) - 1} more)", flush=True)
        failed = failed or bool(kinds)
    sys.exit(failed)


def fuzz(name: str, seed: int, numbers: range, keep: Path | None) -> Iterator[tuple[int, str, str, str]]:
    """Yield each mutant's number, file, outcome ("accepted", "refused" or "fault") and what is wrong."""
    with tempfile.TemporaryDirectory(prefix="fuzz.") as place:
        folder = Path(place, name)
        folder.mkdir()
        first, *files = next(isolated(lambda: make(TARGETS[name], folder), TO_MAKE))
        if first == "lost":
            sys.exit(f"{name}: the undamaged files cannot be made or read: {files[0]}")
        whole = {path: (folder / path).read_bytes() for path, _ in files}
        left = list(numbers)
        while left:  # start another process if one hangs or dies
            for line in isolated(lambda: read_all(name, folder, files, seed, left, keep), SECONDS):
                if line[0] == "lost":
                    line = [left[0], drawn(name, files, seed, left[0])[1], "fault", line[1]]
                yield tuple(line)
                left.pop(0)
            for path, content in whole.items():
                (folder / path).write_bytes(content)


def make(target: Target, folder: Path) -> Iterator[list]:
    """Make the files of a target, and check that they can be read; yield ["made", *names and kinds]."""
    os.chdir(folder)
    files = target.make(folder)
    for path in files:
        target.read(folder / path)
    yield ["made", *files.items()]


def drawn(name: str, files: list[list[str]], seed: int, number: int) -> tuple[Random, str, str]:
    """The random generator of a mutant, and the file that it damages, with its kind."""
    rng = Random(f"{seed} {name} {number}")
    return rng, *rng.choice(files)


def read_all(
    name: str, folder: Path, files: list[list[str]], seed: int, numbers: list[int], keep: Path | None
) -> Iterator[list]:
    """Read mutant after mutant; yield number, file, outcome and what is wrong of each."""
    os.chdir(folder)
    warnings.simplefilter("ignore")  # numbers overflow in damaged models
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MEMORY, MEMORY))
    names = {part for path, _ in files for part in (path, str(Path(path).parent)) if part != "."}
    for number in numbers:
        rng, path, kind = drawn(name, files, seed, number)
        content = (folder / path).read_bytes()
        damaged = mutant(content, kind, rng)
        (folder / path).write_bytes(damaged)
        outcome, what = outcome_of(TARGETS[name], folder / path, {path} if len(files) == 1 else names)
        (folder / path).write_bytes(content)
        if keep and outcome == "fault":
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{name}-{number}-{Path(path).name}").write_bytes(damaged)
        yield [number, path, outcome, what]


def outcome_of(target: Target, path: Path, names: set[str]) -> tuple[str, str]:
    """Read one mutant as a command would. names: one of these must occur in the message."""
    try:
        cli.run(lambda: target.read(path))
    except SystemExit as end:
        message = str(end.code)
        if len(message.splitlines()) != 1 or not message.isprintable():
            return "fault", f"not one plain line: {message!r}"[:300]
        if not any(name in message for name in names):
            return "fault", f"names no file: {message}"[:300]
        return "refused", ""
    except BaseException as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/venv/" not in frame.filename]
        ours = next(frame for frame in reversed(frames) if Path(frame.filename).is_relative_to(ROOT))
        place = f"{Path(ours.filename).relative_to(ROOT)}:{ours.lineno}"
        return "fault", f"{place}: {type(error).__name__}: {' '.join(str(error).split())[:120]}"
    return "accepted", ""


def isolated(work: Callable[[], Iterator[list]], seconds: float) -> Iterator[list]:
    """Run `work`, which yields lists, in a separate process, and yield them; if it dies, or takes longer than `seconds`
    for one, the last is ["lost", reason]."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with open(writer, "w") as stream:
            silence = os.open(os.devnull, os.O_WRONLY)
            log = os.dup(2)
            os.dup2(silence, 1), os.dup2(silence, 2)
            try:
                for line in work():
                    stream.write(json.dumps(line) + "\n")
                    stream.flush()
            except BaseException:
                os.dup2(log, 2)
                traceback.print_exc()
                os._exit(1)
        os._exit(0)
    os.close(writer)
    with open(reader, "rb", buffering=0) as stream:
        buffer = b""
        while True:
            if not select.select([stream], [], [], seconds)[0]:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                yield ["lost", f"takes more than {seconds} s"]
                return
            if not (block := stream.read(1 << 16)):
                break
            *lines, buffer = (buffer + block).split(b"\n")
            yield from map(json.loads, lines)
    status = os.waitpid(child, 0)[1]
    if status:
        yield [
            "lost",
            f"the process dies of {signal.strsignal(os.WTERMSIG(status)) if os.WIFSIGNALED(status) else 'an error of the harness'}",
        ]


if __name__ == "__main__":
    main()
