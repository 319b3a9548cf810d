"""Mirsamadi, Barsoum and Zhang 2017, "Automatic speech emotion recognition using recurrent neural networks
with local attention": dense layers, a BLSTM, and several ways of pooling frames (Fig. 1).

The DNN of Table 2 has no BLSTM and pools by fixed functionals (Fig. 1 a). Of the RNNs of Table 3, those on
raw spectra have dense layers and a BLSTM; those on descriptors have only the BLSTM, since the dense layers are
meant to learn descriptors.
"""

from dataclasses import field
from itertools import pairwise
from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ser.functionals import Name, pool
from ser.layers import Dropout, keras_init, masked_softmax
from ser.recurrent import BLSTM
from ser.settings import Positive, Share, strict


@dataclass(config=strict, frozen=True, kw_only=True)
class Config:
    """dense_sizes: of the ReLU layers, in order. hidden_size: of one direction of the BLSTM; null: no BLSTM.

    pooling: "frames": each frame is scored and trained on (section 2.1, Fig. 1 b); "final": the last state of
    each direction (2.2, c); "attention": the weighted mean of section 2.4 (e); "functionals": the functionals
    below, of each value over time (a; "mean" alone: 2.3, d).
    """

    dense_sizes: list[Positive]
    hidden_size: Positive | None
    pooling: Literal["frames", "final", "attention", "functionals"]
    functionals: list[Name] = field(default_factory=list)
    dropout: Share

    def __post_init__(self) -> None:
        if self.pooling == "final" and not self.hidden_size:
            raise ValueError("pooling: final needs a BLSTM; give hidden_size")
        if (self.pooling == "functionals") != bool(self.functionals):
            raise ValueError("functionals: required if pooling is functionals, and not allowed otherwise")


class Network(nn.Module):
    """frames (B, T, D), lengths (B,) -> class scores, (B, classes) or, if each frame is scored, (B, T, classes); and
    no penalty."""

    def __init__(self, config: Config, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.config = config
        self.dropout = Dropout(config.dropout)  # "on all layers"
        sizes = [n_features, *config.dense_sizes]
        layers = [nn.Linear(size, above) for size, above in pairwise(sizes)]
        self.dense = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU(), self.dropout)))
        size = sizes[-1]
        if config.hidden_size:
            self.blstm = BLSTM(size, config.hidden_size)
            size = 2 * config.hidden_size
        if config.pooling == "attention":
            self.attention = nn.Linear(size, 1, bias=False)  # u of equation 1
        self.output = nn.Linear(size * max(len(config.functionals), 1), n_classes)
        self.apply(keras_init)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        steps, last = self.read(frames, lengths)
        match self.config.pooling:
            case "frames":
                pooled = steps
            case "final":
                pooled = last
            case "attention":  # equation 2
                pooled = (self.attend(steps, lengths)[:, :, None] * steps).sum(1)
            case "functionals":
                pooled = pool(steps.float(), lengths, self.config.functionals)
        return self.output(pooled), frames.new_zeros(())

    def read(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        """The steps to be pooled, y of equation 1 (B, T, H), and the last states (B, H) of the BLSTM, if any."""
        steps = self.dense(frames)
        if not self.config.hidden_size:
            return steps, None
        steps, last = self.blstm(steps, lengths)
        return self.dropout(steps), self.dropout(last)

    def attend(self, steps: Tensor, lengths: Tensor) -> Tensor:
        """Weights (B, T) of the steps (equation 1)."""
        return masked_softmax(self.attention(steps)[:, :, 0].float(), lengths)

    def frame_weights(self, frames: Tensor, lengths: Tensor, even: bool = False) -> dict[str, Tensor]:
        """The attention's weight (B, T) of each frame; even: the weights if all steps were equal."""
        if self.config.pooling != "attention":
            return {}
        steps, _ = self.read(frames, lengths)
        return {"attention": self.attend(torch.zeros_like(steps) if even else steps, lengths)}
