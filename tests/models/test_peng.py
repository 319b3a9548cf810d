"""Peng et al.'s networks, against their equations in numpy, one utterance after the other."""

import copy
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn

from ser import networks
from ser.batches import Batch
from ser.cli import UserError
from ser.config import as_dict, read_protocol, read_system
from ser.features import mfcc
from ser.models.peng import Config, MultiScale, Network
from ser.papers import read_papers

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # they cost a copy, says torch

CONF = Path(__file__).resolve().parents[2] / "egs/iemocap/conf"
SIZE, CLASSES, VOCABULARY, XVECTOR = 4, 3, 8, 5
LENGTHS = [7, 1, 12, 3, 1]  # frames
N_WORDS = [1, 6, 3, 2, 1]
SPOKEN = [[4], [2, 7, 0, 2, 5, 1], [3, 6, 1], [5, 2], [0]]
STATISTICS = {
    "max": lambda maps: np.array([max(column) for column in maps.T]),
    "mean": lambda maps: sum(maps) / len(maps),
    "deviation": lambda maps: np.sqrt(sum((y - sum(maps) / len(maps)) ** 2 for y in maps) / len(maps)),
}
ALL = Config(
    audio_kernels=[3, 4], audio_pooling=list(STATISTICS), xvectors=True, text_kernels=[2, 3], text_pooling=list(STATISTICS),
    words="text", word_size=5, swem=True, attention=True, filters=3, reduced_size=16, dropout=0.0,
)  # fmt: skip
AUDIO = {"text_kernels": [], "text_pooling": [], "words": None, "swem": False, "attention": False}
WORDS = {"audio_kernels": [], "audio_pooling": [], "attention": False}
NO_XVECTORS, NO_SWEM, NO_ATTENTION = {"xvectors": False}, {"swem": False}, {"attention": False}
CONFIGS = {
    name: replace(ALL, **changes)
    for name, changes in {
        "all": {},
        "audio": AUDIO | NO_XVECTORS,
        "audio and x-vectors": AUDIO,
        "words": WORDS | NO_XVECTORS,
        "words and x-vectors": WORDS,
        "words without SWEM": WORDS | NO_XVECTORS | NO_SWEM,
        "audio and words": NO_XVECTORS | NO_ATTENTION,
        "audio and words without SWEM": NO_XVECTORS | NO_ATTENTION | NO_SWEM,
        "all but attention": NO_ATTENTION,
        "all but SWEM": NO_SWEM,
        "all but x-vectors": NO_XVECTORS,
        "audio's maxima": {"audio_pooling": ["max"]},
        "words' maxima": {"text_pooling": ["max"]},
        "maxima": {"audio_pooling": ["max"], "text_pooling": ["max"]} | NO_SWEM,
        "poolings in another order": {
            "audio_pooling": ["deviation", "max"],
            "text_pooling": ["mean", "deviation", "max"],
        },
        "one step wide": {"audio_kernels": [1], "text_kernels": [1]},
        "wider than utterances": {"audio_kernels": [30, 9, 2], "text_kernels": [5, 13, 4]},
        "as many widths as each likes": {"audio_kernels": [1, 2, 5], "text_kernels": [4]} | NO_ATTENTION,
    }.items()
}
each_network = pytest.mark.parametrize("name", CONFIGS)
CLOSE = {"rtol": 1e-4, "atol": 1e-4}  # in single precision; a deviation of nothing is 1e-5


def shaken(name, **changes):
    """A network whose weights hide nothing."""
    config = replace(CONFIGS[name], **changes)
    network = Network(config, SIZE, CLASSES, VOCABULARY * bool(config.words), XVECTOR * config.xvectors).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for value in network.parameters():
            value.uniform_(-0.8, 0.8)
            if value.ndim == 1:  # a bias, which keeps some of the ReLU layers' values from 0
                value.abs_()
        for value in network.buffers():  # mean and deviation of the x-vectors
            value.copy_(torch.linspace(0.5, 2, len(value)))
    return network


def batch(name, junk=0.0, word=0, more=0):
    """As ser.inputs makes it. junk, word: what is behind an utterance's own; more: steps of it behind the longest's."""
    torch.manual_seed(1)
    config = CONFIGS[name]
    frames = torch.full((len(LENGTHS), max(LENGTHS) + more, SIZE), junk)
    words = torch.full((len(LENGTHS), max(N_WORDS) + more), word)
    for row, (length, spoken) in enumerate(zip(LENGTHS, SPOKEN, strict=True)):
        frames[row, :length] = torch.randn(length, SIZE)
        words[row, : len(spoken)] = torch.tensor(spoken)
    extras = {"words": words, "n_words": torch.tensor(N_WORDS)} if config.words else {}
    torch.manual_seed(2)
    if config.xvectors:
        extras["xvectors"] = torch.randn(len(LENGTHS), XVECTOR)
    return Batch(list("abcde"), frames, torch.tensor(LENGTHS), torch.tensor([2, 0, 1, 1, 2]), extras)


