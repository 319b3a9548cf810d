"""Issa, Demirci and Yazici 2020, "Speech emotion recognition with deep convolutional neural networks": convolutions
along the values of one vector an utterance.

Layers and their order are those of public re-implementations.
"""

from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ser.cli import UserError
from ser.layers import Dropout, keras_init
from ser.settings import Positive, Share, strict

EPSILON = 1e-3  # of Keras' batch normalisation


@dataclass(config=strict, frozen=True, kw_only=True)
class Config:
    """channels: of the six convolutions. width: of each, in values. pool: of the max-pooling behind the second, in
    values. dropouts: in front of the pooling, of the last convolution and of the output layer. norm_momentum: share
    of a batch in the running statistics of the batch normalisation."""

    channels: Annotated[list[Positive], Field(min_length=6, max_length=6)]
    width: Positive
    pool: Positive
    dropouts: Annotated[list[Share], Field(min_length=3, max_length=3)]
    norm_momentum: Annotated[float, Field(gt=0, le=1)]


class Network(nn.Module):
    """frames (B, 1, D), lengths (B,) -> class scores (B, classes), and no penalty.

    The output layer is normalised over the batch, too. In training the scores of a class have deviation 1 in each
    batch, or the weight that the normalisation has learned: the network cannot grow surer than that, and what it says
    of an utterance follows from the batch. In evaluation it does not.
    """

    def __init__(self, config: Config, n_features: int, n_classes: int) -> None:
        super().__init__()
        shorter = config.width - 1  # a convolution has no padding
        size = (n_features - 2 * shorter) // config.pool - 4 * shorter
        if size < 1:
            needed = config.pool * (4 * shorter + 1) + 2 * shorter
            raise UserError(
                f"model.width, model.pool: need a feature of one frame an utterance, as of kind tonal, with {needed} "
                f"values or more; this one has {n_features} a frame"
            )
        sizes = [1, *config.channels]
        one, two, three, four, five, six = (nn.Conv1d(*sizes[i : i + 2], config.width) for i in range(6))
        before_pool, before_last, before_output = map(Dropout, config.dropouts)

        def norm(channels: int) -> nn.Module:
            return nn.BatchNorm1d(channels, EPSILON, config.norm_momentum)

        self.layers = nn.Sequential(
            one, norm(sizes[1]), nn.ReLU(),
            two, nn.ReLU(), before_pool, norm(sizes[2]), nn.MaxPool1d(config.pool),
            three, nn.ReLU(),
            four, nn.ReLU(),
            five, norm(sizes[5]), nn.ReLU(), before_last,
            six, nn.Flatten(), before_output,
        )  # fmt: skip
        self.output = nn.Linear(sizes[6] * size, n_classes)
        self.output_norm = ScoreNorm(n_classes, EPSILON, config.norm_momentum)
        self.apply(keras_init)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        if frames.shape[1] != 1:
            raise UserError(
                "model.kind: issa needs a feature of one frame an utterance, as of kind tonal; give it that"
            )
        scores = self.output_norm(self.output(self.layers(frames)))
        return scores, scores.new_zeros(())


class ScoreNorm(nn.BatchNorm1d):
    """Batch normalisation of scores (B, classes), whose running variance is of the batch itself, as in Keras: PyTorch's
    is B / (B - 1) times that, which of 16 utterances is much, and of one, as the last batch may have, nothing."""

    def forward(self, scores: Tensor) -> Tensor:
        if not self.training:
            return super().forward(scores)
        scores = scores.to(self.weight.dtype)  # the running statistics', in mixed precision too
        variance, mean = torch.var_mean(scores, 0, correction=0)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance, self.momentum)
        return (scores - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias
