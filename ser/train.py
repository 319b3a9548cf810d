"""Stages 3 and 4: train the model of one run; an interrupted network is resumed.

RUN is a run's folder as ser.launch sets it up. A classical model leaves model.skops and chosen.json there; a network
epochs.jsonl (one line per epoch), best.safetensors and last.safetensors (weights), normalisation.safetensors and
checkpoint.safetensors (to resume from, even within an epoch). One that adapts to speakers also leaves
adaptation.safetensors (mean and variance of the training part). The file done is written last.
"""

import argparse
from pathlib import Path

from ser import cli
from ser.learners import Resources, fit
from ser.worker import once, work


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ser.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--list",
        action="store_true",
        help="RUN is a list of runs' folders, one per line, which several processes may share: train those "
        "that no other process has taken, one after the other",
    )
    cli.add_device(parser)
    parser.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=60,
        metavar="S",
        help="seconds between a network's checkpoints within an epoch (default 60); there is also one after each epoch",
    )
    parser.add_argument(
        "--num-threads",
        type=int,
        metavar="N",
        help="processor cores (default: for a network OMP_NUM_THREADS, for a classical model 1)",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    args = parser.parse_args(argv)

    def one(folder: Path) -> None:
        train(folder, args.device, args.checkpoint_seconds, args.num_threads)

    work(args.run, one) if args.list else one(args.run)


def train(folder: Path, device: str = "auto", checkpoint_seconds: float = 60, num_threads: int | None = None) -> None:
    """Train one run until training ends. Raises UserError if another process is training it."""
    resources = Resources(device, num_threads, checkpoint_seconds)
    once(folder, lambda run: fit(run, resources))


if __name__ == "__main__":
    cli.run(main)
