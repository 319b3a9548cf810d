"""Mean and variance normalisation, with statistics from the training set of a fold only, except for "speaker".

kind "global": one mean and standard deviation per feature dimension, over all training frames. "neutral": the
same, over training frames of the class neutral (Mirsamadi et al. 2017, section 3). "cell": one per dimension and
frame position, over the training utterances, which must all have the same length (code of Sherman et al.).
"speaker": per speaker, over all utterances of that speaker in the fold, including test utterances, without their
labels (Le Moine et al. 2021, section 2.1); computed by ser.archive.Features. "none": no normalisation.
"""

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from ser.cli import UserError

Statistics = dict[str, np.ndarray]
ROUNDING = 1e-6  # relative to the mean: a few units of float32 precision


class Source(Protocol):
    """Features of utterances, such as ser.archive.Features. scp: where they come from, for error messages."""

    scp: Path

    def __getitem__(self, utt: str) -> np.ndarray: ...

    def lengths_of(self, utts: Iterable[str]) -> dict[str, int]: ...


def train_statistics(kind: str, features: Source, train: Mapping[str, str]) -> Statistics:
    """Mean and deviation, each (D,) or, for "cell", (T, D); {} for "none" and "speaker". train: {utt: class}."""
    if kind in ("none", "speaker"):
        return {}
    utts = [utt for utt, name in train.items() if kind != "neutral" or name == "neutral"]
    if not utts:
        raise UserError("normalisation: neutral: no training utterance has the class neutral; use global")
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
    """Mean and standard deviation, float32, over the first dimension of all matrices together.

    Values that are constant, up to rounding, get a deviation of 1, so that they become 0 and not infinite. Sums are
    taken over the distance from the first frame, since sums of the values would lose a deviation that is small
    compared with the mean.
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
    """(T, D) features minus the mean, divided by the standard deviation."""
    if not statistics:
        return matrix
    return (matrix - statistics["mean"]) / statistics["deviation"]
