"""BLSTMs, against torch's own with packed sequences, and each utterance alone."""

import pytest
import torch
from torch import nn

from ser.layers import mask
from ser.recurrent import BLSTM, CellBLSTM

UNEQUAL = [7, 1, 12, 3, 12]
NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def blstm():
    """Ours with random weights and biases, in float64."""
    layer = BLSTM(6, 5).double()
    for parameter in layer.parameters():
        if parameter.requires_grad:
            nn.init.uniform_(parameter, -0.7, 0.7)
    return layer


def torchs(blstm):
    """torch's bidirectional LSTM with the same weights."""
    layer = nn.LSTM(6, 5, batch_first=True, bidirectional=True).double()
    with torch.no_grad():
        for name in NAMES:
            getattr(layer, name).copy_(getattr(blstm.ahead, name))
            getattr(layer, f"{name}_reverse").copy_(getattr(blstm.back, name))
    return layer


def padded_steps():
    steps = torch.randn(len(UNEQUAL), max(UNEQUAL), 6, dtype=torch.float64)
    steps[~mask(torch.tensor(UNEQUAL), max(UNEQUAL))] = 1e3  # must not be read
    return steps.requires_grad_()


def test_blstm_is_torchs_with_packed_sequences(blstm):
    lengths = torch.tensor(UNEQUAL)
    steps, reference = padded_steps(), torchs(blstm)
    states, last = blstm(steps, lengths)
    packed = nn.utils.rnn.pack_padded_sequence(steps, lengths, batch_first=True, enforce_sorted=False)
    output, (final, _) = reference(packed)
    expected, _ = nn.utils.rnn.pad_packed_sequence(output, batch_first=True)
    torch.testing.assert_close(states, expected)
    torch.testing.assert_close(last, torch.cat((final[0], final[1]), 1))

    for_states, for_last = torch.randn_like(states), torch.randn_like(last)
    ours = [steps, *(parameter for parameter in blstm.parameters() if parameter.requires_grad)]
    theirs = [steps]
    for suffix in ("", "_reverse"):
        theirs += [getattr(reference, name + suffix) for name in NAMES[:3]]
    assert len(ours) == len(theirs) == 7
    gradients = torch.autograd.grad((states * for_states).sum() + (last * for_last).sum(), ours)
    expected_gradients = torch.autograd.grad(
        (expected * for_states).sum() + (torch.cat((final[0], final[1]), 1) * for_last).sum(), theirs
    )
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient)
    assert not gradients[0][~mask(lengths, max(UNEQUAL))].any()


def test_blstm_gives_in_a_batch_what_an_utterance_gives_alone(blstm):
    steps = padded_steps()
    states, last = blstm(steps, torch.tensor(UNEQUAL))
    for row, length in enumerate(UNEQUAL):
        own_states, (own_last, _) = torchs(blstm)(steps[row : row + 1, :length])
        torch.testing.assert_close(states[row, :length], own_states[0])
        torch.testing.assert_close(last[row], own_last.flatten())
        assert not states[row, length:].any()


def test_blstm_trains_one_bias_a_gate(blstm):
    """As Keras has it, and as the paper's number of parameters counts it."""
    trained = sum(parameter.numel() for parameter in blstm.parameters() if parameter.requires_grad)
    assert trained == 2 * 4 * 5 * (6 + 5 + 1)
    assert not blstm.ahead.bias_hh_l0.any()
    assert not blstm.back.bias_hh_l0.any()


@pytest.mark.parametrize("lengths", [UNEQUAL, [12] * 5, [1] * 5])
@pytest.mark.parametrize("size", [6, 41])  # narrower and wider than the 20 gates of a direction
def test_the_cell_blstm_is_torchs_with_packed_sequences(size, lengths):
    layer = CellBLSTM(size, 5).double()
    reference = nn.LSTM(size, 5, batch_first=True, bidirectional=True).double()
    with torch.no_grad():
        for direction, suffix in ((layer.ahead, ""), (layer.back, "_reverse")):
            for name in NAMES:
                if name != "bias_hh_l0":
                    nn.init.uniform_(getattr(direction, name), -0.7, 0.7)
                getattr(reference, name + suffix).copy_(getattr(direction, name))
    steps = torch.randn(5, max(lengths), size, dtype=torch.float64)
    steps[~mask(torch.tensor(lengths), max(lengths))] = 1e3  # must not be read
    steps.requires_grad_()
    given = layer(steps, torch.tensor(lengths))
    packed = nn.utils.rnn.pack_padded_sequence(steps, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    output, (state, cell) = reference(packed)
    expected = (
        nn.utils.rnn.pad_packed_sequence(output, batch_first=True)[0],
        torch.cat((*state,), 1),
        torch.cat((*cell,), 1),
    )
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


@pytest.mark.usefixtures("bfloat16_lstms")
@pytest.mark.parametrize("size", [6, 41])
def test_bfloat16_changes_little_of_the_cell_blstm(size):
    layer, lengths = CellBLSTM(size, 5), torch.tensor([12] * 5)
    steps = torch.randn(5, 12, size)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = layer(steps, lengths)
    for one, other in zip(rounded, layer(steps, lengths), strict=True):
        torch.testing.assert_close(one.float(), other, rtol=0.05, atol=0.03)
        assert not torch.equal(one.float(), other)
