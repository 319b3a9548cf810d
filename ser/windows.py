"""Windows of utterances: the frames, possibly overlapping, that each step of a network reads."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ser.layers import mask


def cut(frames: Tensor, lengths: Tensor, window: int, hop: int) -> tuple[Tensor, Tensor]:
    """Cut utterances into windows: (B, T, D), (B,) -> (B, W, window, D) and the number of windows (B,).

    Frames after the last whole window are dropped, as in the code of Sherman et al.; an utterance shorter
    than one window gets one padded window.
    """
    n_windows = (lengths - window).clamp(min=0) // hop + 1
    size = window + hop * (int(n_windows.max()) - 1)
    frames = frames.masked_fill(~mask(lengths, frames.shape[1])[:, :, None], 0)
    frames = F.pad(frames[:, :size], (0, 0, 0, max(size - frames.shape[1], 0)))
    return frames.unfold(1, window, hop).transpose(2, 3), n_windows


def of_frames(weights: Tensor, lengths: Tensor, window: int, hop: int, n_frames: int) -> Tensor:
    """Weights of windows (B, W) -> weights of frames (B, n_frames), 0 at padding.

    The weight of a window is spread evenly over its frames, and a frame sums its share of each window that
    it is in: with 50 % overlap, two in the middle and one at the ends; none after the last whole window.
    """
    starts = hop * torch.arange(weights.shape[1], device=weights.device)
    real = (lengths[:, None] - starts).clamp(1, window)  # the window of a short utterance is padded
    shares = (weights / real).repeat_interleave(window, 1)
    places = (starts[:, None] + torch.arange(window, device=weights.device)).flatten()
    summed = shares.new_zeros(len(weights), max(n_frames, int(places[-1]) + 1))
    return summed.index_add(1, places, shares)[:, :n_frames].masked_fill(~mask(lengths, n_frames), 0)
