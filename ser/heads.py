"""The classifier on top of a pretrained encoder, whether this stays as it is or is trained with it."""

from typing import Literal

import torch
from torch import Tensor, nn

from ser.layers import Dropout, masked_mean, masked_softmax

Pooling = Literal["mean", "attention"]


class Head(nn.Module):
    """One learned weight a layer, a projection, pooling over time, and a linear layer (the emotion task of SUPERB, Yang
    et al. 2021, has mean pooling and no dropout).

    states (B, T, layers, width), lengths (B,) -> class scores (B, classes). pooling "attention": the weight of a frame
    is the softmax over time of a linear function of its projection (Mirsamadi et al. 2017, equation 11).
    """

    def __init__(
        self, n_layers: int, width: int, projection: int, pooling: Pooling, dropout: float, n_classes: int
    ) -> None:
        super().__init__()
        self.layer_scores = nn.Parameter(torch.zeros(n_layers))  # equal weights at the start
        self.projection = nn.Linear(width, projection)
        self.attention = nn.Linear(projection, 1) if pooling == "attention" else None
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(projection, n_classes)

    def layer_weights(self) -> Tensor:
        """The weight of each layer (layers,); they sum to 1."""
        return self.layer_scores.softmax(0)

    def frames(self, states: Tensor) -> Tensor:
        """States (B, T, layers, width) -> projected frames (B, T, projection)."""
        return self.projection(torch.einsum("btlw,l->btw", states, self.layer_weights()))

    def weights(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """The weight of each projected frame (B, T); padding gets 0."""
        if self.attention is None:
            return masked_softmax(frames.new_zeros(frames.shape[:2]), lengths)
        return masked_softmax(self.attention(frames)[:, :, 0], lengths)

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        if self.attention is None:  # all before the mean is linear, so it may come first, which is faster
            pooled = self.frames(masked_mean(states.flatten(2), lengths).view(len(states), 1, *states.shape[2:]))[:, 0]
        else:
            frames = self.frames(states)
            pooled = torch.einsum("bt,btp->bp", self.weights(frames, lengths), frames)
        return self.output(self.dropout(pooled))
