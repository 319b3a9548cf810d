"""Le Moine et al.'s networks, against their equations in numpy, and the same written out plainly, one segment after the other."""

import copy
import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn
from torch.autograd import gradcheck

from ser import networks, score
from ser.batches import Batch
from ser.cli import UserError
from ser.config import as_dict, feature_name, read_system
from ser.inputs import speakers
from ser.models.lemoine import (
    GAP,
    POOL,
    Config,
    Encoder,
    Network,
    Output,
    SelfAttention,
    SpeakerAttention,
)
from ser.reading import read_run_fold
from ser.runs import read_run
from ser.scores import read_scores
from ser.segments import Segments
from ser.train import train

EGS = Path(__file__).resolve().parents[2] / "egs"
ATTHACK = EGS / "atthack/conf/lemoine"
VALUES, CLASSES, SPEAKERS = 15, 3, 4  # values of a frame: three channels of five bands
LENGTHS = [23, 1, 10, 31, 2, 16]
SPOKEN_BY = [2, -1, 0, 3, -1, 2]
SMALL = Config(
    segment=10,
    channels=3,
    maps=[4, 5],
    linear_size=7,
    hidden_size=3,
    embedding_size=4,
    regularisation="none",
    speaker_weight=None,
)
ROWS = [
    {},
    {"speaker_weight": 0.7},
    {"maps": [4], "segment": 7},
    {"maps": [4, 3, 5], "segment": 9, "channels": 5, "speaker_weight": 0.7},
    {"maps": [4, 3, 5], "segment": 100, "channels": 15},
    {"segment": 100, "channels": 1, "speaker_weight": 2.0, "regularisation": "mean"},
    {"segment": 2, "regularisation": "norm"},
    {"segment": 1, "speaker_weight": 0.7, "regularisation": "norm"},
    {"regularisation": "projection"},
    {"regularisation": "penalty", "speaker_weight": 0.7},
    {"regularisation": "mean"},
]
each_row = pytest.mark.parametrize(
    "row", ROWS, ids=lambda row: " ".join(f"{key}={value}" for key, value in row.items()) or "small"
)
each_kind = pytest.mark.parametrize("speaker_weight", [None, 0.7])
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # in single precision
GRADIENTS_CLOSE = {"rtol": 1e-3, "atol": 1e-4}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def shake(module):
    """Give a module weights and statistics that hide nothing: utterances differ, and attention is uneven."""
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.01, 0.1)
            elif value.is_floating_point() and "bias_hh" not in name:
                bound = (12 / value[0].numel()) ** 0.5 if value.ndim > 1 else 0.5
                value.uniform_(-bound, bound)
    return module


def shaken(**row):
    return shake(Network(replace(SMALL, **row), VALUES, CLASSES, SPEAKERS)).eval()


def padded(lengths=LENGTHS, junk=math.nan, size=VALUES):
    """frames (B, T, size), with what must not be heard beyond each length; lengths (B,)."""
    frames = torch.randn(len(lengths), max(lengths), size)
    for row, length in zip(frames, lengths, strict=True):
        row[length:] = junk
    return frames, torch.tensor(lengths)


def alone(frames, lengths):
    """Each utterance as a batch of its own, without padding."""
    return [(frames[row : row + 1, :length], lengths[row : row + 1]) for row, length in enumerate(lengths)]


def pieces(frames, segment):
    """The segments of one utterance."""
    return [frames[start : start + segment] for start in range(0, len(frames), segment)]


def array(tensor):
    return tensor.detach().double().numpy()


def softmax(values):
    return np.exp(values) / np.exp(values).sum(-1, keepdims=True)


def equation_1(attention, states):
    """alpha (T,), of one segment's states (T, d)."""
    w = array(attention.score.weight)[0]
    return np.array([np.exp(h @ w) for h in states]) / sum(np.exp(w @ h) for h in states)


def equations_3_to_6(attention, h_em, h_sp):
    """alpha (2T,), of one segment's states (T, d); T is its own number of steps, of which W_em^q may have more."""
    n_steps = len(h_em)
    w_q, w_k = array(attention.query.weight)[0, :n_steps], array(attention.score.weight)[0]
    keys = h_sp @ array(attention.speaker_key.weight).T
    query = h_em.T @ w_q
    alpha_em = [h @ w_k for h in h_em]
    alpha_sp = [query @ key / np.sqrt(n_steps) for key in keys]
    return softmax(np.array([*alpha_em, *alpha_sp]))


def equation_7(attention, alpha, h_em, h_sp):
    values = [*(h_em @ array(attention.value.weight).T), *(h_sp @ array(attention.speaker_value.weight).T)]
    return sum(weight * value for weight, value in zip(alpha, values, strict=True))


