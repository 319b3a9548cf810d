"""Code shared by several features: framing, decibels, differences between frames, and the order of parts.

Functions that re-implement one of librosa do so for speed, and name it in their docstring.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from ser.cli import UserError

DIFFERENCE_REACH = 2  # frames on either side used for a difference
DELTA_WIDTH = 9  # frames
# least squares over nine frames: slope of a line, and second derivative of a parabola
DELTA_WEIGHTS = {
    1: np.arange(-4, 5) / 60,
    2: np.array([28, 7, -8, -17, -20, -17, -8, 7, 28]) / 462,
}


def check_length(samples: np.ndarray, window: int, sample_rate: int) -> None:
    """Raise UserError if the samples (N,) are fewer than a window."""
    if len(samples) < window:
        raise UserError(f"too short: {len(samples)} samples at {sample_rate} Hz, but a window needs {window}")


def check_window(win_length: int, n_fft: int) -> None:
    """Raise ValueError, for a Config, if the window is longer than the transform."""
    if win_length > n_fft:
        raise ValueError(f"win_length {win_length} must be at most n_fft, {n_fft}")


def all_samples(samples: np.ndarray, config: object) -> np.ndarray:
    """`heard` of a feature whose frames cover all samples (N,), with frame t centred at sample t * hop_length."""
    return samples


def fix_length(samples: np.ndarray, length: int, pad: Literal["front", "end"]) -> np.ndarray:
    """Cut (N,) samples at the end, or pad them with zeros at the front or end, to `length`. As
    librosa.util.fix_length, which pads only at the end."""
    missing = max(length - len(samples), 0)
    return np.pad(samples[:length], (missing, 0) if pad == "front" else (0, missing))


def frames(samples: np.ndarray, length: int, hop: int) -> np.ndarray:
    """Views (1 + N // hop, length) of (N,) samples, zero-padded at both ends: row t is centred at t * hop."""
    padded = np.pad(samples, (length - length // 2, length // 2))
    return np.lib.stride_tricks.sliding_window_view(padded, length)[::hop]


def librosa_frames(samples: np.ndarray, n_fft: int, hop: int, pad: Literal["constant", "edge"]) -> np.ndarray:
    """Views (T, n_fft) of (N,) samples as librosa.stft centres them: T = 1 + N // hop, for even n_fft. pad: with
    zeros, or with the first and last sample."""
    padded = np.pad(samples, n_fft // 2, mode=pad)
    return np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]


def crossing_rates(signals: np.ndarray) -> np.ndarray:
    """Share (T,) of the samples in each frame (T, n) whose sign differs from that of the sample before. As
    librosa.feature.zero_crossing_rate."""
    negative = signals < -1e-10  # librosa treats smaller values as zero
    return (negative[:, 1:] != negative[:, :-1]).sum(1) / signals.shape[1]


def decibels(power: np.ndarray, top_db: float | None = 80.0, of_loudest: bool = False) -> np.ndarray:
    """Decibels relative to 1 or to the loudest value, clipped at top_db below the loudest (None: not clipped). As
    librosa.power_to_db."""
    power = np.maximum(power, 1e-10)
    values = 10 * np.log10(power / power.max() if of_loudest else power)
    return values if top_db is None else np.maximum(values, values.max() - top_db)


def differences(static: np.ndarray) -> np.ndarray:
    """First differences (T, D) of (T, D): slopes of regression lines through five frames, with the first and last
    frame repeated beyond the ends (The HTK Book, section 5.9)."""
    reach = range(1, DIFFERENCE_REACH + 1)
    padded = np.pad(static, ((DIFFERENCE_REACH, DIFFERENCE_REACH), (0, 0)), mode="edge")
    middle = np.arange(len(static)) + DIFFERENCE_REACH
    total = sum(step * (padded[middle + step] - padded[middle - step]) for step in reach)
    return total / (2 * sum(step**2 for step in reach))


def derivative(values: np.ndarray, order: int) -> np.ndarray:
    """Derivatives (T, D) float32 of order 1 or 2, per frame or per frame squared, of values (T, D).

    The slope of a line, or the second derivative of a parabola, fitted to nine frames. As librosa.feature.delta by
    default. Raises UserError for fewer frames, for which librosa raises an error, too.
    """
    if len(values) < DELTA_WIDTH:
        raise UserError(f"too short: {len(values)} frames, but the derivative of the MFCC needs {DELTA_WIDTH}")
    inner = len(values) - DELTA_WIDTH + 1
    wide = values.astype(np.float64)  # as in librosa; otherwise rounding affects the derivatives of large values
    middle = sum(weight * wide[place : place + inner] for place, weight in enumerate(DELTA_WEIGHTS[order]))
    # the fit to the first or last nine frames gives the derivative of the four frames at that end, too
    nearest = np.clip(np.arange(len(values)) - DELTA_WIDTH // 2, 0, inner - 1)
    return middle[nearest].astype(np.float32)


def places(sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Indices of the values of each part of a frame, for consecutive parts of these sizes."""
    ends = np.cumsum(list(sizes.values()))
    return {part: np.arange(end - size, end) for (part, size), end in zip(sizes.items(), ends, strict=True)}
