"""librosa's MFCC, chroma, mel powers, contrast and tonnetz, averaged over an utterance: one frame.

The 193 values of Issa, Demirci and Yazici 2020. Their paper does not say how librosa is called. We follow the widely
copied function `extract_feature`, which gives the same 193 values: chroma and contrast of the magnitude spectrum,
tonnetz of the harmonic part of the signal, each with librosa's defaults.
"""

import warnings
from dataclasses import field
from typing import Annotated, Literal, get_args

import numpy as np
import scipy.fft
import scipy.ndimage
from pydantic import Field
from pydantic.dataclasses import dataclass

from ser.dsp import check_length, decibels, places
from ser.settings import Positive, strict
from ser.spectra import OCTAVES, check_contrast, contrast, default_tables

Part = Literal["mfcc", "chroma", "mel", "contrast", "tonnetz"]

MEDIAN = 31  # width, in frames and in bins, of the median filters that separate the harmonic part


@dataclass(config=strict, frozen=True, kw_only=True)
class Config:
    """Sizes are in samples. parts: which values of the frame a system uses, in this order: n_mfcc cepstral
    coefficients, 12 pitch classes, n_mels mel powers, the contrast of 7 bands, 6 tonal centroids."""

    sample_rate: Positive
    n_fft: Positive
    hop_length: Positive
    n_mels: Positive
    n_mfcc: Positive
    parts: Annotated[list[Part], Field(min_length=1)] = field(default_factory=lambda: list(get_args(Part)))

    def __post_init__(self) -> None:
        check_contrast(self.sample_rate)


def columns(config: Config) -> np.ndarray:
    """Indices of the values of config.parts in the frames from `extract`, which have all parts."""
    sizes = {"mfcc": config.n_mfcc, "chroma": 12, "mel": config.n_mels, "contrast": OCTAVES + 1, "tonnetz": 6}
    found = places(sizes)
    return np.concatenate([found[part] for part in config.parts])


def extract(samples: np.ndarray, config: Config) -> np.ndarray:
    """Means of one utterance's features, equal to those of librosa's functions with default arguments.

    samples: (N,) float32 at config.sample_rate. Returns (1, n_mfcc + n_mels + 25) float32, all parts in the order of
    Part. For speed, all come from one spectrum, the tonnetz from its harmonic part. Only chroma_stft and tonnetz call
    librosa; the others reproduce mfcc, melspectrogram and spectral_contrast of librosa.feature. Raises UserError if
    N is below n_fft.
    """
    check_length(samples, config.n_fft, config.sample_rate)
    import librosa  # slow to import, and numba compiles code, for which it needs a writable folder

    rate, n_fft, hop_length = config.sample_rate, config.n_fft, config.hop_length
    spectrum = librosa.stft(samples, n_fft=n_fft, hop_length=hop_length)  # (bins, T)
    magnitude = np.abs(spectrum)
    power = (magnitude**2).T @ default_tables(rate, n_fft, config.n_mels)[1]
    # the transform is linear, so the mean can be taken first
    mfcc = scipy.fft.dct(decibels(power).mean(0), norm="ortho")[: config.n_mfcc]
    with warnings.catch_warnings():
        # silence has no tuning, and speech shorter than the windows of the lowest tones is zero-padded
        warnings.simplefilter("ignore", UserWarning)
        chroma = librosa.feature.chroma_stft(S=magnitude, sr=rate, n_fft=n_fft)
        tones = librosa.istft(
            harmonic(spectrum), n_fft=n_fft, hop_length=hop_length, dtype=samples.dtype, length=len(samples)
        )
        tonnetz = librosa.feature.tonnetz(y=tones, sr=rate, hop_length=hop_length)
    bands = contrast(np.ascontiguousarray(magnitude.T), rate, n_fft)
    parts = [mfcc, chroma.mean(1), power.mean(0), bands.mean(0), tonnetz.mean(1)]
    return np.concatenate(parts)[None].astype(np.float32)


def harmonic(spectrum: np.ndarray) -> np.ndarray:
    """The harmonic part of a spectrum (bins, T), as from librosa.decompose.hpss but with a faster median filter: each
    cell is weighted by the square of its median along time, over the sum of squares of both medians."""
    import librosa

    magnitude, phase = librosa.magphase(spectrum)
    lasting, sudden = medians(magnitude), medians(magnitude.T).T
    return magnitude * librosa.util.softmask(lasting, sudden, power=2, split_zeros=True) * phase


def medians(rows: np.ndarray) -> np.ndarray:
    """Running median of MEDIAN values along each row of (N, T), mirrored at both ends.

    The rows are joined into one, since SciPy's one-dimensional filter takes a tenth of the time of its two-dimensional
    one; the mirrored ends between two rows keep their medians separate.
    """
    half = MEDIAN // 2
    mirrored = np.pad(rows, ((0, 0), (half, half)), mode="symmetric")
    return scipy.ndimage.median_filter(mirrored.ravel(), MEDIAN).reshape(mirrored.shape)[:, half:-half]
