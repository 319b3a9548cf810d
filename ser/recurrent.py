"""Recurrent layers that are exact for padded batches, and fast on a CPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ser.layers import mask, take


class TwoDirections(nn.Module):
    """The weights of a one-layer bidirectional LSTM, as one LSTM per direction.

    As in Keras, each gate has one bias: PyTorch's second one is fixed at zero.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.ahead = nn.LSTM(input_size, hidden_size, batch_first=True)
        self.back = nn.LSTM(input_size, hidden_size, batch_first=True)
        for direction in (self.ahead, self.back):
            nn.init.zeros_(direction.bias_hh_l0).requires_grad_(False)


class BLSTM(TwoDirections):
    """One-layer bidirectional LSTM, exact for padded batches, and fast on a CPU.

    The backward direction reads each utterance reversed within its own length, so that padding always comes last. The
    result is that of packed sequences, which are slower by an order of magnitude on a CPU (pytorch issue 149194).
    """

    def forward(self, steps: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """steps (B, T, D), lengths (B,) of at least 1 -> states (B, T, 2H), zero at padding, and the
        last states of both directions (B, 2H): that of the forward direction at the last step of the utterance,
        that of the backward direction at the first."""
        position = torch.arange(steps.shape[1], device=steps.device)[None]
        flipped = torch.where(position < lengths[:, None], lengths[:, None] - 1 - position, position)
        ahead = self.ahead(steps)[0]
        back_flipped = self.back(Swap.apply(steps, flipped))[0]
        states = torch.cat((ahead, Swap.apply(back_flipped, flipped)), 2)
        states = states.masked_fill(~mask(lengths, steps.shape[1])[:, :, None], 0)
        end = (lengths - 1)[:, None]
        last = torch.cat((take(ahead, end), take(back_flipped, end)), 2)[:, 0]
        return states, last


class CellBLSTM(TwoDirections):
    """Like BLSTM, with the same weights, but also returns the last cell states.

    torch's LSTM returns the cells only at the end of the padding, so it is used only for batches without padding. Its
    backward pass is also slow on a CPU if steps are wide (eight times slower than this for 16384 values). In both
    cases the recurrence is computed step by step: one matrix product for the inputs of all steps of a direction, and
    both directions side by side. Under autocast, torch's LSTM returns everything in bfloat16; step by step, states and
    cells stay in float32. (BLSTM therefore cannot replace this class: its values are rounded differently.)
    """

    def forward(self, steps: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """steps (B, T, D), lengths (B,) of at least 1 -> states (B, T, 2H), zero at padding; the last states
        (B, 2H), as in BLSTM; the last cells (B, 2H), at the same steps."""
        inside = mask(lengths, steps.shape[1])
        if inside.all() and steps.shape[2] <= 4 * self.ahead.hidden_size:
            ahead, of_ahead = self.ahead(steps)
            back, of_back = self.back(steps.flip(1))
            last, cells = (torch.cat((*one, *other), 1) for one, other in zip(of_ahead, of_back, strict=True))
            return torch.cat((ahead, back.flip(1)), 2), last, cells
        return self.step_by_step(steps, lengths, inside)

    def step_by_step(self, steps: Tensor, lengths: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same result as forward; inside: mask of lengths."""
        size, n_steps = self.ahead.hidden_size, steps.shape[1]
        position = torch.arange(n_steps, device=steps.device)
        flipped = torch.where(inside, lengths[:, None] - 1 - position, position)
        ahead, back = (
            F.linear(steps, direction.weight_ih_l0, direction.bias_ih_l0) for direction in (self.ahead, self.back)
        )
        inputs = torch.stack((ahead, Swap.apply(back, flipped))).to(self.ahead.weight_ih_l0.dtype)  # (2, B, T, 4H)
        weights = torch.stack((self.ahead.weight_hh_l0.T, self.back.weight_hh_l0.T))  # (2, H, 4H)
        weights = weights.to(ahead.dtype)  # once; autocast would convert them at every step
        state = cell = inputs.new_zeros(2, len(steps), size)
        every = []
        for gates, real in zip(inputs.unbind(2), inside.T[:, :, None], strict=True):
            gates = gates + torch.bmm(state.to(weights.dtype), weights)
            let_in, forget, new, out = gates.chunk(4, 2)  # torch's order
            new_cell = forget.sigmoid() * cell + let_in.sigmoid() * new.tanh()
            state = torch.where(real, out.sigmoid() * new_cell.tanh(), state)
            cell = torch.where(real, new_cell, cell)
            every.append(state)
        ahead, back = torch.stack(every, 2)  # (B, T, H) each; the last state is repeated at padding
        states = torch.cat((ahead, Swap.apply(back, flipped)), 2).masked_fill(~inside[:, :, None], 0)
        return states, torch.cat((*state,), 1), torch.cat((*cell,), 1)


class Swap(torch.autograd.Function):
    """`take` for positions that are their own inverse. The gradient is then a `take`, too, which is faster than
    torch's scatter-add by rows."""

    @staticmethod
    def forward(ctx: Any, steps: Tensor, positions: Tensor) -> Tensor:
        ctx.save_for_backward(positions)
        return take(steps, positions)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return take(gradient, ctx.saved_tensors[0]), None
