"""Log-mel spectrogram, in decibels below the utterance's loudest cell."""

from functools import lru_cache
from typing import Literal

import librosa
import numpy as np
import scipy.fft
import scipy.signal
from pydantic.dataclasses import dataclass

from ser.cli import UserError
from ser.config import NonNegative, Positive, PositiveFloat, strict


@dataclass(config=strict, frozen=True, kw_only=True)
class Config:
    """Sizes are in samples, frequencies in Hz; `duration` (seconds) fixes the length of every utterance."""

    sample_rate: Positive
    n_fft: Positive
    win_length: Positive
    hop_length: Positive
    n_mels: Positive
    fmin: NonNegative
    fmax: PositiveFloat
    window: Literal["hamming", "hann"]
    top_db: PositiveFloat = 80.0  # quieter cells are raised to this far below the loudest
    duration: PositiveFloat | None = None  # longer is cut at the end, shorter filled with zeros
    pad: Literal["front", "end"] = "end"

    def __post_init__(self) -> None:
        if self.win_length > self.n_fft:
            raise ValueError(f"win_length {self.win_length} should be at most n_fft, {self.n_fft}")
        if not self.fmin < self.fmax <= self.sample_rate / 2:
            raise ValueError(f"fmin {self.fmin:g} < fmax {self.fmax:g} <= half the sample_rate should hold")


def extract(samples: np.ndarray, config: Config) -> np.ndarray:
    """Log-mel spectrogram of one utterance.

    samples: (N,) float32 at config.sample_rate. Returns (T, n_mels) float32 in dB, at most 0, with
    T = 1 + N // hop_length: frames are centred, as in librosa.stft. A silent utterance is all 0 dB.
    Raises UserError where N is below win_length.
    """
    if len(samples) < config.win_length:
        raise UserError(
            f"too short: {len(samples)} samples at {config.sample_rate} Hz, and a window has {config.win_length}"
        )
    samples = heard(samples, config)
    window, mel = tables(config)
    half = config.n_fft // 2
    # librosa centres a window shorter than the transform in it; only where it starts matters here,
    # since a power spectrum does not know by how much its frame is shifted
    offset = (config.n_fft - config.win_length) // 2
    padded = np.pad(samples, half)
    n_frames = 1 + len(samples) // config.hop_length
    frames = np.lib.stride_tricks.sliding_window_view(padded[offset:], config.win_length)
    frames = frames[: (n_frames - 1) * config.hop_length + 1 : config.hop_length] * window
    spectrum = scipy.fft.rfft(frames, config.n_fft, axis=1, overwrite_x=True)
    power = spectrum.real**2 + spectrum.imag**2
    energy = np.maximum(power @ mel, 1e-10)  # librosa.power_to_db's floor
    decibels = 10 * np.log10(energy / energy.max())
    return np.maximum(decibels, -config.top_db).astype(np.float32)


def heard(samples: np.ndarray, config: Config) -> np.ndarray:
    """The samples (N,) that the frames are of: frame t is centred at sample t * hop_length."""
    if not config.duration:
        return samples
    return fix_length(samples, round(config.duration * config.sample_rate), config.pad)


def fix_length(samples: np.ndarray, length: int, pad: str) -> np.ndarray:
    """Cut (N,) samples at the end, or fill them with zeros at the front or end, to `length`."""
    missing = max(length - len(samples), 0)
    return np.pad(samples[:length], (missing, 0) if pad == "front" else (0, missing))


@lru_cache
def tables(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Window (win_length,) and mel filterbank (n_fft // 2 + 1, n_mels), float32."""
    window = scipy.signal.get_window(config.window, config.win_length).astype(np.float32)
    mel = librosa.filters.mel(
        sr=config.sample_rate, n_fft=config.n_fft, n_mels=config.n_mels, fmin=config.fmin, fmax=config.fmax
    )
    return window, np.ascontiguousarray(mel.T, dtype=np.float32)