class Plain:
    """The network as the paper tells it: each segment an image of its own, torch's own layers, sums written out."""

    def __init__(self, network):
        self.network, self.config = copy.deepcopy(network), network.config

    def encode(self, encoder, frames):
        """States (steps, 2H) of one segment (T, D): convolution, activation, pooling."""
        image = F.pad(frames, (0, 0, 0, len(frames) % 2)).unflatten(1, (self.config.channels, -1)).transpose(0, 1)[None]
        for number, convolution in enumerate(encoder.convolutions):
            image = F.leaky_relu(F.conv2d(image, convolution.weight, convolution.bias, padding=(2, 1)), 0.01)
            if number == 0:
                image = F.max_pool2d(image, 2, ceil_mode=True)
        rows = F.leaky_relu(encoder.linear(image[0].permute(1, 2, 0).flatten(1)), 0.01)
        blstm = nn.LSTM(self.config.linear_size, self.config.hidden_size, batch_first=True, bidirectional=True)
        weights = dict(encoder.blstm.ahead.named_parameters())
        weights |= {f"{name}_reverse": value for name, value in encoder.blstm.back.named_parameters()}
        return torch.func.functional_call(blstm, weights, rows[None])[0][0]

    def self_attend(self, attention, states):
        return (states @ attention.score.weight[0]).softmax(0) @ states

    def speaker_attend(self, attention, states, voices):
        query = states.T @ attention.query.weight[0, : len(states)]
        keys = voices @ attention.speaker_key.weight.T
        scores = torch.cat((states @ attention.score.weight[0], keys @ query / len(states) ** 0.5))
        return scores.softmax(0) @ torch.cat(
            (states @ attention.value.weight.T, voices @ attention.speaker_value.weight.T)
        )

    def embed(self, embedding, contexts, frames):
        """Embeddings (B, E) of utterances; contexts: of all segments, in their order."""
        vectors = embedding.linear(torch.stack(contexts))
        vectors = iter(F.leaky_relu(embedding.norm(vectors), 0.01))
        return torch.stack(
            [sum(len(piece) * next(vectors) for piece in pieces(row, self.config.segment)) / len(row) for row in frames]
        )

    def __call__(self, frames, lengths, speakers=None):
        network, weight = self.network, self.config.speaker_weight
        frames = [row[:length] for row, length in zip(frames, lengths, strict=True)]
        segments = [piece for row in frames for piece in pieces(row, self.config.segment)]
        states = [self.encode(network.encoder, segment) for segment in segments]
        if weight is None:
            contexts = [self.self_attend(network.attention, one) for one in states]
        else:
            voices = [self.encode(network.speaker_encoder, segment) for segment in segments]
            contexts = [self.speaker_attend(network.attention, *both) for both in zip(states, voices, strict=True)]
        scores, penalty = network.output(self.embed(network.embedding, contexts, frames))
        if weight is not None and speakers is not None:
            contexts = [self.self_attend(network.speaker_attention, one) for one in voices]
            logs = network.speaker_output(self.embed(network.speaker_embedding, contexts, frames)).log_softmax(1)
            losses = [-log[speaker] for log, speaker in zip(logs, speakers, strict=True) if speaker >= 0]
            penalty = penalty + weight * sum(losses) / max(len(losses), 1)
        return scores, penalty


STEPS = [6, 1, 4, 3]
ROOT = {"rtol": 1e-6, "atol": 1e-7}  # that of T is in single precision


def states_of(steps=STEPS, size=4):
    """States (S, T, size), zero behind a segment's own steps; numbers (S,) of these."""
    states = torch.randn(len(steps), max(steps), size, dtype=torch.float64)
    for row, number in zip(states, steps, strict=True):
        row[number:] = 0
    return states, torch.tensor(steps)


class TestSelfAttention:
    @pytest.fixture
    def attention(self):
        return shake(SelfAttention(4)).double()

    def test_it_is_equations_1_and_2(self, attention):
        states, steps = states_of()
        weights, context = attention.weights(states, steps), attention(states, steps)
        for row, number in enumerate(STEPS):
            own = array(states[row, :number])
            alpha = equation_1(attention, own)
            np.testing.assert_allclose(array(weights[row, :number]), alpha)
            np.testing.assert_allclose(
                array(context[row]), sum(weight * h for weight, h in zip(alpha, own, strict=True))
            )

    def test_steps_behind_a_segments_own_weigh_nothing(self, attention):
        states, steps = states_of()
        before = attention(states, steps)
        for row, number in zip(states, STEPS, strict=True):
            row[number:] = 1e3
        assert torch.equal(attention(states, steps), before)
        for row, number in zip(attention.weights(states, steps), STEPS, strict=True):
            assert not row[number:].any()

    def test_gradients_are_those_of_differences(self, attention):
        states, steps = states_of()
        weight = attention.score.weight.detach().requires_grad_()

        def context(states, weight):
            return torch.func.functional_call(attention, {"score.weight": weight}, (states, steps))

        assert gradcheck(context, (states.requires_grad_(), weight))


class TestSpeakerAttention:
    @pytest.fixture
    def attention(self):
        """For segments of up to 8 steps; none of STEPS is whole."""
        return shake(SpeakerAttention(4, 8)).double()

    def test_weights_are_equations_3_to_6(self, attention):
        (states, steps), (voices, _) = states_of(), states_of()
        weights = attention.weights(states, voices, steps)
        assert weights.shape == (4, 12)
        for row, number in enumerate(STEPS):
            own, speaker = array(weights[row]).reshape(2, 6)
            alpha = equations_3_to_6(attention, array(states[row, :number]), array(voices[row, :number]))
            np.testing.assert_allclose(own[:number], alpha[:number], **ROOT)
            np.testing.assert_allclose(speaker[:number], alpha[number:], **ROOT)
            assert not own[number:].any() and not speaker[number:].any()
            assert own.sum() + speaker.sum() == pytest.approx(1)

    def test_the_context_is_equation_7(self, attention):
        """Of the values of every step, where ours are of their sum."""
        (states, steps), (voices, _) = states_of(), states_of()
        context = attention(states, voices, steps)
        assert context.shape == (4, 4)
        for row, number in enumerate(STEPS):
            h_em, h_sp = array(states[row, :number]), array(voices[row, :number])
            alpha = equations_3_to_6(attention, h_em, h_sp)
            np.testing.assert_allclose(array(context[row]), equation_7(attention, alpha, h_em, h_sp), **ROOT)

    def test_a_shorter_segment_is_in_a_batch_what_it_is_alone(self, attention):
        (states, steps), (voices, _) = states_of(), states_of()
        context = attention(states, voices, steps)
        for row, number in enumerate(STEPS):
            own = (one[row : row + 1, :number] for one in (states, voices))
            torch.testing.assert_close(context[row], attention(*own, steps[row : row + 1])[0])

    def test_a_whole_segment_has_all_of_its_query(self, attention):
        (states, steps), (voices, _) = states_of([8]), states_of([8])
        expected = equations_3_to_6(attention, array(states[0]), array(voices[0]))
        np.testing.assert_allclose(array(attention.weights(states, voices, steps)[0]), expected, **ROOT)
        with torch.no_grad():
            attention.query.weight[0, 7] += 1
        assert not np.allclose(array(attention.weights(states, voices, steps)[0]), expected, rtol=1e-3)

    def test_a_speakers_states_behind_a_segments_own_weigh_nothing(self, attention):
        (states, steps), (voices, _) = states_of(), states_of()
        before = attention(states, voices, steps)
        for row, number in zip(voices, STEPS, strict=True):
            row[number:] = 1e3
        torch.testing.assert_close(attention(states, voices, steps), before)

    def test_gradients_are_those_of_differences(self, attention):
        (states, steps), (voices, _) = states_of([3, 1, 2]), states_of([3, 1, 2])
        names = [name for name, _ in attention.named_parameters()]
        weights = [value.detach().requires_grad_() for value in attention.parameters()]
        assert len(names) == 5

        def context(states, voices, *weights):
            return torch.func.functional_call(
                attention, dict(zip(names, weights, strict=True)), (states, voices, steps)
            )

        assert gradcheck(context, (states.requires_grad_(), voices.requires_grad_(), *weights))


