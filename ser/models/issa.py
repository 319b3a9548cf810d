"""Issa, Demirci and Yazici 2020, "Speech emotion recognition with deep convolutional neural networks": convolutions
over the values of one vector per utterance.

The layers and their order follow public re-implementations.
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
    """channels: of the six convolutions. width: kernel size of each. pool: factor of the max-pooling after the second.
    dropouts: before the pooling, the last convolution and the output layer. norm_momentum: weight of a batch in the
    running statistics of the batch normalisation."""

    channels: Annotated[list[Positive], Field(min_length=6, max_length=6)]
    width: Positive
    pool: Positive
    dropouts: Annotated[list[Share], Field(min_length=3, max_length=3)]
    norm_momentum: Annotated[float, Field(gt=0, le=1)]


class Network(nn.Module):
    """frames (B, 1, D), lengths (B,) -> class scores (B, classes), and no penalty.

    The scores are batch-normalised, too. In training, the scores of a class therefore have standard deviation 1 in each
    batch (or the learned weight of the normalisation), which limits how confident the network can get, and the scores
    of an utterance depend on its batch. In evaluation they do not.
    """

    def __init__(self, config: Config, n_features: int, n_classes: int) -> None:
        super().__init__()
        shorter = config.width - 1  # convolutions are not padded
        size = (n_features - 2 * shorter) // config.pool - 4 * shorter
        if size < 1:
            needed = config.pool * (4 * shorter + 1) + 2 * shorter
            raise UserError(
                f"model.width, model.pool: need a feature with one frame per utterance, such as kind tonal, of at "
                f"least {needed} values; this one has {n_features}"
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
            raise UserError("model.kind: issa needs a feature with one frame per utterance; use one such as kind tonal")
        scores = self.output_norm(self.output(self.layers(frames)))
        return scores, scores.new_zeros(())


class ScoreNorm(nn.BatchNorm1d):
    """Batch normalisation of scores (B, classes), with the biased variance of the batch in the running variance, as in
    Keras. PyTorch's is B / (B - 1) times that: a large difference for 16 utterances, undefined for one."""

    def forward(self, scores: Tensor) -> Tensor:
        if not self.training:
            return super().forward(scores)
        scores = scores.to(self.weight.dtype)  # the type of the running statistics, even in mixed precision
        variance, mean = torch.var_mean(scores, 0, correction=0)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance, self.momentum)
        return (scores - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias
