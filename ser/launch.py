"""Stages 3 and 4: lay out the runs of systems under protocols, and hand those not done to the job runner.

Call it in the recipe's folder: it reads data/folds and dump, and writes exp/<system>/<protocol>/<run>.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from ser import cli
from ser.cli import UserError
from ser.files import whole

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
    if not missing:
        return
    log = Path("exp/log") / f"{args.trainer}_{time.strftime('%Y%m%d_%H%M%S')}_{os.getpid()}"
    with whole(log / "runs.list") as stream:
        stream.writelines(f"{run.folder}\n" for run in missing)
    print(f"logs: {log}/train.*.log", flush=True)
    runner = [
        *args.cmd.split(),
        "--num-threads",
        str(args.num_threads),
        "--max-jobs-run",
        str(args.nj),
        f"JOB=1:{len(missing)}",
        f"{log}/train.JOB.log",
    ]
    job = [sys.executable, "-m", COMMANDS[args.trainer], "--job", "JOB", f"{log}/runs.list"]
    if subprocess.run(runner + job).returncode:
        failed = [str(run.folder) for run in missing if not run.is_done]
        raise UserError(
            f"{len(failed)} of {len(missing)} runs failed: {' '.join(failed[:5])}; mend what their logs in {log} name and run the same command again"
        )


if __name__ == "__main__":
    cli.run(main)
