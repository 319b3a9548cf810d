"""Raw samples, cut into segments, for networks that learn their own features."""

import numpy as np
from pydantic.dataclasses import dataclass

from ser.dsp import check_length
from ser.settings import Positive, PositiveFloat, strict


@dataclass(config=strict, frozen=True, kw_only=True)
class Config:
    """Sizes are in samples. longest: seconds; a longer recording is cut at the end."""

    sample_rate: Positive
    segment_length: Positive
    hop_length: Positive
    longest: PositiveFloat | None = None

    def __post_init__(self) -> None:
        if self.hop_length > self.segment_length:
            raise ValueError(
                f"hop_length {self.hop_length} skips samples; must be at most segment_length, {self.segment_length}"
            )


def extract(samples: np.ndarray, config: Config) -> np.ndarray:
    """The segments of one utterance.

    samples: (N,) float32 at config.sample_rate, full scale +-1; their level is not changed. Returns
    (T, segment_length) float32: row t starts at sample t * hop_length, and T is just large enough to cover every
    sample; the last row is zero-padded. Raises UserError if there are no samples.
    """
    check_length(samples, 1, config.sample_rate)
    if config.longest:
        samples = samples[: max(round(config.longest * config.sample_rate), 1)]
    n_hops = -(-max(len(samples) - config.segment_length, 0) // config.hop_length)
    missing = config.segment_length + n_hops * config.hop_length - len(samples)
    padded = np.pad(samples, (0, missing))
    return np.lib.stride_tricks.sliding_window_view(padded, config.segment_length)[:: config.hop_length].copy()
