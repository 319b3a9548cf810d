"""Convolutions, against torch's own layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ser.convolutions import ConvNorm, SingleChannelConvNorm, conv_norm, patch_moments, patches


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def shake(module):
    """Give a module weights, scales and statistics that hide nothing: biases not 0, scales below 0."""
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif value.is_floating_point() and "bias_hh" not in name:
                value.uniform_(-0.8, 0.8)
    return module.double()


class TestSingleChannelConvNorm:
    """The first convolution with its normalisation, against Conv2d and BatchNorm2d."""

    @pytest.fixture
    def both(self):
        ours = shake(SingleChannelConvNorm(1, 9, 0.3))
        theirs = nn.Sequential(nn.Conv2d(1, 9, 3, padding=1), nn.BatchNorm2d(9, eps=1e-3, momentum=0.3)).double()
        theirs[0].load_state_dict(ours.conv.state_dict())
        theirs[1].load_state_dict(ours.norm.state_dict())
        with torch.no_grad():
            assert (ours.norm.weight < 0).any()
        return ours, theirs

    @pytest.mark.parametrize("shape", [(6, 1, 12, 8), (1, 1, 5, 3), (2, 1, 1, 4)])
    @pytest.mark.parametrize("training", [True, False])
    def test_outputs_gradients_and_statistics(self, both, training, shape):
        ours, theirs = (layer.train(training) for layer in both)
        for _ in range(3):  # the statistics run
            maps = (torch.randn(shape, dtype=torch.float64) + 2).requires_grad_()
            output, expected = ours(maps), theirs(maps)
            torch.testing.assert_close(output, expected)
            upstream = torch.randn_like(expected)
            leaves = [maps, ours.conv.weight, ours.norm.weight, ours.norm.bias]
            gradients = torch.autograd.grad((output * upstream).sum(), [*leaves, ours.conv.bias], allow_unused=True)
            leaves = [maps, theirs[0].weight, theirs[1].weight, theirs[1].bias]
            expected_gradients = torch.autograd.grad((expected * upstream).sum(), [*leaves, theirs[0].bias])
            bias, expected_bias = gradients[-1], expected_gradients[-1]
            if bias is None:  # in training the normalisation takes the bias out again
                assert training
                bias = torch.zeros_like(expected_bias)
            torch.testing.assert_close(bias, expected_bias)
            for gradient, expected_gradient in zip(gradients[:-1], expected_gradients[:-1], strict=True):
                torch.testing.assert_close(gradient, expected_gradient)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            torch.testing.assert_close(getattr(ours.norm, name), getattr(theirs[1], name))
            assert getattr(ours.norm, name).grad_fn is None  # no batch is remembered in them

    def test_it_is_taken_for_one_channel(self):
        assert [type(conv_norm(channels, 5, 0.1)) for channels in (1, 2)] == [SingleChannelConvNorm, ConvNorm]

    def test_single_precision_is_enough(self):
        """Log-mel features after normalisation: a mean near 0, a deviation near 1."""
        ours = SingleChannelConvNorm(1, 16, 0.01)
        theirs = nn.Sequential(ours.conv, nn.BatchNorm2d(16, eps=1e-3))
        maps = torch.randn(8, 1, 128, 128) * 1.5 + 0.3
        torch.testing.assert_close(ours(maps), theirs(maps), rtol=1e-4, atol=1e-4)

    def test_patch_moments(self):
        maps = torch.randn(3, 1, 4, 5, dtype=torch.float64)
        patches = F.unfold(maps, 3, padding=1).transpose(1, 2).reshape(-1, 9)
        mean, covariance = patch_moments(maps)
        torch.testing.assert_close(mean, patches.mean(0))
        torch.testing.assert_close(covariance, torch.cov(patches.T, correction=0))


@pytest.mark.parametrize(
    ("length", "channels", "kernel", "stride"), [(12, 1, 5, 2), (12, 2, 5, 2), (13, 3, 4, 3), (7, 2, 3, 1)]
)
def test_patches_are_what_a_convolution_reads(length, channels, kernel, stride):
    maps, weight = torch.randn(2, length, channels), torch.randn(6, channels, kernel)
    missing = (-(-length // stride) - 1) * stride + kernel - length
    expected = F.conv1d(F.pad(maps.transpose(1, 2), (missing // 2, missing - missing // 2)), weight, stride=stride)
    found = patches(maps, kernel, stride) @ weight.transpose(1, 2).flatten(1).T
    torch.testing.assert_close(found.transpose(1, 2), expected, rtol=1e-4, atol=1e-5)
