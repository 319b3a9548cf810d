"""Mustaqeem and Kwon 2020, "CLSTM: Deep feature-based speech emotion recognition using the hierarchical ConvLSTM
network" (Mathematics 8(12), 2133), as far as it is public.

Only the abstract and the list of contributions were available. They say: a one-dimensional network reads raw speech in
segments; four local feature learning blocks (LFLB) of ConvLSTM, with convolutional input-to-state and state-to-state
transitions, form a hierarchy with residual learning; GRUs learn global features from these; the loss is the softmax
loss plus the centre loss (Wen et al. 2016, "A discriminative feature learning approach for deep face recognition").

Everything else is assumed: the axes (segments are time steps and samples are positions, like the frames and pixels
of Shi et al. 2015); all sizes; that a block is ConvLSTM, batch normalisation (with torch's constants) and max-pooling,
like the LFLB of Zhao, Mao and Chen 2019, where the name comes from; one normalisation for all samples; a wide first
convolution with a stride, without which a segment has thousands of positions; a residual connection around each block
but the first, added before the pooling, with a 1x1 convolution where the number of channels changes; no peepholes;
only the last state of the GRU feeds the output; Keras' initialisation; dropout before the output; the centre loss is
computed on the last state of the GRU, and centres start at zero.
"""

from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ser.cli import UserError
from ser.convolutions import patches
from ser.layers import Dropout, keras_init, mask, take
from ser.settings import NonNegative, Positive, Share, strict


@dataclass(config=strict, frozen=True, kw_only=True)
class Config:
    """channels: of each block's ConvLSTM. pools: max-pooling factor of each block. first_kernel and first_stride, in
    samples: of the first block's convolution of the input. kernel: width of all other convolutions, including those of
    the states. gru_size: of each of gru_layers. centre_weight: lambda of Wen et al., weight of the centre loss, which
    is a mean over the batch like the cross-entropy; 0: none. centre_rate: their alpha, update rate of the centres."""

    channels: Annotated[list[Positive], Field(min_length=1)]
    pools: list[Positive]
    first_kernel: Positive
    first_stride: Positive
    kernel: Positive
    gru_size: Positive
    gru_layers: Positive
    dropout: Share
    centre_weight: NonNegative = 0.0
    centre_rate: Share = 0.5

    def __post_init__(self) -> None:
        if len(self.pools) != len(self.channels):
            raise ValueError(f"pools: {len(self.pools)} values, but channels has {len(self.channels)}; give as many")
        if self.first_kernel < self.first_stride:
            raise ValueError(
                f"first_kernel {self.first_kernel} skips samples; must be at least first_stride, {self.first_stride}"
            )


