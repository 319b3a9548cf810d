"""Mean and deviation of a speaker from a few unlabelled recordings, shrunk towards those of the training part.

From K recordings a speaker's own mean and variance are noisy; with K = 1 and one frame a recording there is no
variance. So they are interpolated with those of the training part, as in MAP adaptation of a Gaussian (Reynolds,
Quatieri and Dunn, 2000, Speaker Verification Using Adapted Gaussian Mixture Models, equations 11 to 14). Here K counts
recordings instead of frames, since the frames of a recording are far from independent. With the relevance factor r,

    w = K / (K + r)
    mean = w own_mean + (1 - w) training_mean
    variance = w (own_variance + (own_mean - mean)^2) + (1 - w) (training_variance + (training_mean - mean)^2)

so that the second moment is interpolated too. No recording, K = 0, gives the training part's statistics.
"""

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from ser.cli import UserError
from ser.files import whole
from ser.folds import Fold
from ser.normalisation import ROUNDING, Source, Statistics


class Moments(NamedTuple):
    """mean and variance (D,), float64."""

    mean: np.ndarray
    variance: np.ndarray


def moments(matrices: Iterable[np.ndarray]) -> Moments:
    """Of all frames of some matrices (T, D) together. As in ser.normalisation, sums are taken over the distance from
    the first frame. Raises StopIteration without matrices."""
    matrices = iter(matrices)
    start = next(matrices)
    first = start[0].astype(np.float64)
    count, total, squares = 0, np.zeros_like(first), np.zeros_like(first)
    for matrix in itertools.chain([start], matrices):
        distance = matrix - first
        count, total, squares = count + len(matrix), total + distance.sum(0), squares + (distance**2).sum(0)
    return Moments(first + total / count, np.maximum(squares / count - (total / count) ** 2, 0))


def shrunk(own: Moments | None, training: Moments, utterances: int, relevance: float) -> Statistics:
    """Mean and deviation (D,) float32 of a speaker: see the equation above. own: of the speaker's `utterances`
    recordings; None for 0. As in ser.normalisation, constant values get a deviation of 1."""
    own = own or training
    weight = utterances / (utterances + relevance)
    mean = weight * own.mean + (1 - weight) * training.mean
    variance = weight * (own.variance + (own.mean - mean) ** 2)
    variance += (1 - weight) * (training.variance + (training.mean - mean) ** 2)
    deviation = np.sqrt(variance).astype(np.float32)
    deviation[deviation <= ROUNDING * np.abs(mean)] = 1
    return {"mean": mean.astype(np.float32), "deviation": deviation}


def of_speakers(
    features: Source, fold: Fold, utt2spk: Mapping[str, str], training: Moments, relevance: float
) -> dict[str, Statistics]:
    """The statistics of every speaker of a fold, from the utterances of `fold.adapt` and their noisy copies, which are
    no further utterances. utt2spk: the speaker of each utterance and copy."""
    own: dict[str, list[str]] = {spk: [] for spk in utt2spk.values()}
    for utt, source in fold.sources.items():
        if source in fold.adapt:
            own[utt2spk[utt]].append(utt)
    found = {}
    for spk, utts in own.items():
        number = len({fold.sources[utt] for utt in utts})
        of_own = moments(features[utt] for utt in utts) if utts else None
        found[spk] = shrunk(of_own, training, number, relevance)
    return found


def write(path: Path, training: Moments) -> None:
    """Write the moments of the training part into a run's folder."""
    with whole(path, "wb") as stream:
        stream.write(safetensors.numpy.save(training._asdict()))


def read(path: Path) -> Moments:
    """The moments that `write` wrote. Raises UserError if the file is missing or damaged."""
    try:
        found = Moments(**safetensors.numpy.load(path.read_bytes()))
        if found.mean.shape != found.variance.shape or not np.isfinite(found).all() or (found.variance < 0).any():
            raise ValueError("not a mean and a variance")
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: cannot be read ({reason}); remove or rename {path.parent} to train it again"
        ) from None
    return found