class TestOutput:
    """Section 2.4, as each reading of equation 8 has it."""

    N, SIZE = 7, 5

    def made(self, regularisation):
        return shake(Output(self.SIZE, CLASSES, regularisation)).double().train()

    def embeddings(self, shift=0.3):
        return torch.randn(self.N, self.SIZE, dtype=torch.float64) + shift

    def equation_8(self, embeddings):
        x = array(embeddings)
        return len(x) / (CLASSES * np.abs(sum(x)).sum())

    def lengthened(self, weight, norm):
        return np.array([w * norm / np.abs(w).sum() for w in array(weight)])

    def test_norm_gives_the_weights_that_norm(self):
        output, x = self.made("norm"), self.embeddings()
        before = output.linear.weight.detach().clone()
        scores, penalty = output(x)
        used = np.linalg.lstsq(array(x), array(scores), rcond=None)[0]  # the weights that give these scores
        np.testing.assert_allclose(np.abs(used).sum(0), self.equation_8(x))
        np.testing.assert_allclose(used.T, self.lengthened(before, self.equation_8(x)))
        assert penalty == 0
        assert torch.equal(output.linear.weight, before)

    def test_norm_forgets_the_length_of_its_own_vectors(self):
        output, x = self.made("norm"), self.embeddings()
        scores, _ = output(x)
        with torch.no_grad():
            output.linear.weight[1] *= 10
        torch.testing.assert_close(output(x)[0], scores)

    def test_projection_shortens_the_weights_themselves(self):
        output, x = self.made("projection"), self.embeddings()
        expected = self.lengthened(output.linear.weight, self.equation_8(x))
        scores, penalty = output(x)
        np.testing.assert_allclose(array(output.linear.weight), expected)
        np.testing.assert_allclose(array(scores), array(x) @ expected.T)
        assert penalty == 0

    def test_projection_is_no_part_of_the_gradient(self):
        output, x = self.made("projection"), self.embeddings().requires_grad_()
        upstream = torch.randn(self.N, CLASSES, dtype=torch.float64)
        (output(x)[0] * upstream).sum().backward()
        torch.testing.assert_close(x.grad, upstream @ output.linear.weight)
        torch.testing.assert_close(output.linear.weight.grad, upstream.T @ x)

    def test_projection_leaves_weights_alone_in_evaluation(self):
        output, x = self.made("projection").eval(), self.embeddings()
        before = output.linear.weight.detach().clone()
        torch.testing.assert_close(output(x)[0], x @ before.T)
        assert torch.equal(output.linear.weight, before)

    def test_penalty_is_what_norms_are_off(self):
        output, x = self.made("penalty"), self.embeddings()
        scores, penalty = output(x)
        off = [np.abs(w).sum() - self.equation_8(x) for w in array(output.linear.weight)]
        assert penalty.item() == pytest.approx(sum(one**2 for one in off))
        np.testing.assert_allclose(array(scores), array(x) @ array(output.linear.weight).T)

    def test_penalty_is_nothing_in_evaluation(self):
        assert self.made("penalty").eval()(self.embeddings())[1] == 0

    def test_penalty_is_nothing_where_equation_8_holds(self):
        output, x = self.made("penalty"), self.embeddings()
        with torch.no_grad():
            output.linear.weight.copy_(torch.tensor(self.lengthened(output.linear.weight, self.equation_8(x))))
        assert output(x)[1].item() == pytest.approx(0, abs=1e-20)

    def test_mean_gives_all_classes_the_same_sum(self):
        output, x = self.made("mean"), self.embeddings()
        scores, penalty = output(x)
        np.testing.assert_allclose(array(scores).sum(0), [self.N / CLASSES] * CLASSES)
        centred = array(x) - sum(array(x)) / self.N
        np.testing.assert_allclose(array(scores), centred @ array(output.linear.weight).T + 1 / CLASSES)
        assert penalty == 0

    def test_none_is_linear(self):
        output, x = self.made("none"), self.embeddings()
        scores, penalty = output(x)
        np.testing.assert_allclose(array(scores), array(x) @ array(output.linear.weight).T + array(output.linear.bias))
        assert penalty == 0

    @pytest.mark.parametrize("regularisation", ["norm", "projection", "penalty", "mean"])
    def test_a_constraint_leaves_no_bias(self, regularisation):
        assert self.made(regularisation).linear.bias is None

    @pytest.mark.parametrize("regularisation", ["norm", "penalty", "mean", "none"])
    def test_gradients_are_those_of_differences(self, regularisation):
        output, x = self.made(regularisation), self.embeddings().requires_grad_()
        weight = output.linear.weight.detach().requires_grad_()

        def of(x, weight):
            return torch.func.functional_call(output, {"linear.weight": weight}, (x,))

        gradients = torch.autograd.grad(sum(part.square().sum() for part in of(x, weight)), (x, weight))
        assert all(gradient.any() for gradient in gradients)
        assert gradcheck(of, (x, weight))

    @pytest.mark.parametrize("regularisation", ["norm", "mean"])
    def test_in_evaluation_a_running_mean_stands_for_the_batch(self, regularisation):
        output = self.made(regularisation)
        means = []
        for shift in (1, -2, 0.5):
            x = self.embeddings(shift)
            output(x)
            means.append(sum(array(x)) / self.N)
        running = 0.9 * (0.9 * means[0] + 0.1 * means[1]) + 0.1 * means[2]
        output.eval()
        x = self.embeddings()
        for _ in range(2):  # the first time changes nothing
            scores = array(output(x)[0])
            if regularisation == "norm":
                expected = array(x) @ self.lengthened(output.linear.weight, 1 / (CLASSES * np.abs(running).sum())).T
            else:
                expected = (array(x) - running) @ array(output.linear.weight).T + 1 / CLASSES
            np.testing.assert_allclose(scores, expected)

    @pytest.mark.parametrize("regularisation", ["norm", "projection", "penalty", "mean", "none"])
    def test_in_evaluation_nothing_depends_on_other_utterances(self, regularisation):
        output = self.made(regularisation)
        output(self.embeddings(1))
        output.eval()
        x = self.embeddings()
        for row in range(self.N):
            torch.testing.assert_close(output(x)[0][row], output(x[row : row + 1])[0][0])

    def test_the_running_mean_remembers_no_graph(self):
        output, x = self.made("mean"), self.embeddings().requires_grad_()
        for _ in range(2):
            output(x)[0].square().sum().backward()
        assert output.mean.grad_fn is None and not output.mean.requires_grad


