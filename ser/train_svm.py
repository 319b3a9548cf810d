"""Stage 3: train the SVM of one run.

RUN is a run's folder as ser.launch lays it out. Writes model.skops, chosen.json and, at the end, done.
"""

import argparse
import json
import os
from pathlib import Path

from ser import cli
from ser.files import whole


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ser.train_svm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--job", type=int, help="RUN is a list of runs' folders, one a line: train the one on this line"
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    args = parser.parse_args(argv)

    from ser.runs import pick

    train(pick(args.run, args.job))


def train(folder: Path) -> None:
    """Train one run to its end."""
    import time

    import numpy as np
    import skops.io

    from ser.archive import Features
    from ser.models import svm
    from ser.runs import read_run

    run = read_run(folder)
    if run.is_done:
        print(f"{folder}: done already")
        return
    run.refuse_other_split()
    started = time.monotonic()
    fold = run.read_fold()
    features = Features(run.features)
    targets = fold.targets()
    utts = sorted(fold.train)
    pooled = np.stack([svm.pool(features[utt], run.system.model) for utt in utts])
    utt2group = run.read_groups()
    groups = np.array([utt2group[utt] for utt in utts])
    n_jobs = int(os.environ.get("OMP_NUM_THREADS", "1"))
    search = svm.fit(
        pooled, np.array([targets[utt] for utt in utts]), groups, run.system.model, run.seed, n_jobs
    )
    chosen = {
        **search.best_params_,
        "inner_ua": 100 * float(search.best_score_),
        "seconds": time.monotonic() - started,
    }
    print(f"{run.system.name}: chosen inside the training part: {chosen}")

    with whole(folder / "model.skops", "wb") as stream:
        skops.io.dump(search.best_estimator_, stream)
    with whole(folder / "chosen.json") as stream:
        json.dump(chosen, stream)
    (folder / "done").touch()


if __name__ == "__main__":
    cli.run(main)
