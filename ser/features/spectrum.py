"""Raw spectra: magnitudes of the short-time Fourier transform (Mirsamadi 2017, section 3: 257 per frame)."""

from typing import Literal

import numpy as np
import scipy.fft
import scipy.signal
from pydantic.dataclasses import dataclass

from ser.dsp import all_samples, check_length, check_window, frames
from ser.settings import Positive, strict


@dataclass(config=strict, frozen=True, kw_only=True)
class Config:
    """Sizes are in samples."""

    sample_rate: Positive
    n_fft: Positive
    win_length: Positive
    hop_length: Positive
    window: Literal["hamming", "hann"] = "hamming"

    def __post_init__(self) -> None:
        check_window(self.win_length, self.n_fft)


heard = all_samples


def extract(samples: np.ndarray, config: Config) -> np.ndarray:
    """Magnitude spectra of one utterance.

    samples: (N,) float32 at config.sample_rate, full scale +-1. Returns (T, n_fft // 2 + 1) float32
    with T = 1 + N // hop_length: frames are centred, as in librosa.stft. Raises UserError if N is
    below win_length.
    """
    check_length(samples, config.win_length, config.sample_rate)
    window = scipy.signal.get_window(config.window, config.win_length).astype(np.float32)
    windowed = frames(samples, config.win_length, config.hop_length) * window
    return np.abs(scipy.fft.rfft(windowed, config.n_fft, axis=1, overwrite_x=True))