class TestEncoder:
    """The strip, against an image for each segment, in double precision."""

    @pytest.mark.parametrize("segment", [10, 7, 1, 100])
    @pytest.mark.parametrize(("maps", "channels"), [([4], 3), ([4, 5], 15), ([4, 3, 5], 1)])
    def test_states_and_gradients_are_those_of_each_segment_alone(self, segment, maps, channels):
        config = replace(SMALL, segment=segment, maps=maps, channels=channels)
        encoder = shake(Encoder(config, VALUES)).double()
        network = shaken(**asdict(config)).double()
        network.encoder.load_state_dict(encoder.state_dict())
        plain = Plain(network)
        frames, lengths = padded()
        frames = frames.double().requires_grad_()
        segments = Segments(lengths, segment, POOL, GAP)
        states = encoder(segments.lay(frames), segments)
        upstream = torch.randn_like(states)
        expected = [
            plain.encode(plain.network.encoder, piece)
            for row, length in zip(frames, lengths, strict=True)
            for piece in pieces(row[:length], segment)
        ]
        assert states.shape == (len(expected), max(map(len, expected)), 6)
        for own, theirs in zip(states, expected, strict=True):
            torch.testing.assert_close(own[: len(theirs)], theirs)
            assert not own[len(theirs) :].any()
        ours = [frames, *(value for value in encoder.parameters() if value.requires_grad)]
        theirs = [frames, *(value for value in plain.network.encoder.parameters() if value.requires_grad)]
        gradients = torch.autograd.grad((states * upstream).sum(), ours)
        total = sum((one * up[: len(one)]).sum() for one, up in zip(expected, upstream, strict=True))
        for gradient, expected_gradient in zip(gradients, torch.autograd.grad(total, theirs), strict=True):
            torch.testing.assert_close(gradient, expected_gradient)
            assert gradient.any() or segment <= 2  # of one step, which has no recurrence

    def test_layers_start_as_they_should(self):
        encoder = Encoder(replace(SMALL, maps=[16, 16]), VALUES)
        for convolution in encoder.convolutions:
            fan_in = convolution.weight[0].numel()
            bound = (6 / (1 + 0.01**2) / fan_in) ** 0.5  # He et al. 2015
            assert 0.9 * bound < convolution.weight.abs().max() <= bound
            assert not convolution.bias.any()
        assert encoder.linear.weight.abs().max() <= (6 / sum(encoder.linear.weight.shape)) ** 0.5
        assert encoder.blstm.ahead.bias_ih_l0.view(4, 3).sum(1).tolist() == [0, 3, 0, 0]

    def test_maps_neither_fade_nor_grow(self):
        """Of frames of deviation 1, as normalisation leaves them, through six convolutions."""
        encoder = Encoder(replace(SMALL, maps=[16, 32, 32, 32, 32, 32], linear_size=32), 3 * 20)
        frames, lengths = torch.randn(1, 100, 3 * 20), torch.tensor([100])
        segments, rows = Segments(lengths, 100, POOL, GAP), []
        encoder.linear.register_forward_pre_hook(lambda layer, given: rows.append(given[0]))
        encoder(segments.lay(frames), segments)
        assert 0.3 < rows[0].square().mean().sqrt() < 3


def gradients_of(network):
    return {name: value.grad for name, value in network.named_parameters() if value.requires_grad}


def all_learn(network):
    """Whether all that is trained has a gradient; of segments of one step, all but recurrences and attention."""
    alike = ("weight_hh_l0", "attention.score.weight") if network.config.segment <= 2 else ()
    return all(
        gradient.isfinite().all() and (gradient.any() or name.endswith(alike))
        for name, gradient in gradients_of(network).items()
    )


class TestNetwork:
    @pytest.mark.parametrize("training", [False, True])
    @each_row
    def test_it_is_the_plain_one(self, row, training):
        """Scores, penalty, gradients, and what is kept of the batch."""
        network = shaken(**row).train(training)
        plain = Plain(network)
        (frames, lengths), speakers = padded(), torch.tensor(SPOKEN_BY)
        upstream = torch.randn(len(LENGTHS), CLASSES)
        found, expected = network(frames, lengths, speakers), plain(frames, lengths, speakers)
        for (scores, penalty), one in ((found, network), (expected, plain.network)):
            ((scores * upstream).sum() + penalty).backward()
            assert scores.shape == (len(LENGTHS), CLASSES)
            assert all_learn(one)
        torch.testing.assert_close(found, expected, **CLOSE)
        torch.testing.assert_close(gradients_of(network), gradients_of(plain.network), **GRADIENTS_CLOSE)
        torch.testing.assert_close(network.state_dict(), plain.network.state_dict(), **CLOSE)

    @pytest.mark.parametrize("junk", [math.nan, 1e30])
    @each_row
    def test_an_utterance_gives_in_a_batch_what_it_gives_alone(self, row, junk):
        network = shaken(**row)
        frames, lengths = padded(junk=junk)
        scores, _ = network(frames, lengths)
        for own, one in zip(scores, alone(frames, lengths), strict=True):
            torch.testing.assert_close(own, network(*one)[0][0], **CLOSE)
        assert not torch.allclose(scores[0], scores[3], atol=1e-3)

    @each_row
    def test_gradients_of_a_batch_are_the_sum_of_those_of_each_alone(self, row):
        network = shaken(**row)
        frames, lengths = padded()
        upstream = torch.randn(len(LENGTHS), CLASSES)
        (network(frames, lengths)[0] * upstream).sum().backward()
        summed_at_once = gradients_of(network)
        network.zero_grad()
        for one, own in zip(alone(frames, lengths), upstream, strict=True):
            (network(*one)[0] * own).sum().backward()
        torch.testing.assert_close(summed_at_once, gradients_of(network), **GRADIENTS_CLOSE)

    @each_row
    def test_nothing_reaches_another_utterance_or_comes_of_padding(self, row):
        network = shaken(**row)
        frames, lengths = padded()
        scores, _ = network(frames.requires_grad_(), lengths)
        for number, length in enumerate(LENGTHS):
            (gradient,) = torch.autograd.grad(scores[number, 0], frames, retain_graph=True)
            assert gradient[number, :length].any(1).all()
            assert not gradient[number, length:].any()
            gradient[number] = 0
            assert not gradient.any()

    @each_kind
    def test_in_training_an_utterance_depends_on_its_batch(self, speaker_weight):
        network = shaken(speaker_weight=speaker_weight).train()
        frames, lengths = padded()
        assert not torch.allclose(network(frames, lengths)[0][:3], network(frames[:3], lengths[:3])[0], atol=1e-3)

    @each_kind
    def test_a_batch_of_one_segment_trains_with_the_running_statistics(self, speaker_weight):
        network = shaken(speaker_weight=speaker_weight, segment=20)
        frames, lengths = padded([17])
        speakers = torch.tensor([1])
        expected = network(frames, lengths, speakers)
        before = copy.deepcopy(network.state_dict())
        found = network.train()(frames, lengths, speakers)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
        (found[0].logsumexp(1).sum() + found[1]).backward()
        assert all_learn(network)

    @each_kind
    def test_batch_normalisation_is_over_segments(self, speaker_weight):
        """An utterance of two equal segments counts as two, and of both networks."""
        network = shaken(speaker_weight=speaker_weight).train()
        frames, lengths = torch.randn(2, 20, VALUES), torch.tensor([20, 10])
        frames[0, 10:] = frames[0, :10]
        as_three = torch.stack((frames[0, :10], frames[0, 10:], frames[1, :10]))
        scores, penalty = network(frames, lengths, torch.tensor([1, -1]))
        split, split_penalty = network(as_three, torch.tensor([10, 10, 10]), torch.tensor([1, -1, -1]))
        torch.testing.assert_close(scores, split[1:])
        torch.testing.assert_close(penalty, split_penalty)

    def test_no_bands_are_lost(self):
        """15 values in three channels: of five bands, the last is pooled alone."""
        frames, lengths = padded()
        scores, _ = shaken()(frames.requires_grad_(), lengths)
        scores.sum().backward()
        assert frames.grad[0].any(0).all()


class TestSpeakers:
    def heard(self, weight=0.7, speakers=SPOKEN_BY, training=True):
        """A network, its scores and penalty of a batch, and the scores of the speakers."""
        network, voices = shaken(speaker_weight=weight).train(training), []
        network.speaker_output.register_forward_hook(lambda layer, given, taken: voices.append(taken))
        return network, *network(*padded(), torch.tensor(speakers)), *voices

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("weight", [0.7, 2.0, 0.0])
    def test_the_penalty_is_the_mean_cross_entropy_of_those_who_are_known(self, weight, training):
        _, _, penalty, voices = self.heard(weight, training=training)
        assert voices.shape == (len(LENGTHS), SPEAKERS)
        known = [0, 2, 3, 5]
        expected = weight * F.cross_entropy(voices[known], torch.tensor([2, 0, 3, 2]))
        torch.testing.assert_close(penalty, expected)
        assert (penalty > 0) == (weight > 0)

    def test_of_unknown_speakers_there_is_none(self):
        network, scores, penalty, _ = self.heard(speakers=[-1] * len(LENGTHS))
        assert penalty == 0
        (scores.logsumexp(1).sum() + penalty).backward()
        for value in network.parameters():
            assert value.grad is None or value.grad.isfinite().all()
        assert network.encoder.linear.weight.grad.any()
        assert not network.speaker_output.weight.grad.any()

    def test_scores_do_not_depend_on_who_is_said_to_speak(self):
        network = shaken(speaker_weight=0.7)
        frames, lengths = padded()
        scores, penalty = network(frames, lengths)
        assert penalty == 0
        for speakers in ([0, 1, 2, 3, 0, 1], SPOKEN_BY, [-1] * len(LENGTHS)):
            assert torch.equal(network(frames, lengths, torch.tensor(speakers))[0], scores)

    def test_without_a_network_for_them_they_are_ignored(self):
        network = shaken()
        frames, lengths = padded()
        scores, penalty = network(frames, lengths, torch.tensor(SPOKEN_BY))
        assert penalty == 0
        assert torch.equal(network(frames, lengths)[0], scores)
        assert not any("speaker" in name for name in network.state_dict())

    def test_both_networks_learn_from_the_emotions(self):
        """ "Trained jointly by mean of the SSA mechanism" (section 3.2)."""
        network, scores, _, _ = self.heard()
        scores.log_softmax(1)[:, 0].sum().backward()
        for value in (
            *network.encoder.parameters(),
            *network.speaker_encoder.parameters(),
            *network.attention.parameters(),
        ):
            assert not value.requires_grad or value.grad.any()
        for part in (network.speaker_attention, network.speaker_embedding, network.speaker_output):
            assert all(value.grad is None for value in part.parameters())

    def test_the_network_for_emotions_does_not_learn_from_the_speakers(self):
        network, _, penalty, _ = self.heard()
        penalty.backward()
        own = ("speaker_encoder", "speaker_attention", "speaker_embedding", "speaker_output")
        for name, value in network.named_parameters():
            if value.requires_grad:
                assert (value.grad is not None and value.grad.any()) == name.startswith(own)


