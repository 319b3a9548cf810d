"""The samples of a recording -> the frames of a feature: the steps that all features share."""

from typing import TYPE_CHECKING

from ser.cli import UserError
from ser.config import kind_of, load_kind
from ser.settings import FeatureConfig

if TYPE_CHECKING:
    import numpy as np


def resample(samples: "np.ndarray", rate: int, to: int) -> "np.ndarray":
    """Samples (N,) at `rate` Hz -> at `to` Hz (soxr, high quality)."""
    if rate == to:
        return samples
    import soxr

    return soxr.resample(samples, rate, to, quality="HQ")


def extract(
    samples: "np.ndarray", rate: int, feature: FeatureConfig, noise: str | None = None, utt: str = ""
) -> "np.ndarray":
    """Samples (N,) at `rate` Hz -> frames (T, D) float32. feature: the Config of its module.

    noise: added at the feature's sampling rate, always the same for the same `utt`. Raises UserError if no finite
    frames can be computed; the caller adds the name of the recording.
    """
    import numpy as np

    samples = resample(samples, rate, feature.sample_rate)
    if noise:
        from ser.noise import add

        samples = add(samples, noise, utt)
    matrix = load_kind("feature", kind_of(feature), "").extract(samples, feature)
    if not len(matrix) or not np.isfinite(matrix).all():
        raise UserError(f"gives {'non-finite values' if len(matrix) else 'no frames'}")
    return matrix
