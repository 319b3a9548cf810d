"""Functionals: statistics of each value over an utterance's frames, for networks and for SVMs.

mean, deviation, min, max, range (max - min), skewness and kurtosis (of the population; a normal
distribution has kurtosis 0); argmin and argmax: position of the extremum, from 0 at the first frame to 1
at the last; slope and offset: of the regression line over the same 0 to 1.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ser.layers import mask, masked_mean

Name = Literal[
    "mean", "deviation", "min", "max", "range", "skewness", "kurtosis", "argmin", "argmax", "slope", "offset"
]
LEAST = 1e-10  # variance: a constant has no skewness, and the gradient of the square root is infinite at 0


def pool(frames: Tensor, lengths: Tensor, names: Sequence[Name]) -> Tensor:
    """Frames (B, T, D), lengths (B,) -> (B, F * D): all values of the first functional, then of the second...

    Frames beyond the length of an utterance are ignored.
    """
    asked = set(names)
    outside = ~mask(lengths, frames.shape[1])[:, :, None]
    count = lengths[:, None]
    first = frames[:, :1].detach()
    # exactly 0 for constant values; otherwise the rounding of the mean would have a skewness
    change = (frames - first).masked_fill(outside, 0)
    mean = change.sum(1) / count
    found = {"mean": first[:, 0] + mean}
    if asked & {"deviation", "skewness", "kurtosis", "slope", "offset"}:
        centred = (change - mean[:, None]).masked_fill(outside, 0)
    if asked & {"deviation", "skewness", "kurtosis"}:
        square = centred * centred  # faster than torch.pow
        variance = (square.sum(1) / count).clamp(min=LEAST)
        found["deviation"] = variance.sqrt()
    if "skewness" in asked:
        found["skewness"] = (square * centred).sum(1) / count / variance**1.5
    if "kurtosis" in asked:
        found["kurtosis"] = (square * square).sum(1) / count / variance**2 - 3
    last = (count - 1).clamp(min=1)
    if asked & {"min", "range", "argmin"}:
        found["min"], place = frames.masked_fill(outside, torch.inf).min(1)
        found["argmin"] = place / last
    if asked & {"max", "range", "argmax"}:
        found["max"], place = frames.masked_fill(outside, -torch.inf).max(1)
        found["argmax"] = place / last
    if "range" in asked:
        found["range"] = found["max"] - found["min"]
    if asked & {"slope", "offset"}:
        times = torch.arange(frames.shape[1], device=frames.device) / last  # (B, T)
        middle = masked_mean(times[:, :, None], lengths)
        away = (times[:, :, None] - middle[:, None]).masked_fill(outside, 0)
        found["slope"] = (away * centred).sum(1) / (away * away).sum(1).clamp(min=LEAST)
        found["offset"] = found["mean"] - found["slope"] * middle
    return torch.cat([found[name] for name in names], 1)


def pool_each(maps: Tensor, lengths: Tensor, names: Sequence[Name]) -> Tensor:
    """Like `pool`, in float32 and one utterance at a time: its data stays in the processor's cache, and padding is not
    read, which halves the time of a training step of the network in peng.py."""
    rows = zip(maps.unbind(0), lengths.split(1), strict=True)
    return torch.cat([pool(of_one[None, : int(length)].float(), length, names) for of_one, length in rows])
