"""Bledea, "Speech emotion recognition with recurrent neural networks", section 4.1: a stacked LSTM.

An utterance is one vector, and the paper does not say how a vector is fed to an LSTM: as a sequence with one
value per step, or as a sequence of one step. `steps` selects either reading.
"""

from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ser.cli import UserError
from ser.layers import Dropout, keras_init, take
from ser.settings import Positive, Share, strict


@dataclass(config=strict, frozen=True, kw_only=True)
class Config:
    """steps: "values": each value of the utterance's single frame is a step; "frames": each frame is a step."""

    steps: Literal["values", "frames"]
    hidden_size: Positive  # of both LSTM layers
    dense_size: Positive
    dropout: Share


class Network(nn.Module):
    """frames (B, T, D), lengths (B,) -> class scores (B, classes), and no penalty."""

    def __init__(self, config: Config, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.config = config
        n_inputs = 1 if config.steps == "values" else n_features
        self.lstm = nn.LSTM(n_inputs, config.hidden_size, num_layers=2, batch_first=True)
        for bias in (self.lstm.bias_hh_l0, self.lstm.bias_hh_l1):  # Keras has one bias per gate
            bias.requires_grad_(False)
        self.dense = nn.Linear(config.hidden_size, config.dense_size)
        self.dropout = Dropout(config.dropout)
        self.output = nn.Linear(config.dense_size, n_classes)
        self.apply(keras_init)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        if self.config.steps == "values":
            if frames.shape[1] != 1:
                raise UserError(
                    "model.steps: values needs a feature with one frame per utterance, such as kind means; "
                    "use such a feature, or steps: frames"
                )
            frames, lengths = frames.transpose(1, 2), torch.full_like(lengths, frames.shape[2])
        states, _ = self.lstm(frames)
        last = take(states, (lengths - 1)[:, None])[:, 0]  # not affected by the padding, which comes later
        scores = self.output(self.dropout(torch.relu(self.dense(last))))
        return scores, scores.new_zeros(())
