"""The samples of some recordings -> the frames of a feature that a network computes, together on a GPU."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ser.cli import UserError
from ser.config import kind_of, load_kind
from ser.extract import resample
from ser.noise import add

if TYPE_CHECKING:
    from ser.settings import FeatureConfig

Recording = tuple[str, np.ndarray, int]  # utterance, samples (N,), their rate in Hz


def extract_many(
    recordings: Sequence[Recording], feature: "FeatureConfig", noise: str | None, device: str
) -> list[np.ndarray]:
    """Frames (T, D) float32 of each recording, as ser.extract gives them one by one up to rounding.

    device: as torch names it. Raises UserError, without the name of the recording, if no finite frames can be computed.
    """
    module = load_kind("feature", kind_of(feature), "")
    batch = [resample(samples, rate, feature.sample_rate) for _, samples, rate in recordings]
    if noise:
        batch = [add(samples, noise, utt) for samples, (utt, _, _) in zip(batch, recordings, strict=True)]
    found = module.extract_many(batch, feature, device)
    if not all(np.isfinite(matrix).all() for matrix in found):
        raise UserError("gives non-finite values")
    return found
