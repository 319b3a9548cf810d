"""librosa's spectral and temporal features, averaged over an utterance: one frame (Bledea, section 3.2)."""

from dataclasses import field
from typing import Annotated, Literal, get_args

import numpy as np
import scipy.fft
from pydantic import Field
from pydantic.dataclasses import dataclass

from ser.dsp import check_length, crossing_rates, decibels, librosa_frames, places
from ser.settings import Positive, strict
from ser.spectra import default_tables

Part = Literal["mel", "mfcc", "zcr", "rms"]


@dataclass(config=strict, frozen=True, kw_only=True)
class Config:
    """Sizes are in samples. parts: which values of the frame a system uses, in this order: n_mels mel powers,
    n_mfcc cepstral coefficients, the zero-crossing rate, the root mean square."""

    sample_rate: Positive
    n_fft: Positive
    hop_length: Positive
    n_mels: Positive
    n_mfcc: Positive
    parts: Annotated[list[Part], Field(min_length=1)] = field(default_factory=lambda: list(get_args(Part)))


def columns(config: Config) -> np.ndarray:
    """Indices of the values of config.parts in the frames from `extract`, which have all parts."""
    found = places({"mel": config.n_mels, "mfcc": config.n_mfcc, "zcr": 1, "rms": 1})
    return np.concatenate([found[part] for part in config.parts])


def extract(samples: np.ndarray, config: Config) -> np.ndarray:
    """Means of one utterance's features, equal to those of librosa's functions with default arguments.

    samples: (N,) float32 at config.sample_rate. Returns (1, n_mels + n_mfcc + 2) float32, all parts in the
    order of Part. The functions are melspectrogram, mfcc, zero_crossing_rate and rms of librosa.feature; here, for
    speed, the first two share one spectrum. Raises UserError if N is below n_fft.
    """
    check_length(samples, config.n_fft, config.sample_rate)
    window, mel = default_tables(config.sample_rate, config.n_fft, config.n_mels)
    sizes = config.n_fft, config.hop_length
    spectrum = scipy.fft.rfft(librosa_frames(samples, *sizes, "constant") * window, axis=1, overwrite_x=True)
    power = (spectrum.real**2 + spectrum.imag**2) @ mel
    # the transform is linear, so the mean can be taken first
    mfcc = scipy.fft.dct(decibels(power).mean(0), norm="ortho")[: config.n_mfcc]
    crossings = crossing_rates(librosa_frames(samples, *sizes, "edge")).mean()
    rms = np.sqrt(librosa_frames(samples**2, *sizes, "constant").mean(1)).mean()
    return np.concatenate([power.mean(0), mfcc, [crossings, rms]])[None].astype(np.float32)
