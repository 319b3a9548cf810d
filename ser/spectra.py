"""Spectral code shared by several features: power in mel bands, and spectral contrast.

These functions re-implement those of librosa that their docstrings name, for speed: importing librosa alone takes a
second, and needs a folder that numba can write to.
"""

from functools import lru_cache
from itertools import pairwise
from typing import Literal

import numpy as np
import scipy.fft
import scipy.signal
from pydantic.dataclasses import dataclass

from ser.dsp import check_window, decibels
from ser.settings import NonNegative, Positive, PositiveFloat, strict

FIRST_OCTAVE, OCTAVES, QUANTILE = 200, 6, 0.02  # of the contrast: Hz, number of bands above it, share of a band's bins


@dataclass(config=strict, frozen=True, kw_only=True)
class Mel:
    """Settings of a mel power spectrum. Sizes are in samples, frequencies in Hz."""

    sample_rate: Positive
    n_fft: Positive
    win_length: Positive
    hop_length: Positive
    n_mels: Positive
    fmin: NonNegative
    fmax: PositiveFloat
    window: Literal["hamming", "hann"]

    def __post_init__(self) -> None:
        check_window(self.win_length, self.n_fft)
        if not self.fmin < self.fmax <= self.sample_rate / 2:
            raise ValueError(f"fmin {self.fmin:g}, fmax {self.fmax:g}: must be fmin < fmax <= sample_rate / 2")


def mel_power(samples: np.ndarray, config: Mel) -> np.ndarray:
    """Power in mel bands (T, n_mels) of (N,) samples, N at least 1: T = 1 + N // hop_length, frames are centred, and
    the signal is zero-padded at both ends. As librosa.feature.melspectrogram."""
    window, mel = mel_tables(config)
    half = config.n_fft // 2
    # librosa centres a window that is shorter than the transform. Here only its start matters,
    # since a shift within the transform does not change the power spectrum
    offset = (config.n_fft - config.win_length) // 2
    padded = np.pad(samples, half)
    n_frames = 1 + len(samples) // config.hop_length
    frames = np.lib.stride_tricks.sliding_window_view(padded[offset:], config.win_length)
    frames = frames[: (n_frames - 1) * config.hop_length + 1 : config.hop_length] * window
    spectrum = scipy.fft.rfft(frames, config.n_fft, axis=1, overwrite_x=True)
    return (spectrum.real**2 + spectrum.imag**2) @ mel


@lru_cache
def mel_tables(config: Mel) -> tuple[np.ndarray, np.ndarray]:
    """Window (win_length,) and mel filterbank (n_fft // 2 + 1, n_mels), float32."""
    window = scipy.signal.get_window(config.window, config.win_length).astype(np.float32)
    mel = filterbank(config.sample_rate, config.n_fft, config.n_mels, config.fmin, config.fmax)
    return window, np.ascontiguousarray(mel.T)


@lru_cache
def default_tables(sample_rate: int, n_fft: int, n_mels: int) -> tuple[np.ndarray, np.ndarray]:
    """Hann window (n_fft,) and mel filterbank (n_fft // 2 + 1, n_mels) up to half the sampling rate, float32:
    the defaults of librosa."""
    window = scipy.signal.get_window("hann", n_fft).astype(np.float32)
    mel = filterbank(sample_rate, n_fft, n_mels, 0, sample_rate / 2)
    return window, np.ascontiguousarray(mel.T)


def filterbank(sample_rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float) -> np.ndarray:
    """Mel filterbank (n_mels, n_fft // 2 + 1) float32, bit-identical to librosa.filters.mel: triangles of area
    1 Hz, with corners equally spaced on Slaney's mel scale, which is linear up to 1 kHz and logarithmic above."""
    step, knee, octave = 200 / 3, 1000.0, np.log(6.4) / 27  # Hz a mel below the knee, the knee in Hz, log Hz a mel
    lowest, highest = (
        hertz / step if hertz < knee else knee / step + np.log(hertz / knee) / octave for hertz in (fmin, fmax)
    )
    mels = np.linspace(lowest, highest, n_mels + 2)
    corners = np.where(mels < knee / step, mels * step, knee * np.exp(octave * (mels - knee / step)))
    widths = np.diff(corners)[:, None]
    ramps = np.subtract.outer(corners, np.fft.rfftfreq(n_fft, 1 / sample_rate))
    triangles = np.maximum(0, np.minimum(-ramps[:-2] / widths[:-1], ramps[2:] / widths[1:])).astype(np.float32)
    triangles *= (2 / (corners[2:] - corners[:-2]))[:, None]
    return triangles


def check_contrast(sample_rate: int) -> None:
    """Raise ValueError, for a Config, if the last band of the contrast is above half the sampling rate."""
    highest = FIRST_OCTAVE * 2 ** (OCTAVES - 1)
    if sample_rate <= 2 * highest:
        raise ValueError(
            f"sample_rate {sample_rate}: must be above {2 * highest}; the last contrast band starts at {highest} Hz"
        )


def contrast(magnitude: np.ndarray, sample_rate: int, n_fft: int) -> np.ndarray:
    """Level difference in dB, (T, 7), between the strongest and the weakest bins of each band, of magnitudes
    (T, n_fft // 2 + 1). As librosa.feature.spectral_contrast.

    The upper edges of the bands are 200, 400, ... 6400 Hz and half the sampling rate. Strongest and weakest: the mean
    of 2 % of the bins of a band, at least one.
    """
    peaks, valleys = [], []
    for first, end, count in contrast_bands(sample_rate, n_fft):
        ordered = np.sort(magnitude[:, first:end], axis=1)  # faster than np.partition
        valleys.append(ordered[:, :count].mean(1))
        peaks.append(ordered[:, -count:].mean(1))
    return decibels(np.stack(peaks, 1)) - decibels(np.stack(valleys, 1))


@lru_cache
def contrast_bands(sample_rate: int, n_fft: int) -> list[tuple[int, int, int]]:
    """First and end bin of each band of the contrast, and how many bins count as strongest or weakest.

    As in librosa, a band includes the bin below its lower edge and, unless it is the last band, excludes its last bin.
    """
    frequencies = np.fft.rfftfreq(n_fft, 1 / sample_rate)
    edges = [0, *(FIRST_OCTAVE * 2**octave for octave in range(OCTAVES + 1))]
    found = []
    for number, (low, high) in enumerate(pairwise(edges)):
        (inside,) = np.nonzero((frequencies >= low) & (frequencies <= high))
        first = inside[0] - (number > 0)
        end = len(frequencies) if number == OCTAVES else inside[-1] + 1
        count = max(round(QUANTILE * (end - first)), 1)  # before the last bin is excluded
        found.append((first, end - (number < OCTAVES), count))
    return found
