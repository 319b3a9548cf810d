"""Mean and variance normalisation, with statistics of a fold's training part alone, but for "speaker".

kind "global": one mean and deviation a feature dimension, over all training frames. "neutral": the same over
those of the class neutral (Mirsamadi et al. 2017, section 3). "cell": one for each dimension of each frame
position, over the training utterances, which must be of one length (Sherman et al.'s code). "speaker": those
of each speaker over all the speaker's utterances in the fold, test utterances too, whose labels take no part
(Le Moine et al. 2021, section 2.1); ser.archive.Features does it. "none": features as they are.
"""

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from ser.cli import UserError

Statistics = dict[str, np.ndarray]
ROUNDING = 1e-6  # of a value: some steps of float32, which features are


class Source(Protocol):
    """The features of utterances, as ser.archive.Features has them; scp: where they are from, for errors."""

    scp: Path

    def __getitem__(self, utt: str) -> np.ndarray: ...

    def lengths_of(self, utts: Iterable[str]) -> dict[str, int]: ...


def train_statistics(kind: str, features: Source, train: Mapping[str, str]) -> Statistics:
    """Mean and deviation, each (D,) or, for "cell", (T, D); {} for "none" and "speaker". train: {utt: class}."""
    if kind in ("none", "speaker"):
        return {}
    utts = [utt for utt, name in train.items() if kind != "neutral" or name == "neutral"]
    if not utts:
        raise UserError("normalisation: neutral: no training utterance is of the class neutral; take global")
    if kind != "cell":
        return statistics(features[utt] for utt in utts)
    lengths = features.lengths_of(utts)
    for utt in utts:
        if lengths[utt] != lengths[utts[0]]:
            raise UserError(
                f"{features.scp}: {utt} has {lengths[utt]} frames, others {lengths[utts[0]]}; normalisation: cell "
                "needs a feature with a `duration`"
            )
    return statistics(features[utt][None] for utt in utts)


def statistics(matrices: Iterable[np.ndarray]) -> Statistics:
    """Mean and deviation, float32, over the first dimension of all matrices, one after the other.

    What never changes, but for its rounding, gets a deviation of 1, so that it becomes 0 and not infinite. Sums are
    of the distance from the first frame: those of the values themselves would lose a deviation that is small beside
    the mean.
    """
    matrices = iter(matrices)
    start = next(matrices)
    first = start[0].astype(np.float64)
    count, total, squares = 0, np.zeros_like(first), np.zeros_like(first)
    for matrix in itertools.chain([start], matrices):
        distance = matrix - first
        count, total, squares = count + len(matrix), total + distance.sum(0), squares + (distance**2).sum(0)
    mean = first + total / count
    deviation = np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0)).astype(np.float32)
    deviation[deviation <= ROUNDING * np.abs(mean)] = 1
    return {"mean": mean.astype(np.float32), "deviation": deviation}


def normalise(matrix: np.ndarray, statistics: Mapping[str, np.ndarray]) -> np.ndarray:
    """(T, D) features minus the mean, over the deviation."""
    if not statistics:
        return matrix
    return (matrix - statistics["mean"]) / statistics["deviation"]
