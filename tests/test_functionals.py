"""Functionals of padded batches, against numpy's and scipy's of each utterance alone."""

from typing import get_args

import numpy as np
import pytest
import scipy.stats
import torch

from ser.functionals import Name, pool

LENGTHS = [9, 2, 31, 5, 30]


def times(frames):
    return np.arange(len(frames)) / (len(frames) - 1)


def lines(frames):
    return [scipy.stats.linregress(times(frames), column) for column in frames.T]


PLAIN = {
    "mean": lambda frames: frames.mean(0),
    "deviation": lambda frames: frames.std(0),
    "min": lambda frames: frames.min(0),
    "max": lambda frames: frames.max(0),
    "range": lambda frames: frames.max(0) - frames.min(0),
    "skewness": scipy.stats.skew,
    "kurtosis": scipy.stats.kurtosis,
    "argmin": lambda frames: times(frames)[frames.argmin(0)],
    "argmax": lambda frames: times(frames)[frames.argmax(0)],
    "slope": lambda frames: np.array([line.slope for line in lines(frames)]),
    "offset": lambda frames: np.array([line.intercept for line in lines(frames)]),
}
NAMES = list(PLAIN)


def padded(junk=1e3, lengths=LENGTHS):
    """frames (B, T, 3), `junk` beyond each length: normal; skewed and rising; with ties. lengths (B,)."""
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((len(lengths), max(lengths), 3))
    frames[:, :, 1] = np.exp(frames[:, :, 1]) + 0.1 * np.arange(max(lengths))
    frames[:, :, 2] = rng.integers(2, size=frames.shape[:2])
    frames[:, 0, 2], frames[:, 1, 2] = 0, 1  # both are there
    for row, length in zip(frames, lengths, strict=True):
        row[length:] = junk
    return torch.from_numpy(frames), torch.tensor(lengths)


def test_every_functional_is_tested():
    assert list(get_args(Name)) == NAMES


@pytest.mark.parametrize("junk", [1e3, -1e3, torch.inf, torch.nan])
@pytest.mark.parametrize("name", NAMES)
def test_they_are_numpys_and_scipys(name, junk):
    frames, lengths = padded(junk)
    pooled = pool(frames, lengths, [name])
    assert pooled.shape == (5, 3)
    for row, length, values in zip(frames.numpy(), LENGTHS, pooled.numpy(), strict=True):
        np.testing.assert_allclose(values, PLAIN[name](row[:length]), rtol=1e-6, atol=1e-6)


def test_the_order_is_that_of_the_names():
    frames, lengths = padded()
    for names in (NAMES, NAMES[::-1], ["offset"], ["kurtosis", "mean"]):
        pooled = pool(frames, lengths, names)
        assert pooled.shape == (5, 3 * len(names))
        for name, values in zip(names, pooled.split(3, 1), strict=True):
            torch.testing.assert_close(values, pool(frames, lengths, [name]), check_dtype=False)
    assert len({tuple(values[0].tolist()) for values in pool(frames, lengths, NAMES).split(3, 1)}) == len(NAMES)


def test_an_utterance_gives_in_a_batch_what_it_gives_alone():
    frames, lengths = padded()
    pooled = pool(frames, lengths, NAMES)
    for row, length in enumerate(LENGTHS):
        torch.testing.assert_close(pooled[row], pool(frames[row : row + 1, :length], lengths[row : row + 1], NAMES)[0])


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("arg")])
def test_gradients(name):
    frames, lengths = padded(lengths=[4, 2, 7])
    frames[:, :, 2] += 0.1 * torch.randn(3, 7)  # an extremum has a gradient where it stands alone
    assert torch.autograd.gradcheck(lambda frames: pool(frames, lengths, [name]), frames.requires_grad_())


@pytest.mark.parametrize("junk", [1e3, torch.inf, torch.nan])
def test_padding_gets_no_gradient(junk):
    frames, lengths = padded(junk)
    pool(frames.requires_grad_(), lengths, NAMES).sum().backward()
    assert torch.isfinite(frames.grad).all()
    for gradient, length in zip(frames.grad, LENGTHS, strict=True):
        assert gradient[:length].any(0).all()
        assert not gradient[length:].any()


@pytest.mark.parametrize("value", [0.0, 0.1, -30.7, 200.3, 10000.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_never_changes(value, dtype):
    """One frame, and constants whose mean is rounded: finite values, and gradients that do not run away."""
    frames = torch.full((4, 977, 1), value, dtype=dtype).requires_grad_()
    pooled = pool(frames, torch.tensor([1, 2, 7, 977]), NAMES)
    own = value, 0, value, value, 0, 0, -3, 0, 0, 0, value
    torch.testing.assert_close(pooled, torch.tensor(own, dtype=dtype).expand(4, -1), rtol=1e-6, atol=1.1e-5)
    for column in pooled.T:
        (gradient,) = torch.autograd.grad(column.sum(), frames, retain_graph=True)
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() <= 1


@pytest.mark.parametrize("length", [50, 2000])
def test_single_precision_is_enough(length):
    """Of log-mel features in decibels, and of F0 in Hz, which are far from zero."""
    rng = np.random.default_rng(0)
    frames = rng.gamma(2, size=(length, 2)) * [5, 20] + [-60, 200]
    pooled = pool(torch.tensor(frames, dtype=torch.float32)[None], torch.tensor([length]), NAMES)[0]
    for name, values in zip(NAMES, pooled.numpy().reshape(-1, 2), strict=True):
        np.testing.assert_allclose(values, PLAIN[name](frames), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_shape_has_no_scale(scale):
    frames, lengths = padded()
    names = ["skewness", "kurtosis", "argmin", "argmax"]
    torch.testing.assert_close(
        pool(frames.float() * scale, lengths, names), pool(frames.float(), lengths, names), rtol=1e-4, atol=1e-4
    )
