"""Convolutions that are fast on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_norm(in_channels: int, out_channels: int, momentum: float) -> "ConvNorm":
    """The faster of the two classes below for this number of channels. momentum: weight of a batch in the running
    statistics."""
    kind = SingleChannelConvNorm if in_channels == 1 else ConvNorm
    return kind(in_channels, out_channels, momentum)


class ConvNorm(nn.Module):
    """Convolution 3x3 and batch normalisation, with Keras' epsilon: (N, C, H, W) -> (N, C', H, W)."""

    def __init__(self, in_channels: int, out_channels: int, momentum: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=momentum)

    def forward(self, maps: Tensor) -> Tensor:
        return self.norm(self.conv(maps))


class SingleChannelConvNorm(ConvNorm):
    """The same function for one input channel; training needs no extra pass over the large output.

    A convolution's output is linear in the 3x3 patches of its input, so its mean and variance follow
    from the mean and covariance of the patches (9 values and 9x9), and the normalisation can be folded into
    the weights of the convolution.
    """

    def forward(self, maps: Tensor) -> Tensor:
        with torch.autocast(maps.device.type, enabled=False):  # statistics in full precision
            weight, bias = self.folded(maps)
        return F.conv2d(maps, weight, bias, padding=1)

    def folded(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Weight (C, 1, 3, 3) and bias (C,) of the convolution with the normalisation folded in."""
        norm = self.norm
        weight = self.conv.weight.flatten(1)  # (C, 9)
        if self.training:
            mean, covariance = patch_moments(maps)
            output_mean = weight @ mean  # without the bias, which the normalisation cancels
            variance = ((weight @ covariance) * weight).sum(1)
            with torch.no_grad():
                norm.running_mean.lerp_(output_mean + self.conv.bias, norm.momentum)
                norm.running_var.lerp_(variance * maps.numel() / (maps.numel() - 1), norm.momentum)
                norm.num_batches_tracked += 1
        else:
            output_mean, variance = norm.running_mean - self.conv.bias, norm.running_var
        scale = norm.weight * torch.rsqrt(variance + norm.eps)
        return (weight * scale[:, None]).view_as(self.conv.weight), norm.bias - output_mean * scale


def patch_moments(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (9,) and covariance (9, 9) of the 3x3 patches of (N, 1, H, W), zero-padded at the edges."""
    padded = F.pad(maps[:, 0], (1, 1, 1, 1))
    height, width = maps.shape[2:]
    shifts = [padded[:, i : i + height, j : j + width].flatten() for i in range(3) for j in range(3)]
    patches = torch.stack(shifts)
    mean = patches.mean(1)
    return mean, patches @ patches.T / patches.shape[1] - torch.outer(mean, mean)


def patches(maps: Tensor, kernel: int, stride: int) -> Tensor:
    """The input of a convolution at each position: (N, L, C) -> (N, L / stride rounded up, kernel * C), zero-padded
    equally at both ends, or with one more zero at the end (Keras' padding="same"). kernel: at least stride."""
    length, channels = maps.shape[1:]
    size = -(-length // stride)
    missing = (size - 1) * stride + kernel - length
    padded = F.pad(maps, (0, 0, missing // 2, missing - missing // 2))
    if channels == 1:  # raw signal: patches of many samples
        return padded[:, :, 0].unfold(1, kernel, stride)
    last = (size - 1) * stride + 1  # a few slices are faster than unfold, forward and backward
    return torch.cat([padded[:, place : place + last : stride] for place in range(kernel)], 2)
