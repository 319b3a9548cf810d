"""Stages 3 and 4: set up the runs of systems under protocols, and give the unfinished ones to the job runner.

Call it in the recipe's folder: it reads data/folds and dump, and writes exp/<system>/<protocol>/<run>.
"""

import argparse
import datetime
import itertools
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from ser import cli
from ser.cli import UserError
from ser.files import InUse, is_in_use, whole
from ser.jobs import job_name
from ser.worker import State, read_state

if TYPE_CHECKING:
    from ser.runs import Run

WAIT_SECONDS = 2.0  # between looks at a run that another process trains
LEARNERS = ("classical", "network")
REMEDY = {  # for runs that cannot continue; True: if --overwrite was given
    False: "undo the change, or give run.sh --overwrite true to remove these runs and train them again",
    True: "wait until the other process has finished, or stop it, then run the same command again",
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ser.launch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--learner", choices=LEARNERS, required=True, help="which systems to train: classical models or networks"
    )
    parser.add_argument("--corpus", required=True, help="name of the corpus: that of the recipe's folder")
    parser.add_argument("--systems", nargs="+", required=True, metavar="YAML", help="system files")
    parser.add_argument("--protocols", nargs="+", required=True, metavar="YAML", help="protocol files")
    parser.add_argument("--folds", default="all", help="folds to run, such as 1,2 or 1-3 (default all)")
    parser.add_argument("--seeds", type=positive, default=1, help="number of seeds: 1 to N (default 1)")
    parser.add_argument("--nj", type=positive, default=1, help="runs in parallel (default 1)")
    parser.add_argument("--num-threads", type=positive, default=1, help="threads per run (default 1)")
    parser.add_argument("--cmd", default="run.py", help="job runner and its options (default run.py)")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="remove the runs in exp/ that were made with different settings, code or data, even finished ones, and "
        "train them again; the scores in results/ are not touched (see ser.score --replace)",
    )
    args = parser.parse_args(argv)

    rows = plan(args, shlex.join(["python", "-m", "ser.launch", *(argv or sys.argv[1:])]))
    others, in_use = write_all(rows)
    if args.overwrite:
        others = overwrite_all(rows, others) | in_use
    for line in in_words(others):
        print(line, flush=True)
    rows_left = without(rows, others)
    if rows_left or not others:
        train(rows_left, args)
    waited_for = [[run for run in row if run.folder in in_use] for row in rows_left]
    trained_elsewhere, _ = write_all([row for row in waited_for if row])
    for line in in_words(trained_elsewhere):
        print(line, flush=True)
    others |= trained_elsewhere
    if others:
        n_runs = sum(map(len, rows))
        raise UserError(f"{len(others)} of {n_runs} runs cannot continue (see above); {REMEDY[args.overwrite]}")


def plan(args: argparse.Namespace, command: str) -> list[list["Run"]]:
    """The runs that the options ask for, a list for each system under each protocol. command: for the record."""
    from ser.config import read_protocol, read_system
    from ser.folds import fold_numbers
    from ser.provenance import provenance
    from ser.runs import Run, refuse_other_protocol

    made = provenance(command)
    systems = [system for system in map(read_system, args.systems) if system.learner == args.learner]
    rows = []
    for protocol in map(read_protocol, args.protocols):
        folds = Path("data/folds") / protocol.name
        numbers = choose_folds(args.folds, fold_numbers(folds), protocol.name)
        refuse_other_protocol(folds, protocol)
        for system in systems:
            place = Path("exp") / system.name / protocol.name
            row = [
                Run(
                    folder=place / f"fold{fold}_seed{seed}",
                    corpus=args.corpus,
                    system=system,
                    protocol=protocol,
                    fold=fold,
                    seed=seed,
                    data=Path("data/all"),
                    folds=folds,
                    dump=Path("dump"),
                    made=made,
                )
                for fold in numbers
                for seed in range(1, args.seeds + 1)
            ]
            rows.append(row)
    for row in rows:
        row[0].refuse_missing_inputs()
    return rows


