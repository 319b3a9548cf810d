"""librosa's mel-frequency cepstral coefficients and their derivatives (Peng et al. 2021, section 4.2)."""

from typing import Literal

import numpy as np
import scipy.fft
from pydantic.dataclasses import dataclass

from ser.dsp import all_samples, check_length, decibels, derivative
from ser.settings import Positive, PositiveFloat, strict
from ser.spectra import Mel, mel_power


@dataclass(config=strict, frozen=True, kw_only=True)
class Config(Mel):
    """top_db: dynamic range of the mel spectrum below its loudest cell; lower values are clipped. null: no clipping.
    derivatives: how many are appended to the coefficients."""

    n_mfcc: Positive
    top_db: PositiveFloat | None = 80.0
    derivatives: Literal[0, 1, 2] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_mfcc > self.n_mels:
            raise ValueError(f"n_mfcc {self.n_mfcc} must be at most n_mels, {self.n_mels}")


heard = all_samples


def extract(samples: np.ndarray, config: Config) -> np.ndarray:
    """MFCC of one utterance, equal to those of librosa.feature.mfcc and delta.

    Peng et al. use the "first- and second-order frame-to-frame difference" and cite librosa. Its only function for
    differences is delta, whose documentation calls `order` "the order of the difference operator".

    samples: (N,) float32 at config.sample_rate. Returns (T, n_mfcc (1 + derivatives)) float32 with
    T = 1 + N // hop_length: frames are centred. Columns: coefficients 0 to n_mfcc - 1 of dB relative to 1, then
    their first derivatives, then their second. Raises UserError if N is below win_length or, with derivatives, T
    below 9.
    """
    check_length(samples, config.win_length, config.sample_rate)
    bands = decibels(mel_power(samples, config), config.top_db)
    mfcc = scipy.fft.dct(bands, norm="ortho")[:, : config.n_mfcc]
    orders = range(1, config.derivatives + 1)
    return np.hstack([mfcc, *(derivative(mfcc, order) for order in orders)])