def alone(given):
    """Each utterance as a batch of its own, without padding."""
    for row, (length, n_words) in enumerate(zip(LENGTHS, N_WORDS, strict=True)):
        extras = {key: values[row : row + 1] for key, values in given.extras.items()}
        if "words" in extras:
            extras["words"] = extras["words"][:, :n_words]
        lengths, targets = (values[row : row + 1] for values in (given.lengths, given.targets))
        yield Batch([given.utts[row]], given.frames[row : row + 1, :length], lengths, targets, extras)


def of_one(given):
    """Frames (T, D), words [M] and x-vector (X,) of a batch of one."""
    words, xvectors = (given.extras[key][0].numpy() if key in given.extras else None for key in ("words", "xvectors"))
    return given.frames[0].numpy(), words, xvectors


def logs_of(network, given, precision="float32"):
    return networks.forward(network, given, precision)[0]


def heard(network, given, precision="float32"):
    """The joint vectors (B, J) of a batch."""
    joint = []
    hook = network.reduce.register_forward_pre_hook(lambda layer, inputs: joint.append(inputs[0]))
    logs_of(network, given, precision)
    hook.remove()
    return joint[0]


def gradients_of(network):
    return {name: value.grad for name, value in network.named_parameters()}


def array(tensor):
    return tensor.detach().double().numpy()


def softmax(values):
    return np.exp(values) / np.exp(values).sum()