def write_all(rows: list[list["Run"]], overwrite: bool = False) -> tuple[dict[Path, str], dict[Path, str]]:
    """Write the run.yaml of every run. Returns two mappings from folder to reason: the folders that hold a run with
    different settings, code or data, and those that another process is using.

    overwrite: replace the former; the first mapping is then empty.
    """
    from ser.runs import OtherRun, shared_part, write_run

    others: dict[Path, str] = {}
    in_use: dict[Path, str] = {}
    for row in rows:
        shared = shared_part(row[0])
        for run in row:
            try:
                write_run(run, shared, overwrite)
            except InUse:  # without --overwrite we wait for it, and check it when it is trained
                in_use[run.folder] = "in use by another process"
            except OtherRun as error:
                others[run.folder] = error.reason
    return others, in_use


def overwrite_all(rows: list[list["Run"]], others: dict[Path, str]) -> dict[Path, str]:
    """Replace the runs in some folders, and print which. Returns those that another process is using."""
    from ser.reading import read_run_fold, refuse_other_features

    chosen = without(rows, {run.folder for row in rows for run in row} - others.keys())
    for row in chosen:
        refuse_other_features(row[0], read_run_fold(row[0]))  # before anything is removed
    for line in in_words(others):
        print(f"removing {line}", flush=True)
    _, in_use = write_all(chosen, overwrite=True)
    return in_use


def without(rows: list[list["Run"]], folders: Collection[Path]) -> list[list["Run"]]:
    """The rows without the runs in some folders; rows left empty are dropped."""
    left = [[run for run in row if run.folder not in folders] for row in rows]
    return [row for row in left if row]


def in_words(reasons: dict[Path, str]) -> list[str]:
    """One line for all folders with the same parent and the same reason."""
    names: dict[tuple[Path, str], list[str]] = {}
    for folder, reason in reasons.items():
        names.setdefault((folder.parent, reason), []).append(folder.name)
    return [
        f"{parent}/{of_one[0] if len(of_one) == 1 else '{' + ','.join(of_one) + '}'}: {reason}"
        for (parent, reason), of_one in names.items()
    ]


def train(rows: list[list["Run"]], args: argparse.Namespace) -> None:
    """Give the unfinished runs to the job runner."""
    from ser.reading import read_run_fold, refuse_other_features

    missing = [run.folder for row in rows for run in row if not run.is_done]
    n_runs = sum(map(len, rows))
    print(f"{args.learner}: {n_runs} runs, {n_runs - len(missing)} done, {len(missing)} to do", flush=True)
    for row in rows:
        if not all(run.is_done for run in row):
            refuse_other_features(row[0], read_run_fold(row[0]))
    if not missing:
        return
    threads = ["--num-threads", str(args.num_threads)]  # given twice: Kaldi's runners do not pass it on to the jobs
    cmd = [*args.cmd.split(), *threads, "--max-jobs-run", str(args.nj)]
    trainer = [sys.executable, "-m", "ser.train", *threads]
    log = Path("exp/log") / f"{args.learner}_{time.strftime('%Y%m%d_%H%M%S')}_{os.getpid()}"
    run_all(trainer, missing, log, cmd, args.nj)


def run_all(trainer: list[str], folders: list[Path], log: Path, cmd: list[str], nj: int) -> None:
    """Train the runs in `folders` with `nj` jobs, and wait for those that other processes are training; raise
    UserError at the end if some failed."""
    runs = log / "runs.list"
    with whole(runs) as stream:
        stream.writelines(f"{folder}\n" for folder in folders)
    progress = Progress(runs, folders)
    number = job_name(*trainer, str(log))
    for attempt in itertools.count(1):
        logs = log / (f"train.{number}.log" if attempt == 1 else f"train_again{attempt}.{number}.log")
        print(f"logs: {str(logs).replace(number, '*')}", flush=True)
        waiting = progress.count("waiting")
        array = [f"{number}=1:{min(nj, waiting)}", str(logs)]
        with subprocess.Popen([*cmd, *array, *trainer, "--list", str(runs)]) as process:
            try:
                progress.show_until_end(process)
            except BaseException:  # Ctrl-C: let the runner stop its jobs, and wait for it
                process.terminate()
                raise
        # runs that no job started: the jobs were killed during an earlier run
        if progress.count("waiting") in (0, waiting) or process.returncode < 0:
            break
    left = [folder for folder in folders if not (folder / "done").exists()]
    elsewhere = [folder for folder in left if is_in_use(folder / "lock")]
    failed = [folder for folder in left if folder not in elsewhere]
    if progress.count("waiting") == len(folders) and process.returncode and len(failed) == len(folders):
        raise UserError("the job runner failed (see above) and no run started; fix that and run the same command again")
    if elsewhere:
        wait_for(elsewhere)
        again = [folder for folder in elsewhere if not (folder / "done").exists()]
        if again:
            run_all(trainer, again, log.with_name(f"{log.name}_again"), cmd, nj)
    if failed:
        raise UserError(
            f"{len(failed)} of {len(folders)} runs failed: {some(failed)}; fix the errors in their logs in {log}, "
            "then run the same command again"
        )


