"""Sherman et al.'s network, against the same thing written out plainly."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ser.config import feature_name, read_system
from ser.models.sherman import Block, Config, Network

EGS = Path(__file__).resolve().parents[2] / "egs"
RAVDESS = EGS / "ravdess/conf/sherman/cnn4_blstm_attention.yaml"
IEMOCAP = EGS / "iemocap/conf/sherman/timbre_cnn4_blstm_attention.yaml"
SMALL = Config(
    window=12, hop=5, channels=[3, 4], pools=[2, 3], norm_momentum=0.3, activation="elu", dropout=0.0,
    hidden_size=5, attention_size=6, state_l1=0.01,
)  # fmt: skip
BANDS, CLASSES = 7, 3
LENGTHS = [40, 12, 3, 31, 17]


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


def padded(lengths=LENGTHS):
    """frames (B, T, BANDS), with what must not be heard beyond each length; lengths (B,)."""
    frames = torch.randn(len(lengths), max(lengths), BANDS, dtype=torch.float64)
    for row, length in zip(frames, lengths, strict=True):
        row[length:] = 1e3
    return frames, torch.tensor(lengths)


def windows_of(frames, window, hop):
    """The windows of one utterance (T, D), cut in a loop."""
    frames = [list(frame) for frame in frames.tolist()]
    while len(frames) < window:
        frames.append([0.0] * len(frames[0]))
    return [frames[start : start + window] for start in range(0, len(frames) - window + 1, hop)]


class Plain(nn.Module):
    """The network as the paper tells it: convolution, normalisation, activation, pooling; torch's own
    layers; one utterance after the other, but for the batch normalisation."""

    def __init__(self, network):
        super().__init__()
        self.config = network.config
        self.layers = nn.ModuleList()
        sizes = [1, *self.config.channels]
        for block, size, out in zip(network.blocks, sizes, sizes[1:], strict=False):
            conv, norm = (
                nn.Conv2d(size, out, 3, padding="same"),
                nn.BatchNorm2d(out, eps=1e-3, momentum=self.config.norm_momentum),
            )
            conv.load_state_dict(block.convolution.conv.state_dict())
            norm.load_state_dict(block.convolution.norm.state_dict())
            self.layers.append(nn.Sequential(conv, norm))
        ahead, back = network.blstm.ahead, network.blstm.back
        self.blstm = nn.LSTM(ahead.input_size, ahead.hidden_size, batch_first=True, bidirectional=True)
        weights = dict(ahead.state_dict().items())
        self.blstm.load_state_dict(weights | {f"{name}_reverse": value for name, value in back.state_dict().items()})
        if self.config.attention_size:
            self.project, self.energy = (network.attention[place].weight.detach() for place in (0, 2))
        self.output = network.output
        self.double()

    def forward(self, frames, lengths):
        per_utterance = [
            windows_of(row[:length], self.config.window, self.config.hop)
            for row, length in zip(frames, lengths, strict=True)
        ]
        maps = torch.tensor([window for windows in per_utterance for window in windows], dtype=torch.float64)[:, None]
        for layer, pool in zip(self.layers, self.config.pools, strict=True):
            maps = {"elu": F.elu, "relu": F.relu}[self.config.activation](layer(maps))
            spare = [-size % pool for size in maps.shape[2:]]
            maps = F.max_pool2d(F.pad(maps, (0, spare[1], 0, spare[0]), value=-torch.inf), pool)
        vectors = maps.flatten(1).split([len(windows) for windows in per_utterance])
        scores, l1 = [], 0
        for utterance in vectors:
            states, (final, cells) = self.blstm(utterance[None])
            last = torch.cat((final[0, 0], final[1, 0]))
            result = last
            l1 += last.abs().sum()
            if self.config.attention_size:
                energies = (torch.tanh(states[0] @ self.project.T) @ self.energy[0]) / self.config.attention_size**0.5
                weights = torch.exp(energies) / torch.exp(energies).sum()
                result = torch.cat(
                    (sum(weight * state for weight, state in zip(weights, states[0], strict=True)), last)
                )
                l1 += states.abs().sum() + cells.abs().sum()
            scores.append(self.output(result))
        return torch.stack(scores), self.config.state_l1 * l1 / len(frames)


FRAMES = {"window": 1, "hop": 1, "channels": [], "pools": []}  # the BLSTM reads the frames
ROWS = [
    {"activation": "elu"},
    {"activation": "relu"},
    {"attention_size": None},
    {"channels": [], "pools": []},
    FRAMES,
    {**FRAMES, "attention_size": None},
    {"channels": [3, 4, 2, 5], "pools": [2, 4, 4, 4]},  # more pooling than there is to pool
]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("row", ROWS)
def test_the_network_is_the_plain_one(row, training):
    network = shake(Network(replace(SMALL, **row), BANDS, CLASSES))
    plain = Plain(network).train(training)
    network.train(training)
    frames, lengths = padded()
    scores, penalty = network(frames, lengths)
    expected, expected_penalty = plain(frames, lengths)
    assert scores.shape == (len(LENGTHS), CLASSES)
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-6)  # the softmax is in float32
    torch.testing.assert_close(penalty, expected_penalty.float(), check_dtype=False)
    assert penalty > 0
    for block, (_, norm) in zip(network.blocks, plain.layers, strict=True):  # of the real windows alone
        torch.testing.assert_close(block.convolution.norm.running_mean, norm.running_mean)
        torch.testing.assert_close(block.convolution.norm.running_var, norm.running_var)
        assert block.convolution.norm.num_batches_tracked == norm.num_batches_tracked


def test_the_networks_gradients_are_the_plain_ones():
    network = shake(Network(SMALL, BANDS, CLASSES)).train()
    plain = Plain(network).train()
    frames, lengths = padded()
    upstream = torch.randn(len(LENGTHS), CLASSES, dtype=torch.float64)
    (network(frames, lengths)[0] * upstream).sum().backward()
    (plain(frames, lengths)[0] * upstream).sum().backward()
    for block, (conv, norm) in zip(network.blocks, plain.layers, strict=True):
        torch.testing.assert_close(block.convolution.conv.weight.grad, conv.weight.grad)
        torch.testing.assert_close(block.convolution.norm.weight.grad, norm.weight.grad)
        torch.testing.assert_close(block.convolution.norm.bias.grad, norm.bias.grad)
    for direction, suffix in ((network.blstm.ahead, ""), (network.blstm.back, "_reverse")):
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"):
            torch.testing.assert_close(getattr(direction, name).grad, getattr(plain.blstm, name + suffix).grad)


def numpy_lstm(inputs, weights):
    """States and last cell of an LSTM in PyTorch's order of gates, equation by equation (Hochreiter, Gers)."""
    w_ih, w_hh, bias = (weights[f"{name}_l0"].numpy() for name in ("weight_ih", "weight_hh", "bias_ih"))
    state = cell = np.zeros(w_hh.shape[1])
    states = []
    for step in inputs:
        let_in, forget, new, out = np.split(w_ih @ step + w_hh @ state + bias, 4)
        sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
        cell = sigmoid(forget) * cell + sigmoid(let_in) * np.tanh(new)
        state = sigmoid(out) * np.tanh(cell)
        states.append(state)
    return np.array(states), cell


