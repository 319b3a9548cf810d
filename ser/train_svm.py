"""Stage 3: train the SVM of one run.

RUN is a run's folder as ser.launch lays it out. Writes model.skops, chosen.json and, at the end, done.
"""

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ser import cli
from ser.files import whole
from ser.worker import once, work

if TYPE_CHECKING:
    from ser.runs import Run


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ser.train_svm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", action="store_true", help="as of ser.train")
    parser.add_argument("--num-threads", type=int, default=1, metavar="N", help="processor cores (default 1)")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    args = parser.parse_args(argv)

    def one(folder: Path) -> None:
        train(folder, args.num_threads)

    work(args.run, one) if args.list else one(args.run)


def train(folder: Path, num_threads: int = 1) -> None:
    """Train one run to its end. Raises UserError where another process is at it."""
    once(folder, lambda run: train_machine(run, num_threads))


def train_machine(run: "Run", num_threads: int) -> None:
    """Train the SVM of a run, and write it into the run's folder."""
    import numpy as np
    import skops.io

    from ser.models import svm

    started = time.monotonic()
    fold = run.read_fold()
    features = run.read_features()
    targets = fold.targets()
    utts = sorted(fold.train)
    pooled = np.stack([svm.pool(features[utt], run.system.model) for utt in utts])
    utt2group = run.read_groups()
    groups = np.array([utt2group[utt] for utt in utts])
    search = svm.fit(
        pooled, np.array([targets[utt] for utt in utts]), groups, run.system.model, run.seed, num_threads
    )
    chosen = {
        **search.best_params_,
        "inner_ua": 100 * float(search.best_score_),
        "seconds": time.monotonic() - started,
    }
    print(f"{run.system.name}: chosen inside the training part: {chosen}")

    with whole(run.folder / "model.skops", "wb") as stream:
        skops.io.dump(search.best_estimator_, stream)
    with whole(run.folder / "chosen.json") as stream:
        json.dump(chosen, stream)
    (run.folder / "done").touch()


if __name__ == "__main__":
    cli.run(main)