def choose_folds(text: str, numbers: list[int], protocol: str) -> list[int]:
    """The folds that --folds selects: all, or numbers and ranges such as 1,3-5."""
    if text == "all":
        return numbers
    chosen: set[int] = set()
    for word in text.split(","):
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", word.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if first not in numbers or last not in numbers or first > last:
            raise UserError(
                f"--folds {text}: {protocol} has folds {numbers[0]} to {numbers[-1]}; give all, or numbers such as "
                "1,2 or 1-3"
            )
        chosen.update(number for number in numbers if first <= number <= last)
    return sorted(chosen)


def wait_for(folders: list[Path]) -> None:
    """Wait until no other process trains these runs."""
    from ser.runs import first_line

    holder = first_line(folders[0] / "lock").strip() or "just ended"
    print(f"waiting for {len(folders)} runs in use by other processes: {some(folders)} ({holder})", flush=True)
    for folder in folders:
        while is_in_use(folder / "lock"):
            time.sleep(WAIT_SECONDS)


def some(folders: list[Path]) -> str:
    """The first five of them."""
    return " ".join(map(str, folders[:5])) + (" ..." if len(folders) > 5 else "")


def positive(text: str) -> int:
    """A whole number from 1, as an option of the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be 1 or more")
    return int(text)


class Progress:
    """The state of all runs: a progress bar on a terminal, otherwise a line for each change."""

    def __init__(self, runs: Path, folders: list[Path]) -> None:
        self.runs = runs
        self.folders = folders
        self.states = [State("waiting")] * len(folders)

    def count(self, name: str) -> int:
        return [state.name for state in self.states].count(name)

    def show_until_end(self, process: subprocess.Popen) -> None:
        """Check the runs every second until the job runner ends."""
        from tqdm import tqdm

        form = "{percentage:3.0f} %|{bar}| {desc}"
        with tqdm(total=len(self.folders), bar_format=form, leave=False, disable=None) as bar:
            ended = False
            while not ended:
                try:
                    process.wait(1)
                    ended = True
                except subprocess.TimeoutExpired:
                    pass
                old, self.states = self.states, self.look()
                if ended:  # a run still marked as running was killed, or outlived the job runner
                    killed = State("failed", more="its process ended before the run did; was it killed?")
                    alive = State("elsewhere", more="the job runner ended but its process is still running")
                    self.states = [
                        state if state.name != "running" else alive if is_in_use(folder / "lock") else killed
                        for folder, state in zip(self.folders, self.states, strict=True)
                    ]
                for folder, before, now in zip(self.folders, old, self.states, strict=True):
                    if now.name in ("failed", "elsewhere") and now.name != before.name:
                        tqdm.write(f"{now.name}: {folder}: {now.more}", file=sys.stdout)
                bar.n = len(self.folders) - self.count("running") - self.count("waiting")
                bar.set_description_str(str(self))
                if bar.disable and [state.name for state in old] != [state.name for state in self.states]:
                    print(self, flush=True)

    def look(self) -> list[State]:
        """The current states; those of unfinished runs are read again."""
        return [
            read_state(self.runs, number) if state.name in ("waiting", "running") else state
            for number, state in enumerate(self.states, 1)
        ]

    def __str__(self) -> str:
        counts = {name: self.count(name) for name in ("done", "running", "failed", "waiting")}
        text = ", ".join(f"{counts[name]} {name}" for name in ("done", "running", "failed"))
        text += f", {counts['waiting']} left"
        if self.count("elsewhere"):
            text += f", {self.count('elsewhere')} in use elsewhere"
        took = [float(state.more) for state in self.states if state.name == "done"]
        if not took or not counts["running"]:
            return text
        mean = sum(took) / len(took)
        ages = [time.time() - state.since for state in self.states if state.name == "running"]
        to_do = mean * counts["waiting"] + sum(max(mean - age, 0) for age in ages)
        return f"{text}; about {datetime.timedelta(seconds=round(to_do / len(ages)))} to go"


if __name__ == "__main__":
    cli.run(main)
