"""What networks.forward makes of a network's scores, against the same in numpy."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ser import networks
from ser.batches import Batch
from ser.cli import UserError
from ser.config import Training

LENGTHS = [4, 1, 6]
WEIGHTS = [0.5, 2.0, 1.0, 4.0]  # of classes


class Linear(nn.Module):
    """Scores each frame, or the first frame of each utterance; the penalty is 7."""

    def __init__(self, each_frame):
        super().__init__()
        torch.manual_seed(0)
        self.each_frame, self.layer = each_frame, nn.Linear(5, 4)

    def forward(self, frames, lengths):
        return self.layer(frames if self.each_frame else frames[:, 0]), torch.tensor(7.0)


def batch():
    """Frames with what must not be heard beyond each length."""
    torch.manual_seed(1)
    frames = torch.randn(3, 6, 5)
    for row, length in zip(frames, LENGTHS, strict=True):
        row[length:] = 1e3
    return Batch(["a", "b", "c"], frames, torch.tensor(LENGTHS), torch.tensor([3, 0, 1]))


def logs_of_numpy(network, frames):
    """Log-posteriors (T, classes) of frames (T, D)."""
    scores = frames.numpy() @ network.layer.weight.detach().numpy().T + network.layer.bias.detach().numpy()
    return scores - np.log(np.exp(scores).sum(1, keepdims=True))


@pytest.mark.parametrize("each_frame", [True, False])
def test_log_posteriors(each_frame):
    """Of frames, the mean over an utterance's own."""
    network = Linear(each_frame)
    logs, penalty = networks.forward(network, batch(), "float32")
    assert penalty == 7
    for row, length, own in zip(batch().frames, LENGTHS, logs.detach().numpy(), strict=True):
        np.testing.assert_allclose(own, logs_of_numpy(network, row[: length if each_frame else 1]).mean(0), rtol=1e-5)
    if not each_frame:
        np.testing.assert_allclose(np.exp(logs.detach().numpy()).sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("each_frame", [True, False])
def test_their_loss_is_the_mean_cross_entropy(each_frame):
    """Each utterance counts by its class's weight and not by its length, and padding not at all."""
    network, given = Linear(each_frame), batch()
    given.frames.requires_grad_()
    logs, _ = networks.forward(network, given, "float32")
    loss = nn.NLLLoss(torch.tensor(WEIGHTS))(logs, given.targets)
    total = 0
    for row, length, target in zip(batch().frames, LENGTHS, given.targets, strict=True):
        own = row[: length if each_frame else 1]
        total += WEIGHTS[target] * sum(-frame[target] for frame in logs_of_numpy(network, own)) / len(own)
    assert loss.item() == pytest.approx(total / sum(WEIGHTS[target] for target in given.targets), rel=1e-5)
    loss.backward()
    for gradient, length in zip(given.frames.grad, LENGTHS, strict=True):
        used = length if each_frame else 1
        assert gradient[:used].any(1).all()
        assert not gradient[used:].any()


@pytest.mark.parametrize("each_frame", [True, False])
def test_the_loss_of_what_is_certain_is_nothing(each_frame):
    """A softmax before a cross-entropy that applies it again leaves 0.74 of four classes."""
    network, given = Linear(each_frame), batch()
    with torch.no_grad():
        network.layer.weight.zero_()
        network.layer.bias[:] = torch.tensor([-50.0, 50, -50, -50])
    logs, _ = networks.forward(network, given, "float32")
    assert nn.NLLLoss()(logs, torch.tensor([1, 1, 1])).item() == 0
    assert nn.NLLLoss()(logs, torch.tensor([0, 2, 3])).item() == pytest.approx(100)


@pytest.mark.parametrize("each_frame", [True, False])
def test_bfloat16_scores_give_single_precision_logs(each_frame):
    exact, rounded = (
        networks.forward(Linear(each_frame), batch(), precision)[0] for precision in ("float32", "bfloat16")
    )
    assert rounded.dtype is torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, atol=0.05, rtol=0.05)


def test_a_cpu_that_has_no_bfloat16_is_named_in_one_line():
    """As oneDNN refuses an LSTM on a CPU without AVX-512."""

    class Refused(Linear):
        def forward(self, frames, lengths):
            raise RuntimeError("could not create a primitive descriptor for the LSTM forward propagation primitive")

    with pytest.raises(UserError, match=r"^training\.precision: bfloat16: this CPU cannot run .*precision=float32"):
        networks.forward(Refused(False), batch(), "bfloat16")
    with pytest.raises(RuntimeError, match="primitive descriptor"):
        networks.forward(Refused(False), batch(), "float32")


