"""Segments of utterances, concatenated for convolution instead of padded to one length."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ser.layers import mask


class Segments:
    """The S segments of B utterances, and their positions in a strip, in which they are concatenated with gaps.

    Convolving a padded batch wastes work on the padding; the strip avoids this. A step is a position after pooling by
    `pool` frames. utt (S,): index of the utterance of each segment. first (B,): index of the first segment of each
    utterance. size (S,): length in frames. steps (S,): length in steps. start (S,): first step in the strip.
    share (S,): of the frames of the utterance. n_steps: length of the strip.
    """

    def __init__(self, lengths: Tensor, segment: int, pool: int, gap: int) -> None:
        """Cut utterances of lengths (B,), in frames, into segments of `segment` frames; the last may be shorter.
        gap: number of zero steps after each, at least the reach of a convolution."""
        self.lengths, self.segment, self.pool = lengths, segment, pool
        n_segments = -(-lengths // segment)
        self.utt = torch.arange(len(lengths), device=lengths.device).repeat_interleave(n_segments)
        self.first = n_segments.cumsum(0) - n_segments
        number = torch.arange(len(self.utt), device=lengths.device) - self.first[self.utt]
        self.size = (lengths[self.utt] - segment * number).clamp(max=segment)
        self.steps = -(-self.size // pool)
        self.start = (self.steps + gap).cumsum(0) - (self.steps + gap)
        self.share = self.size / lengths[self.utt]
        self.n_steps = int(self.start[-1] + self.steps[-1] + gap)

    def lay(self, frames: Tensor) -> Tensor:
        """Copy the frames (B, T, D) of the utterances into the strip (pool * n_steps, D), with zeros in the gaps."""
        time = torch.arange(frames.shape[1], device=frames.device)
        inside = mask(self.lengths, frames.shape[1])
        number = (self.first[:, None] + time // self.segment)[inside]
        strip = frames.new_zeros(self.pool * self.n_steps, frames.shape[2])
        strip[self.pool * self.start[number] + (time % self.segment).expand_as(inside)[inside]] = frames[inside]
        return strip

    def between(self) -> Tensor:
        """Indices of the steps of the strip that are in the gaps."""
        places = self._places()
        free = torch.ones(self.n_steps, dtype=torch.bool, device=places.device)
        free[places[mask(self.steps, places.shape[1])]] = False
        return free.nonzero()[:, 0]

    def pick(self, rows: Tensor) -> Tensor:
        """The steps of the strip (n_steps, D) -> those of each segment (S, steps, D); values after the end of a
        segment are meaningless."""
        return rows[self._places().clamp(max=self.n_steps - 1)]

    def mean(self, vectors: Tensor) -> Tensor:
        """Mean (B, D) of the vectors (S, D) of each utterance's segments, weighted by length."""
        sums = vectors.new_zeros(len(self.first), vectors.shape[1])
        return sums.index_add(0, self.utt, vectors * self.share[:, None])

    def of_frames(self, weights: Tensor, n_frames: int) -> Tensor:
        """Weights of steps (S, steps) -> weights of frames (B, n_frames), 0 at padding.

        Segments are weighted by length, and the weight of a step is divided by `pool`; if the last step has fewer
        frames, the rest of its weight belongs to the zeros that it is pooled with.
        """
        time = torch.arange(n_frames, device=weights.device).expand(len(self.first), n_frames)
        segment = self.first[:, None] + time // self.segment
        segment = segment.clamp(max=len(self.size) - 1)  # for padding, which is masked below
        step = time % self.segment // self.pool
        share = self.share[segment] / self.pool
        inside = mask(self.lengths, n_frames)
        return (weights[segment, step.clamp(max=weights.shape[1] - 1)] * share).masked_fill(~inside, 0)

    def _places(self) -> Tensor:
        """Position in the strip (S, steps) of each step of the segments."""
        return self.start[:, None] + torch.arange(int(self.steps.max()), device=self.start.device)


class Activation(torch.autograd.Function):
    """Leaky ReLU of maps (1, C, steps, bands), in place, which also zeroes the steps `between`. torch's
    masked_fill would change the memory format of channels-last maps and of their gradients. slope: below 0."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, between: Tensor, slope: float) -> Tensor:
        F.leaky_relu(maps, slope, inplace=True).index_fill_(2, between, 0)
        ctx.mark_dirty(maps)
        ctx.save_for_backward(maps, between)
        ctx.slope = slope
        return maps

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        maps, between = ctx.saved_tensors
        gradient = torch.ops.aten.leaky_relu_backward(gradient, maps, ctx.slope, True)  # faster than torch.where
        return gradient.index_fill_(2, between, 0), None, None
