"""Mirsamadi et al.'s networks, against their equations in numpy, one utterance after the other."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from ser import networks, score
from ser.batches import Batch
from ser.cli import UserError
from ser.config import as_dict, read_system
from ser.models.mirsamadi import Config, Network
from ser.runs import read_run
from ser.scores import read_scores
from ser.train import train

SIZE, CLASSES = 6, 3
LENGTHS = [7, 1, 12, 3]
FUNCTIONALS = {
    "max": lambda steps: steps.max(0),
    "mean": lambda steps: steps.mean(0),
    "deviation": lambda steps: steps.std(0),
}
WHOLE = Config(dense_sizes=[8, 5], hidden_size=4, pooling="frames", dropout=0.0)
CONFIGS = {
    f"{pooling} of {parts}": replace(WHOLE, dense_sizes=dense, hidden_size=hidden, pooling=pooling, functionals=names)
    for parts, dense, hidden in [
        ("both", [8, 5], 4),
        ("the BLSTM", [], 4),
        ("dense layers", [8, 5], None),
        ("nothing", [], None),
    ]
    for pooling, names in [("frames", []), ("final", []), ("attention", []), ("functionals", list(FUNCTIONALS))]
    if hidden or pooling != "final"
}
each_network = pytest.mark.parametrize("name", CONFIGS)


def shaken(name, **changes):
    """A network whose weights hide nothing."""
    torch.manual_seed(0)
    network = Network(replace(CONFIGS[name], **changes), SIZE, CLASSES).eval()
    with torch.no_grad():
        for value in network.parameters():
            if value.requires_grad:
                value.uniform_(-0.8, 0.8)
    return network


def padded(lengths=LENGTHS):
    """frames (B, T, SIZE), with what must not be heard beyond each length; lengths (B,)."""
    torch.manual_seed(1)
    frames = torch.randn(len(lengths), max(lengths), SIZE)
    for row, length in zip(frames, lengths, strict=True):
        row[length:] = 1e3
    return frames, torch.tensor(lengths)


def batch():
    frames, lengths = padded()
    return Batch(list("abcd"), frames, lengths, torch.tensor([2, 0, 1, 1]))


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def softmax(values):
    return np.exp(values) / np.exp(values).sum(-1, keepdims=True)


def lstm(steps, layer):
    """States (T, H) of one direction over steps (T, D), gate by gate."""
    w, u, b = (
        getattr(layer, name).detach().double().numpy() for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0")
    )
    state = cell = np.zeros(u.shape[1])
    states = []
    for step in steps:
        enter, forget, change, leave = np.split(w @ step + u @ state + b, 4)
        cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(change)
        state = sigmoid(leave) * np.tanh(cell)
        states.append(state)
    return np.array(states)


def linear(steps, layer):
    return steps @ layer.weight.detach().double().numpy().T + (
        0 if layer.bias is None else layer.bias.detach().double().numpy()
    )


def read_by_numpy(network, frames):
    """What is pooled (T, H), and the last states (H,), of one utterance (T, D)."""
    steps, last = frames.astype(np.float64), None
    for layer in network.dense:
        if isinstance(layer, nn.Linear):
            steps = np.maximum(linear(steps, layer), 0)
    if network.config.hidden_size:
        ahead, back = lstm(steps, network.blstm.ahead), lstm(steps[::-1], network.blstm.back)[::-1]
        steps, last = np.hstack([ahead, back]), np.concatenate([ahead[-1], back[0]])
    return steps, last


def weights_of_numpy(network, steps):
    """Equation 1."""
    u = network.attention.weight.detach().double().numpy()[0]
    return np.exp([u @ y for y in steps]) / sum(np.exp(u @ y) for y in steps)


def scores_of_numpy(network, frames):
    """(classes,), or (T, classes) where each frame is scored, of one utterance (T, D)."""
    steps, last = read_by_numpy(network, frames)
    match network.config.pooling:
        case "frames":
            pooled = steps
        case "final":
            pooled = last
        case "attention":  # equation 2
            pooled = sum(weight * y for weight, y in zip(weights_of_numpy(network, steps), steps, strict=True))
        case "functionals":
            pooled = np.concatenate([of(steps) for of in FUNCTIONALS.values()])
    return linear(pooled, network.output)


def loss_of_numpy(network, utterances, targets):
    """Mean cross-entropy over utterances; of an utterance whose frames are scored, the mean of theirs."""
    losses = []
    for frames, target in zip(utterances, targets, strict=True):
        posteriors = softmax(scores_of_numpy(network, frames)).reshape(-1, network.output.out_features)
        losses.append(sum(-np.log(row[target]) for row in posteriors) / len(posteriors))
    return np.mean(losses)


@each_network
def test_scores(name):
    network = shaken(name)
    frames, lengths = padded()
    scores, penalty = network(frames, lengths)
    assert penalty == 0
    assert scores.shape == ((4, 12, CLASSES) if network.config.pooling == "frames" else (4, CLASSES))
    for row, length, own in zip(frames.numpy(), LENGTHS, scores.detach().numpy(), strict=True):
        own = own[:length] if network.config.pooling == "frames" else own
        np.testing.assert_allclose(own, scores_of_numpy(network, row[:length]), rtol=1e-4, atol=1e-5)


@each_network
def test_loss(name):
    """As training has it: of log-posteriors, with one softmax, and nothing of padding."""
    network, given = shaken(name), batch()
    logs, _ = networks.forward(network, given, "float32")
    loss = nn.NLLLoss()(logs, given.targets)
    utterances = [row[:length] for row, length in zip(given.frames.numpy(), LENGTHS, strict=True)]
    assert loss.item() == pytest.approx(loss_of_numpy(network, utterances, given.targets), rel=1e-5)


@each_network
def test_an_utterance_gives_in_a_batch_what_it_gives_alone(name):
    network, given = shaken(name), batch()
    logs, _ = networks.forward(network, given, "float32")
    for row, length in enumerate(LENGTHS):
        one = Batch(
            [given.utts[row]],
            given.frames[row : row + 1, :length],
            *(of_all[row : row + 1] for of_all in (given.lengths, given.targets)),
        )
        torch.testing.assert_close(logs[row], networks.forward(network, one, "float32")[0][0], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(logs[0], logs[2], atol=1e-3)


@each_network
def test_nothing_reaches_another_utterance_or_comes_of_padding(name):
    """A product over the items of a batch, as the public re-implementation has it, would let it."""
    network, given = shaken(name), batch()
    given.frames.requires_grad_()
    logs, _ = networks.forward(network, given, "float32")
    for row, length in enumerate(LENGTHS):
        (gradient,) = torch.autograd.grad(logs[row, 0], given.frames, retain_graph=True)
        assert gradient[row, :length].any()
        assert not gradient[row, length:].any()
        gradient[row] = 0
        assert not gradient.any()


class TestAttention:
    """Equation 1, and what ser.draw_run asks for."""

    @pytest.mark.parametrize("parts", ["both", "the BLSTM", "dense layers"])
    def test_weights(self, parts):
        network = shaken(f"attention of {parts}")
        frames, lengths = padded()
        weights = network.frame_weights(frames, lengths)["attention"]
        assert weights.shape == frames.shape[:2]
        torch.testing.assert_close(weights.sum(1), torch.ones(4))
        for row, length, own in zip(frames.numpy(), LENGTHS, weights.detach().numpy(), strict=True):
            expected = weights_of_numpy(network, read_by_numpy(network, row[:length])[0])
            np.testing.assert_allclose(own[:length], expected, rtol=1e-4, atol=1e-6)
            assert not own[length:].any()

    def test_even_weights(self):
        frames, lengths = padded()
        weights = shaken("attention of both").frame_weights(frames, lengths, even=True)["attention"]
        for own, length in zip(weights, LENGTHS, strict=True):
            torch.testing.assert_close(own, torch.tensor([1 / length] * length + [0] * (12 - length)))

    def test_one_utterance_does_not_change_anothers(self):
        network = shaken("attention of both")
        frames, lengths = padded()
        before, scores = network.frame_weights(frames, lengths)["attention"], network(frames, lengths)[0]
        frames[0] = torch.randn(12, SIZE)
        after, other_scores = network.frame_weights(frames, lengths)["attention"], network(frames, lengths)[0]
        assert not torch.allclose(before[0], after[0], atol=1e-3) and not torch.allclose(
            scores[0], other_scores[0], atol=1e-3
        )
        assert torch.equal(before[1:], after[1:]) and torch.equal(scores[1:], other_scores[1:])

    def test_no_attention_no_weights(self):
        for name, config in CONFIGS.items():
            assert (shaken(name).frame_weights(*padded()) == {}) == (config.pooling != "attention")

    def test_they_are_single_precision_in_a_bfloat16_network(self):
        with torch.autocast("cpu", torch.bfloat16):
            weights = shaken("attention of both").frame_weights(*padded())["attention"]
        torch.testing.assert_close(weights.sum(1), torch.ones(4), check_dtype=True)


@pytest.mark.usefixtures("bfloat16_lstms")
@each_network
def test_bfloat16_changes_little_and_trains(name):
    network, given = shaken(name), batch()
    exact, rounded = (networks.forward(network, given, precision)[0] for precision in ("float32", "bfloat16"))
    assert rounded.dtype is torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.05)
    nn.NLLLoss()(rounded, given.targets).backward()
    for value in network.parameters():
        if value.requires_grad:
            assert value.grad.dtype is torch.float32
            assert torch.isfinite(value.grad).all() and value.grad.any()


@pytest.mark.usefixtures("bfloat16_lstms")
@pytest.mark.parametrize("parts", ["both", "the BLSTM", "dense layers"])
@pytest.mark.parametrize("pooling", ["attention", "functionals"])
def test_sums_over_time_are_in_single_precision(pooling, parts):
    network, pooled = shaken(f"{pooling} of {parts}"), []
    network.output.register_forward_pre_hook(lambda layer, given: pooled.append(given[0].dtype))
    networks.forward(network, batch(), "bfloat16")
    assert pooled == [torch.float32]


class TestDropout:
    """50 % "on all layers" (section 3): of what each layer gives, and none of what the first is given."""

    @each_network
    def test_its_share(self, name):
        config = CONFIGS[name]
        wide = {"dense_sizes": [size * 10 for size in config.dense_sizes], "hidden_size": config.hidden_size and 40}
        network = shaken(name, dropout=0.5, **wide)
        frames, lengths = torch.rand(4, 12, SIZE) + 1, torch.tensor([12] * 4)
        with torch.no_grad():
            for value in network.dense.parameters():
                value.abs_().mul_(0.05)  # so that the ReLU layers give no zeros of their own
        layers = [layer for layer in network.dense if isinstance(layer, nn.Linear)] + (
            [network.blstm] if config.hidden_size else []
        )
        passed = []
        for layer in layers:
            layer.register_forward_pre_hook(lambda layer, given: passed.append(given[0]))

        for training in (False, True):
            passed.clear()
            steps, last = network.train(training).read(frames, lengths)
            assert len(passed) == len(layers)
            first, *others = [*passed, steps, last] if config.hidden_size else [*passed, steps]
            assert torch.equal(first, frames)
            for values in others:
                assert (0.4 < (values == 0).float().mean() < 0.6) if training else values.all()

    @each_network
    def test_what_is_left_is_pooled(self, name):
        network = shaken(name, dropout=0.5).train()
        frames, lengths = padded()
        torch.manual_seed(5)
        scores, _ = network(frames, lengths)
        torch.manual_seed(5)
        steps, last = network.read(frames, lengths)
        network.eval().read = lambda frames, lengths: (steps, last)
        assert torch.equal(network(frames, lengths)[0], scores)


@pytest.mark.parametrize(
    ("config", "size", "expected"),
    [
        # Table 2: two layers of 512, and the functionals of their outputs; 257 bins
        (
            Config(
                dense_sizes=[512, 512],
                hidden_size=None,
                pooling="functionals",
                functionals=["mean", "min", "max"],
                dropout=0.5,
            ),
            257,
            257 * 512 + 512 + 512 * 512 + 512 + 3 * 512 * 4 + 4,
        ),
        # Table 3: the same layers and a BLSTM of 128 memory cells a direction
        (
            Config(dense_sizes=[512, 512], hidden_size=128, pooling="attention", dropout=0.5),
            257,
            257 * 512 + 512 + 512 * 512 + 512 + 2 * 4 * 128 * (512 + 128 + 1) + 256 + 256 * 4 + 4,
        ),
        # and that of the 32 descriptors alone
        (
            Config(dense_sizes=[], hidden_size=128, pooling="attention", dropout=0.5),
            32,
            2 * 4 * 128 * (32 + 128 + 1) + 256 + 256 * 4 + 4,
        ),
        (
            Config(dense_sizes=[], hidden_size=128, pooling="frames", dropout=0.5),
            32,
            2 * 4 * 128 * (32 + 128 + 1) + 256 * 4 + 4,
        ),
        (
            Config(dense_sizes=[], hidden_size=128, pooling="final", dropout=0.5),
            32,
            2 * 4 * 128 * (32 + 128 + 1) + 256 * 4 + 4,
        ),
    ],
)
def test_number_of_parameters(config, size, expected):
    assert networks.count_parameters(Network(config, size, 4)) == expected


def test_it_starts_as_keras_does():
    network = Network(CONFIGS["attention of both"], SIZE, CLASSES)
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            assert layer.weight.abs().max() <= (6 / sum(layer.weight.shape)) ** 0.5
            assert layer.bias is None or not layer.bias.any()
    for layer in (network.blstm.ahead, network.blstm.back):
        assert layer.bias_ih_l0.view(4, 4).sum(1).tolist() == [0, 4, 0, 0]


class TestConfig:
    """System files."""

    MODEL = {"kind": "mirsamadi", "dense_sizes": [8], "hidden_size": 4, "pooling": "attention", "dropout": 0.5}

    def write(self, **model):
        content = {
            "description": "a network",
            "feature": {"kind": "spectrum", "sample_rate": 16000, "n_fft": 512, "win_length": 400, "hop_length": 160},
            "normalisation": "neutral", "model": self.MODEL | model, "training": {"epochs": 1, "batch_size": 2, "learning_rate": 1e-4},
        }  # fmt: skip
        Path("x.yaml").write_text(yaml.safe_dump(content))
        return "x.yaml"

    @pytest.mark.parametrize("name", CONFIGS)
    def test_systems_are_read(self, tmp_path, monkeypatch, name):
        monkeypatch.chdir(tmp_path)
        config = read_system(self.write(**asdict(CONFIGS[name]))).model
        assert config == CONFIGS[name]
        assert read_system(self.write(**as_dict(config))).model == config  # what a run's folder keeps

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            ({"pooling": "final", "hidden_size": None}, "model: pooling: final needs a BLSTM; give hidden_size"),
            (
                {"pooling": "functionals"},
                "model: functionals: required if pooling is functionals, and not allowed otherwise",
            ),
            (
                {"functionals": ["mean"]},
                "model: functionals: required if pooling is functionals, and not allowed otherwise",
            ),
            (
                {"pooling": "frames", "functionals": ["mean"]},
                "model: functionals: required if pooling is functionals, and not allowed otherwise",
            ),
            (
                {"pooling": "functionals", "functionals": ["median"]},
                "model.functionals.0: input should be 'mean', 'deviation', ",
            ),
            (
                {"pooling": "mean"},
                "model.pooling: input should be 'frames', 'final', 'attention' or 'functionals', not 'mean'",
            ),
            ({"dense_sizes": [8, 0]}, "model.dense_sizes.1: input should be greater than or equal to 1, not 0"),
            ({"hidden_size": 0}, "model.hidden_size: input should be greater than or equal to 1, not 0"),
            ({"dropout": 1}, "model.dropout: input should be less than 1, not 1"),
        ],
    )
    def test_faults_are_named(self, tmp_path, monkeypatch, model, message):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UserError) as error:
            read_system(self.write(**model))
        assert str(error.value).startswith(f"x.yaml: {message}")


each_pooling = pytest.mark.parametrize("pooling", ["frames", "final", "attention", "functionals"])


class TestTraining:
    """On the toy recipe, from a system file to scores."""

    def lay_out(self, recipe, pooling, **options):
        """A run's folder, of a system file of its own."""
        model = {"kind": "mirsamadi", "dense_sizes": [8], "hidden_size": 4, "pooling": pooling, "dropout": 0.1}
        model["functionals"] = list(FUNCTIONALS) if pooling == "functionals" else []
        tiny = recipe.yaml.safe_load(Path("conf/toy/tiny.yaml").read_text())
        recipe.write_yaml(f"conf/toy/{pooling}.yaml", **tiny | {"model": model})
        return recipe.lay_out(pooling, system=pooling, **options)

    def log_of(self, folder):
        return [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]

    def normal(self, recipe, utts):
        """Matrices as the network takes them in."""
        taught = np.concatenate([recipe.matrices[utt] for utt in recipe.part("train")]).astype(np.float64)
        return [(recipe.matrices[utt] - taught.mean(0)) / taught.std(0) for utt in utts]

    @each_pooling
    def test_it_learns_and_scores(self, recipe, pooling):
        folder = self.lay_out(recipe, pooling, learning_rate=0.03)
        train(folder, "cpu")
        log = self.log_of(folder)
        assert [line["epoch"] for line in log] == [1, 2, 3]
        losses = [line["train_loss"] for line in log]
        assert losses[0] > losses[1] > losses[2]
        assert log[-1]["dev_loss"] < log[0]["dev_loss"]
        score.score(folder, Path("scores.txt"), "cpu")
        scores = read_scores(Path("scores.txt"))
        assert scores.utts == sorted(recipe.part("test"))
        np.testing.assert_allclose(scores.posteriors.sum(1), 1, atol=1e-5)
        assert (scores.predicted == scores.posteriors.argmax(1)).all()
        network, *_ = networks.trained(read_run(folder))
        for frames, posteriors in zip(self.normal(recipe, scores.utts), scores.posteriors, strict=True):
            logs = np.log(softmax(scores_of_numpy(network, frames))).reshape(-1, 2).mean(0)
            np.testing.assert_allclose(posteriors, softmax(logs), atol=1e-5)

    @each_pooling
    def test_its_loss_is_the_mean_cross_entropy(self, recipe, pooling):
        """Of an epoch of one batch, whose loss is that of the first weights."""
        folder = self.lay_out(recipe, pooling, epochs=1, batch_size=100, model={"dropout": 0.0})
        train(folder, "cpu")
        run, utts = read_run(folder), recipe.part("train")
        torch.manual_seed(run.seed)
        network = networks.build(run.system, {"n_features": 6, "n_classes": 2})
        targets = [["low", "high"].index(recipe.classes[utt]) for utt in utts]
        expected = loss_of_numpy(network, self.normal(recipe, utts), targets)
        assert self.log_of(folder)[0]["train_loss"] == pytest.approx(expected, rel=1e-5)

    def test_the_best_model_is_not_the_last(self, recipe):
        """In the public re-implementation it is: a reference, and not a copy."""
        folder = self.lay_out(recipe, "attention", epochs=10, learning_rate=0.03, monitor="dev_wa")
        train(folder, "cpu")
        log = self.log_of(folder)
        best = max(log, key=lambda line: line["dev_wa"])
        assert best is not log[-1]
        assert (folder / "best.safetensors").read_bytes() != (folder / "last.safetensors").read_bytes()
        network = networks.trained(read_run(folder))[0]
        utts = recipe.part("dev")
        loss = loss_of_numpy(
            network, self.normal(recipe, utts), [["low", "high"].index(recipe.classes[utt]) for utt in utts]
        )
        assert loss == pytest.approx(best["dev_loss"], rel=1e-4)
