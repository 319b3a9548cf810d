"""Emotion descriptors: F0, voicing, energy, zero crossings, 12 MFCC, and their first differences.

The 32 values per frame of Mirsamadi 2017, section 3, which lists them without details. MFCC and differences are
computed as in HTK and openSMILE's emobase. F0 is Boersma's ("Accurate short-term analysis of the fundamental
frequency and the harmonics-to-noise ratio of a sampled sound", Proceedings of the Institute of Phonetic
Sciences 17, 1993, 97-110), as in Praat. tests/benchmarks/f0.py and lld.py compare.
"""

from functools import lru_cache
from typing import Annotated

import numpy as np
import scipy.fft
import scipy.signal
from pydantic import Field
from pydantic.dataclasses import dataclass

from ser.dsp import all_samples, check_length, check_window, differences, frames
from ser.settings import Positive, PositiveFloat, strict

PRE_EMPHASIS = 0.97
LIFTER = 22
MEL_FLOOR = 1 / 32767**2  # HTK's floor of 1 for the power of a band, which assumes 16-bit integer samples
# Boersma's settings, with Praat's defaults
PERIODS = 3  # of f0_min, in a window
SILENCE = 0.03  # a frame below this share of the recording's peak counts as silent
OCTAVE_COST = 0.01  # of a candidate, per octave below f0_max
OCTAVE_JUMP_COST = 0.35  # per octave up or down from one frame to the next, 10 ms later
VOICING_COST = 0.14  # of a change between voiced and unvoiced
CANDIDATES = 15  # voiced candidates per frame, at most
OVERSAMPLING = 2  # of the autocorrelation
BLOCK = 256  # frames processed at a time, few enough for the processor's cache


@dataclass(config=strict, frozen=True, kw_only=True)
class Config:
    """Sizes are in samples, F0 in Hz. voicing_threshold: normalised autocorrelation below which a frame
    is unvoiced, unless its neighbours make voiced more likely."""

    sample_rate: Positive
    win_length: Positive
    hop_length: Positive
    n_fft: Positive
    n_mfcc: Positive = 12
    n_mels: Positive = 26
    f0_min: PositiveFloat = 75.0
    f0_max: PositiveFloat = 600.0
    voicing_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.45

    def __post_init__(self) -> None:
        check_window(self.win_length, self.n_fft)
        if self.n_mfcc >= self.n_mels:
            raise ValueError(f"n_mfcc {self.n_mfcc} must be below n_mels, {self.n_mels}")
        if not self.f0_min < self.f0_max <= self.sample_rate / 4:
            raise ValueError(
                f"f0_min {self.f0_min:g}, f0_max {self.f0_max:g}: must be f0_min < f0_max <= sample_rate / 4"
            )


heard = all_samples


def extract(samples: np.ndarray, config: Config) -> np.ndarray:
    """Descriptors of one utterance.

    samples: (N,) float32 at config.sample_rate, full scale +-1; a constant offset is removed first.
    Returns (T, 2 (4 + n_mfcc)) float32, T = 1 + N // hop_length: frame t is centred at sample
    t * hop_length, and the signal is zero-padded at both ends. Columns: F0 in Hz, 0 where unvoiced; voicing
    probability, 0 to 1; root mean square; zero crossings per sample; MFCC 1 to n_mfcc; then the first
    difference of each, per frame. Raises UserError if N is below win_length.
    """
    check_length(samples, config.win_length, config.sample_rate)
    samples = samples - samples.mean()
    f0, voicing = pitch(samples, config)
    energy, crossings = root_mean_square(samples, config), zero_crossing_rate(samples, config)
    static = np.column_stack([f0, voicing, energy, crossings, mfcc(samples, config)])
    return np.hstack([static, differences(static)]).astype(np.float32)


def root_mean_square(samples: np.ndarray, config: Config) -> np.ndarray:
    """Root mean square (T,) of each window of (N,) samples."""
    windows = frames(samples, config.win_length, config.hop_length)
    return np.sqrt(np.einsum("tn,tn->t", windows, windows) / config.win_length)


