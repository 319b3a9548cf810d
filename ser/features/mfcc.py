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
    """top_db: cells of the mel spectrum further below its loudest are raised to that; null: none is.
    derivatives: how many stand behind the coefficients."""

    n_mfcc: Positive
    top_db: PositiveFloat | None = 80.0
    derivatives: Literal[0, 1, 2] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_mfcc > self.n_mels:
            raise ValueError(f"n_mfcc {self.n_mfcc} should be at most n_mels, {self.n_mels}")


heard = all_samples


def extract(samples: np.ndarray, config: Config) -> np.ndarray:
    """MFCC of one utterance, as librosa.feature.mfcc and delta give them.

    Peng et al. take the "first- and second-order frame-to-frame difference" and name librosa: delta is its one
    function for differences, and its documentation calls `order` that "of the difference operator".

    samples: (N,) float32 at config.sample_rate. Returns (T, n_mfcc (1 + derivatives)) float32 with
    T = 1 + N // hop_length: frames are centred. Coefficients are 0 to n_mfcc - 1 of decibels of 1; then their
    first derivatives, then their second. Raises UserError where N is below win_length, or, with derivatives,
    T below 9.
    """
    check_length(samples, config.win_length, config.sample_rate)
    bands = decibels(mel_power(samples, config), config.top_db)
    mfcc = scipy.fft.dct(bands, norm="ortho")[:, : config.n_mfcc]
    orders = range(1, config.derivatives + 1)
    return np.hstack([mfcc, *(derivative(mfcc, order) for order in orders)])
