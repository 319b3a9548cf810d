"""Layers shared by several models, correct for padded batches of unequal lengths."""

import torch
from torch import Tensor, nn


def mask(lengths: Tensor, size: int) -> Tensor:
    """(B, size) booleans, true for the steps of the utterance, false for padding. lengths: (B,) integers."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def masked_softmax(scores: Tensor, lengths: Tensor) -> Tensor:
    """Softmax of (B, T) scores over the steps of each utterance; padding gets weight 0."""
    inside = mask(lengths, scores.shape[1])
    return scores.masked_fill(~inside, -torch.inf).softmax(1).masked_fill(~inside, 0)


def masked_mean(steps: Tensor, lengths: Tensor) -> Tensor:
    """Mean (B, D) over the steps (B, T, D) of each utterance, without padding."""
    return steps.masked_fill(~mask(lengths, steps.shape[1])[:, :, None], 0).sum(1) / lengths[:, None]


def keras_init(module: nn.Module) -> None:
    """Initialise a layer as Keras does: Glorot-uniform weights, zero biases, orthogonal recurrent weights,
    and forget-gate bias 1 in an LSTM. Use as `model.apply(keras_init)`."""
    if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LSTM):
        for name, parameter in module.named_parameters():
            if name.startswith("weight_ih"):  # Keras initialises the four gates as one matrix
                nn.init.xavier_uniform_(parameter)
            elif name.startswith("weight_hh"):  # recurrent weights too: H orthonormal vectors of 4 H values
                nn.init.orthogonal_(parameter)
            else:
                nn.init.zeros_(parameter)
                if name.startswith("bias_ih"):  # PyTorch's order: input, forget, cell, output
                    nn.init.ones_(parameter.chunk(4)[1])


class Dropout(nn.Module):
    """Dropout with cheaper random numbers on the CPU: 16 bits per value, where torch draws and converts
    32. `share` is exact to within 1 / 65536."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or self.share == 0:
            return values
        if values.device.type != "cpu":
            return nn.functional.dropout(values, self.share)
        words = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.int16)[: values.numel()] >= round(self.share * 65536) - 32768
        scale = kept.to(values.dtype).mul_(1 / (1 - self.share))
        if values.is_contiguous(memory_format=torch.channels_last):  # give `scale` the same strides
            return values * scale.as_strided(values.shape, values.stride())
        return values * scale.view(values.shape)


def take(steps: Tensor, positions: Tensor) -> Tensor:
    """steps (B, T, D) at positions (B, S) -> (B, S, D), copied by rows (gather copies value by
    value, 20 times slower)."""
    n_utts, n_steps, size = steps.shape
    rows = positions + n_steps * torch.arange(n_utts, device=steps.device)[:, None]
    return steps.reshape(-1, size).index_select(0, rows.flatten()).view(n_utts, -1, size)
