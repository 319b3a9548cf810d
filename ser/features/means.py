"""librosa's spectral and temporal features, each averaged over an utterance: one frame (Bledea, section 3.2)."""

from dataclasses import field
from functools import lru_cache
from typing import Annotated, Literal, get_args

import numpy as np
import scipy.fft
import scipy.signal
from pydantic import Field
from pydantic.dataclasses import dataclass

from ser.settings import Positive, strict
from ser.features.logmel import filterbank
from ser.features.spectrum import check_length

Part = Literal["mel", "mfcc", "zcr", "rms"]


@dataclass(config=strict, frozen=True, kw_only=True)
class Config:
    """Sizes are in samples. parts: what a system takes of the frame, in this order: n_mels mel powers,
    n_mfcc cepstral coefficients, the zero-crossing rate, the root of the mean square."""

    sample_rate: Positive
    n_fft: Positive
    hop_length: Positive
    n_mels: Positive
    n_mfcc: Positive
    parts: Annotated[list[Part], Field(min_length=1)] = field(default_factory=lambda: list(get_args(Part)))


def columns(config: Config) -> np.ndarray:
    """Where the values of config.parts stand in the frames of `extract`, which have all parts."""
    sizes = {"mel": config.n_mels, "mfcc": config.n_mfcc, "zcr": 1, "rms": 1}
    ends = dict(zip(sizes, np.cumsum(list(sizes.values())), strict=True))
    return np.concatenate([np.arange(ends[part] - sizes[part], ends[part]) for part in config.parts])


def extract(samples: np.ndarray, config: Config) -> np.ndarray:
    """Means of one utterance's features, as librosa's functions with their defaults give them.

    samples: (N,) float32 at config.sample_rate. Returns (1, n_mels + n_mfcc + 2) float32, all parts in the
    order of Part. The spectrum is computed once for the mel powers and the MFCCs. Raises UserError where N is
    below n_fft.
    """
    check_length(samples, config.n_fft, config.sample_rate)
    window, mel = tables(config.sample_rate, config.n_fft, config.n_mels)
    spectrum = scipy.fft.rfft(frames(samples, config, "constant") * window, axis=1, overwrite_x=True)
    power = (spectrum.real**2 + spectrum.imag**2) @ mel
    # the transform is linear: that of the mean is the mean of the transforms
    mfcc = scipy.fft.dct(decibels(power).mean(0), norm="ortho")[: config.n_mfcc]
    crossings = crossing_rates(frames(samples, config, "edge")).mean()
    rms = np.sqrt(frames(samples**2, config, "constant").mean(1)).mean()
    return np.concatenate([power.mean(0), mfcc, [crossings, rms]])[None].astype(np.float32)


def frames(samples: np.ndarray, config: Config, pad: str) -> np.ndarray:
    """Views (T, n_fft) of (N,) samples, centred every hop_length: T = 1 + N // hop_length."""
    padded = np.pad(samples, config.n_fft // 2, mode=pad)
    return np.lib.stride_tricks.sliding_window_view(padded, config.n_fft)[:: config.hop_length]


def decibels(power: np.ndarray, top_db: float | None = 80.0) -> np.ndarray:
    """As librosa.power_to_db: what is more than top_db below the loudest is raised to that, or nothing."""
    values = 10 * np.log10(np.maximum(power, 1e-10))
    return values if top_db is None else np.maximum(values, values.max() - top_db)


def crossing_rates(signals: np.ndarray) -> np.ndarray:
    """Of each of the frames (T, n), the share of samples whose sign is not that of the one before: (T,)."""
    negative = signals < -1e-10  # librosa takes what is nearer to zero for zero
    return (negative[:, 1:] != negative[:, :-1]).sum(1) / signals.shape[1]


@lru_cache
def tables(sample_rate: int, n_fft: int, n_mels: int) -> tuple[np.ndarray, np.ndarray]:
    """Hann window (n_fft,) and mel filterbank (n_fft // 2 + 1, n_mels), float32."""
    window = scipy.signal.get_window("hann", n_fft).astype(np.float32)
    mel = filterbank(sample_rate, n_fft, n_mels, 0, sample_rate / 2)
    return window, np.ascontiguousarray(mel.T, dtype=np.float32)
