"""Functionals: statistics of each value over an utterance's frames, for networks and for SVMs.

mean, deviation, min, max, range (max - min), skewness and kurtosis (of the population; a normal
distribution has kurtosis 0); argmin and argmax: where the extremum stands, 0 at the first frame and 1 at
the last; slope and offset: of the regression line over the same 0 to 1.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ser.layers import mask, masked_mean

Name = Literal[
    "mean", "deviation", "min", "max", "range", "skewness", "kurtosis", "argmin", "argmax", "slope", "offset"
]
LEAST = 1e-10  # variance: what never changes has no skewness, and a root's gradient no end at 0


def pool(frames: Tensor, lengths: Tensor, names: Sequence[Name]) -> Tensor:
    """Frames (B, T, D), lengths (B,) -> (B, F * D): all values of the first functional, then of the second...

    Frames beyond an utterance's length take no part.
    """
    inside = mask(lengths, frames.shape[1])[:, :, None]
    first = frames[:, :1].detach()
    change = frames - first  # zeros where nothing changes; the rounding of a mean would have a skewness
    mean = masked_mean(change, lengths)[:, None]
    centred = (change - mean).masked_fill(~inside, 0)
    mean = (first + mean)[:, 0]
    variance = masked_mean(centred**2, lengths).clamp(min=LEAST)
    low = frames.masked_fill(~inside, torch.inf).min(1)
    high = frames.masked_fill(~inside, -torch.inf).max(1)
    last = (lengths[:, None] - 1).clamp(min=1)
    found = {"mean": mean, "deviation": variance.sqrt(), "min": low.values, "max": high.values}
    found["range"] = high.values - low.values
    if "skewness" in names:
        found["skewness"] = masked_mean(centred**3, lengths) / variance**1.5
    if "kurtosis" in names:
        found["kurtosis"] = masked_mean(centred**4, lengths) / variance**2 - 3
    found["argmin"], found["argmax"] = low.indices / last, high.indices / last
    if {"slope", "offset"} & set(names):
        times = torch.arange(frames.shape[1], device=frames.device) / last  # (B, T)
        middle = masked_mean(times[:, :, None], lengths)
        away = (times[:, :, None] - middle[:, None]).masked_fill(~inside, 0)
        found["slope"] = (away * centred).sum(1) / (away**2).sum(1).clamp(min=LEAST)
        found["offset"] = mean - found["slope"] * middle
    return torch.cat([found[name] for name in names], 1)