class Network(nn.Module):
    """frames (B, T, D), segments of D samples, and lengths (B,) -> class scores (B, classes), and the penalty: the
    centre loss if targets (B,) are given, otherwise 0."""

    def __init__(self, config: Config, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.level = nn.BatchNorm1d(1, affine=False)  # one mean and variance for all samples
        self.blocks = nn.ModuleList()
        maps, positions = 1, -(-n_features // config.first_stride)
        for number, (channels, pool) in enumerate(zip(config.channels, config.pools, strict=True)):
            if positions % pool:
                raise UserError(
                    f"model.pools: {pool} does not divide the {positions} positions of block {number + 1}; change it, "
                    f"first_stride, or the feature's segment_length of {n_features}"
                )
            first = (config.first_kernel, config.first_stride) if number == 0 else (config.kernel, 1)
            self.blocks.append(Block(maps, channels, *first, config.kernel, pool, is_linked=number > 0))
            maps, positions = channels, positions // pool
        self.gru = nn.GRU(maps * positions, config.gru_size, config.gru_layers, batch_first=True)
        self.dropout = Dropout(config.dropout)
        self.output = nn.Linear(config.gru_size, n_classes)
        self.config = config
        self.learns_from_targets = config.centre_weight > 0
        self.register_buffer("centres", torch.zeros(n_classes, config.gru_size))
        self.apply(start)

    def forward(self, frames: Tensor, lengths: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor]:
        real = mask(lengths, frames.shape[1]).T
        segments = frames.transpose(0, 1)
        maps = torch.zeros_like(segments)
        maps[real] = self.level(segments[real][:, None])[:, 0]
        maps = maps[..., None]
        for block in self.blocks:
            maps = block(maps, real)
        states, _ = self.gru(maps.flatten(2).transpose(0, 1))
        last = take(states, (lengths - 1)[:, None])[:, 0]  # not affected by the padding, which comes later
        scores = self.output(self.dropout(last))
        return scores, scores.new_zeros(()) if targets is None else self.centre_loss(last, targets)

    def centre_loss(self, vectors: Tensor, targets: Tensor) -> Tensor:
        """Centre loss of vectors (B, H) (Wen et al., equation 2), as a mean over the batch, times centre_weight. Also
        updates the centres (equation 4)."""
        away = vectors.to(self.centres.dtype) - self.centres[targets]
        with torch.no_grad():
            count = 1 + targets.bincount(minlength=len(self.centres))[targets, None]
            self.centres.index_add_(0, targets, away / count, alpha=self.config.centre_rate)
        return self.config.centre_weight / 2 * away.square().sum(1).mean()


class Block(nn.Module):
    """ConvLSTM, batch normalisation, a residual connection and max-pooling: maps (T, B, L, C) and a mask of real steps
    (T, B) -> (T, B, L', C'), zero at padding, with L' = L / stride / pool."""

    def __init__(
        self, maps: int, channels: int, kernel: int, stride: int, state_kernel: int, pool: int, is_linked: bool
    ) -> None:
        super().__init__()
        self.conv_lstm = ConvLSTM(maps, channels, kernel, stride, state_kernel)
        self.norm = nn.BatchNorm1d(channels)
        self.is_linked = is_linked
        self.link = nn.Linear(maps, channels) if is_linked and maps != channels else nn.Identity()
        self.pool = pool

    def forward(self, maps: Tensor, real: Tensor) -> Tensor:
        states = self.conv_lstm(maps)[real]  # padding must not enter the batch statistics
        normal = self.norm(states.flatten(0, 1)).view(states.shape)
        if self.is_linked:
            normal = normal + self.link(maps[real])
        pooled = normal.unflatten(1, (-1, self.pool)).amax(2)
        padded = pooled.new_zeros(*real.shape, *pooled.shape[1:])
        padded[real] = pooled
        return padded


class ConvLSTM(nn.Module):
    """Shi et al. 2015, "Convolutional LSTM network", equation 3, in one dimension and without peepholes, like Keras'
    ConvLSTM1D: steps (T, B, L, C) -> states (T, B, L', C') with L' = L / stride, rounded up.

    Convolutions are computed as matrix products with the patches of their input: `inputs` and `states` hold the weights
    of the four gates for one patch, in the order of torch's LSTM, position by position.
    """

    def __init__(self, maps: int, channels: int, kernel: int, stride: int, state_kernel: int) -> None:
        super().__init__()
        self.kernel, self.stride, self.state_kernel = kernel, stride, state_kernel
        self.inputs = nn.Linear(kernel * maps, 4 * channels)
        self.states = nn.Linear(state_kernel * channels, 4 * channels, bias=False)

    def forward(self, steps: Tensor) -> Tensor:
        found = patches(steps.flatten(0, 1), self.kernel, self.stride)
        inputs = self.inputs(found).unflatten(0, steps.shape[:2])  # all steps at once
        state = cell = None
        states = []
        for gates in inputs.unbind():
            if state is not None:
                gates = gates + self.states(patches(state, self.state_kernel, 1))
            # accumulates over many steps: in the type of the weights, since autocast has halved the products'
            let_in, forget, new, out = gates.to(self.states.weight.dtype).chunk(4, -1)
            new = let_in.sigmoid() * new.tanh()
            cell = new if cell is None else forget.sigmoid() * cell + new
            state = (out.sigmoid() * cell.tanh()).to(inputs.dtype)
            states.append(state)
        return torch.stack(states)

    def start(self) -> None:
        """Initialise as Keras does: Glorot-uniform and orthogonal weights, zero biases, forget-gate bias 1."""
        for layer, kernel in ((self.inputs, self.kernel), (self.states, self.state_kernel)):
            nn.init.xavier_uniform_(layer.weight.view(len(layer.weight), -1, kernel))  # fan-in: `kernel` positions
        nn.init.orthogonal_(self.states.weight)
        nn.init.zeros_(self.inputs.bias)
        nn.init.ones_(self.inputs.bias.chunk(4)[1])


def start(module: nn.Module) -> None:
    """Initialise a layer as Keras does; its GRU has two biases, like torch's. Use as `model.apply(start)`."""
    keras_init(module)
    if isinstance(module, ConvLSTM):
        module.start()
    elif isinstance(module, nn.GRU):
        for name, parameter in module.named_parameters():
            if name.startswith("weight_ih"):
                nn.init.xavier_uniform_(parameter)
            elif name.startswith("weight_hh"):
                nn.init.orthogonal_(parameter)
            else:
                nn.init.zeros_(parameter)
