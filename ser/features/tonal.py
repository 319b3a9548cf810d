"""librosa's MFCC, chroma, mel powers, contrast and tonnetz, each averaged over an utterance: one frame.

The 193 values of Issa, Demirci and Yazici 2020. How they call librosa their paper does not say; here it is as in the
public functions named `extract_feature`, from which such vectors of 193 come: chroma and contrast of the magnitudes
of the spectrum, tonnetz of the harmonic part of the samples, each with librosa's defaults.
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

MEDIAN = 31  # frames, and bins, of the medians that pick out the harmonic part


@dataclass(config=strict, frozen=True, kw_only=True)
class Config:
    """Sizes are in samples. parts: what a system takes of the frame, in this order: n_mfcc cepstral coefficients,
    12 pitch classes, n_mels mel powers, the contrast of 7 bands, 6 tonal centroids."""

    sample_rate: Positive
    n_fft: Positive
    hop_length: Positive
    n_mels: Positive
    n_mfcc: Positive
    parts: Annotated[list[Part], Field(min_length=1)] = field(default_factory=lambda: list(get_args(Part)))

    def __post_init__(self) -> None:
        check_contrast(self.sample_rate)


def columns(config: Config) -> np.ndarray:
    """Where the values of config.parts stand in the frames of `extract`, which have all parts."""
    sizes = {"mfcc": config.n_mfcc, "chroma": 12, "mel": config.n_mels, "contrast": OCTAVES + 1, "tonnetz": 6}
    found = places(sizes)
    return np.concatenate([found[part] for part in config.parts])


def extract(samples: np.ndarray, config: Config) -> np.ndarray:
    """Means of one utterance's features, as librosa's functions with their defaults give them.

    samples: (N,) float32 at config.sample_rate. Returns (1, n_mfcc + n_mels + 25) float32, all parts in the order of
    Part. For speed all come from one spectrum, the tonnetz from its harmonic part, and only chroma_stft and tonnetz are
    librosa's own; the others are librosa.feature's mfcc, melspectrogram and spectral_contrast. Raises UserError where
    N is below n_fft.
    """
    check_length(samples, config.n_fft, config.sample_rate)
    import librosa  # takes its time, and has numba compile, which needs a folder that it may write to

    rate, n_fft, hop_length = config.sample_rate, config.n_fft, config.hop_length
    spectrum = librosa.stft(samples, n_fft=n_fft, hop_length=hop_length)  # (bins, T)
    magnitude = np.abs(spectrum)
    power = (magnitude**2).T @ default_tables(rate, n_fft, config.n_mels)[1]
    # the transform is linear: that of the mean is the mean of the transforms
    mfcc = scipy.fft.dct(decibels(power).mean(0), norm="ortho")[: config.n_mfcc]
    with warnings.catch_warnings():
        # of silence, which has no tuning, and of speech shorter than the lowest tones' windows, which zeros fill up
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
    """The part of a spectrum (bins, T) that lasts, as librosa.decompose.hpss gives it, with quicker medians: each
    cell times its share of the medians along time and along frequency, squared."""
    import librosa

    magnitude, phase = librosa.magphase(spectrum)
    lasting, sudden = medians(magnitude), medians(magnitude.T).T
    return magnitude * librosa.util.softmask(lasting, sudden, power=2, split_zeros=True) * phase


def medians(rows: np.ndarray) -> np.ndarray:
    """Running median of MEDIAN values along each row of (N, T), mirrored at its ends.

    The rows are filtered as one, for which SciPy has a way that takes a tenth of the time of its two-dimensional one;
    the mirrored ends between two rows keep their medians separate.
    """
    half = MEDIAN // 2
    mirrored = np.pad(rows, ((0, 0), (half, half)), mode="symmetric")
    return scipy.ndimage.median_filter(mirrored.ravel(), MEDIAN).reshape(mirrored.shape)[:, half:-half]
