"""The network on the states of an encoder; its head is tested in tests/test_heads.py."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import ser
from ser import networks, score
from ser.config import read_system
from ser.features import pretrained
from ser.models.superb import Config, Network
from ser.runs import read_run
from ser.scores import read_scores
from ser.train import train

EGS = Path(__file__).resolve().parents[2] / "egs"
LENGTHS = torch.tensor([7, 1, 4])


def shaken(config, n_features=12, n_layers=3):
    torch.manual_seed(0)
    network = Network(config, n_features, 2, n_layers).double().eval()
    with torch.no_grad():
        for value in network.parameters():
            value.uniform_(-0.9, 0.9)
    return network


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_an_utterance_gets_what_it_gets_alone(pooling):
    network = shaken(Config(projection=5, pooling=pooling))
    frames = torch.randn(3, 7, 12, dtype=torch.float64)
    for row, length in zip(frames, LENGTHS, strict=True):
        row[length:] = 1e3  # padding
    scores, penalty = network(frames, LENGTHS)
    assert penalty == 0
    for row, length, expected in zip(frames, LENGTHS, scores, strict=True):
        torch.testing.assert_close(network(row[None, :length], length[None])[0][0], expected)


def test_the_values_of_a_layer_stand_side_by_side():
    """With all weight on one layer, the values of the others do not matter."""
    network = shaken(Config(projection=5))
    with torch.no_grad():
        network.head.layer_scores.copy_(torch.tensor([-1e3, 0, -1e3]))
    frames = torch.randn(1, 4, 12, dtype=torch.float64)
    changed, touched = frames.clone(), frames.clone()
    changed[:, :, :4] = changed[:, :, 8:] = 7
    touched[:, :, 4] += 1
    scores = [network(given, torch.tensor([4]))[0] for given in (frames, changed, touched)]
    torch.testing.assert_close(scores[0], scores[1])
    assert (scores[0] - scores[2]).abs().max() > 1e-3


def test_on_means_over_time_it_gives_what_it_gives_on_frames():
    """All before the mean over time is linear: a feature with `statistics: [mean]` saves the frames."""
    settings = {"model": "m", "weights": "0" * 32, "layers": [0, 1, 2]}
    network = shaken(Config(projection=5))
    states = torch.randn(3, 9, 4, dtype=torch.float64)  # (layers, T, width)
    frames, means = (
        pretrained.summary(states, pretrained.Config(**settings, statistics=statistics))[None]
        for statistics in (None, ["mean"])
    )
    assert (frames.shape, means.shape) == ((1, 9, 12), (1, 1, 12))
    on_frames, on_means = network(frames, torch.tensor([9]))[0], network(means, torch.tensor([1]))[0]
    torch.testing.assert_close(on_frames, on_means)


def test_attention_on_means_is_not_attention_on_frames():
    network = shaken(Config(projection=5, pooling="attention"))
    frames = torch.randn(1, 9, 12, dtype=torch.float64)
    on_frames, on_means = (
        network(given, torch.tensor([given.shape[1]]))[0] for given in (frames, frames.mean(1, keepdim=True))
    )
    assert (on_frames - on_means).abs().max() > 1e-3


def test_weights_of_frames():
    frames = torch.randn(3, 7, 12, dtype=torch.float64)
    assert shaken(Config()).frame_weights(frames, LENGTHS) == {}
    network = shaken(Config(pooling="attention"))
    (weights,) = network.frame_weights(frames, LENGTHS).values()
    (even,) = network.frame_weights(frames, LENGTHS, even=True).values()
    torch.testing.assert_close(weights.sum(1), torch.ones(3, dtype=torch.float64))
    for row, length in zip(even, LENGTHS, strict=True):
        np.testing.assert_allclose(row.detach()[:length], np.full(length, 1 / length))
        assert not row[length:].any()
    assert (weights - even).abs().max() > 1e-3


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_it_trains_is_scored_and_hears_recordings(encoded, pooling):
    """Its layers come from the system's feature in training, and from the weights' file afterwards."""
    folder = encoded.lay_out("run", system="superb", model={"pooling": pooling}, epochs=20, learning_rate=0.03)
    train(folder)
    _, notes = networks.load(read_run(folder).weights)
    assert notes["sizes"] == {"n_features": 48, "n_classes": 2, "n_layers": 3}
    score.score(folder, Path("results.txt"), "cpu")
    scores = read_scores(Path("results.txt"))
    right = [
        scores.classes[row.argmax()] == encoded.classes[utt]
        for utt, row in zip(scores.utts, scores.posteriors, strict=True)
    ]
    assert np.mean(right) > 0.9
    soundfile.write("a.wav", 0.1 * np.random.default_rng(0).standard_normal(8000), 16000)
    prediction = ser.load(folder).predict("a.wav")
    assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_another_feature_is_one_layer(recipe):
    recipe.write_yaml(
        "conf/toy/superb.yaml",
        **recipe.yaml.safe_load(Path("conf/toy/tiny.yaml").read_text()) | {"model": {"kind": "superb"}},
    )
    folder = recipe.lay_out("run", system="superb", epochs=1)
    train(folder)
    assert networks.load(read_run(folder).weights)[1]["sizes"] == {"n_features": 6, "n_classes": 2, "n_layers": 1}


def test_the_recipes_network_has_the_sizes_of_superb():
    """One weight for each layer, a projection of 256, and a linear layer."""
    system = read_system(EGS / "ravdess/conf/pretrained/whisper_superb.yaml")
    network = Network(system.model, 5 * 384, 7, 5)
    assert networks.count_parameters(network) == 5 + (384 + 1) * 256 + (256 + 1) * 7
    assert (system.model.pooling, system.model.dropout) == ("mean", 0)
