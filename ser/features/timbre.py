"""librosa's MFCC and their derivative, shape of the spectrum, zero crossings and energy, frame by frame.

The eight features of Sherman et al., Table I, with librosa's defaults where the table is silent.
"""

from dataclasses import field
from functools import lru_cache
from typing import Annotated, Literal, get_args

import numpy as np
import scipy.fft
from pydantic import Field
from pydantic.dataclasses import dataclass

from ser.settings import Positive, PositiveFloat, strict
from ser.features.logmel import heard  # ser.draw_run asks this module for it
from ser.features.means import crossing_rates, decibels, frames, tables
from ser.features.mfcc import derivative
from ser.features.spectrum import check_length

Part = Literal[
    "mfcc", "mfcc_delta", "centroid", "contrast", "low_contrast", "bandwidth", "rolloff", "zcr", "rms"
]

ROLLOFF = 0.85  # share of the magnitude below the roll-off frequency
FIRST_OCTAVE, OCTAVES, QUANTILE = 200, 6, 0.02  # of the contrast: Hz, bands above it, share of a band's bins


@dataclass(config=strict, frozen=True, kw_only=True)
class Config:
    """Sizes are in samples; `duration` (seconds) fixes the length of every utterance.

    parts: what a system takes of each frame, in this order. mfcc and mfcc_delta: n_mfcc values each;
    contrast: of seven bands; low_contrast: of the lowest of them alone; one value each of the others.
    """

    sample_rate: Positive
    n_fft: Positive
    hop_length: Positive
    n_mels: Positive
    n_mfcc: Positive
    duration: PositiveFloat | None = None  # longer is cut at the end, shorter filled with zeros
    pad: Literal["front", "end"] = "end"
    parts: Annotated[list[Part], Field(min_length=1)] = field(default_factory=lambda: list(get_args(Part)))

    def __post_init__(self) -> None:
        highest = FIRST_OCTAVE * 2 ** (OCTAVES - 1)
        if self.sample_rate <= 2 * highest:
            raise ValueError(
                f"sample_rate {self.sample_rate}: the contrast's last band starts at {highest} Hz"
            )


def columns(config: Config) -> np.ndarray:
    """Where the values of config.parts stand in the frames of `extract`, which have all parts."""
    sizes = {"mfcc": config.n_mfcc, "mfcc_delta": config.n_mfcc, "contrast": OCTAVES + 1}
    places, start = {}, 0
    for part in get_args(Part):
        if part == "low_contrast":
            places[part] = places["contrast"][:1]
            continue
        places[part] = np.arange(start, start + sizes.get(part, 1))
        start = places[part][-1] + 1
    return np.concatenate([places[part] for part in config.parts])


def extract(samples: np.ndarray, config: Config) -> np.ndarray:
    """All features of one utterance, as librosa's functions with their defaults give them.

    samples: (N,) float32 at config.sample_rate. Returns (T, 2 * n_mfcc + 12) float32, all parts in the order
    of Part, with T = 1 + N // hop_length, of N after `duration`: frames are centred. All but the
    zero-crossing rate come from one spectrum. Raises UserError where N is below n_fft, or T below the
    derivative's width.
    """
    check_length(samples, config.n_fft, config.sample_rate)
    samples = heard(samples, config)
    window, mel = tables(config.sample_rate, config.n_fft, config.n_mels)
    spectrum = scipy.fft.rfft(frames(samples, config, "constant") * window, axis=1, overwrite_x=True)
    power = spectrum.real**2 + spectrum.imag**2
    magnitude = np.sqrt(power)

    mfcc = scipy.fft.dct(decibels(power @ mel), norm="ortho")[:, : config.n_mfcc]
    energy = power.sum(1) - (power[:, 0] + (power[:, -1] if config.n_fft % 2 == 0 else 0)) / 2  # of one half
    rms = np.sqrt(2 * energy) / config.n_fft
    zcr = crossing_rates(frames(samples, config, "edge"))
    centroid, bandwidth, rolloff = shape(magnitude, config)
    one_each = np.stack([bandwidth, rolloff, zcr, rms], 1)
    parts = [mfcc, derivative(mfcc, 1), centroid[:, None], contrast(magnitude, config), one_each]
    return np.hstack(parts).astype(np.float32)


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


def contrast(magnitude: np.ndarray, config: Config) -> np.ndarray:
    """(T, 7): how far, in dB, the strongest bins of a band are above its weakest.

    The bands reach to 200, 400, ... 6400 Hz and the last to the end; strongest and weakest: the mean of a
    fiftieth of a band's bins, of one at least.
    """
    peaks, valleys = [], []
    for first, end, count in bands(config.sample_rate, config.n_fft):
        ordered = np.sort(magnitude[:, first:end], axis=1)  # np.partition takes longer
        valleys.append(ordered[:, :count].mean(1))
        peaks.append(ordered[:, -count:].mean(1))
    return decibels(np.stack(peaks, 1)) - decibels(np.stack(valleys, 1))


@lru_cache
def bands(sample_rate: int, n_fft: int) -> list[tuple[int, int, int]]:
    """First and end bin of each band of the contrast, and how many bins count as strongest or weakest.

    As in librosa, a band takes in the bin below its edge, and gives up its own last bin but the last band.
    """
    frequencies = np.fft.rfftfreq(n_fft, 1 / sample_rate)
    edges = [0, *(FIRST_OCTAVE * 2**octave for octave in range(OCTAVES + 1))]
    found = []
    for number, (low, high) in enumerate(zip(edges, edges[1:], strict=False)):
        (inside,) = np.nonzero((frequencies >= low) & (frequencies <= high))
        first = inside[0] - (number > 0)
        end = len(frequencies) if number == OCTAVES else inside[-1] + 1
        count = max(round(QUANTILE * (end - first)), 1)  # of the band before it gives up a bin
        found.append((first, end - (number < OCTAVES), count))
    return found