def equation_2(layer, x):
    """The map (T, filters) of one width s over steps (T, D), with zeros around them."""
    w, b = array(layer.weight), array(layer.bias)
    s = w.shape[2]
    y = np.zeros((len(x), len(w)))
    for i in range(len(x)):
        y[i] = b
        for m in range(-(s // 2), (s - 1) // 2 + 1):  # these are s; of an even s, equation 2 begins at -s/2, too
            if 0 <= i - m < len(x):
                k = w[:, :, (s - 1) // 2 - m]
                y[i] += k @ x[i - m]
    return y


def equation_1(multi_scale, x):
    """The maps (T, all filters) of all widths, with ReLU."""
    return np.hstack([np.maximum(equation_2(layer, x), 0) for layer in multi_scale.convolutions])


def equation_4(e, h):
    """s_k (M,)."""
    return np.array([np.exp(e @ h_k) for h_k in h]) / sum(np.exp(e @ h_k) for h_k in h)


def equation_5(e, h):
    return sum(s_k * h_k for s_k, h_k in zip(equation_4(e, h), h, strict=True))


def joint_of_numpy(network, frames, words, xvector):
    """What the layer of section 3.4 is given of one utterance, by name."""
    config, joint, e = network.config, {}, {}
    if config.audio_kernels:
        maps = equation_1(network.audio, frames.astype(np.float64))
        e = {name: STATISTICS[name](maps) for name in config.audio_pooling}
        joint |= {f"audio {name}": statistic for name, statistic in e.items()}  # equation 3
    if config.xvectors:
        joint["x-vector"] = (xvector - array(network.xvector_mean)) / array(network.xvector_deviation)
    if config.words:
        vectors = array(network.words.weight)[words]
        h = equation_1(network.text, vectors)
        joint |= {f"words {name}": STATISTICS[name](h) for name in config.text_pooling}
        if config.swem:
            joint |= {f"SWEM {name}": STATISTICS[name](vectors) for name in ("max", "mean")}
        if config.attention:
            joint |= {f"attended {name}": equation_5(e[name], h) for name in config.audio_pooling}  # equation 6
    return joint


def scores_of_numpy(network, *utterance):
    """(classes,), before the softmax."""
    w, b = array(network.reduce.weight), array(network.reduce.bias)
    reduced = np.maximum(w @ np.concatenate(list(joint_of_numpy(network, *utterance).values())) + b, 0)
    return array(network.output.weight) @ reduced + array(network.output.bias)


def loss_of_numpy(network, given):
    """Equation 7, the mean over utterances."""
    losses = []
    for one in alone(given):
        y, y_hat = np.eye(CLASSES)[one.targets.item()], softmax(scores_of_numpy(network, *of_one(one)))
        losses.append(-sum(y[i] * np.log(y_hat[i]) for i in range(CLASSES)))
    return np.mean(losses)


@each_network
class TestEquations:
    def test_scores(self, name):
        network, given = shaken(name), batch(name)
        scores, penalty = network(given.frames, given.lengths, **given.extras)
        assert penalty == 0
        assert scores.shape == (len(LENGTHS), CLASSES)
        for own, one in zip(scores, alone(given), strict=True):
            np.testing.assert_allclose(array(own), scores_of_numpy(network, *of_one(one)), **CLOSE)
        assert not torch.allclose(scores[0], scores[2], atol=1e-2)

    def test_the_joint_vector_has_its_parts_in_order(self, name):
        network, given = shaken(name), batch(name)
        for own, one in zip(heard(network, given), alone(given), strict=True):
            parts = joint_of_numpy(network, *of_one(one))
            for (part, expected), found in zip(
                parts.items(), own.split([len(part) for part in parts.values()]), strict=True
            ):
                np.testing.assert_allclose(array(found), expected, err_msg=part, **CLOSE)

    def test_the_loss_is_equation_7(self, name):
        network, given = shaken(name), batch(name)
        loss = nn.NLLLoss()(logs_of(network, given), given.targets)
        assert loss.item() == pytest.approx(loss_of_numpy(network, given), rel=1e-4)

    def test_the_gradient_is_that_of_differences(self, name):
        """Along three directions, of all weights at once."""
        network, given = shaken(name), batch(name)
        nn.NLLLoss()(logs_of(network, given), given.targets).backward()
        for _ in range(3):
            slope, values = 0, []
            ahead, back = (copy.deepcopy(network).double() for _ in range(2))
            for own, plus, minus in zip(network.parameters(), ahead.parameters(), back.parameters(), strict=True):
                way = torch.randn_like(plus)
                slope += (own.grad * way).sum().item()
                plus.data += 1e-6 * way
                minus.data -= 1e-6 * way
            values = [loss_of_numpy(other, given) for other in (ahead, back)]
            assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-3, abs=1e-4)
            assert abs(slope) > 1e-2


class TestMultiScale:
    @pytest.mark.parametrize("kernels", [[1], [2], [3], [4], [5, 2], [30, 1, 7]])
    def test_it_is_equations_1_and_2(self, kernels):
        torch.manual_seed(0)
        multi_scale, given = MultiScale(SIZE, kernels, 3), batch("audio", junk=math.nan)
        maps = multi_scale(given.frames, given.lengths)
        assert maps.shape == (len(LENGTHS), max(LENGTHS), 3 * len(kernels))
        for own, one, length in zip(maps, alone(given), LENGTHS, strict=True):
            np.testing.assert_allclose(array(own[:length]), equation_1(multi_scale, of_one(one)[0]), **CLOSE)
        assert maps[2].any()

    @pytest.mark.parametrize(
        ("kernel", "seen"), [(1, [5]), (2, [5, 6]), (3, [4, 5, 6]), (4, [4, 5, 6, 7]), (5, [3, 4, 5, 6, 7])]
    )
    def test_steps_that_a_width_sees(self, kernel, seen):
        """An even one more behind than before."""
        torch.manual_seed(0)
        steps = torch.rand(1, 11, SIZE, requires_grad=True)
        multi_scale = MultiScale(SIZE, [kernel], 3)
        with torch.no_grad():
            multi_scale.convolutions[0].weight.abs_()
            multi_scale.convolutions[0].bias.abs_()
        multi_scale(steps, torch.tensor([11]))[0, 5].sum().backward()
        assert steps.grad[0].any(1).nonzero()[:, 0].tolist() == seen

    def test_no_widths_read_nothing(self):
        assert not list(shaken("words").audio.parameters())
        assert not hasattr(shaken("audio"), "text") and not hasattr(shaken("audio"), "words")


class TestAttention:
    """Equations 4 to 6."""

    def asked(self, **changes):
        """A network, statistics (B, poolings, filters), maps of words (B, M, filters), zero behind an utterance's own."""
        network = shaken("all", **changes)
        n_poolings = len(network.config.audio_pooling)
        contexts, maps = torch.rand(len(N_WORDS), n_poolings, 6), torch.rand(len(N_WORDS), max(N_WORDS), 6)
        for row, n_words in zip(maps, N_WORDS, strict=True):
            row[n_words:] = 0
        return network, contexts, maps

    def attend(self, network, contexts, maps):
        return network.attend(contexts.flatten(1), maps, torch.tensor(N_WORDS))[0]

    @pytest.mark.parametrize("pooling", [["max"], ["max", "mean", "deviation"]])
    def test_weights_are_equation_4(self, pooling):
        network, contexts, maps = self.asked(audio_pooling=pooling)
        weights = self.attend(network, contexts, maps)
        assert weights.shape == (len(N_WORDS), len(pooling), max(N_WORDS))
        for own, e, h, n_words in zip(weights, contexts, maps, N_WORDS, strict=True):
            for of_one, e_gamma in zip(own, e, strict=True):
                np.testing.assert_allclose(
                    array(of_one[:n_words]), equation_4(array(e_gamma), array(h[:n_words])), rtol=1e-5
                )
                assert not of_one[n_words:].any()
        assert weights[1].std(1).min() > 0.01

    def test_large_products_give_the_word_itself(self):
        network, contexts, maps = self.asked()
        weights = self.attend(network, 1e3 * contexts, maps)
        torch.testing.assert_close(weights.sum(2), torch.ones(len(N_WORDS), 3))
        assert torch.equal(weights.argmax(2), (contexts @ maps.transpose(1, 2)).argmax(2))

    def test_a_statistic_asks_for_itself(self):
        """In the public re-implementation one attends with another's query."""
        network, contexts, maps = self.asked()
        before = self.attend(network, contexts, maps)
        for number in range(3):
            others = [other for other in range(3) if other != number]
            changed = contexts.clone()
            changed[:, number] = torch.rand(len(N_WORDS), 6)
            after = self.attend(network, changed, maps)
            assert torch.equal(after[:, others], before[:, others])
            assert not torch.allclose(after[1:4, number], before[1:4, number], atol=1e-3)

    def test_what_a_statistic_asked_for_stands_at_its_place(self):
        """And what another would have is something else, where there are several frames and words."""
        network, given = shaken("all"), batch("all")
        for own, one in list(zip(heard(network, given), alone(given), strict=True))[2:4]:
            utterance = of_one(one)
            parts, h = (
                joint_of_numpy(network, *utterance),
                equation_1(network.text, array(network.words.weight)[utterance[1]]),
            )
            for name, found in zip(STATISTICS, array(own[-18:]).reshape(3, 6), strict=True):
                for other in STATISTICS:
                    assert np.allclose(found, equation_5(parts[f"audio {other}"], h), **CLOSE) == (other == name)

    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_weights_of_the_words_by_the_statistic_that_attends(self, precision):
        network, given = shaken("all"), batch("all", junk=math.nan, word=VOCABULARY - 1)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            found = network.word_weights(given.frames, given.lengths, **given.extras)
        assert list(found) == list(STATISTICS)
        for row, one in enumerate(alone(given)):
            utterance = of_one(one)
            parts, h = (
                joint_of_numpy(network, *utterance),
                equation_1(network.text, array(network.words.weight)[utterance[1]]),
            )
            for name in STATISTICS:
                own = array(found[name][row])
                assert not own[len(h) :].any() and own.sum() == pytest.approx(1, abs=1e-5)
                close = {"rtol": 1e-3, "atol": 1e-4} if precision == "float32" else {"atol": 0.2}
                np.testing.assert_allclose(own[: len(h)], equation_4(parts[f"audio {name}"], h), **close)
        assert array(found["max"][2]).std() > 0.01

    def test_without_attention_words_have_no_weights(self):
        network, given = shaken("all", attention=False), batch("all")
        assert network.word_weights(given.frames, given.lengths, **given.extras) == {}

    def test_a_single_word_is_all_there_is(self):
        network, contexts, maps = self.asked()
        for row, n_words in enumerate(N_WORDS):
            if n_words == 1:
                assert torch.equal(self.attend(network, contexts, maps)[row, :, 0], torch.ones(3))


class TestJointVector:
    """None of what is pooled is lost: the public re-implementation drops two of the words' vectors."""

    @each_network
    def test_its_size(self, name):
        network, config = shaken(name), CONFIGS[name]
        n_audio, n_text = 3 * len(config.audio_kernels), 3 * len(config.text_kernels)
        expected = (
            n_audio * len(config.audio_pooling)
            + 5 * config.xvectors
            + n_text * len(config.text_pooling)
            + 10 * config.swem
        )
        expected += n_text * len(config.audio_pooling) * config.attention
        assert network.reduce.in_features == heard(network, batch(name)).shape[1] == expected

    @each_network
    def test_each_part_of_it_makes_scores(self, name):
        network, given = shaken(name), batch(name)
        parts = joint_of_numpy(network, *of_one(next(alone(given))))
        logs, start = logs_of(network, given), 0
        for part, values in parts.items():
            other = copy.deepcopy(network)
            with torch.no_grad():
                other.reduce.weight[:, start : start + len(values)] = 0
            assert not torch.allclose(logs_of(other, given), logs, atol=1e-2), part
            start += len(values)
        assert start == network.reduce.in_features

    @each_network
    def test_each_part_of_it_learns(self, name):
        network, given = shaken(name), batch(name)
        nn.NLLLoss()(logs_of(network, given), given.targets).backward()
        parts = joint_of_numpy(network, *of_one(next(alone(given))))
        for part, gradient in zip(
            parts, network.reduce.weight.grad.split([len(values) for values in parts.values()], 1), strict=True
        ):
            assert gradient.any(), part

    def test_all_three_statistics_of_the_words_are_there(self):
        network, given = shaken("all"), batch("all")
        for own, one in zip(heard(network, given)[:, 18 + 5 :], alone(given), strict=True):
            h = equation_1(network.text, array(network.words.weight)[of_one(one)[1]])
            np.testing.assert_allclose(array(own[:18]).reshape(3, 6), [h.max(0), h.mean(0), h.std(0)], **CLOSE)


class TestPadding:
    @each_network
    @pytest.mark.parametrize(
        "padding",
        [{"junk": math.nan}, {"junk": 1e30}, {"word": 5}, {"more": 4}, {"junk": -1e3, "word": 3, "more": 9}],
        ids=str,
    )
    def test_it_says_nothing(self, name, padding):
        """Neither in scores nor in gradients."""
        found = []
        for given in (batch(name), batch(name, **padding)):
            network = shaken(name)
            logs = logs_of(network, given)
            nn.NLLLoss()(logs, given.targets).backward()
            found.append((logs, gradients_of(network)))
        torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)

    @each_network
    def test_an_utterance_gives_in_a_batch_what_it_gives_alone(self, name):
        network, given = shaken(name), batch(name, junk=math.nan)
        logs = logs_of(network, given)
        for own, one in zip(logs, alone(given), strict=True):
            torch.testing.assert_close(own, logs_of(network, one)[0], rtol=1e-5, atol=1e-5)

    @each_network
    def test_gradients_of_a_batch_are_the_sum_of_those_of_each_alone(self, name):
        network, given = shaken(name), batch(name, junk=math.nan)
        upstream = torch.randn(len(LENGTHS), CLASSES)
        (logs_of(network, given) * upstream).sum().backward()
        at_once = gradients_of(network)
        network.zero_grad()
        for one, own in zip(alone(given), upstream, strict=True):
            (logs_of(network, one) * own).sum().backward()
        torch.testing.assert_close(at_once, gradients_of(network), **CLOSE)

    @each_network
    def test_nothing_reaches_another_utterance_or_comes_of_padding(self, name):
        network, given, vectors = shaken(name), batch(name), []
        if network.config.words:
            network.words.register_forward_hook(lambda layer, inputs, taken: vectors.append(taken))
        inputs = [given.frames.requires_grad_()] if network.config.audio_kernels else []
        lengths = [LENGTHS] * len(inputs)
        logs = logs_of(network, given)
        inputs, lengths = inputs + vectors, lengths + [N_WORDS] * len(vectors)
        for row in range(len(LENGTHS)):
            for gradient, own in zip(
                torch.autograd.grad(logs[row, 0], inputs, retain_graph=True), lengths, strict=True
            ):
                assert gradient[row, : own[row]].any()
                assert not gradient[row, own[row] :].any()
                gradient[row] = 0
                assert not gradient.any()

    @pytest.mark.parametrize("name", [name for name, config in CONFIGS.items() if config.words])
    def test_word_0_counts_where_it_is_spoken_and_only_there(self, name):
        network, given = shaken(name), batch(name)
        before = logs_of(network, given)
        with torch.no_grad():
            network.words.weight[0] += 2
        after = logs_of(network, given)
        for row, spoken in enumerate(SPOKEN):
            assert torch.allclose(after[row], before[row], atol=1e-5) == (0 not in spoken)

    @pytest.mark.parametrize("name", [name for name, config in CONFIGS.items() if config.words])
    def test_word_0_learns_where_it_is_spoken_and_only_there(self, name):
        network, given = shaken(name), batch(name)
        logs = logs_of(network, given)
        for row, spoken in enumerate(SPOKEN):
            (gradient,) = torch.autograd.grad(logs[row, 0], network.words.weight, retain_graph=True)
            assert set(gradient.any(1).nonzero()[:, 0].tolist()) <= set(spoken)
            assert gradient[0].any() == (0 in spoken)

    def test_maxima_below_zero_are_found(self):
        """Padding's zeros are above them."""
        network, given = shaken("words"), batch("words")
        with torch.no_grad():
            network.words.weight.copy_(-1 - torch.rand_like(network.words.weight))
        for own, one in zip(heard(network, given), alone(given), strict=True):
            np.testing.assert_allclose(array(own[18:23]), array(network.words.weight)[of_one(one)[1]].max(0), rtol=1e-6)


@each_network
class TestPrecision:
    def test_bfloat16_changes_little_and_trains(self, name):
        network, given = shaken(name), batch(name)
        exact, rounded = (logs_of(network, given, precision) for precision in ("float32", "bfloat16"))
        assert rounded.dtype is torch.float32
        assert not torch.equal(rounded, exact)
        torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.1)
        nn.NLLLoss()(rounded, given.targets).backward()
        for gradient in gradients_of(network).values():
            assert gradient.dtype is torch.float32
            assert gradient.isfinite().all() and gradient.any()

    def test_sums_over_steps_are_in_single_precision(self, name):
        """Of maps as they are rounded: statistics, and the attention's products, softmax and sums."""
        network, given, maps = shaken(name), batch(name), {}
        for side in ("audio", "text") if network.config.words else ("audio",):
            getattr(network, side).register_forward_hook(
                lambda layer, inputs, taken, side=side: maps.update({side: array(taken)})
            )
        joint = heard(network, given, "bfloat16")
        assert joint.dtype is torch.float32
        config = network.config
        for row, (one, length, n_words) in enumerate(zip(alone(given), LENGTHS, N_WORDS, strict=True)):
            parts, e = joint_of_numpy(network, *of_one(one)), {}
            if config.audio_kernels:
                e = {name: STATISTICS[name](maps["audio"][row, :length]) for name in config.audio_pooling}
                parts |= {f"audio {name}": statistic for name, statistic in e.items()}
            if config.words:
                h = maps["text"][row, :n_words]
                parts |= {f"words {name}": STATISTICS[name](h) for name in config.text_pooling}
                parts |= {
                    f"attended {name}": equation_5(e[name], h) for name in config.audio_pooling if config.attention
                }
            for (part, expected), found in zip(
                parts.items(), joint[row].split([len(part) for part in parts.values()]), strict=True
            ):
                np.testing.assert_allclose(array(found), expected, rtol=1e-4, atol=2e-5, err_msg=part)