class TestFrameWeights:
    def of_a_loop(self, network, frames, even):
        """The weights (T,) of one utterance's frames: half of their step's."""
        plain, config = Plain(network), network.config
        names = ["attention"] if config.speaker_weight is None else ["self_attention", "speaker_attention"]
        found = {name: [] for name in names}
        for piece in pieces(frames, config.segment):
            states = array(plain.encode(plain.network.encoder, piece))
            if config.speaker_weight is None:
                alpha = equation_1(network.attention, states)
            else:
                voices = array(plain.encode(plain.network.speaker_encoder, piece))
                alpha = equations_3_to_6(network.attention, states, voices)
            if even:
                alpha = np.full(len(alpha), 1 / len(alpha))
            for name, own in zip(names, alpha.reshape(len(names), -1), strict=True):
                for step, weight in enumerate(own):
                    found[name] += [weight / 2 * len(piece) / len(frames)] * min(2, len(piece) - 2 * step)
        return found

    @pytest.mark.parametrize("even", [False, True])
    @pytest.mark.parametrize("segment", [10, 7, 100])
    @each_kind
    def test_they_are_those_of_a_loop(self, speaker_weight, segment, even):
        network = shaken(speaker_weight=speaker_weight, segment=segment)
        frames, lengths = padded()
        weights = network.frame_weights(frames, lengths, even=even)
        for row, length in enumerate(LENGTHS):
            expected = self.of_a_loop(network, frames[row, :length], even)
            assert weights.keys() == expected.keys()
            for name, of_all in weights.items():
                assert of_all.shape == frames.shape[:2]
                np.testing.assert_allclose(array(of_all[row, :length]), expected[name], **CLOSE)
                assert not of_all[row, length:].any()
            if segment == 10 and length % 2 == 0:
                assert sum(weights.values())[row].sum().item() == pytest.approx(1)

    @each_kind
    def test_even_weights_are_of_steps_and_not_of_frames(self, speaker_weight):
        """An odd frame at the end has half a step."""
        network = shaken(speaker_weight=speaker_weight)
        frames, lengths = padded([15, 10])
        for weights in network.frame_weights(frames, lengths, even=True).values():
            expected = torch.tensor([[1 / 15] * 10 + [1 / 18] * 5, [1 / 10] * 10 + [0] * 5])
            torch.testing.assert_close(weights, expected if speaker_weight is None else expected / 2)

    @each_kind
    def test_those_of_a_bfloat16_network_are_in_single_precision(self, speaker_weight):
        with torch.autocast("cpu", torch.bfloat16):
            weights = shaken(speaker_weight=speaker_weight).frame_weights(*padded([20, 8]))
        torch.testing.assert_close(sum(weights.values()).sum(1), torch.ones(2), check_dtype=True)

    @each_kind
    def test_they_are_what_the_scores_are_made_with(self, speaker_weight):
        """In bfloat16 too."""
        network, used = shaken(speaker_weight=speaker_weight), []
        of_attention = network.attention.weights
        network.attention.weights = lambda *given: used.append(of_attention(*given)) or used[-1]
        frames, lengths = padded()
        with torch.autocast("cpu", torch.bfloat16):
            network(frames, lengths)
            network.frame_weights(frames, lengths)
        assert len(used) == 2
        assert torch.equal(*used)


def batch():
    frames, lengths = padded()
    return Batch(
        list("abcdef"), frames, lengths, torch.tensor([2, 0, 1, 1, 0, 2]), {"speakers": torch.tensor(SPOKEN_BY)}
    )


@each_row
def test_bfloat16_changes_little_and_trains(row):
    network, given = shaken(**row), batch()
    exact, rounded = (networks.forward(network, given, precision) for precision in ("float32", "bfloat16"))
    assert rounded[0].dtype is rounded[1].dtype is torch.float32
    assert not torch.equal(rounded[0], exact[0])
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.05)
    logs, penalty = networks.forward(network.train(), given, "bfloat16")
    (nn.NLLLoss()(logs, given.targets) + penalty).backward()
    fixed = [name for name, value in network.named_parameters() if not value.requires_grad]
    assert all("bias_hh" in name for name in fixed) and len(fixed) == (2 if row.get("speaker_weight") is None else 4)
    assert all_learn(network)
    assert {gradient.dtype for gradient in gradients_of(network).values()} == {torch.float32}


@each_kind
def test_what_follows_the_blstm_is_in_single_precision(speaker_weight):
    network, given = shaken(speaker_weight=speaker_weight), []
    names = ["output", "embedding", *(["speaker_output", "speaker_embedding"] if speaker_weight else [])]
    for name in names:
        getattr(network, name).register_forward_hook(lambda layer, taken_in, taken_out: given.append(taken_in[0].dtype))
    networks.forward(network, batch(), "bfloat16")
    assert given == [torch.float32] * len(names)


