"""Bledea's stacked LSTM, against its equations in numpy."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ser.cli import UserError
from ser.config import read_system
from ser.models.bledea import Config, Network

TESS = Path(__file__).resolve().parents[2] / "egs/tess/conf/bledea"
SMALL = Config(steps="frames", hidden_size=5, dense_size=4, dropout=0.0)


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def states_of(steps, weights, layer):
    """The states (T, H) of one LSTM layer over steps (T, D), gate by gate."""
    w, u, b = (weights[f"lstm.{name}_l{layer}"] for name in ("weight_ih", "weight_hh", "bias_ih"))
    state = cell = np.zeros(u.shape[1])
    states = []
    for step in steps:
        enter, forget, change, leave = np.split(w @ step + u @ state + b, 4)
        cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(change)
        state = sigmoid(leave) * np.tanh(cell)
        states.append(state)
    return np.array(states)


def of_numpy(steps, weights):
    states = states_of(states_of(steps, weights, 0), weights, 1)
    dense = np.maximum(weights["dense.weight"] @ states[-1] + weights["dense.bias"], 0)
    return weights["output.weight"] @ dense + weights["output.bias"]


def shaken(config, n_features):
    torch.manual_seed(0)
    network = Network(config, n_features, 3).double().eval()
    with torch.no_grad():
        for value in network.parameters():
            if value.requires_grad:
                value.uniform_(-0.9, 0.9)
    return network, {name: value.numpy() for name, value in network.state_dict().items()}


def test_frames_as_steps():
    """Of unequal lengths: each utterance gives what it gives alone, whatever the padding holds."""
    network, weights = shaken(SMALL, 6)
    lengths = torch.tensor([7, 1, 4])
    frames = torch.randn(3, 7, 6, dtype=torch.float64)
    for row, length in zip(frames, lengths, strict=True):
        row[length:] = 1e3
    scores, penalty = network(frames, lengths)
    assert penalty == 0
    for row, length, score in zip(frames.numpy(), lengths, scores.detach().numpy(), strict=True):
        np.testing.assert_allclose(score, of_numpy(row[:length], weights), atol=1e-12)


def test_values_as_steps():
    network, weights = shaken(replace(SMALL, steps="values"), 9)
    frames = torch.randn(4, 1, 9, dtype=torch.float64)
    scores, _ = network(frames, torch.ones(4, dtype=torch.int64))
    for row, score in zip(frames.numpy(), scores.detach().numpy(), strict=True):
        np.testing.assert_allclose(score, of_numpy(row[0][:, None], weights), atol=1e-12)


def test_values_need_one_frame():
    network, _ = shaken(replace(SMALL, steps="values"), 9)
    with pytest.raises(UserError, match="model.steps: values needs a feature with one frame per utterance"):
        network(torch.zeros(4, 2, 9, dtype=torch.float64), torch.ones(4, dtype=torch.int64))


@pytest.mark.parametrize(
    ("name", "size"), [(f"{name}{reading}", size) for name, size in [("mel", 128), ("mel_mfcc_zcr_rms", 170), ("mel_mfcc_rms", 169)] for reading in ("", "_values")]
)  # fmt: skip
def test_the_papers_network(name, size):
    """Section 4.1: LSTM 128, LSTM 128, dense 32, dropout 0.2, dense 7; Keras' number of parameters."""
    system = read_system(TESS / f"{name}.yaml")
    inputs = 1 if name.endswith("values") else size
    network = Network(system.model, size, 7)
    expected = 4 * 128 * (inputs + 128 + 1) + 4 * 128 * (128 + 128 + 1) + 128 * 32 + 32 + 32 * 7 + 7
    assert sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad) == expected
    assert network.dropout.share == 0.2
    assert (system.training.epochs, system.training.batch_size, system.training.learning_rate) == (50, 256, 1e-3)
    assert sum({"mel": 128, "mfcc": 40, "zcr": 1, "rms": 1}[part] for part in system.feature.parts) == size


def test_it_starts_as_keras_does():
    network = Network(read_system(TESS / "mel.yaml").model, 128, 7)
    for layer in (0, 1):
        recurrence = getattr(network.lstm, f"weight_hh_l{layer}").detach()
        torch.testing.assert_close(recurrence.T @ recurrence, torch.eye(128), atol=1e-5, rtol=0)
        bias = getattr(network.lstm, f"bias_ih_l{layer}").detach()
        assert bias.reshape(4, 128).sum(1).tolist() == [0, 128, 0, 0]
        assert not getattr(network.lstm, f"bias_hh_l{layer}").any()