@each_network
def test_all_weights_learn(name):
    network, given = shaken(name), batch(name)
    nn.NLLLoss()(logs_of(network, given), given.targets).backward()
    for own, gradient in gradients_of(network).items():
        assert gradient is not None, own
        assert gradient.isfinite().all() and gradient.any(), own


class TestDropout:
    """Of the joint vector, and of the layer that reduces it."""

    def dropped(self, name, training):
        """What dropout was given and gave, each time."""
        network, calls = shaken(name, dropout=0.3, reduced_size=200).train(training), []
        network.dropout.register_forward_hook(lambda layer, given, taken: calls.append((given[0], taken)))
        logs = logs_of(network, batch(name))
        return calls, logs

    @each_network
    def test_its_share_in_training(self, name):
        calls, _ = self.dropped(name, True)
        joint, reduced = calls
        assert torch.equal(joint[0], heard(shaken(name), batch(name)))
        for given, taken in calls:
            kept = (taken / given)[given != 0]
            assert 0.2 < (kept == 0).float().mean() < 0.4
            torch.testing.assert_close(kept[kept != 0], torch.full_like(kept[kept != 0], 1 / 0.7), rtol=1e-4, atol=0)
        network = shaken(name, dropout=0.3, reduced_size=200)
        torch.testing.assert_close(reduced[0], F.relu(network.reduce(joint[1])))

    @each_network
    def test_it_changes_with_every_batch_of_training(self, name):
        network = shaken(name, dropout=0.3).train()
        assert not torch.equal(
            *(network(given.frames, given.lengths, **given.extras)[0] for given in [batch(name)] for _ in range(2))
        )

    @each_network
    def test_there_is_none_in_evaluation(self, name):
        calls, logs = self.dropped(name, False)
        assert len(calls) == 2
        for given, taken in calls:
            assert torch.equal(given, taken)
        assert torch.equal(logs, logs_of(shaken(name, reduced_size=200), batch(name)))


