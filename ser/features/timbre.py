"""librosa's MFCC and their derivative, spectral shape, zero crossings and energy, frame by frame.

The eight features of Sherman et al., Table I, with librosa's defaults where the table gives no value.
"""

from dataclasses import field
from typing import Annotated, Literal, get_args

import numpy as np
import scipy.fft
from pydantic import Field
from pydantic.dataclasses import dataclass

from ser.dsp import check_length, crossing_rates, decibels, derivative, fix_length, librosa_frames, places
from ser.settings import Positive, PositiveFloat, strict
from ser.spectra import OCTAVES, check_contrast, contrast, default_tables

Part = Literal["mfcc", "mfcc_delta", "centroid", "contrast", "low_contrast", "bandwidth", "rolloff", "zcr", "rms"]

ROLLOFF = 0.85  # share of the magnitude below the roll-off frequency


@dataclass(config=strict, frozen=True, kw_only=True)
class Config:
    """Sizes are in samples; `duration` (seconds) fixes the length of every utterance.

    parts: which values of a frame a system uses, in this order. mfcc and mfcc_delta have n_mfcc values each,
    contrast has one per band (seven), low_contrast only that of the lowest band; the others have one value each.
    """

    sample_rate: Positive
    n_fft: Positive
    hop_length: Positive
    n_mels: Positive
    n_mfcc: Positive
    duration: PositiveFloat | None = None  # longer is cut at the end, shorter padded with zeros
    pad: Literal["front", "end"] = "end"
    parts: Annotated[list[Part], Field(min_length=1)] = field(default_factory=lambda: list(get_args(Part)))

    def __post_init__(self) -> None:
        check_contrast(self.sample_rate)


def columns(config: Config) -> np.ndarray:
    """Indices of the values of config.parts in the frames from `extract`, which have all parts."""
    sizes = {"mfcc": config.n_mfcc, "mfcc_delta": config.n_mfcc, "centroid": 1, "contrast": OCTAVES + 1}
    found = places({**sizes, "bandwidth": 1, "rolloff": 1, "zcr": 1, "rms": 1})
    found["low_contrast"] = found["contrast"][:1]
    return np.concatenate([found[part] for part in config.parts])


def extract(samples: np.ndarray, config: Config) -> np.ndarray:
    """All features of one utterance, equal to those of librosa's functions with default arguments.

    samples: (N,) float32 at config.sample_rate. Returns (T, 2 * n_mfcc + 12) float32, all parts in the order
    of Part, with T = 1 + N // hop_length, where N is the length after `duration` is applied: frames are centred. The
    functions are mfcc, delta, spectral_centroid, spectral_contrast, spectral_bandwidth, spectral_rolloff,
    zero_crossing_rate and rms of librosa.feature; here, for speed, all but the zero-crossing rate come from one
    spectrum. Raises UserError if N is below n_fft, or T below the width of the derivative.
    """
    check_length(samples, config.n_fft, config.sample_rate)
    samples = heard(samples, config)
    window, mel = default_tables(config.sample_rate, config.n_fft, config.n_mels)
    sizes = config.n_fft, config.hop_length
    spectrum = scipy.fft.rfft(librosa_frames(samples, *sizes, "constant") * window, axis=1, overwrite_x=True)
    power = spectrum.real**2 + spectrum.imag**2
    magnitude = np.sqrt(power)

    mfcc = scipy.fft.dct(decibels(power @ mel), norm="ortho")[:, : config.n_mfcc]
    energy = power.sum(1) - (power[:, 0] + (power[:, -1] if config.n_fft % 2 == 0 else 0)) / 2  # of one half
    rms = np.sqrt(2 * energy) / config.n_fft
    zcr = crossing_rates(librosa_frames(samples, *sizes, "edge"))
    centroid, bandwidth, rolloff = shape(magnitude, config)
    one_each = np.stack([bandwidth, rolloff, zcr, rms], 1)
    bands = contrast(magnitude, config.sample_rate, config.n_fft)
    parts = [mfcc, derivative(mfcc, 1), centroid[:, None], bands, one_each]
    return np.hstack(parts).astype(np.float32)


def heard(samples: np.ndarray, config: Config) -> np.ndarray:
    """The samples (N,) that the frames cover: frame t is centred at sample t * hop_length."""
    if not config.duration:
        return samples
    return fix_length(samples, round(config.duration * config.sample_rate), config.pad)


def shape(magnitude: np.ndarray, config: Config) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centroid, bandwidth and roll-off, each (T,) in Hz, of magnitudes (T, bins); 0 for a silent frame."""
    frequencies = np.fft.rfftfreq(config.n_fft, 1 / config.sample_rate)
    moments = magnitude.astype(np.float64) @ np.stack([frequencies**0, frequencies, frequencies**2], 1)
    total = np.where(moments[:, 0] > 0, moments[:, 0], 1)
    centroid, square = moments[:, 1] / total, moments[:, 2] / total
    bandwidth = np.sqrt(np.maximum(square - centroid**2, 0))
    summed = magnitude.cumsum(1)
    rolloff = frequencies[(summed >= ROLLOFF * summed[:, -1:]).argmax(1)]
    return centroid, bandwidth, rolloff
