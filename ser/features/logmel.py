"""Log-mel spectrogram in dB, relative to the loudest cell of the utterance or to 1."""

from typing import Literal

import numpy as np
from pydantic.dataclasses import dataclass

from ser.dsp import check_length, decibels, differences, fix_length
from ser.settings import PositiveFloat, strict
from ser.spectra import Mel, mel_power


@dataclass(config=strict, frozen=True, kw_only=True)
class Config(Mel):
    """`duration` (seconds) fixes the length of every utterance.

    top_db: dynamic range below the loudest cell; lower values are clipped. null: no clipping, and dB relative to 1,
    which keeps the level of the utterance. derivatives: number of successive differences appended to the bands.
    """

    top_db: PositiveFloat | None = 80.0
    duration: PositiveFloat | None = None  # longer is cut at the end, shorter padded with zeros
    pad: Literal["front", "end"] = "end"
    derivatives: Literal[0, 1, 2] = 0


def extract(samples: np.ndarray, config: Config) -> np.ndarray:
    """Log-mel spectrogram of one utterance, as librosa.feature.melspectrogram and power_to_db give it.

    samples: (N,) float32 at config.sample_rate. Returns (T, n_mels (1 + derivatives)) float32 with
    T = 1 + N // hop_length: frames are centred, as in librosa.stft. Values are in dB; with top_db they
    are at most 0, and a silent utterance is all 0. Derivatives are per frame. Raises UserError if N is below
    win_length.
    """
    check_length(samples, config.win_length, config.sample_rate)
    power = mel_power(heard(samples, config), config)
    channels = [decibels(power, config.top_db, of_loudest=config.top_db is not None)]
    for _ in range(config.derivatives):
        channels.append(differences(channels[-1]))
    return np.hstack(channels).astype(np.float32)


def heard(samples: np.ndarray, config: Config) -> np.ndarray:
    """The samples (N,) that the frames cover: frame t is centred at sample t * hop_length."""
    if not config.duration:
        return samples
    return fix_length(samples, round(config.duration * config.sample_rate), config.pad)
