"""Stages 3 and 4: lay out the runs of systems under protocols, and hand those not done to the job runner.

Call it in the recipe's folder: it reads data/folds and dump, and writes exp/<system>/<protocol>/<run>.
"""

import argparse
import datetime
import itertools
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from ser import cli
from ser.cli import UserError
from ser.files import whole
from ser.worker import State, read_state

COMMANDS = {"svm": "ser.train_svm", "network": "ser.train"}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ser.launch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--trainer", choices=COMMANDS, required=True, help="which of the systems: the SVMs or the networks"
    )
    parser.add_argument(
        "--corpus", required=True, help="name of the corpus, as the papers' rows in the system files have it"
    )
    parser.add_argument("--systems", nargs="+", required=True, metavar="YAML", help="system files")
    parser.add_argument("--protocols", nargs="+", required=True, metavar="YAML", help="protocol files")
    parser.add_argument("--folds", default="all", help="numbers of the folds, as 1,2 (default all)")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds: 1 to N (default 1)")
    parser.add_argument("--nj", type=int, default=1, help="runs side by side (default 1)")
    parser.add_argument("--num-threads", type=int, default=1, help="threads of a run (default 1)")
    parser.add_argument("--cmd", default="run.py", help="job runner and its options (default run.py)")
    args = parser.parse_args(argv)

    from ser.config import read_protocol, read_system
    from ser.folds import fold_numbers
    from ser.runs import Run, provenance, write_run

    made = provenance(shlex.join(["python", "-m", "ser.launch", *(argv or sys.argv[1:])]))
    systems = [
        system
        for system in map(read_system, args.systems)
        if (system.training is not None) == (args.trainer == "network")
    ]
    runs = []
    for protocol in map(read_protocol, args.protocols):
        folds = Path("data/folds") / protocol.name
        numbers = fold_numbers(folds)
        words = set(map(str, numbers) if args.folds == "all" else args.folds.split(","))
        chosen = [number for number in numbers if str(number) in words]
        if words - set(map(str, numbers)):
            raise UserError(
                f"--folds {args.folds}: {protocol.name} has folds {numbers[0]} to {numbers[-1]}; write all, or numbers as 1,2"
            )
        for system in systems:
            for fold in chosen:
                for seed in range(1, args.seeds + 1):
                    folder = Path("exp") / system.name / protocol.name / f"fold{fold}_seed{seed}"
                    runs.append(
                        Run(
                            folder,
                            args.corpus,
                            system,
                            protocol,
                            fold,
                            seed,
                            Path("data/all"),
                            folds,
                            Path("dump"),
                            made,
                        )
                    )
    for run in runs:
        write_run(run)
    missing = [run for run in runs if not run.is_done]
    print(
        f"{args.trainer}: {len(runs)} runs, {len(runs) - len(missing)} done, {len(missing)} to do", flush=True
    )
    for features in {run.features for run in missing}:
        if not (features / "feats.scp").exists():
            raise UserError(f"{features}: no features here; run stage 2")
    if missing:
        threads = ["--num-threads", str(args.num_threads)]  # said twice: Kaldi's runners do not tell the jobs
        cmd = [*args.cmd.split(), *threads, "--max-jobs-run", str(args.nj)]
        trainer = [sys.executable, "-m", COMMANDS[args.trainer], *threads]
        folders = [run.folder for run in missing]
        log = Path("exp/log") / f"{args.trainer}_{time.strftime('%Y%m%d_%H%M%S')}_{os.getpid()}"
        run_all(trainer, folders, log, cmd, args.nj)


def run_all(trainer: list[str], folders: list[Path], log: Path, cmd: list[str], nj: int) -> None:
    """Train the runs in `folders` by `nj` jobs; raise UserError at the end where some failed."""
    runs = log / "runs.list"
    with whole(runs) as stream:
        stream.writelines(f"{folder}\n" for folder in folders)
    progress = Progress(runs, folders)
    for attempt in itertools.count(1):
        logs = log / ("train.JOB.log" if attempt == 1 else f"train_again{attempt}.JOB.log")
        print(f"logs: {str(logs).replace('JOB', '*')}", flush=True)
        waiting = progress.count("waiting")
        array = [f"JOB=1:{min(nj, waiting)}", str(logs)]
        with subprocess.Popen([*cmd, *array, *trainer, "--list", str(runs)]) as process:
            try:
                progress.show_until_end(process)
            except BaseException:  # Ctrl-C: the runner ends its jobs, and is waited for
                process.terminate()
                raise
        # runs that nobody took: the jobs that should have were killed, by the run that they had then
        if progress.count("waiting") in (0, waiting):
            break
    failed = [str(folder) for folder in folders if not (folder / "done").exists()]
    if failed:
        more = " ..." if len(failed) > 5 else ""
        raise UserError(
            f"{len(failed)} of {len(folders)} runs failed: {' '.join(failed[:5])}{more}; mend what their logs in "
            f"{log} name and run the same command again"
        )


class Progress:
    """What became of the runs so far: a bar on a terminal, a line for each that ends elsewhere."""

    def __init__(self, runs: Path, folders: list[Path]) -> None:
        self.runs = runs
        self.folders = folders
        self.states = [State("waiting")] * len(folders)

    def count(self, name: str) -> int:
        return [state.name for state in self.states].count(name)

    def show_until_end(self, process: subprocess.Popen) -> None:
        """Look at the runs every second until the runner ends."""
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
                if ended:  # what still runs has lost its process
                    killed = State("failed", more="its process ended before it did: killed?")
                    self.states = [killed if state.name == "running" else state for state in self.states]
                for folder, before, now in zip(self.folders, old, self.states, strict=True):
                    if now.name == "failed" and before.name != "failed":
                        tqdm.write(f"failed: {folder}: {now.more}", file=sys.stdout)
                bar.n = self.count("done") + self.count("failed")
                bar.set_description_str(str(self))
                if bar.disable and [state.name for state in old] != [state.name for state in self.states]:
                    print(self, flush=True)

    def look(self) -> list[State]:
        """Read anew what had not ended."""
        return [
            state if state.name in ("done", "failed") else read_state(self.runs, number)
            for number, state in enumerate(self.states, 1)
        ]

    def __str__(self) -> str:
        counts = {name: self.count(name) for name in ("done", "running", "failed", "waiting")}
        text = f"{counts['done']} done, {counts['running']} running, {counts['failed']} failed, {counts['waiting']} left"
        took = [float(state.more) for state in self.states if state.name == "done"]
        if not took or not counts["running"]:
            return text
        mean = sum(took) / len(took)
        ages = [time.time() - state.since for state in self.states if state.name == "running"]
        to_do = mean * counts["waiting"] + sum(max(mean - age, 0) for age in ages)
        return f"{text}; about {datetime.timedelta(seconds=round(to_do / len(ages)))} to go"


if __name__ == "__main__":
    cli.run(main)