@pytest.mark.parametrize("attention_size", [6, None])
@pytest.mark.parametrize("lengths", [LENGTHS, [31, 31]])
def test_the_penalty_is_that_of_the_authors_code(lengths, attention_size):
    """Keras' L1 activity regulariser: with attention of the states, the last states and the last cells, all of which
    its LSTM gives; without, of the last states. A mean over the batch."""
    network = shake(Network(replace(SMALL, channels=[], pools=[], attention_size=attention_size), BANDS, CLASSES))
    frames, lengths = padded(lengths)
    _, penalty = network(frames, lengths)
    total = 0
    for row, length in zip(frames, lengths, strict=True):
        steps = np.array(windows_of(row[:length], SMALL.window, SMALL.hop)).reshape(-1, SMALL.window * BANDS)
        for direction, order in ((network.blstm.ahead, 1), (network.blstm.back, -1)):
            states, cell = numpy_lstm(steps[::order], direction.state_dict())
            total += np.abs(states[-1]).sum()
            if attention_size:
                total += np.abs(states).sum() + np.abs(cell).sum()
    assert penalty.item() == pytest.approx(0.01 * total / len(frames), rel=1e-6)


def test_no_weight_no_penalty():
    assert Network(replace(SMALL, state_l1=0), BANDS, CLASSES).double()(*padded([20]))[1].item() == 0


