"""The BLSTM with cells, against torch's own with packed sequences."""

import pytest
import torch
from torch import nn

from ser.layers import mask
from ser.recurrent import CellBLSTM

UNEQUAL = [7, 1, 12, 3, 12]
NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("lengths", [UNEQUAL, [12] * 5, [1] * 5])
@pytest.mark.parametrize("size", [6, 41])  # narrower and wider than the 20 gates of a direction
def test_it_is_torchs_with_packed_sequences(size, lengths):
    layer = CellBLSTM(size, 5).double()
    reference = nn.LSTM(size, 5, batch_first=True, bidirectional=True).double()
    with torch.no_grad():
        for direction, suffix in ((layer.ahead, ""), (layer.back, "_reverse")):
            for name in NAMES:
                if name != "bias_hh_l0":
                    nn.init.uniform_(getattr(direction, name), -0.7, 0.7)
                getattr(reference, name + suffix).copy_(getattr(direction, name))
    steps = torch.randn(5, max(lengths), size, dtype=torch.float64)
    steps[~mask(torch.tensor(lengths), max(lengths))] = 1e3  # must not be heard
    steps.requires_grad_()
    given = layer(steps, torch.tensor(lengths))
    packed = nn.utils.rnn.pack_padded_sequence(steps, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    output, (state, cell) = reference(packed)
    expected = (nn.utils.rnn.pad_packed_sequence(output, batch_first=True)[0], torch.cat((*state,), 1), torch.cat((*cell,), 1))
    for one, other in zip(given, expected, strict=True):
        torch.testing.assert_close(one, other)

    upstream = [torch.randn_like(values) for values in given]
    ours = [steps, *(getattr(one, name) for one in (layer.ahead, layer.back) for name in NAMES[:3])]
    theirs = [steps, *(getattr(reference, name + suffix) for suffix in ("", "_reverse") for name in NAMES[:3])]
    gradients, expected_gradients = (
        torch.autograd.grad(sum((one * up).sum() for one, up in zip(values, upstream, strict=True)), leaves)
        for values, leaves in ((given, ours), (expected, theirs))
    )
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("size", [6, 41])
def test_bfloat16_changes_little(size):
    layer, lengths = CellBLSTM(size, 5), torch.tensor([12] * 5)
    steps = torch.randn(5, 12, size)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = layer(steps, lengths)
    for one, other in zip(rounded, layer(steps, lengths), strict=True):
        torch.testing.assert_close(one.float(), other, rtol=0.05, atol=0.03)
        assert not torch.equal(one.float(), other)