def test_rmsprop_is_keras():
    """Its paper's, with 0.9 of the mean square kept (PyTorch keeps 0.99), no momentum, and epsilon outside the root."""
    settings = Training(epochs=1, batch_size=1, learning_rate=0.01, optimiser="rmsprop", epsilon=1e-2)
    weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    optimiser = networks.optimiser(settings, [weight])
    expected, square = weight.detach().numpy().copy(), np.zeros(3)
    for gradient in ([0.5, -3.0, 0.0], [0.4, 1e-3, 2.0], [-0.1, 0.2, 1.0]):
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        optimiser.step()
        square = 0.9 * square + 0.1 * np.square(gradient)
        expected -= 0.01 * np.array(gradient) / (np.sqrt(square) + 1e-2)
        np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-12)


def test_a_file_with_one_byte_changed_is_refused(tmp_path):
    """Of each byte one bit, and one more cut off the end: another weight would be another score."""
    path = tmp_path / "x.safetensors"
    tensors = {"weight": torch.randn(2, 3), "steps": torch.tensor(7), "random": torch.arange(4, dtype=torch.uint8)}
    networks.save(path, tensors, {"sizes": {"n_features": 6}, "log": [{"epoch": 1, "dev_loss": 0.25}]})
    content = path.read_bytes()
    for place in range(len(content)):
        for changed in (
            content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :],
            content[:place],
        ):
            path.write_bytes(changed)
            with pytest.raises(UserError) as error:
                networks.load(path)
            assert str(error.value).startswith(f"{path}: ") and str(error.value).endswith(
                "; remove it and run stage 4 again"
            )
            assert "\n" not in str(error.value)


def test_a_file_without_a_checksum(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"weight": torch.zeros(2)}, path, {"notes": '{"sizes": {"n_features": 6}}'})
    with pytest.raises(
        UserError,
        match=r"x\.safetensors: written by an older version, without a checksum; remove it and run stage 4 again",
    ):
        networks.load(path)


def test_a_checkpoint_of_another_optimiser(tmp_path):
    """As a version of torch with other settings would leave it."""
    network = Linear(True)
    networks.save_checkpoint(
        tmp_path / "x", network, torch.optim.SGD(network.parameters(), 0.1), {"run": "1", "log": [], "sums": None}
    )
    tensors, notes = networks.load(tmp_path / "x")
    networks.save(tmp_path / "x", {name: tensor for name, tensor in tensors.items() if name != "random.cpu"}, notes)
    with pytest.raises(
        UserError, match=r"x: not a checkpoint of this version \(KeyError: 'cpu'\); remove it and run stage 4 again"
    ):
        networks.load_checkpoint(tmp_path / "x", network, torch.optim.SGD(network.parameters(), 0.1), "1")
    networks.save(tmp_path / "x", tensors, {**notes, "groups": []})
    with pytest.raises(
        UserError, match=r"x: not a checkpoint of this version \(ValueError: .*\); remove it and run stage 4 again"
    ):
        networks.load_checkpoint(tmp_path / "x", network, torch.optim.SGD(network.parameters(), 0.1), "1")


@pytest.mark.parametrize("interrupted", [False, True])
def test_adam_is_that_of_its_paper(tmp_path, interrupted):
    """Kingma and Ba 2015, algorithm 1, value by value; of a weight that does not lie in memory in the order of its axes;
    and with a checkpoint after the third step."""
    network = nn.Conv2d(3, 5, 3, bias=False).to(memory_format=torch.channels_last)
    settings = Training(epochs=1, batch_size=1, learning_rate=0.01, epsilon=1e-7)
    optimiser = networks.optimiser(settings, network.parameters())
    weight = network.weight.detach().double().numpy().copy()
    first = second = 0.0
    rng = np.random.default_rng(0)
    for step in range(1, 7):
        gradient = rng.standard_normal(weight.shape)
        network.weight.grad = torch.empty_like(network.weight).copy_(torch.from_numpy(gradient))
        optimiser.step()
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        weight -= 0.01 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-7)
        if interrupted and step == 3:
            networks.save_checkpoint(tmp_path / "checkpoint", network, optimiser, {"run": "one"})
            network = nn.Conv2d(3, 5, 3, bias=False).to(memory_format=torch.channels_last)
            optimiser = networks.optimiser(settings, network.parameters())
            networks.load_checkpoint(tmp_path / "checkpoint", network, optimiser, "one")
    np.testing.assert_allclose(network.weight.detach().numpy(), weight, rtol=1e-4, atol=1e-6)