# of section 4.2: 128 filters of each width, 96 values a frame, 300 a word, an x-vector of 512; four classes, 100 words
FRAMES = (5 + 7 + 9 + 11) * 96 * 128 + 4 * 128
TEXT = 100 * 300 + (1 + 3 + 5 + 7) * 300 * 128 + 4 * 128
OUTPUT = 128 + 128 * 4 + 4  # and the biases of the layer before
PARAMETERS = {
    "audio_cnn": FRAMES + 128 * (3 * 512) + OUTPUT,
    "audio_cnn_xvector": FRAMES + 128 * (3 * 512 + 512) + OUTPUT,
    "text_cnn": TEXT + 128 * (3 * 512 + 2 * 300) + OUTPUT,
    "text_cnn_asr": TEXT + 128 * (3 * 512 + 2 * 300) + OUTPUT,
    "mscnn_spu": FRAMES + TEXT + 128 * (3 * 512 + 512 + 3 * 512 + 2 * 300) + OUTPUT,
    "mscnn_spu_asr": FRAMES + TEXT + 128 * (3 * 512 + 512 + 3 * 512 + 2 * 300) + OUTPUT,
    "mscnn_spu_att": FRAMES + TEXT + 128 * (3 * 512 + 512 + 3 * 512 + 2 * 300 + 3 * 512) + OUTPUT,
    "mscnn_spu_att_asr": FRAMES + TEXT + 128 * (3 * 512 + 512 + 3 * 512 + 2 * 300 + 3 * 512) + OUTPUT,
    "mscnn_spu_no_xvectors": FRAMES + TEXT + 128 * (3 * 512 + 3 * 512 + 2 * 300) + OUTPUT,
    "mscnn_spu_text_max": FRAMES + TEXT + 128 * (3 * 512 + 512 + 512 + 2 * 300) + OUTPUT,
    "mscnn_spu_no_swem": FRAMES + TEXT + 128 * (3 * 512 + 512 + 3 * 512) + OUTPUT,
    "mscnn_spu_audio_max": FRAMES + TEXT + 128 * (512 + 512 + 3 * 512 + 2 * 300) + OUTPUT,
}
PAPER = {  # the tables that a row stands in, its WA and UA
    "audio_cnn": ("1", 65.4, 66.7),
    "audio_cnn_xvector": ("1", 66.6, 68.4),
    "text_cnn": ("1", 67.8, 67.7),
    "text_cnn_asr": ("1", 62.4, 61.5),
    "mscnn_spu": ("12", 79.5, 80.4),
    "mscnn_spu_asr": ("1", 77.4, 78.2),
    "mscnn_spu_att": ("12", 80.3, 81.4),
    "mscnn_spu_att_asr": ("1", 78.0, 79.1),
    "mscnn_spu_no_xvectors": ("2", 78.5, 79.3),
    "mscnn_spu_text_max": ("2", 77.7, 78.6),
    "mscnn_spu_no_swem": ("2", 77.2, 78.3),
    "mscnn_spu_audio_max": ("2", 73.5, 74.0),
}
NO_WORDS = {"text_kernels": [], "text_pooling": [], "words": None, "swem": False}
NO_AUDIO = {"audio_kernels": [], "audio_pooling": [], "xvectors": False}
FROM_MSCNN_SPU = {
    "mscnn_spu": {},
    # Table 2: each in one thing
    "mscnn_spu_att": {"attention": True},
    "mscnn_spu_no_xvectors": {"xvectors": False},
    "mscnn_spu_text_max": {"text_pooling": ["max"]},
    "mscnn_spu_no_swem": {"swem": False},
    "mscnn_spu_audio_max": {"audio_pooling": ["max"]},
    # Table 1: one side alone, a recogniser's words
    "audio_cnn": NO_WORDS | {"xvectors": False},
    "audio_cnn_xvector": NO_WORDS,
    "text_cnn": NO_AUDIO,
    "text_cnn_asr": NO_AUDIO | {"words": "text_asr"},
    "mscnn_spu_asr": {"words": "text_asr"},
    "mscnn_spu_att_asr": {"attention": True, "words": "text_asr"},
}
each_system = pytest.mark.parametrize("name", PARAMETERS)


