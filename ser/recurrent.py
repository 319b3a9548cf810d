"""A bidirectional LSTM that gives its last cells too, and is fast where a step is wide."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ser.layers import BLSTM, Swap, mask


class CellBLSTM(BLSTM):
    """The function and the weights of BLSTM, and the last cell states.

    torch's LSTM gives the cells at the end of the padding alone, so it serves where there is none; and its backward
    pass is slow on a CPU where steps are wide (eight times as slow as this, of 16384 values). Otherwise the layer goes
    step by step: one product for all steps of a direction, and the two directions side by side. Under autocast torch's
    gives all three in bfloat16; step by step, states and cells stay in float32.
    """

    def forward(self, steps: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """steps (B, T, D), lengths (B,) of at least 1 -> states (B, T, 2H), zero at padding; the last states
        (B, 2H), as BLSTM; the last cells (B, 2H), of the same steps."""
        inside = mask(lengths, steps.shape[1])
        if inside.all() and steps.shape[2] <= 4 * self.ahead.hidden_size:
            ahead, of_ahead = self.ahead(steps)
            back, of_back = self.back(steps.flip(1))
            last, cells = (torch.cat((*one, *other), 1) for one, other in zip(of_ahead, of_back, strict=True))
            return torch.cat((ahead, back.flip(1)), 2), last, cells
        return self.step_by_step(steps, lengths, inside)

    def step_by_step(self, steps: Tensor, lengths: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What forward gives; inside: mask of lengths."""
        size, n_steps = self.ahead.hidden_size, steps.shape[1]
        position = torch.arange(n_steps, device=steps.device)
        flipped = torch.where(inside, lengths[:, None] - 1 - position, position)
        ahead, back = (
            F.linear(steps, direction.weight_ih_l0, direction.bias_ih_l0)
            for direction in (self.ahead, self.back)
        )
        inputs = torch.stack((ahead, Swap.apply(back, flipped))).to(self.ahead.weight_ih_l0.dtype)  # (2, B, T, 4H)
        weights = torch.stack((self.ahead.weight_hh_l0.T, self.back.weight_hh_l0.T))  # (2, H, 4H)
        weights = weights.to(ahead.dtype)  # once, where autocast would convert them at every step
        state = cell = inputs.new_zeros(2, len(steps), size)
        every = []
        for gates, real in zip(inputs.unbind(2), inside.T[:, :, None], strict=True):
            gates = gates + torch.bmm(state.to(weights.dtype), weights)
            let_in, forget, new, out = gates.chunk(4, 2)  # torch's order
            new_cell = forget.sigmoid() * cell + let_in.sigmoid() * new.tanh()
            state = torch.where(real, out.sigmoid() * new_cell.tanh(), state)
            cell = torch.where(real, new_cell, cell)
            every.append(state)
        ahead, back = torch.stack(every, 2)  # (B, T, H) each; at padding the last state
        states = torch.cat((ahead, Swap.apply(back, flipped)), 2).masked_fill(~inside[:, :, None], 0)
        return states, torch.cat((*state,), 1), torch.cat((*cell,), 1)