class TestPapersSettings:
    """Of the system files."""

    CONVOLUTIONS = 3 * 5 * 3 * 128 + 128 + 128 * 5 * 3 * 256 + 256 + 4 * (256 * 5 * 3 * 256 + 256)
    BLSTM = 2 * 4 * 128 * (768 + 128 + 1)  # directions, gates
    CRNN = CONVOLUTIONS + 20 * 256 * 768 + 768 + BLSTM  # of 40 bands pooled by 2
    EMBEDDING = 256 * 128 + 128 + 2 * 128  # and a batch normalisation's scales and shifts
    SPEAKER_ATTENTION = 150 + 256 + 3 * 256 * 256  # of the 150 steps of 3 s: W_em^q, W_em^k and the rest

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("acrnn", CRNN + 256 + EMBEDDING + 128 * 4 + 4),
            ("acrnn_r", CRNN + 256 + EMBEDDING + 128 * 4),
            ("ssa_crnn_r", 2 * CRNN + 256 + SPEAKER_ATTENTION + 2 * EMBEDDING + 128 * 4 + 128 * 20 + 20),
        ],
    )
    def test_number_of_parameters(self, name, expected):
        """Att-HACK's: four attitudes, twenty speakers."""
        model = read_system(ATTHACK / f"{name}.yaml").model
        with torch.device("meta"):
            assert networks.count_parameters(Network(model, 120, 4, 20)) == expected

    @pytest.mark.parametrize(
        "path", sorted(EGS.glob("*/conf/lemoine/*.yaml")), ids=lambda path: f"{path.parts[-4]} {path.stem}"
    )
    def test_all_systems_have_its_feature_and_training(self, path):
        system = read_system(path)
        feature, settings = system.feature, system.training
        assert feature_name(feature) == feature_name(read_system(ATTHACK / "acrnn.yaml").feature)
        assert (feature.sample_rate * 25, feature.sample_rate * 10) == (
            1000 * feature.win_length,
            1000 * feature.hop_length,
        )
        assert (feature.window, feature.n_mels, feature.fmin, feature.fmax) == ("hamming", 40, 300, 8000)
        assert feature.derivatives == 2 and feature.top_db is None and feature.duration is None
        assert system.normalisation == "speaker"
        assert system.model.segment * feature.hop_length == 3 * feature.sample_rate
        assert system.model.channels == 1 + feature.derivatives
        assert (settings.batch_size, settings.batches, settings.optimiser, settings.monitor) == (
            40,
            "balanced",
            "nadam",
            "dev_ua",
        )
        narrow = "narrow" in path.stem
        assert settings.learning_rate == (5e-4 if narrow else 1e-4)
        assert system.model.maps == ([16] + [32] * 5 if narrow else [128] + [256] * 5)
        assert (system.model.linear_size, system.model.hidden_size, system.model.embedding_size) == (
            192 if narrow else 768,
            128,
            128,
        )
        kind = path.stem.removesuffix("_narrow").removeprefix("acrnn").removeprefix("ssa_crnn")
        assert system.model.regularisation == {"": "none", "_r": "mean"}.get(kind, kind.removeprefix("_r_"))
        assert (system.model.speaker_weight is not None) == path.stem.startswith("ssa")

    def test_every_recipe_has_its_three_systems(self):
        for corpus, end in (("atthack", ""), ("iemocap", ""), ("ravdess", "_narrow"), ("tess", "_narrow")):
            names = {path.stem for path in (EGS / corpus / "conf/lemoine").glob("*.yaml")}
            assert names >= {f"acrnn{end}", f"acrnn_r{end}", f"ssa_crnn_r{end}"}

    def test_iemocaps_are_atthacks_but_for_how_long_they_train(self):
        for path in ATTHACK.glob("*.yaml"):
            ours, theirs = read_system(EGS / "iemocap/conf/lemoine" / path.name), read_system(path)
            assert (ours.model, ours.feature, ours.normalisation) == (
                theirs.model,
                theirs.feature,
                theirs.normalisation,
            )
            assert replace(ours.training, epochs=40, patience=10) == theirs.training