def zero_crossing_rate(samples: np.ndarray, config: Config) -> np.ndarray:
    """Share (T,) of the samples in each window whose sign differs from that of the sample before."""
    padded = np.pad(samples < 0, (config.win_length - config.win_length // 2, config.win_length // 2))
    changes = np.concatenate([[0], np.cumsum(padded[1:] != padded[:-1])])
    starts = np.arange(0, len(samples) + 1, config.hop_length)
    return (changes[starts + config.win_length - 1] - changes[starts]) / config.win_length


def mfcc(samples: np.ndarray, config: Config) -> np.ndarray:
    """Mel-frequency cepstral coefficients 1 to n_mfcc (T, n_mfcc) of (N,) samples.

    As in HTK (The HTK Book, chapter 5): pre-emphasis within the window, Hamming window, power in triangular
    mel bands from 0 to half the sampling rate, log, cosine transform, liftering.
    """
    emphasised = np.append(samples, np.float32(0))
    emphasised[1:] -= PRE_EMPHASIS * samples
    windows = frames(emphasised, config.win_length, config.hop_length)
    # the first sample of a window is emphasised as if an equal one preceded it
    firsts = (1 - PRE_EMPHASIS) * frames(samples, config.win_length, config.hop_length)[:, 0]
    hamming, mel, cosines = mfcc_tables(config)
    bands = np.empty((len(firsts), config.n_mels), np.float32)
    for start in range(0, len(firsts), BLOCK):
        block = windows[start : min(start + BLOCK, len(firsts))] * hamming
        block[:, 0] = firsts[start : start + BLOCK] * hamming[0]
        spectrum = scipy.fft.rfft(block, config.n_fft, axis=1)
        bands[start : start + BLOCK] = (spectrum.real**2 + spectrum.imag**2) @ mel
    return np.log(np.maximum(bands / MEL_FLOOR, 1)) @ cosines


@lru_cache
def mfcc_tables(config: Config) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Window (win_length,), mel filterbank (n_fft // 2 + 1, n_mels), and cosine transform and lifter
    (n_mels, n_mfcc), float32."""
    hertz = np.arange(config.n_fft // 2 + 1)[:, None] * config.sample_rate / config.n_fft
    mel = 1127 * np.log(1 + hertz / 700)
    corners = np.linspace(0, 1127 * np.log(1 + config.sample_rate / 1400), config.n_mels + 2)
    left, peak, right = corners[:-2], corners[1:-1], corners[2:]
    bands = np.maximum(0, np.minimum((mel - left) / (peak - left), (right - mel) / (right - peak)))

    order, band = np.arange(1, config.n_mfcc + 1), np.arange(config.n_mels)[:, None] + 0.5
    cosines = np.sqrt(2 / config.n_mels) * np.cos(np.pi * order * band / config.n_mels)
    lifter = 1 + LIFTER / 2 * np.sin(np.pi * order / LIFTER)
    hamming = np.hamming(config.win_length)
    return hamming.astype(np.float32), bands.astype(np.float32), (cosines * lifter).astype(np.float32)


def pitch(samples: np.ndarray, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """F0 in Hz (T,), 0 where unvoiced, and voicing probability (T,) of (N,) samples without offset.

    The voicing probability is the highest maximum of the frame's normalised autocorrelation at lags from
    1 / f0_max to 1 / f0_min: 1 for a perfectly periodic frame, 0 if there is no maximum. F0 follows the
    cheapest path through these maxima; each frame may also be unvoiced.
    """
    frequency, strength, loudness = candidates(samples, config)
    score = strength + OCTAVE_COST * np.log2(np.maximum(frequency, config.f0_min) / config.f0_max)
    threshold = config.voicing_threshold
    score[:, 0] = threshold + np.maximum(0, 2 - (1 + threshold) * loudness / SILENCE)
    path = best_path(score, frequency, config.hop_length / config.sample_rate)
    return frequency[np.arange(len(path)), path], strength.max(1)


def candidates(samples: np.ndarray, config: Config) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The maxima of each frame's normalised autocorrelation, best first.

    Returns their frequencies in Hz and their strengths (T, 1 + K), K at most CANDIDATES, and the peak of
    each frame (T,) as a share of the recording's. Column 0 stands for unvoiced: 0 Hz, strength 0. Frames
    with fewer maxima than others are filled up with 0 Hz and strength -inf.
    """
    rate = OVERSAMPLING * config.sample_rate
    length = round(PERIODS * config.sample_rate / config.f0_min)
    period = int(config.sample_rate / config.f0_min)
    lags = np.arange(int(rate / config.f0_max) - 1, int(rate / config.f0_min) + 3)
    n_fft = scipy.fft.next_fast_len(length + period + 2, real=True)
    window, expected = pitch_tables(length, int(lags[0]), int(lags[-1]))
    around = slice(length // 2 - period, length // 2 + period)
    near = slice(length // 2 - period // 2, length // 2 + period // 2)

    windows = frames(samples, length, config.hop_length)
    peak = max(float(np.abs(samples).max()), 1e-20)
    loudness = np.empty(len(windows), np.float32)
    frequency = np.zeros((len(windows), 1 + CANDIDATES), np.float32)
    strength = np.full((len(windows), 1 + CANDIDATES), -np.inf, np.float32)
    strength[:, 0] = 0
    most = 0
    for start in range(0, len(windows), BLOCK):
        block = windows[start : start + BLOCK] / peak
        block -= block[:, around].mean(1, keepdims=True)
        block *= window
        loudness[start : start + BLOCK] = np.abs(block[:, near]).max(1)
        spectrum = scipy.fft.rfft(block, n_fft, axis=1)
        # an inverse transform with more points interpolates
        both = scipy.fft.irfft(spectrum.real**2 + spectrum.imag**2, OVERSAMPLING * n_fft, axis=1)
        energy = np.maximum(both[:, :1], 1e-10)  # 110 dB below the recording's peak: rounding, not signal
        row, hertz, height = maxima(both[:, lags[0] : lags[-1] + 1] / (energy * expected), lags, config)
        best_first = np.lexsort((-height - OCTAVE_COST * np.log2(hertz), row))
        row, hertz, height = row[best_first], hertz[best_first], height[best_first]
        place = 1 + np.arange(len(row)) - np.searchsorted(row, row)
        kept = place <= CANDIDATES
        frequency[start + row[kept], place[kept]] = hertz[kept]
        strength[start + row[kept], place[kept]] = height[kept]
        most = max(most, place[kept].max(initial=0))
    return frequency[:, : 1 + most], strength[:, : 1 + most], loudness


def maxima(correlation: np.ndarray, lags: np.ndarray, config: Config) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, frequency in Hz and height of each maximum in (T, L) autocorrelations at (L,) oversampled lags.

    Maxima are interpolated by a parabola; those below half the voicing threshold could not win and are left out.
    """
    here = correlation[:, 1:-1]
    is_maximum = (here > correlation[:, :-2]) & (here >= correlation[:, 2:])
    row, column = np.nonzero(is_maximum & (here > config.voicing_threshold / 2))
    left, here, right = (correlation[row, column + shift] for shift in (0, 1, 2))
    shift = (right - left) / (2 * (2 * here - left - right))
    height = here + (right - left) * shift / 4
    hertz = OVERSAMPLING * config.sample_rate / (lags[column + 1] + shift)
    inside = (hertz >= config.f0_min) & (hertz <= config.f0_max)
    row, hertz, height = row[inside], hertz[inside], height[inside]
    return row, hertz, np.where(height > 1, 1 / height, height)


@lru_cache
def pitch_tables(length: int, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Hann window (length,) and its normalised autocorrelation (Boersma's equation) at the oversampled lags first
    to last, float32. The autocorrelation of a windowed periodic signal is divided by it to give 1."""
    share = np.arange(first, last + 1) / OVERSAMPLING / length
    turn = 2 * np.pi * share
    expected = (1 - share) * (2 / 3 + np.cos(turn) / 3) + np.sin(turn) / (2 * np.pi)
    return scipy.signal.get_window("hann", length).astype(np.float32), expected.astype(np.float32)


def best_path(score: np.ndarray, frequency: np.ndarray, step: float) -> np.ndarray:
    """Columns (T,) of the path with the highest sum of scores minus transition costs (Viterbi).

    score, frequency: (T, K), 0 Hz for unvoiced; step: seconds between frames.
    """
    voiced = frequency > 0
    octave = np.log2(np.where(voiced, frequency, 1))
    total = score[0].astype(np.float64)
    came_from = np.zeros(score.shape, np.intp)
    columns = np.arange(score.shape[1])
    for start in range(1, len(score), BLOCK):
        now = slice(start, min(start + BLOCK, len(score)))
        before = slice(now.start - 1, now.stop - 1)
        jump = OCTAVE_JUMP_COST * np.abs(octave[now, :, None] - octave[before, None, :])
        change = VOICING_COST * (voiced[now, :, None] != voiced[before, None, :])
        cost = 0.01 / step * np.where(voiced[now, :, None] & voiced[before, None, :], jump, change)
        for frame in range(now.start, now.stop):
            reached = total - cost[frame - start]
            came_from[frame] = best = reached.argmax(1)
            total = reached[columns, best] + score[frame]
    path = np.empty(len(score), np.intp)
    path[-1] = total.argmax()
    for frame in range(len(score) - 1, 0, -1):
        path[frame - 1] = came_from[frame, path[frame]]
    return path
