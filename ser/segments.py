"""Segments of utterances, which are convolved one behind the other instead of padded to one length."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ser.layers import mask


class Segments:
    """The S segments of B utterances, and where they lie in a strip in which all stand one behind the other.

    A convolution of a padded batch works on the padding too, which is what the strip saves. Steps are those of maps
    after a pooling of `pool` frames. utt (S,): whose each segment is. first (B,): which is an utterance's first.
    size (S,): frames. steps (S,): of the pooled maps. start (S,): the step of the strip at which each begins.
    share (S,): of its utterance's frames. n_steps: of the strip.
    """

    def __init__(self, lengths: Tensor, segment: int, pool: int, gap: int) -> None:
        """Cut utterances of these numbers (B,) of frames into segments of `segment`; the last is what is left.
        gap: zero steps behind each, as many as a convolution sees beyond a step."""
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
        """Lay the utterances' own frames (B, T, D) into the strip (pool * n_steps, D), zero between the segments."""
        time = torch.arange(frames.shape[1], device=frames.device)
        inside = mask(self.lengths, frames.shape[1])
        number = (self.first[:, None] + time // self.segment)[inside]
        strip = frames.new_zeros(self.pool * self.n_steps, frames.shape[2])
        strip[self.pool * self.start[number] + (time % self.segment).expand_as(inside)[inside]] = frames[inside]
        return strip

    def between(self) -> Tensor:
        """Numbers of the strip's steps that no segment has."""
        places = self._places()
        free = torch.ones(self.n_steps, dtype=torch.bool, device=places.device)
        free[places[mask(self.steps, places.shape[1])]] = False
        return free.nonzero()[:, 0]

    def pick(self, rows: Tensor) -> Tensor:
        """The steps of the strip (n_steps, D) -> of each segment (S, steps, D); what stands behind a segment's own
        means nothing."""
        return rows[self._places().clamp(max=self.n_steps - 1)]

    def mean(self, vectors: Tensor) -> Tensor:
        """Mean (B, D) of the vectors (S, D) of each utterance's segments, by their length."""
        sums = vectors.new_zeros(len(self.first), vectors.shape[1])
        return sums.index_add(0, self.utt, vectors * self.share[:, None])

    def of_frames(self, weights: Tensor, n_frames: int) -> Tensor:
        """Weights of the segments' steps (S, steps) -> of frames (B, n_frames), 0 at padding.

        A segment's weights count by its length, and a step's is divided by its `pool` frames; what an odd last step
        lacks of them belongs to the zeros that it is pooled with.
        """
        time = torch.arange(n_frames, device=weights.device).expand(len(self.first), n_frames)
        segment = self.first[:, None] + time // self.segment
        segment = segment.clamp(max=len(self.size) - 1)  # of padding, which is masked below
        step = time % self.segment // self.pool
        share = self.share[segment] / self.pool
        inside = mask(self.lengths, n_frames)
        return (weights[segment, step.clamp(max=weights.shape[1] - 1)] * share).masked_fill(~inside, 0)

    def _places(self) -> Tensor:
        """Steps of the strip (S, steps) at which the segments' stand."""
        return self.start[:, None] + torch.arange(int(self.steps.max()), device=self.start.device)


class Activation(torch.autograd.Function):
    """Leaky ReLU of maps (1, C, steps, bands), in place, and zeros in the steps `between`. torch's masked_fill
    would turn maps whose channels come last, and their gradients, round in memory. slope: below 0."""

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
        gradient = torch.ops.aten.leaky_relu_backward(gradient, maps, ctx.slope, True)  # quicker than torch.where
        return gradient.index_fill_(2, between, 0), None, None
