"""librosa's mel-frequency cepstral coefficients and their derivatives (Peng et al. 2021, section 4.2)."""

from typing import Literal

import numpy as np
import scipy.fft
from pydantic.dataclasses import dataclass

from ser.cli import UserError
from ser.settings import Positive, PositiveFloat, strict
from ser.features.logmel import Mel, mel_power
from ser.features.means import decibels
from ser.features.spectrum import (  # ser.draw_run asks this module for it
    check_length,
    heard,
)

DELTA_WIDTH = 9  # frames
# least squares over nine frames: of a line its slope, of a parabola its second derivative
DELTA_WEIGHTS = {
    1: np.arange(-4, 5) / 60,
    2: np.array([28, 7, -8, -17, -20, -17, -8, 7, 28]) / 462,
}


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


def extract(samples: np.ndarray, config: Config) -> np.ndarray:
    """MFCC of one utterance, as librosa.feature.mfcc and delta give them.

    samples: (N,) float32 at config.sample_rate. Returns (T, n_mfcc (1 + derivatives)) float32 with
    T = 1 + N // hop_length: frames are centred. Coefficients are 0 to n_mfcc - 1 of decibels of 1; then their
    first derivatives, then their second. Raises UserError where N is below win_length, or, with derivatives,
    T below 9.
    """
    check_length(samples, config.win_length, config.sample_rate)
    bands = decibels(mel_power(heard(samples, config), config), config.top_db)
    mfcc = scipy.fft.dct(bands, norm="ortho")[:, : config.n_mfcc]
    orders = range(1, config.derivatives + 1)
    return np.hstack([mfcc, *(derivative(mfcc, order) for order in orders)])


def derivative(frames: np.ndarray, order: int) -> np.ndarray:
    """Derivatives (T, D) float32 of order 1 or 2, a frame or a frame squared, of frames (T, D).

    Slopes of the line, and the second derivative of the parabola, through nine frames, as
    librosa.feature.delta gives them by default. Peng et al. take the "first- and second-order frame-to-frame
    difference" and name librosa: this is its one function for differences, and its documentation calls
    `order` that "of the difference operator". Raises UserError, as librosa an error, for fewer frames.
    """
    if len(frames) < DELTA_WIDTH:
        raise UserError(f"too short: {len(frames)} frames, and the MFCC's derivative takes {DELTA_WIDTH}")
    inner = len(frames) - DELTA_WIDTH + 1
    wide = frames.astype(np.float64)  # as librosa, or rounding would show in the derivatives of large values
    middle = sum(weight * wide[place : place + inner] for place, weight in enumerate(DELTA_WEIGHTS[order]))
    # the nine frames at either end have one line or parabola, which has the same derivative at all of them
    nearest = np.clip(np.arange(len(frames)) - DELTA_WIDTH // 2, 0, inner - 1)
    return middle[nearest].astype(np.float32)
