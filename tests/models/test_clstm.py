"""Mustaqeem and Kwon's network as far as it is public: ConvLSTM against Shi et al.'s equations in numpy, the whole against
torch's own convolutions, one utterance after the other."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ser import networks
from ser.batches import Batch
from ser.cli import UserError
from ser.config import read_system
from ser.models.clstm import Config, ConvLSTM, Network

EGS = Path(__file__).resolve().parents[2] / "egs"
RAVDESS, IEMOCAP = EGS / "ravdess/conf/clstm/clstm.yaml", EGS / "iemocap/conf/clstm/clstm.yaml"
SMALL = Config(
    channels=[3, 4, 4], pools=[2, 3, 2], first_kernel=5, first_stride=2, kernel=3, gru_size=5, gru_layers=2, dropout=0.0
)  # fmt: skip
SAMPLES, CLASSES = 48, 3  # 24, 12, 4 positions; 2 are left
LENGTHS = [4, 1, 7, 3]
ROWS = {
    "blocks of three": SMALL,
    "one block": replace(SMALL, channels=[3], pools=[2]),
    "even kernels": replace(SMALL, first_kernel=4, first_stride=4, kernel=2, pools=[2, 3, 1]),
    "one layer of GRU": replace(SMALL, gru_layers=1),
    "segments become vectors": replace(SMALL, pools=[2, 3, 4]),
}
each_row = pytest.mark.parametrize("config", ROWS.values(), ids=ROWS.keys())


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def shake(module):
    """Give a module weights, scales and statistics that hide nothing: biases not 0, scales below 0."""
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif value.is_floating_point():
                value.uniform_(-0.8, 0.8)
    return module.double()


def padded(lengths=LENGTHS):
    """frames (B, T, SAMPLES), with what must not be heard beyond each length; lengths (B,)."""
    frames = torch.randn(len(lengths), max(lengths), SAMPLES, dtype=torch.float64)
    for row, length in zip(frames, lengths, strict=True):
        row[length:] = 1e3
    return frames, torch.tensor(lengths)


def batch():
    frames, lengths = padded()
    return Batch(list("abcd"), frames.float(), lengths, torch.tensor([2, 0, 1, 1]))


class TestConvLSTM:
    """Shi et al. 2015, equation 3, without the peepholes."""

    @staticmethod
    def convolve(maps, weights, stride):
        """(L, C) and weights (C', kernel, C) -> (ceil(L / stride), C'), value by value; TensorFlow's padding "same"."""
        size, kernel = -(-len(maps) // stride), weights.shape[1]
        before = ((size - 1) * stride + kernel - len(maps)) // 2
        found = np.zeros((size, len(weights)))
        for position in range(size):
            for place in range(kernel):
                source = position * stride + place - before
                if 0 <= source < len(maps):
                    found[position] += weights[:, place] @ maps[source]
        return found

    def of_numpy(self, steps, layer):
        """States of one utterance (T, L, C), gate by gate."""
        maps, channels = steps.shape[2], layer.states.out_features // 4
        w = layer.inputs.weight.detach().numpy().reshape(4, channels, layer.kernel, maps)
        u = layer.states.weight.detach().numpy().reshape(4, channels, layer.state_kernel, channels)
        b = layer.inputs.bias.detach().numpy().reshape(4, channels)
        sigmoid = lambda values: 1 / (1 + np.exp(-values))  # noqa: E731
        size = -(-steps.shape[1] // layer.stride)
        state = cell = np.zeros((size, channels))
        states = []
        for step in steps:
            i, f, g, o = (
                self.convolve(step, w[gate], layer.stride) + self.convolve(state, u[gate], 1) + b[gate]
                for gate in range(4)
            )
            cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
            state = sigmoid(o) * np.tanh(cell)
            states.append(state)
        return np.array(states)

    @pytest.mark.parametrize(
        ("maps", "length", "kernel", "stride", "state_kernel"),
        [
            (1, 12, 5, 2, 3),
            (1, 13, 4, 4, 3),
            (1, 16, 8, 4, 1),
            (2, 7, 3, 1, 3),
            (3, 6, 2, 1, 2),
            (2, 1, 3, 1, 5),
            (2, 9, 4, 2, 3),
        ],
    )
    def test_states(self, maps, length, kernel, stride, state_kernel):
        layer = shake(ConvLSTM(maps, 4, kernel, stride, state_kernel))
        steps = torch.randn(5, 2, length, maps, dtype=torch.float64)
        states = layer(steps).detach().numpy()
        assert states.shape == (5, 2, -(-length // stride), 4)
        for row in range(2):
            np.testing.assert_allclose(states[:, row], self.of_numpy(steps[:, row].numpy(), layer), atol=1e-12)

    def test_it_starts_as_keras_does(self):
        """Its kernels are (places, maps, 4 channels): Glorot's limit, and one orthogonal matrix of (places * maps, 4 channels)."""
        network = Network(read_system(RAVDESS).model, 4096, 7)
        for block, maps, channels, kernel in zip(
            network.blocks, [1, 64, 64, 128], [64, 64, 128, 128], [64, 3, 3, 3], strict=True
        ):
            layer = block.conv_lstm
            limit = (6 / (kernel * maps + kernel * 4 * channels)) ** 0.5
            assert 0.97 * limit < layer.inputs.weight.abs().max() <= limit
            assert layer.inputs.weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.03)
            rows = layer.states.weight.detach().T
            assert rows.shape == (3 * channels, 4 * channels)
            torch.testing.assert_close(rows @ rows.T, torch.eye(3 * channels), atol=1e-5, rtol=0)
            assert layer.inputs.bias.reshape(4, channels).sum(1).tolist() == [0, channels, 0, 0]
        assert all(not value.any() for name, value in network.gru.named_parameters() if name.startswith("bias"))
        for layer in (0, 1):
            recurrence = getattr(network.gru, f"weight_hh_l{layer}").detach()
            torch.testing.assert_close(recurrence.T @ recurrence, torch.eye(128), atol=1e-5, rtol=0)
            assert getattr(network.gru, f"weight_ih_l{layer}").abs().max() <= (6 / (128 + 3 * 128)) ** 0.5


class Plain(nn.Module):
    """The network by torch's own layers, with maps (steps, channels, positions), one utterance after the other but for
    the batch normalisation."""

    def __init__(self, network, config):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList()
        maps, kernel, stride = 1, config.first_kernel, config.first_stride
        for block, channels in zip(network.blocks, config.channels, strict=True):
            inputs = nn.Conv1d(maps, 4 * channels, kernel, stride).double()
            states = nn.Conv1d(channels, 4 * channels, config.kernel, bias=False).double()
            link = nn.Conv1d(maps, channels, 1).double() if maps != channels and stride == 1 else nn.Identity()
            norm = nn.BatchNorm1d(channels).double()
            with torch.no_grad():
                inputs.weight.copy_(block.conv_lstm.inputs.weight.unflatten(1, (kernel, maps)).transpose(1, 2))
                inputs.bias.copy_(block.conv_lstm.inputs.bias)
                states.weight.copy_(
                    block.conv_lstm.states.weight.unflatten(1, (config.kernel, channels)).transpose(1, 2)
                )
                if len(list(link.parameters())):
                    link.weight.copy_(block.link.weight[:, :, None])
                    link.bias.copy_(block.link.bias)
            norm.load_state_dict(block.norm.state_dict())
            self.layers.append(nn.ModuleDict({"inputs": inputs, "states": states, "link": link, "norm": norm}))
            maps, kernel, stride = channels, config.kernel, 1
        self.level = network.level.running_mean.clone(), network.level.running_var.clone()
        self.gru = nn.GRU(network.gru.input_size, config.gru_size, config.gru_layers).double()
        self.gru.load_state_dict(network.gru.state_dict())
        self.output = nn.Linear(config.gru_size, CLASSES).double()
        self.output.load_state_dict(network.output.state_dict())

    @staticmethod
    def same(maps, convolution):
        (kernel,), (stride,) = convolution.kernel_size, convolution.stride
        missing = (-(-maps.shape[-1] // stride) - 1) * stride + kernel - maps.shape[-1]
        return convolution(F.pad(maps, (missing // 2, missing - missing // 2)))

    def conv_lstm(self, steps, layer):
        state = cell = torch.zeros(1, dtype=torch.float64)
        states = []
        for number, step in enumerate(steps):
            gates = self.same(step[None], layer["inputs"])
            gates = gates + (self.same(state, layer["states"]) if number else 0)
            i, f, g, o = gates.chunk(4, 1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            state = torch.sigmoid(o) * torch.tanh(cell)
            states.append(state)
        return torch.cat(states)

    def forward(self, frames, lengths):
        utterances = [row[:length, None] for row, length in zip(frames, lengths, strict=True)]
        samples = torch.cat([segments.flatten() for segments in utterances])
        mean, variance = (samples.mean(), samples.var(correction=0)) if self.training else self.level
        utterances = [(segments - mean) / (variance + 1e-5) ** 0.5 for segments in utterances]
        for number, (layer, pool) in enumerate(zip(self.layers, self.config.pools, strict=True)):
            states = torch.cat([self.conv_lstm(steps, layer) for steps in utterances])
            normal = layer["norm"](states)
            if number:
                normal = normal + layer["link"](torch.cat(utterances))
            utterances = F.max_pool1d(normal, pool).split(lengths.tolist())
        # (channels, positions) -> position by position, as the network lays its maps out for the GRU
        return torch.stack([self.output(self.gru(steps.transpose(1, 2).flatten(1))[0][-1]) for steps in utterances])


@each_row
@pytest.mark.parametrize("training", [False, True])
def test_the_network_is_the_plain_one(config, training):
    network = shake(Network(config, SAMPLES, CLASSES))
    plain = Plain(network, config).train(training)
    frames, lengths = padded()
    scores, penalty = network.train(training)(frames, lengths)
    assert scores.shape == (len(LENGTHS), CLASSES) and penalty == 0
    torch.testing.assert_close(scores, plain(frames, lengths))
    for block, layer in zip(network.blocks, plain.layers, strict=True):  # of the real segments alone
        torch.testing.assert_close(block.norm.running_mean, layer["norm"].running_mean)
        torch.testing.assert_close(block.norm.running_var, layer["norm"].running_var)


@each_row
def test_its_gradients_are_the_plain_ones(config):
    network = shake(Network(config, SAMPLES, CLASSES)).train()
    plain = Plain(network, config).train()
    frames, lengths = padded()
    upstream = torch.randn(len(LENGTHS), CLASSES, dtype=torch.float64)
    for one in (network, plain):
        scores = one(frames, lengths)
        ((scores[0] if one is network else scores) * upstream).sum().backward()
    for block, layer in zip(network.blocks, plain.layers, strict=True):
        for own, of_plain in ((block.conv_lstm.inputs, layer["inputs"]), (block.conv_lstm.states, layer["states"])):
            torch.testing.assert_close(own.weight.grad, of_plain.weight.grad.transpose(1, 2).flatten(1))
        torch.testing.assert_close(block.conv_lstm.inputs.bias.grad, layer["inputs"].bias.grad)
        torch.testing.assert_close(block.norm.weight.grad, layer["norm"].weight.grad)
        if len(list(block.link.parameters())):
            torch.testing.assert_close(block.link.weight.grad, layer["link"].weight.grad[:, :, 0])
    for own, of_plain in zip(network.gru.parameters(), plain.gru.parameters(), strict=True):
        torch.testing.assert_close(own.grad, of_plain.grad)


@each_row
def test_an_utterance_gives_in_a_batch_what_it_gives_alone(config):
    network = shake(Network(config, SAMPLES, CLASSES)).eval()
    frames, lengths = padded()
    scores, _ = network(frames, lengths)
    for row, length in enumerate(LENGTHS):
        torch.testing.assert_close(scores[row], network(frames[row : row + 1, :length], lengths[row : row + 1])[0][0])
    assert not torch.allclose(scores[0], scores[1], atol=1e-3)


def test_nothing_reaches_another_utterance_or_comes_of_padding():
    network = shake(Network(SMALL, SAMPLES, CLASSES)).eval()
    frames, lengths = padded()
    frames.requires_grad_()
    scores, _ = network(frames, lengths)
    for row, length in enumerate(LENGTHS):
        (gradient,) = torch.autograd.grad(scores[row, 0], frames, retain_graph=True)
        assert gradient[row, :length].any(1).all()  # each segment is heard
        assert not gradient[row, length:].any()
        gradient[row] = 0
        assert not gradient.any()


def test_padding_does_not_count_in_training():
    """Whatever it holds, scores, gradients and running statistics are the same."""
    found = []
    for filling in (0.0, 1e3):
        torch.manual_seed(0)
        network = shake(Network(SMALL, SAMPLES, CLASSES)).train()
        frames, lengths = padded()
        for row, length in zip(frames, LENGTHS, strict=True):
            row[length:] = filling
        scores, _ = network(frames, lengths)
        scores.square().sum().backward()
        found.append([scores, *(value.grad for value in network.parameters()), *network.buffers()])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@each_row
def test_bfloat16_changes_little_and_trains(config):
    network, given = shake(Network(config, SAMPLES, CLASSES)).float().eval(), batch()
    exact, rounded = (networks.forward(network, given, precision)[0] for precision in ("float32", "bfloat16"))
    assert rounded.dtype is torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.05)
    logs, _ = networks.forward(network.train(), given, "bfloat16")
    nn.NLLLoss()(logs, given.targets).backward()
    for value in network.parameters():
        assert value.grad.dtype is torch.float32
        assert torch.isfinite(value.grad).all() and value.grad.any()


def test_the_cell_is_single_precision_in_a_bfloat16_network(monkeypatch):
    """A sum over all steps: increments below a 256th of it would be lost."""
    types = []
    tanh = torch.Tensor.tanh
    monkeypatch.setattr(torch.Tensor, "tanh", lambda values: types.append(values.dtype) or tanh(values))
    networks.forward(Network(SMALL, SAMPLES, CLASSES), batch(), "bfloat16")
    assert len(types) == 2 * max(LENGTHS) * len(SMALL.channels)  # new and cell of each step
    assert set(types) == {torch.float32}


def test_dropout_is_in_front_of_the_output():
    network, taken_in = Network(replace(SMALL, gru_size=400, dropout=0.3), SAMPLES, CLASSES), []
    network.output.register_forward_pre_hook(lambda layer, given: taken_in.append(given[0]))
    frames, lengths = padded()
    network.train()(frames.float(), lengths)
    network.eval()(frames.float(), lengths)
    assert (taken_in[0] == 0).float().mean().item() == pytest.approx(0.3, abs=0.05)
    assert not (taken_in[1] == 0).any()


@pytest.mark.parametrize(("path", "n_classes"), [(RAVDESS, 7), (IEMOCAP, 4)])
def test_the_systems(path, n_classes):
    system = read_system(path)
    assert (system.feature.segment_length, system.feature.hop_length, system.feature.sample_rate) == (4096, 4096, 16000)
    network = Network(system.model, system.feature.segment_length, n_classes)
    assert network.gru.input_size == 128  # 4096 / 16 / 4**4 positions: one
    expected = 64 * 256 + 256 + 3 * 64 * 256 + 2 * 64  # input, its bias, states, normalisation
    expected += 3 * 64 * 256 + 256 + 3 * 64 * 256 + 2 * 64
    expected += 3 * 64 * 512 + 512 + 3 * 128 * 512 + 2 * 128 + 64 * 128 + 128  # and the link, 1x1
    expected += 3 * 128 * 512 + 512 + 3 * 128 * 512 + 2 * 128
    expected += 2 * 3 * (128 * 128 + 128 * 128 + 2 * 128) + 128 * n_classes + n_classes
    assert networks.count_parameters(network) == expected
    assert network.dropout.share == system.model.dropout == 0.2


def test_the_system_is_the_same_on_both_corpora():
    assert read_system(IEMOCAP) == read_system(RAVDESS)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"pools": [2, 3]}, "pools: 2 values, but channels has 3; give as many"),
        ({"first_kernel": 1}, "first_kernel 1 skips samples; must be at least first_stride, 2"),
        ({"channels": [], "pools": []}, "at least 1 item"),
        ({"channels": [3, 0, 4]}, "greater than or equal to 1"),
        ({"gru_layers": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_cannot_be(change, fault):
    with pytest.raises(ValueError, match=fault):
        Config(**{key: getattr(SMALL, key) for key in SMALL.__dataclass_fields__} | change)


@pytest.mark.parametrize(
    ("samples", "pools", "fault"),
    [
        (
            48,
            [5, 3, 2],
            "model.pools: 5 does not divide the 24 positions of block 1; change it, first_stride, or .* segment_length of 48",
        ),
        (48, [2, 3, 8], "model.pools: 8 does not divide the 4 positions of block 3"),
        (45, [2, 3, 2], "model.pools: 2 does not divide the 23 positions of block 1"),
    ],
)
def test_pools_that_do_not_divide(samples, pools, fault):
    with pytest.raises(UserError, match=fault):
        Network(replace(SMALL, pools=pools), samples, CLASSES)


class TestCentreLoss:
    """Wen et al. 2016, equations 2 and 4."""

    CENTRED = replace(SMALL, centre_weight=0.3, centre_rate=0.4)

    def of_numpy(self, vectors, centres, targets):
        """The loss, and where the centres are behind it, class by class."""
        loss = 0.3 / 2 * np.mean([((x - centres[y]) ** 2).sum() for x, y in zip(vectors, targets, strict=True)])
        moved = centres.copy()
        for number in range(CLASSES):
            own = [x for x, y in zip(vectors, targets, strict=True) if y == number]
            moved[number] -= 0.4 * sum((centres[number] - x for x in own), np.zeros(len(centres[0]))) / (1 + len(own))
        return loss, moved

    def test_loss_and_centres(self):
        network, taken_in = shake(Network(self.CENTRED, SAMPLES, CLASSES)).train(), []
        network.output.register_forward_pre_hook(lambda layer, given: taken_in.append(given[0].detach().numpy()))
        before, targets = network.centres.numpy().copy(), [2, 0, 2, 2]
        _, penalty = network(*padded(), targets=torch.tensor(targets))
        loss, moved = self.of_numpy(taken_in[0], before, targets)
        assert penalty.item() == pytest.approx(loss, rel=1e-9)
        np.testing.assert_allclose(network.centres.numpy(), moved, atol=1e-12)
        assert (network.centres[1].numpy() == before[1]).all()  # of no utterance
        (gradient,) = torch.autograd.grad(penalty, [network.gru.bias_hh_l1])
        assert gradient.any()

    def test_classes_are_told_in_training_alone(self):
        network, given = Network(self.CENTRED, SAMPLES, CLASSES).train(), batch()
        start = network.centres.clone()
        taken_in = []
        network.output.register_forward_pre_hook(
            lambda layer, values: taken_in.append(values[0].detach().float().numpy())
        )
        penalty = networks.forward(network, given, "bfloat16")[1]
        loss, expected = self.of_numpy(taken_in[0], start.numpy(), given.targets.tolist())
        assert penalty.item() == pytest.approx(loss, rel=1e-5)  # in single precision, from what was rounded before
        np.testing.assert_allclose(network.centres.numpy(), expected, rtol=1e-5, atol=1e-7)
        moved = network.centres.clone()
        assert moved[:3].any(1).all()
        assert networks.forward(network.eval(), given, "bfloat16")[1] == 0
        assert torch.equal(network.centres, moved)
        plain = Network(SMALL, SAMPLES, CLASSES).train()
        assert networks.forward(plain, given, "bfloat16")[1] == 0 and not plain.centres.any()


def test_the_level_is_one_number_for_all_samples_of_the_training_part():
    """Its running mean and deviation come to those of all real samples."""
    network = Network(SMALL, SAMPLES, CLASSES).train()
    frames, lengths = padded()
    frames = frames.float() * 0.03 + 0.01
    for _ in range(200):
        network(frames, lengths)
    real = frames[torch.arange(frames.shape[1]) < lengths[:, None]]
    assert network.level.running_mean.shape == (1,)
    torch.testing.assert_close(network.level.running_mean[0], real.mean(), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(network.level.running_var[0], real.var(), rtol=1e-3, atol=1e-6)
