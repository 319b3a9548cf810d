"""Issa et al.'s network, against a plain version that is written out layer by layer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ser.cli import UserError
from ser.config import read_system
from ser.models.issa import Config, Network, ScoreNorm
from ser.networks import count_parameters

EGS = Path(__file__).resolve().parents[2] / "egs"
RAVDESS, IEMOCAP = EGS / "ravdess/conf/issa/cnn1d.yaml", EGS / "iemocap/conf/issa/cnn1d_adam.yaml"
SMALL = Config(channels=[4, 5, 6, 3, 7, 2], width=3, pool=2, dropouts=[0.0, 0.0, 0.0], norm_momentum=0.1)


def conv(values, weights, place):
    """(B, C, L) -> (B, C', L - width + 1), tap by tap."""
    weight, bias = weights[f"layers.{place}.weight"], weights[f"layers.{place}.bias"]
    width = weight.shape[2]
    taps = [
        torch.einsum("oc,bcl->bol", weight[:, :, k], values[:, :, k : values.shape[2] - width + 1 + k])
        for k in range(width)
    ]
    return sum(taps) + bias[:, None]


def normalise(values, weights, name, training):
    """Over the batch, and the positions where there are some; in evaluation by the running statistics."""
    axes, shape = ((0, 2), (-1, 1)) if values.ndim == 3 else (0, (-1,))
    mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
    if training:
        mean, variance = values.mean(axes), values.var(axes, correction=0)
    values = (values - mean.reshape(shape)) / torch.sqrt(variance.reshape(shape) + 1e-3)
    return values * weights[f"{name}.weight"].reshape(shape) + weights[f"{name}.bias"].reshape(shape)


def plain(vectors, weights, pool, training):
    """Scores (B, classes) of vectors (B, D), without dropout; weights: by name, {layers.<place in the order>: ...}."""
    values = conv(vectors[:, None], weights, 0)
    values = normalise(values, weights, "layers.1", training).relu()
    values = conv(values, weights, 3).relu()
    values = normalise(values, weights, "layers.6", training)
    length = values.shape[2] // pool
    values = values[:, :, : length * pool].reshape(*values.shape[:2], length, pool).amax(3)
    values = conv(values, weights, 8).relu()
    values = conv(values, weights, 10).relu()
    values = normalise(conv(values, weights, 12), weights, "layers.13", training).relu()
    values = conv(values, weights, 16).reshape(len(vectors), -1)
    scores = values @ weights["output.weight"].T + weights["output.bias"]
    return normalise(scores, weights, "output_norm", training)


def shaken(config, n_features, n_classes=3, seed=0):
    """A network whose parameters and running statistics are all drawn at random."""
    torch.manual_seed(seed)
    network = Network(config, n_features, n_classes).double()
    with torch.no_grad():
        for value in network.parameters():
            value.uniform_(-0.9, 0.9)
        for name, value in network.named_buffers():
            if "running" in name:
                value.uniform_(0.2, 1.5)
    return network


def ones(n):
    return torch.ones(n, dtype=torch.int64)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("n_features", [24, 25, 31])  # the pooling leaves one out of 21 and 27
def test_forward_and_gradients(training, n_features):
    network = shaken(SMALL, n_features).train(training)
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    for name, value in network.named_parameters():
        weights[name] = value.detach().clone().requires_grad_()
    ours, theirs = (torch.randn(6, n_features, dtype=torch.float64, requires_grad=True) for _ in range(2))
    theirs.data.copy_(ours.data)
    targets = torch.tensor([0, 1, 2, 2, 1, 0])
    scores, penalty = network(ours[:, None], ones(6))
    expected = plain(theirs, weights, SMALL.pool, training)
    assert penalty == 0
    torch.testing.assert_close(scores, expected)
    F.cross_entropy(scores, targets).backward()
    F.cross_entropy(expected, targets).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    for name, value in network.named_parameters():
        torch.testing.assert_close(value.grad, weights[name].grad, msg=name)


def test_the_order_of_the_layers():
    network = Network(read_system(RAVDESS).model, 193, 8)
    names = "Conv1d BatchNorm1d ReLU Conv1d ReLU Dropout BatchNorm1d MaxPool1d Conv1d ReLU Conv1d ReLU Conv1d BatchNorm1d ReLU Dropout"
    names += " Conv1d Flatten Dropout"
    assert [type(layer).__name__ for layer in network.layers] == names.split()
    lengths, values = [193], torch.zeros(2, 1, 193)
    for layer in network.layers.eval():
        values = layer(values)
        if values.ndim == 3 and values.shape[2] != lengths[-1]:
            lengths.append(values.shape[2])
    assert (lengths, values.shape) == ([193, 189, 185, 23, 19, 15, 11, 7], (2, 896))


# by hand, with 5 taps: 1 to 256, 256 to 128, and four times 128 to 128; three normalisations; 7 x 128 to the classes, and theirs
BODY = (5 * 256 + 256) + (5 * 256 * 128 + 128) + 4 * (5 * 128 * 128 + 128) + 2 * (256 + 128 + 128)


@pytest.mark.parametrize(("n_classes", "expected"), [(8, 501_912), (7, 501_013), (4, 498_316)])
def test_parameters(n_classes, expected):
    network = Network(read_system(RAVDESS).model, 193, n_classes)
    assert count_parameters(network) == BODY + 896 * n_classes + n_classes + 2 * n_classes == expected


def test_what_the_two_corpora_differ_in():
    ravdess, iemocap = read_system(RAVDESS), read_system(IEMOCAP)
    assert (ravdess.model.dropouts, iemocap.model.dropouts) == ([0.1, 0.2, 0.2], [0.2, 0.2, 0.2])
    assert (ravdess.training.optimiser, iemocap.training.optimiser) == ("rmsprop", "adam")
    assert iemocap.model == replace(ravdess.model, dropouts=[0.2, 0.2, 0.2])
    assert iemocap.training == replace(ravdess.training, optimiser="adam")
    assert (iemocap.feature, iemocap.normalisation) == (ravdess.feature, ravdess.normalisation)
    settings = ravdess.training
    assert (settings.learning_rate, settings.batch_size, settings.epochs, settings.epsilon) == (1e-5, 16, 700, 1e-7)
    network = Network(ravdess.model, 193, 8)
    assert [layer.share for layer in network.layers if hasattr(layer, "share")] == [0.1, 0.2, 0.2]
    assert {layer.eps for layer in network.modules() if hasattr(layer, "eps")} == {1e-3}
    assert {layer.momentum for layer in network.modules() if hasattr(layer, "momentum")} == {0.01}


def test_it_starts_as_keras_does():
    """Glorot: uniform up to the root of 6 / (taps x (inputs + outputs)); biases are 0, normalisations do nothing."""
    torch.manual_seed(0)
    network = Network(read_system(RAVDESS).model, 193, 8)
    for place, inputs, outputs in ((0, 1, 256), (3, 256, 128), (16, 128, 128)):
        layer = network.layers[place]
        bound, largest = (6 / (5 * (inputs + outputs))) ** 0.5, layer.weight.abs().max().item()
        assert 0.98 * bound < largest <= bound
        assert not layer.bias.any()
    assert (network.output_norm.weight == 1).all() and not network.output_norm.bias.any()


class TestTheNormalisationOfScores:
    """In training a class's scores have mean 0 and deviation 1 in the batch, whatever the layers below say."""

    @pytest.mark.parametrize("scale", [1.0, 1000.0])
    def test_a_network_cannot_be_surer_than_its_scores_deviate(self, scale):
        """Of 8 classes with as many utterances each, perfect scores are 7 ** 0.5 for the right one and -7 ** -0.5 for
        the others; the loss is then 0.29, and larger scores below leave it so."""
        targets = torch.arange(16) % 8
        norm = ScoreNorm(8, 1e-3, 0.01).double()
        scores = norm(scale * 100 * F.one_hot(targets, 8).double())
        torch.testing.assert_close(
            scores[0], torch.tensor([7**0.5, *[-(7**-0.5)] * 7], dtype=torch.float64), rtol=1e-4, atol=0
        )
        floor = np.log(1 + 7 * np.exp(-(7**0.5) - 7**-0.5))
        assert (
            F.cross_entropy(scores, targets).item() == pytest.approx(floor, rel=1e-4) == pytest.approx(0.293, abs=1e-3)
        )

    def test_an_utterances_scores_follow_from_its_batch_in_training_alone(self):
        network = shaken(SMALL, 25)
        vectors = torch.randn(6, 1, 25, dtype=torch.float64)
        whole, part = network(vectors, ones(6))[0], network(vectors[:4], ones(4))[0]
        assert not torch.allclose(whole[:4], part)
        network.eval()
        whole, alone = network(vectors, ones(6))[0], network(vectors[:1], ones(1))[0]
        torch.testing.assert_close(whole[:1], alone)

    def test_running_statistics_are_keras(self):
        """0.99 of what was and 0.01 of the batch's own mean and variance, not of its variance's unbiased estimate."""
        norm = ScoreNorm(2, 1e-3, 0.01).double()
        norm(torch.tensor([[1.0, 4.0], [3.0, 4.0]], dtype=torch.float64))
        assert norm.running_mean.tolist() == pytest.approx([0.02, 0.04])
        assert norm.running_var.tolist() == pytest.approx([1.0, 0.99])

    def test_a_batch_of_one_says_nothing(self):
        """As the last batch of an epoch may be; torch would refuse it."""
        network = shaken(SMALL, 25)
        scores, _ = network(torch.randn(1, 1, 25, dtype=torch.float64), ones(1))
        assert torch.equal(scores[0], network.output_norm.bias)
        scores.sum().backward()
        assert all(torch.isfinite(value.grad).all() for value in network.parameters())

    def test_in_mixed_precision(self):
        network = shaken(SMALL, 25).float()
        vectors = torch.randn(6, 1, 25)
        with torch.autocast("cpu", torch.bfloat16):
            scores, _ = network(vectors, ones(6))
        assert scores.dtype == torch.float32
        torch.testing.assert_close(scores.std(0, correction=0), network.output_norm.weight.abs(), atol=0.1, rtol=0.1)


def test_more_than_a_frame():
    with pytest.raises(
        UserError, match="model.kind: issa needs a feature with one frame per utterance; use one such as kind tonal"
    ):
        shaken(SMALL, 25)(torch.zeros(2, 2, 25, dtype=torch.float64), ones(2))


def test_too_few_values():
    """Two convolutions, a pooling and four convolutions leave one position of 22 values, and none of 21."""
    network = Network(SMALL, 22, 3)
    assert network.output.in_features == 2
    with pytest.raises(
        UserError,
        match="model.width, model.pool: need a feature with one frame per utterance, such as kind tonal, of at least 22 values; this one has 21",
    ):
        Network(SMALL, 21, 3)


@pytest.mark.parametrize(
    ("key", "value"), [("channels", [4] * 5), ("channels", [4] * 7), ("dropouts", [0.1, 0.2]), ("norm_momentum", 0.0)]
)
def test_settings_that_are_none(tmp_path, key, value):
    (tmp_path / "x.yaml").write_text(f"description: d\nbase: {RAVDESS}\nmodel: {{{key}: {value}}}\n")
    with pytest.raises(UserError, match=f"x.yaml: model.{key}: "):
        read_system(tmp_path / "x.yaml")