@pytest.mark.parametrize("row", ROWS)
def test_an_utterance_gives_in_a_batch_what_it_gives_alone(row):
    network = shake(Network(replace(SMALL, **row), BANDS, CLASSES)).eval()
    frames, lengths = padded()
    scores, _ = network(frames, lengths)
    for row, length in enumerate(LENGTHS):
        own, _ = network(frames[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(scores[row], own[0])
    assert not torch.allclose(scores[0], scores[1])


def test_attention_is_that_of_numpy():
    network = shake(Network(SMALL, BANDS, CLASSES))
    states, lengths = torch.randn(3, 6, 10, dtype=torch.float64), [6, 1, 4]
    weights = network.attend(states, torch.tensor(lengths)).detach().numpy()
    project, energy = (network.attention[place].weight.detach().numpy() for place in (0, 2))
    for row, length in enumerate(lengths):
        energies = [np.tanh(project @ state) @ energy[0] / np.sqrt(6) for state in states[row, :length].numpy()]
        expected = np.exp(energies) / np.exp(energies).sum()
        np.testing.assert_allclose(weights[row, :length], expected, rtol=1e-5)
        assert not weights[row, length:].any()


class TestFrameWeights:
    """Weights of windows, spread over their frames."""

    @pytest.mark.parametrize("even", [False, True])
    @pytest.mark.parametrize(("window", "hop"), [(12, 5), (12, 12), (12, 4), (4, 9), (1, 1), (50, 3)])
    def test_they_are_those_of_a_loop(self, window, hop, even):
        network = shake(Network(replace(SMALL, window=window, hop=hop, channels=[], pools=[]), BANDS, CLASSES)).eval()
        project, energy = (network.attention[place].weight.detach().numpy() for place in (0, 2))
        frames, lengths = padded()
        weights = network.frame_weights(frames, lengths, even=even)["attention"].detach().numpy()
        assert weights.shape == (len(LENGTHS), max(LENGTHS))
        for row, length in enumerate(LENGTHS):
            windows = windows_of(frames[row, :length], window, hop)
            states = network.blstm(
                torch.tensor(windows, dtype=torch.float64).flatten(1)[None], torch.tensor([len(windows)])
            )[0]
            energies = [
                0 if even else np.tanh(project @ state) @ energy[0] / np.sqrt(6) for state in states[0].detach().numpy()
            ]
            expected = [0.0] * max(LENGTHS)
            for number in range(len(windows)):
                own = range(number * hop, min(number * hop + window, length))
                for frame in own:
                    expected[frame] += np.exp(energies[number]) / np.exp(energies).sum() / len(own)
            np.testing.assert_allclose(weights[row], expected, rtol=1e-4, atol=1e-8)
            assert weights[row].sum() == pytest.approx(1, abs=1e-5)
            assert not weights[row, length:].any()

    def test_of_a_batch_they_are_those_of_each_alone(self):
        network = shake(Network(SMALL, BANDS, CLASSES)).eval()
        frames, lengths = padded()
        weights = network.frame_weights(frames, lengths)["attention"]
        for row, length in enumerate(LENGTHS):
            own = network.frame_weights(frames[row : row + 1, :length], lengths[row : row + 1])["attention"]
            torch.testing.assert_close(weights[row, :length], own[0])
        assert len(set(weights[0, :12].tolist())) > 1

    def test_frames_after_the_last_whole_window_have_none(self):
        weights = shake(Network(SMALL, BANDS, CLASSES)).eval().frame_weights(*padded([26]))["attention"][0]
        assert (weights[:22] > 0).all()  # windows at 0, 5 and 10
        assert not weights[22:].any()

    def test_no_attention_no_weights(self):
        network = Network(replace(SMALL, attention_size=None), BANDS, CLASSES).double()
        assert network.frame_weights(*padded()) == {}

    def test_they_are_single_precision_in_a_bfloat16_network(self):
        frames, lengths = padded()
        with torch.autocast("cpu", torch.bfloat16):
            weights = Network(SMALL, BANDS, CLASSES).eval().frame_weights(frames.float(), lengths)["attention"]
        torch.testing.assert_close(weights.sum(1), torch.ones(len(LENGTHS)), check_dtype=True)


CONVOLUTIONS = [(1, 64), (64, 64), (64, 128), (128, 128), (128, 128)]  # channels in and out


@pytest.mark.parametrize(
    ("name", "vector", "n_convolutions", "has_attention"),  # vector: values a step of the BLSTM
    [
        ("cnn2_blstm_attention", 64 * 16 * 16, 2, True),
        ("cnn3_blstm_attention", 128 * 4 * 4, 3, True),
        ("cnn4_blstm_attention", 128, 4, True),
        ("cnn5_blstm_attention", 128, 5, True),
        ("cnn4_blstm", 128, 4, False),
        ("blstm_attention", 128 * 128, 0, True),
        ("blstm", 128 * 128, 0, False),
        ("blstm_attention_frames", 128, 0, True),
        ("blstm_frames", 128, 0, False),
        ("../sherman_text/cnn2_blstm_attention_text", 64 * 8 * 8, 2, True),
        ("../sherman_text/cnn3_blstm_attention_text", 128 * 2 * 2, 3, True),
        ("cnn4_blstm_attention_text", 128, 4, True),
        ("../sherman_text/cnn5_blstm_attention_text", 128, 5, True),
        ("../sherman_text/cnn4_blstm_text", 128, 4, False),
        ("../sherman_text/blstm_attention_text", 128 * 128, 0, True),
        ("../sherman_text/blstm_text", 128 * 128, 0, False),
        ("../sherman_text/blstm_attention_frames_text", 128, 0, True),
        ("../sherman_text/blstm_frames_text", 128, 0, False),
    ],
)
def test_the_rows_of_tables_3_and_4(name, vector, n_convolutions, has_attention):
    system = read_system(RAVDESS.parent / f"{name}.yaml")
    main = read_system(RAVDESS.with_name(f"{RAVDESS.stem}_text.yaml") if name.endswith("_text") else RAVDESS)
    assert replace(
        system.model,
        **{key: getattr(main.model, key) for key in ("window", "hop", "channels", "pools", "attention_size")},
    ) == (main.model)
    assert system.model.pools == main.model.pools[:1] * (n_convolutions > 0) + [4] * (n_convolutions - 1)
    assert (system.feature, system.normalisation, system.training) == (main.feature, main.normalisation, main.training)
    network = Network(system.model, 128, 7)
    expected = sum(
        9 * ins * outs + outs + 2 * outs for ins, outs in CONVOLUTIONS[:n_convolutions]
    )  # weights, biases, scales, shifts
    expected += 2 * 4 * 256 * (vector + 256 + 1)  # two directions, four gates
    expected += (512 * 256 + 256 + 1024 * 7 + 7) if has_attention else 512 * 7 + 7
    assert sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad) == expected


def test_the_two_readings():
    """FACTS.md: what the authors' code and the paper's text say of the main system."""
    code, text = read_system(RAVDESS), read_system(RAVDESS.with_name(f"{RAVDESS.stem}_text.yaml"))
    assert (code.model.pools, code.model.activation, code.model.state_l1) == ([2, 4, 4, 4], "elu", 0.001)
    assert (text.model.pools, text.model.activation, text.model.state_l1) == ([4, 4, 4, 4], "relu", 0)
    assert (code.training.learning_rate, text.training.learning_rate) == (1e-4, 1e-3)
    assert replace(text.training, learning_rate=1e-4) == code.training


@pytest.mark.parametrize(
    ("path", "n_features", "n_classes", "millions", "number"),
    [(RAVDESS, 128, 7, 1.180, 1_180_352), (IEMOCAP, 46, 4, 1.442, 1_442_496)],
)
def test_the_papers_number_of_parameters(path, n_features, n_classes, millions, number):
    """Keras counts the batch normalisation's running mean and variance too, and the papers' numbers leave out
    the output layer."""
    network = Network(read_system(path).model, n_features, n_classes)
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    output = n_classes * (4 * 256) + n_classes
    running = 2 * (64 + 64 + 128 + 128)
    assert trained - output + running == number
    assert int(number / 1000) == round(1000 * millions)
    assert network.output.weight.shape == (n_classes, 4 * 256)


def test_only_pools_of_2_4_4_4_give_the_number_of_iemocap():
    """157 frames of 46 features in one window: 256 values a step, which the text's pools do not give."""
    model = read_system(IEMOCAP).model
    assert Network(model, 46, 4).blstm.ahead.input_size == 256
    assert Network(replace(model, pools=[4, 4, 4, 4]), 46, 4).blstm.ahead.input_size == 128


@pytest.mark.parametrize(
    ("name", "vector", "has_attention"),  # vector: values a step of the BLSTM, of a window of 157 frames of 46
    [
        ("timbre_cnn2_blstm_attention", 64 * 20 * 6, True),
        ("timbre_cnn3_blstm_attention", 128 * 5 * 2, True),
        ("timbre_cnn5_blstm_attention", 128 * 1 * 1, True),
        ("timbre_cnn4_blstm", 256, False),
        ("timbre_blstm_attention", 157 * 46, True),
        ("timbre_blstm", 157 * 46, False),
        ("timbre_blstm_attention_frames", 46, True),
        ("timbre_blstm_frames", 46, False),
        ("timbre_cnn4_blstm_attention_text", 256, True),
    ],
)
def test_the_rows_of_iemocap(name, vector, has_attention):
    system, main = read_system(IEMOCAP.with_name(f"{name}.yaml")), read_system(IEMOCAP)
    assert Network(system.model, 46, 4).blstm.ahead.input_size == vector
    assert bool(system.model.attention_size) == has_attention
    assert (system.feature, system.normalisation) == (main.feature, main.normalisation)
    text = read_system(RAVDESS.with_name(f"{RAVDESS.stem}_text.yaml"))
    expected = text if name.endswith("_text") else read_system(RAVDESS)
    assert system.training == expected.training
    assert (system.model.activation, system.model.state_l1) == (expected.model.activation, expected.model.state_l1)


def test_the_rows_of_table_2_leave_one_feature_out_each_and_share_one_archive():
    rows = {path.stem: read_system(path) for path in IEMOCAP.parent.glob("timbre_no_*.yaml")}
    main = read_system(IEMOCAP)
    left_out = [set(main.feature.parts) - set(system.feature.parts) for system in rows.values()]
    assert sorted(part for (part,) in left_out) == sorted(main.feature.parts) and len(rows) == 8
    assert {feature_name(system.feature) for system in rows.values()} == {feature_name(main.feature)}
    for system in rows.values():
        assert (system.model, system.normalisation, system.training) == (main.model, main.normalisation, main.training)
        assert [part for part in main.feature.parts if part in system.feature.parts] == system.feature.parts


def test_bfloat16_changes_little():
    network = Network(SMALL, BANDS, CLASSES).eval()
    frames, lengths = padded()
    scores, penalty = network(frames.float(), lengths)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, rounded_penalty = network(frames.float(), lengths)
    assert penalty.dtype is rounded_penalty.dtype is torch.float32
    torch.testing.assert_close(rounded.float(), scores, rtol=0.05, atol=0.05)
    assert not torch.equal(rounded.float(), scores)  # it did round


def test_dropout_stands_in_every_block_and_only_in_training():
    network = Network(replace(SMALL, dropout=0.5), BANDS, CLASSES)
    frames, lengths = padded()
    frames = frames.float()
    assert not torch.equal(network(frames, lengths)[0], network(frames, lengths)[0])
    network.eval()
    assert torch.equal(network(frames, lengths)[0], network(frames, lengths)[0])
    maps = torch.randn(20, 1, 12, 8)
    for block in network.train().blocks:
        maps = block(maps)
        assert 0.4 < (maps == 0).float().mean() < 0.6


class TestBlock:
    """Pooling before the activation is the paper's order, done sooner."""

    @pytest.mark.parametrize("activation", ["elu", "relu"])
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize(("size", "pool"), [((12, 8), 2), ((12, 8), 4), ((7, 5), 2), ((9, 7), 4)])
    def test_it_is_the_papers_order(self, activation, channels, size, pool):
        block = shake(Block(channels, 6, pool, replace(SMALL, activation=activation))).train()
        maps = torch.randn(5, channels, *size, dtype=torch.float64)
        conv, norm = block.convolution.conv, block.convolution.norm
        normal = F.batch_norm(
            F.conv2d(maps, conv.weight, conv.bias, padding=1),
            None,
            None,
            norm.weight,
            norm.bias,
            training=True,
            eps=1e-3,
        )
        active = torch.where(normal > 0, normal, torch.expm1(normal) if activation == "elu" else 0)
        spare = [-length % pool for length in size]
        rows = F.pad(active, (0, spare[1], 0, spare[0]), value=-torch.inf).unfold(2, pool, pool).unfold(3, pool, pool)
        torch.testing.assert_close(block(maps), rows.amax((4, 5)))