def system_of(name):
    return read_system(CONF / f"peng/{name}.yaml")


class TestSystems:
    """conf/peng, against the paper's section 4.2 and Tables 1 and 2."""

    def test_there_is_one_for_each_row(self):
        files = {path.stem for path in (CONF / "peng").glob("*.yaml")}
        assert files == PARAMETERS.keys() == PAPER.keys() == FROM_MSCNN_SPU.keys()

    @each_system
    def test_number_of_parameters(self, name):
        system = system_of(name)
        sizes = {"words": {"vocabulary_size": 100}, "xvectors": {"xvector_size": 512}}
        more = {size: number for extra in system.model.extras for size, number in sizes[extra].items()}
        network = networks.build(system, {"n_features": 96, "n_classes": 4, **more})
        assert networks.count_parameters(network) == PARAMETERS[name]

    def test_numbers_of_the_tables(self):
        protocols = [path.stem for path in CONF.glob("protocols/*.yaml")]
        systems = [path.stem for path in CONF.glob("*/*.yaml")]
        (peng,) = [paper for paper in read_papers(CONF / "papers", systems, protocols) if paper.name == "Peng et al."]
        found: dict[str, tuple] = {}
        for table in peng.tables:
            assert table.protocol == "random_dev"
            for row in table.rows:
                for system in row.systems:
                    found[system] = (found.get(system, ("",))[0] + table.number, row.wa, row.ua)
        assert found == PAPER

    @each_system
    def test_audio_features(self, name):
        feature = system_of(name).feature
        assert isinstance(feature, mfcc.Config)
        assert feature.win_length / feature.sample_rate == 0.025
        assert feature.hop_length / feature.sample_rate == 0.01
        assert (feature.window, feature.n_mfcc, feature.derivatives) == ("hamming", 32, 2)

    def test_a_frame_has_96_values(self):
        samples = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
        assert mfcc.extract(samples, system_of("mscnn_spu").feature).shape[1] == 96

    @each_system
    def test_sizes_and_training(self, name):
        system = system_of(name)
        training = system.training
        assert (system.model.filters, system.model.dropout) == (128, 0.3)
        assert not system.model.words or system.model.word_size == 300
        assert (training.optimiser, training.learning_rate, training.clip_norm, training.batch_size) == (
            "adam",
            5e-4,
            1,
            64,
        )

    def test_the_protocol_is_a_cross_validation_of_ten_folds(self):
        """8:1:1, and "happy" takes in excited (section 4.1)."""
        protocol = read_protocol(CONF / "protocols/random_dev.yaml")
        assert (protocol.folds.by, protocol.folds.number, protocol.folds.test_parts) == ("utt", 10, 1)
        assert (protocol.select, protocol.where, protocol.labels) == ("dev", {}, "own")
        assert sorted(map(len, protocol.classes.values())) == [1, 1, 1, 2]

    @each_system
    def test_a_row_differs_from_mscnn_spu_in_what_it_says(self, name):
        own, whole = as_dict(system_of(name)), as_dict(system_of("mscnn_spu"))
        for named in ("name", "description"):
            del own[named], whole[named]
        changes = {key: value for key, value in own["model"].items() if value != whole["model"][key]}
        assert changes == FROM_MSCNN_SPU[name]
        assert own | {"model": None} == whole | {"model": None}


