"""The head on an encoder's states, against numpy."""

import numpy as np
import pytest
import torch

from ser.heads import Head

LENGTHS = torch.tensor([5, 1, 3])


def shaken(pooling, dropout=0.0):
    """A head of three layers of four values with random weights, and its weights in numpy."""
    torch.manual_seed(0)
    head = Head(3, 4, 6, pooling, dropout, 2).double().eval()
    with torch.no_grad():
        for value in head.parameters():
            value.uniform_(-0.9, 0.9)
    return head, {name: value.numpy() for name, value in head.state_dict().items()}


def softmax(scores):
    exponentials = np.exp(scores - scores.max())
    return exponentials / exponentials.sum()


def of_numpy(states, weights):
    """Class scores of the states (T, layers, width) of one utterance."""
    of_layer = softmax(weights["layer_scores"])
    mixed = sum(weight * states[:, layer] for layer, weight in enumerate(of_layer))
    frames = mixed @ weights["projection.weight"].T + weights["projection.bias"]
    shares = np.full(len(frames), 1 / len(frames))
    if "attention.weight" in weights:
        shares = softmax(frames @ weights["attention.weight"][0] + weights["attention.bias"])
    return weights["output.weight"] @ (shares @ frames) + weights["output.bias"]


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_each_utterance_of_a_batch_gets_what_numpy_gives_it_alone(pooling):
    head, weights = shaken(pooling)
    states = torch.randn(3, 5, 3, 4, dtype=torch.float64)
    for row, length in zip(states, LENGTHS, strict=True):
        row[length:] = 1e3  # padding
    scores = head(states, LENGTHS).detach().numpy()
    for row, length, score in zip(states.numpy(), LENGTHS, scores, strict=True):
        np.testing.assert_allclose(score, of_numpy(row[:length], weights), atol=1e-12)


def test_attention_is_not_the_mean():
    """Otherwise the test above could not tell the two apart."""
    head, weights = shaken("attention")
    states = torch.randn(1, 5, 3, 4, dtype=torch.float64)
    mean = {name: value for name, value in weights.items() if "attention" not in name}
    assert np.abs(of_numpy(states[0].numpy(), weights) - of_numpy(states[0].numpy(), mean)).max() > 1e-3


def test_the_weights_of_frames_sum_to_one_and_are_zero_for_padding():
    head, _ = shaken("attention")
    weights = head.weights(torch.randn(3, 5, 6, dtype=torch.float64), LENGTHS).detach()
    torch.testing.assert_close(weights.sum(1), torch.ones(3, dtype=torch.float64))
    assert [int((row > 0).sum()) for row in weights] == LENGTHS.tolist()


def test_layers_weigh_the_same_at_the_start():
    torch.testing.assert_close(Head(4, 3, 2, "mean", 0.0, 2).layer_weights(), torch.full((4,), 0.25))


def test_dropout_is_for_training_alone():
    head, _ = shaken("mean", dropout=0.5)
    states, lengths = torch.randn(1, 4, 3, 4, dtype=torch.float64), torch.tensor([4])
    assert torch.equal(head(states, lengths), head(states, lengths))
    head.train()
    assert not torch.equal(head(states, lengths), head(states, lengths))
