"""What several features share: frames of samples, decibels, differences from frame to frame, and the order of parts.

Where a function does what one of librosa's does, it is there for speed, and its docstring names librosa's.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from ser.cli import UserError

DIFFERENCE_REACH = 2  # frames on either side that a difference looks at
DELTA_WIDTH = 9  # frames
# least squares over nine frames: of a line its slope, of a parabola its second derivative
DELTA_WEIGHTS = {
    1: np.arange(-4, 5) / 60,
    2: np.array([28, 7, -8, -17, -20, -17, -8, 7, 28]) / 462,
}


def check_length(samples: np.ndarray, window: int, sample_rate: int) -> None:
    """Raise UserError where (N,) samples are fewer than a window has."""
    if len(samples) < window:
        raise UserError(f"too short: {len(samples)} samples at {sample_rate} Hz, and a window has {window}")


def check_window(win_length: int, n_fft: int) -> None:
    """Raise ValueError, for a Config, where a window is longer than its transform."""
    if win_length > n_fft:
        raise ValueError(f"win_length {win_length} should be at most n_fft, {n_fft}")


def all_samples(samples: np.ndarray, config: object) -> np.ndarray:
    """`heard` of a feature whose frames are of all samples (N,), frame t centred at sample t * hop_length."""
    return samples


def fix_length(samples: np.ndarray, length: int, pad: Literal["front", "end"]) -> np.ndarray:
    """Cut (N,) samples at the end, or fill them with zeros at the front or end, to `length`. As
    librosa.util.fix_length, which fills at the end alone."""
    missing = max(length - len(samples), 0)
    return np.pad(samples[:length], (missing, 0) if pad == "front" else (0, missing))


def frames(samples: np.ndarray, length: int, hop: int) -> np.ndarray:
    """Views (1 + N // hop, length) of (N,) samples, zeros beyond the ends: row t is centred at t * hop."""
    padded = np.pad(samples, (length - length // 2, length // 2))
    return np.lib.stride_tricks.sliding_window_view(padded, length)[::hop]


def librosa_frames(samples: np.ndarray, n_fft: int, hop: int, pad: Literal["constant", "edge"]) -> np.ndarray:
    """Views (T, n_fft) of (N,) samples as librosa.stft centres them: T = 1 + N // hop, for an even n_fft. pad: what
    stands beyond the ends, zeros or the end samples."""
    padded = np.pad(samples, n_fft // 2, mode=pad)
    return np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]


def crossing_rates(signals: np.ndarray) -> np.ndarray:
    """Of each of the frames (T, n), the share of samples whose sign is not that of the one before: (T,). As
    librosa.feature.zero_crossing_rate."""
    negative = signals < -1e-10  # librosa takes what is nearer to zero for zero
    return (negative[:, 1:] != negative[:, :-1]).sum(1) / signals.shape[1]


def decibels(power: np.ndarray, top_db: float | None = 80.0, of_loudest: bool = False) -> np.ndarray:
    """Decibels of 1, or of the loudest value; what is more than top_db below the loudest is raised to that, or, with
    None, nothing is. As librosa.power_to_db."""
    power = np.maximum(power, 1e-10)
    values = 10 * np.log10(power / power.max() if of_loudest else power)
    return values if top_db is None else np.maximum(values, values.max() - top_db)


def differences(static: np.ndarray) -> np.ndarray:
    """First differences (T, D) of (T, D): slopes of the lines through five frames, the end ones repeated
    beyond the ends (The HTK Book, section 5.9)."""
    reach = range(1, DIFFERENCE_REACH + 1)
    padded = np.pad(static, ((DIFFERENCE_REACH, DIFFERENCE_REACH), (0, 0)), mode="edge")
    middle = np.arange(len(static)) + DIFFERENCE_REACH
    total = sum(step * (padded[middle + step] - padded[middle - step]) for step in reach)
    return total / (2 * sum(step**2 for step in reach))


def derivative(values: np.ndarray, order: int) -> np.ndarray:
    """Derivatives (T, D) float32 of order 1 or 2, a frame or a frame squared, of the values (T, D) of frames.

    Slopes of the line, and the second derivative of the parabola, through nine frames, as librosa.feature.delta
    gives them by default. Raises UserError, as librosa an error, for fewer frames.
    """
    if len(values) < DELTA_WIDTH:
        raise UserError(f"too short: {len(values)} frames, and the MFCC's derivative takes {DELTA_WIDTH}")
    inner = len(values) - DELTA_WIDTH + 1
    wide = values.astype(np.float64)  # as librosa, or rounding would show in the derivatives of large values
    middle = sum(weight * wide[place : place + inner] for place, weight in enumerate(DELTA_WEIGHTS[order]))
    # the nine frames at either end have one line or parabola, which has the same derivative at all of them
    nearest = np.clip(np.arange(len(values)) - DELTA_WIDTH // 2, 0, inner - 1)
    return middle[nearest].astype(np.float32)


def places(sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Where the values of each part of a frame stand, of parts of these sizes one after the other."""
    ends = np.cumsum(list(sizes.values()))
    return {part: np.arange(end - size, end) for (part, size), end in zip(sizes.items(), ends, strict=True)}