class TestConfig:
    def write(self, **model):
        content = {
            "description": "a network",
            "feature": {"kind": "spectrum", "sample_rate": 16000, "n_fft": 512, "win_length": 400, "hop_length": 160},
            "normalisation": "global", "model": {"kind": "peng", **asdict(ALL), **model},
            "training": {"epochs": 1, "batch_size": 2, "learning_rate": 1e-4},
        }  # fmt: skip
        Path("x.yaml").write_text(yaml.safe_dump(content))
        return "x.yaml"

    @each_network
    def test_systems_are_read(self, tmp_path, monkeypatch, name):
        monkeypatch.chdir(tmp_path)
        config = read_system(self.write(**asdict(CONFIGS[name]))).model
        assert config == CONFIGS[name]
        assert read_system(self.write(**as_dict(config))).model == config  # what a run's folder keeps

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            (AUDIO | WORDS, "model: audio_kernels and text_kernels are both empty; give at least one of them"),
            ({"audio_kernels": []}, "model: audio_pooling: required with audio_kernels, and not allowed without"),
            ({"audio_pooling": []}, "model: audio_pooling: required with audio_kernels, and not allowed without"),
            ({"text_kernels": []}, "model: text_pooling: required with text_kernels, and not allowed without"),
            ({"text_pooling": []}, "model: text_pooling: required with text_kernels, and not allowed without"),
            ({"words": None}, "model: words: required with text_kernels, and not allowed without"),
            (
                AUDIO | {"words": "text_asr"},
                "model: words: required with text_kernels, and not allowed without",
            ),
            (AUDIO | {"swem": True}, "model: swem: needs words; set swem: false, or words to a table"),
            (
                AUDIO | {"attention": True},
                "model: attention: needs as many audio_kernels as text_kernels",
            ),
            (
                WORDS | {"attention": True},
                "model: attention: needs as many audio_kernels as text_kernels",
            ),
            (
                {"audio_kernels": [3]},
                "model: attention: needs as many audio_kernels as text_kernels",
            ),
            (
                {"text_kernels": [2, 3, 4]},
                "model: attention: needs as many audio_kernels as text_kernels",
            ),
            (
                {"audio_pooling": ["min"]},
                "model.audio_pooling.0: input should be 'max', 'mean' or 'deviation', not 'min'",
            ),
            (
                {"text_pooling": ["max", "std"]},
                "model.text_pooling.1: input should be 'max', 'mean' or 'deviation', not 'std'",
            ),
            ({"words": "texts"}, "model.words: input should be 'text' or 'text_asr', not 'texts'"),
            ({"audio_kernels": [3, 0]}, "model.audio_kernels.1: input should be greater than or equal to 1, not 0"),
            ({"text_kernels": [-1, 3]}, "model.text_kernels.0: input should be greater than or equal to 1, not -1"),
            ({"word_size": 0}, "model.word_size: input should be greater than or equal to 1, not 0"),
            ({"filters": 0}, "model.filters: input should be greater than or equal to 1, not 0"),
            ({"reduced_size": 0}, "model.reduced_size: input should be greater than or equal to 1, not 0"),
            ({"dropout": 1}, "model.dropout: input should be less than 1, not 1"),
            ({"kernels": [3]}, "model.kernels: unknown key; "),
        ],
    )
    def test_faults_are_named(self, tmp_path, monkeypatch, model, message):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UserError) as error:
            read_system(self.write(**model))
        assert str(error.value).startswith(f"x.yaml: {message}")

    @pytest.mark.parametrize(
        ("name", "extras"),
        [("all", ("words", "xvectors")), ("audio", ()), ("audio and x-vectors", ("xvectors",)), ("words", ("words",))],
    )
    def test_what_is_read_beside_frames(self, name, extras):
        assert CONFIGS[name].extras == extras
