"""Yang et al. 2021, "SUPERB: Speech processing universal performance benchmark", emotion recognition: a small network
on the states of an encoder that stays as it is.

The network learns one weight a layer, projects each frame, takes the mean over time, and has a linear layer. Attention
over time and dropout are not in the paper. A feature that is no encoder's counts as one layer.
"""

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ser.heads import Head, Pooling
from ser.settings import Positive, Share, strict


@dataclass(config=strict, frozen=True, kw_only=True)
class Config:
    """projection: values of a projected frame. pooling: over time. dropout: before the last layer."""

    projection: Positive = 256
    pooling: Pooling = "mean"
    dropout: Share = 0.0

    @property
    def extras(self) -> tuple[str, ...]:
        return ("layers",)


class Network(nn.Module):
    """frames (B, T, layers * D), all values of the first layer first, lengths (B,) -> class scores (B, classes), and no
    penalty."""

    def __init__(self, config: Config, n_features: int, n_classes: int, n_layers: int) -> None:
        super().__init__()
        self.config, self.n_layers = config, n_layers
        self.head = Head(n_layers, n_features // n_layers, config.projection, config.pooling, config.dropout, n_classes)

    @property
    def output(self) -> nn.Module:
        """The last layer, for ser.draw_run."""
        return self.head.output

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(self.states(frames), lengths), frames.new_zeros(())

    def states(self, frames: Tensor) -> Tensor:
        """Frames (B, T, layers * D) -> the states of each layer (B, T, layers, D)."""
        return frames.unflatten(2, (self.n_layers, -1))

    def frame_weights(self, frames: Tensor, lengths: Tensor, even: bool = False) -> dict[str, Tensor]:
        """The attention's weight (B, T) of each frame; even: the weights if all frames were equal."""
        if self.config.pooling == "mean":
            return {}
        projected = self.head.frames(self.states(frames))
        return {"attention": self.head.weights(torch.zeros_like(projected) if even else projected, lengths)}
