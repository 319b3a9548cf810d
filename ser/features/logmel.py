"""Log-mel spectrogram, in decibels of the utterance's loudest cell, or of 1."""

from functools import lru_cache
from typing import Literal

import numpy as np
import scipy.fft
import scipy.signal
from pydantic.dataclasses import dataclass

from ser.settings import NonNegative, Positive, PositiveFloat, strict
from ser.features.lld import differences
from ser.features.spectrum import check_length


@dataclass(config=strict, frozen=True, kw_only=True)
class Mel:
    """How a power spectrum in mel bands is made. Sizes are in samples, frequencies in Hz."""

    sample_rate: Positive
    n_fft: Positive
    win_length: Positive
    hop_length: Positive
    n_mels: Positive
    fmin: NonNegative
    fmax: PositiveFloat
    window: Literal["hamming", "hann"]

    def __post_init__(self) -> None:
        if self.win_length > self.n_fft:
            raise ValueError(f"win_length {self.win_length} should be at most n_fft, {self.n_fft}")
        if not self.fmin < self.fmax <= self.sample_rate / 2:
            raise ValueError(f"fmin {self.fmin:g} < fmax {self.fmax:g} <= half the sample_rate should hold")


@dataclass(config=strict, frozen=True, kw_only=True)
class Config(Mel):
    """`duration` (seconds) fixes the length of every utterance.

    top_db: cells further below the loudest are raised to that; null: decibels of 1, not of the loudest, which
    tell how loud an utterance is. derivatives: how many stand behind the bands, each of the one before.
    """

    top_db: PositiveFloat | None = 80.0
    duration: PositiveFloat | None = None  # longer is cut at the end, shorter filled with zeros
    pad: Literal["front", "end"] = "end"
    derivatives: Literal[0, 1, 2] = 0


def extract(samples: np.ndarray, config: Config) -> np.ndarray:
    """Log-mel spectrogram of one utterance.

    samples: (N,) float32 at config.sample_rate. Returns (T, n_mels (1 + derivatives)) float32 with
    T = 1 + N // hop_length: frames are centred, as in librosa.stft. In dB; with top_db at most 0, and a silent
    utterance is all 0. Derivatives are a frame's. Raises UserError where N is below win_length.
    """
    check_length(samples, config.win_length, config.sample_rate)
    energy = np.maximum(mel_power(heard(samples, config), config), 1e-10)  # librosa.power_to_db's floor
    if config.top_db is None:
        decibels = 10 * np.log10(energy)
    else:
        decibels = np.maximum(10 * np.log10(energy / energy.max()), -config.top_db)
    channels = [decibels]
    for _ in range(config.derivatives):
        channels.append(differences(channels[-1]))
    return np.hstack(channels).astype(np.float32)


def mel_power(samples: np.ndarray, config: Mel) -> np.ndarray:
    """Power in mel bands (T, n_mels) of (N,) samples, N at least 1, as librosa.feature.melspectrogram gives
    it: T = 1 + N // hop_length, frames are centred, and zeros stand beyond the ends."""
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
    return (spectrum.real**2 + spectrum.imag**2) @ mel


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
def tables(config: Mel) -> tuple[np.ndarray, np.ndarray]:
    """Window (win_length,) and mel filterbank (n_fft // 2 + 1, n_mels), float32."""
    window = scipy.signal.get_window(config.window, config.win_length).astype(np.float32)
    mel = filterbank(config.sample_rate, config.n_fft, config.n_mels, config.fmin, config.fmax)
    return window, np.ascontiguousarray(mel.T)


def filterbank(sample_rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float) -> np.ndarray:
    """Mel filterbank (n_mels, n_fft // 2 + 1) float32, to the bit that of librosa.filters.mel: triangles of area
    1 Hz, whose corners are equally far apart on Slaney's mel scale, linear up to 1 kHz and logarithmic above.

    Not librosa's, whose import takes a second and needs a folder that numba may write to.
    """
    step, knee, octave = 200 / 3, 1000.0, np.log(6.4) / 27  # Hz a mel below the knee, the knee in Hz, log Hz a mel
    ends = [
        hertz / step if hertz < knee else knee / step + np.log(hertz / knee) / octave for hertz in (fmin, fmax)
    ]
    mels = np.linspace(*ends, n_mels + 2)
    corners = np.where(mels < knee / step, mels * step, knee * np.exp(octave * (mels - knee / step)))
    widths = np.diff(corners)[:, None]
    ramps = np.subtract.outer(corners, np.fft.rfftfreq(n_fft, 1 / sample_rate))
    triangles = np.maximum(0, np.minimum(-ramps[:-2] / widths[:-1], ramps[2:] / widths[1:])).astype(np.float32)
    triangles *= (2 / (corners[2:] - corners[:-2]))[:, None]
    return triangles
