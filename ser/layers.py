"""What several models share: layers that are right for padded batches of unequal lengths."""

import torch
from torch import Tensor, nn


def mask(lengths: Tensor, size: int) -> Tensor:
    """(B, size) booleans, true where a step belongs to the utterance. lengths: (B,) integers."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def masked_softmax(scores: Tensor, lengths: Tensor) -> Tensor:
    """Softmax of (B, T) scores over each utterance's own steps; padding gets weight 0."""
    inside = mask(lengths, scores.shape[1])
    return scores.masked_fill(~inside, -torch.inf).softmax(1).masked_fill(~inside, 0)


def masked_mean(steps: Tensor, lengths: Tensor) -> Tensor:
    """Mean (B, D) of each utterance's own steps (B, T, D)."""
    return steps.masked_fill(~mask(lengths, steps.shape[1])[:, :, None], 0).sum(1) / lengths[:, None]


def keras_init(module: nn.Module) -> None:
    """Start a layer as Keras does: Glorot-uniform weights, zero biases, orthogonal recurrences,
    and an LSTM's forget gate open (bias 1). Use as `model.apply(keras_init)`."""
    if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LSTM):
        for name, parameter in module.named_parameters():
            if name.startswith("weight_ih"):  # Keras draws the four gates as one matrix
                nn.init.xavier_uniform_(parameter)
            elif name.startswith("weight_hh"):  # the recurrences too: H orthonormal vectors of 4 H values
                nn.init.orthogonal_(parameter)
            else:
                nn.init.zeros_(parameter)
                if name.startswith("bias_ih"):  # PyTorch's order: input, forget, cell, output
                    nn.init.ones_(parameter.chunk(4)[1])


class Dropout(nn.Module):
    """Dropout, with cheaper random numbers on the CPU: 16 bits a value, where torch draws 32 and
    converts them one by one. `share` is met to within 1 / 65536."""

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
        if values.is_contiguous(memory_format=torch.channels_last):  # lies in memory as `scale` does
            return values * scale.as_strided(values.shape, values.stride())
        return values * scale.view(values.shape)


def take(steps: Tensor, positions: Tensor) -> Tensor:
    """steps (B, T, D) at positions (B, S) -> (B, S, D), row by row (gather goes value by
    value, 20 times slower)."""
    n_utts, n_steps, size = steps.shape
    rows = positions + n_steps * torch.arange(n_utts, device=steps.device)[:, None]
    return steps.reshape(-1, size).index_select(0, rows.flatten()).view(n_utts, -1, size)
