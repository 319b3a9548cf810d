"""Sherman et al., "Study of speech emotion recognition using BLSTM with attention", section II-B.

Convolutions turn each window of the spectrogram into a vector; a BLSTM reads the vectors; attention takes a
weighted sum of its states; a linear layer scores the classes. Convolutions and attention can be left out
(Table IV). Where the paper and the authors' code disagree, egs/ravdess/conf/sherman follows the code and
conf/sherman_text the paper; the README there lists the differences.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ser.convolutions import conv_norm
from ser.layers import Dropout, keras_init, mask, masked_softmax
from ser.recurrent import CellBLSTM
from ser.settings import NonNegative, Positive, Share, strict
from ser.windows import cut, of_frames


@dataclass(config=strict, frozen=True, kw_only=True)
class Config:
    """window and hop in frames. channels: of each convolution; if empty, the BLSTM reads the
    windows themselves. pools: max-pooling factor after each convolution, in time and frequency. norm_momentum:
    weight of a batch in the running statistics of the batch normalisation."""

    window: Positive
    hop: Positive
    channels: list[Positive]
    pools: list[Positive]
    norm_momentum: Annotated[float, Field(gt=0, le=1)]
    activation: Literal["elu", "relu"]
    dropout: Share
    hidden_size: Positive  # of one direction of the BLSTM
    attention_size: Positive | None  # null: no attention; only the last state feeds the output
    state_l1: NonNegative  # weight of the L1 norm of the BLSTM's outputs in the loss

    def __post_init__(self) -> None:
        if len(self.pools) != len(self.channels):
            raise ValueError(f"pools: {len(self.pools)} values, but channels has {len(self.channels)}; give as many")


class Network(nn.Module):
    """frames (B, T, D), lengths (B,) -> class scores (B, classes), and the penalty: state_l1 times the L1 norm."""

    def __init__(self, config: Config, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.config = config
        sizes = [1, *config.channels]
        self.blocks = nn.Sequential(
            *(Block(sizes[i], sizes[i + 1], config.pools[i], config) for i in range(len(config.pools)))
        )
        time, bands = config.window, n_features
        for pool in config.pools:
            time, bands = -(-time // pool), -(-bands // pool)
        self.blstm = CellBLSTM(sizes[-1] * time * bands, config.hidden_size)
        n_states = 2 * config.hidden_size
        if config.attention_size:
            self.attention = nn.Sequential(
                nn.Linear(n_states, config.attention_size, bias=False),
                nn.Tanh(),
                nn.Linear(config.attention_size, 1, bias=False),
            )
        self.output = nn.Linear(2 * n_states if config.attention_size else n_states, n_classes)
        self.apply(keras_init)
        if config.attention_size:
            for layer in self.attention[::2]:  # the authors' code; the energies are scaled down below
                nn.init.normal_(layer.weight)
        self.to(memory_format=torch.channels_last)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        (states, last, cells), n_windows = self.read(frames, lengths)
        result, penalised = last, [last]
        if self.config.attention_size:
            context = (self.attend(states, n_windows)[:, :, None] * states).sum(1)
            result, penalised = torch.cat((context, last), 1), [states, last, cells]
        scores = self.output(result)
        # Keras' activity regulariser covers everything that the LSTM returns, which is all that the network uses of it
        norm = sum(values.float().abs().sum() for values in penalised) if self.config.state_l1 else scores.new_zeros(())
        return scores, self.config.state_l1 * norm / len(frames)

    def frame_weights(self, frames: Tensor, lengths: Tensor, even: bool = False) -> dict[str, Tensor]:
        """The attention's weight (B, T) of each frame, spread from its windows; even: the weights if all
        windows were equal."""
        if not self.config.attention_size:
            return {}
        (states, _, _), n_windows = self.read(frames, lengths)
        weights = self.attend(torch.zeros_like(states) if even else states, n_windows)
        window, hop = self.config.window, self.config.hop
        return {"attention": of_frames(weights, lengths, window, hop, frames.shape[1])}

    def read(self, frames: Tensor, lengths: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """Output of the BLSTM: its states (B, W, 2H), the last states and the last cells (B, 2H); and the number of
        windows (B,)."""
        windows, n_windows = cut(frames, lengths, self.config.window, self.config.hop)
        return self.blstm(self.embed(windows, n_windows), n_windows), n_windows

    def embed(self, windows: Tensor, n_windows: Tensor) -> Tensor:
        """(B, W, window, D) -> (B, W, vector). Only real windows are convolved, since padding must
        not enter the batch statistics."""
        if not self.config.channels:
            return windows.flatten(2)
        real = mask(n_windows, windows.shape[1])
        maps = windows[real][..., None].permute(0, 3, 1, 2)  # in channels-last memory format
        vectors = self.blocks(maps)
        padded = vectors.new_zeros(*real.shape, vectors[0].numel())
        padded[real] = vectors.flatten(1)
        return padded

    def attend(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Weights (B, W) of the states: energies divided by the root of attention_size (the authors' code),
        softmax over the windows of the utterance."""
        energies = self.attention(states)[:, :, 0] / self.attention[0].out_features ** 0.5
        return masked_softmax(energies.float(), lengths)


class Block(nn.Module):
    """Convolution 3x3, batch normalisation, activation, max-pooling, dropout.

    Pooling comes before the activation: both activations are monotonic, so the result is the same with
    pool**2 times less work. (N, C, time, bands) -> (N, C', time / pool, bands / pool),
    sizes rounded up, as with Keras' padding="same".
    """

    def __init__(self, in_channels: int, out_channels: int, pool: int, config: Config) -> None:
        super().__init__()
        self.convolution = conv_norm(in_channels, out_channels, config.norm_momentum)
        self.pool = pool
        self.activation = F.elu if config.activation == "elu" else F.relu
        self.dropout = Dropout(config.dropout)

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.convolution(maps)
        maps = F.max_pool2d(maps, self.pool, ceil_mode=True)
        return self.dropout(self.activation(maps))
