"""Layers for padded batches, against torch's own, packed sequences, and each utterance alone."""

import math

import pytest
import torch
from torch import nn

from ser.layers import Dropout, keras_init, mask, masked_mean, masked_softmax
from ser.recurrent import BLSTM

LENGTHS = [7, 1, 12, 3, 12]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_mask():
    assert mask(torch.tensor([2, 0, 3]), 3).tolist() == [[True, True, False], [False] * 3, [True] * 3]


def test_masked_softmax_is_each_utterances_own():
    scores = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(5, 12, dtype=torch.float64)
    weights = masked_softmax(scores, torch.tensor(LENGTHS))
    (gradient,) = torch.autograd.grad((weights * upstream).sum(), scores)
    for row, length in enumerate(LENGTHS):
        own = scores[row, :length].detach().requires_grad_()
        expected = torch.exp(own) / torch.exp(own).sum()
        (own_gradient,) = torch.autograd.grad((expected * upstream[row, :length]).sum(), own)
        torch.testing.assert_close(weights[row, :length], expected)
        torch.testing.assert_close(gradient[row, :length], own_gradient)
        assert not weights[row, length:].any()
        assert not gradient[row, length:].any()


def test_masked_softmax_of_large_scores_is_finite():
    scores = torch.tensor([[1000.0, -1000, 1000, 5]])
    assert masked_softmax(scores, torch.tensor([3])).tolist() == [[0.5, 0, 0.5, 0]]


@pytest.mark.parametrize("junk", [1e3, math.inf, math.nan])
def test_masked_mean_is_each_utterances_own(junk):
    steps = torch.randn(5, 12, 3, dtype=torch.float64)
    steps[~mask(torch.tensor(LENGTHS), 12)] = junk
    mean = masked_mean(steps.requires_grad_(), torch.tensor(LENGTHS))
    upstream = torch.randn(5, 3, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((mean * upstream).sum(), steps)
    for row, length in enumerate(LENGTHS):
        torch.testing.assert_close(mean[row], sum(steps[row, :length]) / length)
        torch.testing.assert_close(gradient[row, :length], (upstream[row] / length).expand(length, 3))
        assert not gradient[row, length:].any()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(100003,), (317, 331), (7, 11, 37, 41)])
def test_dropouts_share_and_scale(share, shape):
    values = torch.rand(shape) + 1
    dropped = Dropout(share)(values)
    kept = dropped != 0
    n = values.numel()
    assert abs(kept.sum().item() - (1 - share) * n) < 5 * math.sqrt(n * share * (1 - share))
    torch.testing.assert_close(dropped[kept], values[kept] / (1 - share))
    assert abs(dropped.mean().item() / values.mean().item() - 1) < 0.05


def test_dropouts_values_fall_on_their_own():
    """No value's fate tells another's: neighbours in memory least of all, which share random words."""
    kept = Dropout(0.3)(torch.ones(400_000)).bool().float() - 0.7
    for distance in (1, 2, 3, 4, 5, 8, 16):
        correlation = (kept[:-distance] * kept[distance:]).mean().item() / 0.21
        assert abs(correlation) < 5 / math.sqrt(400_000)


@pytest.mark.parametrize("shape", [(4, 3, 5, 7), (4, 3, 1, 1), (4, 1, 5, 7), (1, 3, 5, 7)])
def test_dropout_keeps_channels_last(shape):
    values = torch.rand(shape).to(memory_format=torch.channels_last) + 1
    torch.manual_seed(3)
    dropped = Dropout(0.4)(values)
    assert dropped.shape == shape
    assert dropped.is_contiguous(memory_format=torch.channels_last)
    kept = dropped != 0
    torch.testing.assert_close(dropped, torch.where(kept, values / 0.6, 0))
    assert 0 < kept.sum() < values.numel()


def test_dropout_of_many_maps_in_channels_last_drops_its_share_of_each():
    values = torch.ones(8, 16, 40, 40).to(memory_format=torch.channels_last)
    kept = (Dropout(0.25)(values) != 0).float().mean((2, 3))
    assert kept.shape == (8, 16)
    assert (kept - 0.75).abs().max() < 5 * math.sqrt(0.25 * 0.75 / 1600)


def test_dropouts_gradient_is_its_scale():
    values = torch.randn(50, 3, requires_grad=True)
    dropped = Dropout(0.5)(values)
    dropped.sum().backward()
    assert torch.equal(values.grad, torch.where(dropped != 0, 2.0, 0.0))


def test_dropout_does_nothing_outside_training():
    values = torch.randn(5)
    assert Dropout(0.5).eval()(values) is values
    assert Dropout(0.0)(values) is values


def test_dropout_follows_the_seed():
    values = torch.ones(1000)
    torch.manual_seed(1)
    first = Dropout(0.5)(values)
    assert not torch.equal(Dropout(0.5)(values), first)
    torch.manual_seed(1)
    assert torch.equal(Dropout(0.5)(values), first)


def test_dropout_keeps_the_type():
    assert Dropout(0.5)(torch.ones(9, dtype=torch.bfloat16)).dtype is torch.bfloat16


def is_uniform_within(weights, limit):
    """Whether the weights fill -limit to limit evenly."""
    quarters = torch.histc(weights.detach() / limit, 4, -1, 1) / weights.numel()
    return weights.abs().max() <= limit and (quarters - 0.25).abs().max() < 5 * math.sqrt(0.25 * 0.75 / weights.numel())


@pytest.mark.parametrize(
    ("layer", "fan_in", "fan_out"),
    [(nn.Linear(200, 50), 200, 50), (nn.Conv1d(16, 40, 5), 16 * 5, 40 * 5), (nn.Conv2d(16, 24, 3), 16 * 9, 24 * 9)],
)
def test_keras_init_of_linear_layers_and_convolutions(layer, fan_in, fan_out):
    layer.apply(keras_init)
    assert is_uniform_within(layer.weight, math.sqrt(6 / (fan_in + fan_out)))
    assert not layer.bias.any()


def test_keras_init_without_a_bias():
    nn.Linear(3, 2, bias=False).apply(keras_init)


@pytest.fixture
def initial():
    return BLSTM(60, 24).apply(keras_init)


def test_keras_init_of_an_lstms_kernel_and_biases(initial):
    """keras.layers.LSTM: a kernel (D, 4H), Glorot-uniform as one matrix; biases 0, of the forget gate 1."""
    for direction in (initial.ahead, initial.back):
        assert is_uniform_within(direction.weight_ih_l0, math.sqrt(6 / (60 + 4 * 24)))
        bias = (direction.bias_ih_l0 + direction.bias_hh_l0).view(4, 24)  # input, forget, cell, output
        assert bias.tolist() == [[0] * 24, [1] * 24, [0] * 24, [0] * 24]
        assert not direction.bias_hh_l0.requires_grad
    assert not torch.equal(initial.ahead.weight_ih_l0, initial.back.weight_ih_l0)


def test_keras_init_of_an_lstms_recurrent_kernel(initial):
    """keras.layers.LSTM.build: recurrent_kernel (H, 4H), orthogonal as one matrix: its rows are of
    length 1 and at right angles, so that each gate's own part is half as large as an orthogonal one."""
    for direction in (initial.ahead, initial.back):
        recurrent_kernel = direction.weight_hh_l0.T
        torch.testing.assert_close(recurrent_kernel @ recurrent_kernel.T, torch.eye(24), rtol=0, atol=1e-5)
    assert not torch.equal(initial.ahead.weight_hh_l0, initial.back.weight_hh_l0)
