"""Time of a forward and backward pass of the BLSTM in three versions, for lengths like IEMOCAP's, in one process.

ours: ser.recurrent.BLSTM. packed: torch's bidirectional LSTM on packed sequences, which gives the same result.
padded: torch's LSTM on padded sequences, which is wrong for the backward direction and serves only as a bound.

    python tests/benchmarks/blstm.py [--lengths TSV] [--batches 3]
"""

import argparse
import csv
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ser.batches import random_batches
from ser.recurrent import BLSTM

FEATURES, HIDDEN, BATCH = 40, 128, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--lengths", help="table with the columns utt and samples_16k (default: log-normal, like IEMOCAP's)"
    )
    parser.add_argument("--batches", type=int, default=3, help="batches timed (default 3)")
    args = parser.parse_args()

    lengths = read_lengths(args.lengths)
    chosen = random_batches(lengths, BATCH, np.random.default_rng(1))[: args.batches]
    torch.manual_seed(1)
    ours = BLSTM(FEATURES, HIDDEN)
    torchs = nn.LSTM(FEATURES, HIDDEN, batch_first=True, bidirectional=True)

    def packed(frames: Tensor, sizes: Tensor) -> Tensor:
        steps = nn.utils.rnn.pack_padded_sequence(frames, sizes, batch_first=True, enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(torchs(steps)[0], batch_first=True)[0]

    ways = {"ours": lambda f, n: ours(f, n)[0], "padded": lambda f, n: torchs(f)[0], "packed": packed}
    seconds = dict.fromkeys(ways, 0.0)
    frames = 0
    for utts in chosen:
        sizes = torch.tensor([lengths[utt] for utt in utts])
        batch = torch.randn(len(utts), int(sizes.max()), FEATURES)
        frames += int(sizes.sum())
        for name, way in ways.items():
            seconds[name] += timed(way, batch, sizes)
    print(
        f"{len(chosen)} batches of {BATCH}, {frames} frames, {FEATURES} -> {HIDDEN}, {torch.get_num_threads()} threads"
    )
    for name, spent in seconds.items():
        print(f"{name:7} {spent:8.2f} s   packed takes {seconds['packed'] / spent:5.1f} times this")


def timed(way: Callable[[Tensor, Tensor], Tensor], batch: Tensor, sizes: Tensor) -> float:
    """Seconds of one forward and backward pass."""
    started = time.perf_counter()
    way(batch, sizes).square().mean().backward()
    return time.perf_counter() - started


def read_lengths(path: str | None) -> dict[str, int]:
    """Number of 10 ms frames of every utterance."""
    if path is None:
        drawn = np.random.default_rng(1).lognormal(np.log(3.6), 0.65, 5531).clip(0.6, 34)
        return {f"utt{number}": int(100 * seconds) for number, seconds in enumerate(drawn)}
    with open(path, encoding="utf-8") as stream:
        return {row["utt"]: int(row["samples_16k"]) // 160 for row in csv.DictReader(stream, delimiter="\t")}


if __name__ == "__main__":
    main()