class TestConfig:
    """System files."""

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            ({"maps": []}, "model: maps: is empty; give one value per convolution"),
            ({"maps": [4, 0]}, "model.maps.1: input should be greater than or equal to 1, not 0"),
            ({"segment": 0}, "model.segment: input should be greater than or equal to 1, not 0"),
            ({"channels": 0}, "model.channels: input should be greater than or equal to 1, not 0"),
            ({"speaker_weight": -1}, "model.speaker_weight: input should be greater than or equal to 0, not -1"),
            (
                {"regularisation": "l1"},
                "model.regularisation: input should be 'none', 'norm', 'projection', 'penalty' or 'mean', not 'l1'",
            ),
        ],
    )
    def test_faults_are_named(self, tmp_path, monkeypatch, model, message):
        monkeypatch.chdir(tmp_path)
        Path("x.yaml").write_text(
            yaml.safe_dump({"base": str(ATTHACK / "acrnn.yaml"), "description": "x", "model": model})
        )
        with pytest.raises(UserError) as error:
            read_system("x.yaml")
        assert str(error.value) == f"x.yaml: {message}"

    def test_what_a_runs_folder_keeps_is_read_again(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for row in ROWS:
            config = replace(SMALL, **row)
            Path("x.yaml").write_text(
                yaml.safe_dump({"base": str(ATTHACK / "acrnn.yaml"), "description": "x", "model": as_dict(config)})
            )
            assert read_system("x.yaml").model == config


MODEL = {
    "kind": "lemoine",
    "segment": 8,
    "channels": 3,
    "maps": [4, 4],
    "linear_size": 6,
    "hidden_size": 4,
    "embedding_size": 4,
}
SETTINGS = {"learning_rate": 0.02, "optimiser": "nadam", "batches": "balanced", "monitor": "dev_ua"}


class Interruption(BaseException):
    """Ends a training at once, as a kill does."""


each_system = pytest.mark.parametrize(
    ("regularisation", "weight"),
    [("none", None), ("mean", 1.0), ("norm", 1.0), ("projection", None), ("penalty", None)],
)


class TestTraining:
    """On the toy recipe, from a system file to scores. The test's and development's speakers do not train."""

    def lay_out(self, recipe, regularisation="mean", weight=1.0, name="run", **settings):
        tiny = recipe.yaml.safe_load(Path("conf/toy/tiny.yaml").read_text())
        model = MODEL | {"regularisation": regularisation, "speaker_weight": weight}
        recipe.write_yaml("conf/toy/lemoine.yaml", **tiny | {"model": model, "normalisation": "speaker"})
        return recipe.lay_out(name, system="lemoine", **SETTINGS | settings)

    def log_of(self, folder):
        return [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]

    def normal(self, recipe, utts):
        """Matrices as the network takes them in, and their lengths."""
        found = []
        for utt in utts:
            own = np.concatenate([matrix for other, matrix in recipe.matrices.items() if other[0] == utt[0]]).astype(
                np.float64
            )
            found.append(torch.tensor((recipe.matrices[utt] - own.mean(0)) / own.std(0), dtype=torch.float32))
        return found, list(map(len, found))

    def loss(self, recipe, network, utts, speakers):
        """Mean cross-entropy of the emotions, and of the speakers who are known. speakers: {letter: number}."""
        with torch.no_grad():
            scores, penalty = Plain(network)(*self.normal(recipe, utts), [speakers.get(utt[0], -1) for utt in utts])
        targets = torch.tensor([["low", "high"].index(recipe.classes[utt]) for utt in utts])
        return (F.cross_entropy(scores, targets) + penalty).item()

    @each_system
    def test_it_learns_and_scores(self, recipe, regularisation, weight):
        folder = self.lay_out(recipe, regularisation, weight, epochs=4)
        train(folder, "cpu")
        log = self.log_of(folder)
        assert log[-1]["train_loss"] < 0.9 * log[0]["train_loss"]
        assert log[-1]["train_wa"] > 80 or regularisation == "penalty"  # whose weights have far to go first
        score.score(folder, Path("scores.txt"), "cpu")
        scores = read_scores(Path("scores.txt"))
        assert scores.utts == sorted(recipe.part("test"))
        network, statistics, _ = networks.trained(read_run(folder))
        assert statistics == {}
        with torch.no_grad():
            expected, _ = Plain(network)(*self.normal(recipe, scores.utts))
        np.testing.assert_allclose(scores.posteriors, expected.softmax(1), atol=1e-5)
        assert scores.posteriors.std(0).min() > 1e-5  # more than their last digit

    @each_system
    def test_its_loss_is_that_of_both_networks(self, recipe, regularisation, weight):
        """Of an epoch of one batch, whose loss is that of the first weights; nobody of the development part is known."""
        folder = self.lay_out(recipe, regularisation, weight, epochs=1, batch_size=100, batches="alike")
        train(folder, "cpu")
        run = read_run(folder)
        assert {(utt[0], number) for utt, number in speakers.read(run, read_run_fold(run)).numbers.items()} == {
            ("a", 0),
            ("b", 1),
            ("c", -1),
            ("d", -1),
        }
        torch.manual_seed(run.seed)
        network = networks.build(run.system, {"n_features": 6, "n_classes": 2, "n_speakers": 2})
        (line,) = self.log_of(folder)
        assert line["train_loss"] == pytest.approx(
            self.loss(recipe, network, recipe.part("train"), {"a": 0, "b": 1}), rel=1e-4
        )
        network, *_ = networks.trained(run)
        assert line["dev_loss"] == pytest.approx(self.loss(recipe, network, recipe.part("dev"), {}), rel=1e-4)

    def test_known_speakers_of_the_development_part_are_in_its_loss(self, recipe):
        place = Path("data/folds/selects_on_dev/fold1")
        lines = (place / "train").read_text().splitlines(keepends=True)
        (place / "train").write_text("".join(lines[4:]))
        (place / "dev").write_text("".join(lines[:4]) + (place / "dev").read_text())
        folder = self.lay_out(recipe, epochs=1, batch_size=100)
        train(folder, "cpu")
        network, *_ = networks.trained(read_run(folder))
        utts = [line.split()[0] for line in lines[:4]] + recipe.part("dev")
        known, unknown = (self.loss(recipe, network, utts, speakers) for speakers in ({"a": 0, "b": 1}, {}))
        assert self.log_of(folder)[0]["dev_loss"] == pytest.approx(known, rel=1e-4)
        assert known > unknown + 0.01

    @pytest.mark.parametrize(
        ("regularisation", "weight", "precision"), [("mean", 1.0, "bfloat16"), ("norm", None, "float32")]
    )
    def test_going_on_ends_in_the_same_bytes(self, recipe, monkeypatch, regularisation, weight, precision):
        """Running means of embeddings go on too."""
        undisturbed, folder = (
            self.lay_out(recipe, regularisation, weight, name, epochs=2, precision=precision)
            for name in ("undisturbed", "run")
        )
        train(undisturbed, "cpu")
        forward, calls = networks.forward, []

        def interrupted(*given):
            calls.append(1)
            if len(calls) == 9:  # of six an epoch
                raise Interruption
            return forward(*given)

        with monkeypatch.context() as patch:
            patch.setattr(networks, "forward", interrupted)
            with pytest.raises(Interruption):
                train(folder, "cpu", checkpoint_seconds=0)
        torch.rand(7)  # another process has other random numbers
        calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr(networks, "forward", lambda *given: calls.append(1) or forward(*given))
            train(folder, "cpu")
        assert len(calls) == 4
        for name in ("best", "last"):
            assert (folder / f"{name}.safetensors").read_bytes() == (undisturbed / f"{name}.safetensors").read_bytes()


def test_channels_that_do_not_divide_a_frame_are_told():
    with pytest.raises(
        UserError,
        match=r"^model.channels: 3 does not divide the 16 values of a frame; it should be one more than the feature's derivatives$",
    ):
        Network(SMALL, 16, CLASSES, SPEAKERS)
