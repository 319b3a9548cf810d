"""The states of a pretrained encoder as features, against the encoder itself and numpy."""

import numpy as np
import pytest
import torch

from ser import encoders
from ser.cli import UserError
from ser.config import feature_name, read_system
from ser.encoding import SHORTEST
from ser.extract import extract
from ser.extract_many import extract_many
from ser.features import pretrained


@pytest.fixture
def config(tiny_encoder):
    """Makes a Config of the tiny encoder; all settings can be changed."""
    network, extractor = encoders.load(tiny_encoder)
    weights = encoders.checksum(tiny_encoder, network.config, extractor)
    return lambda **more: pretrained.Config(
        **{"model": str(tiny_encoder), "weights": weights, "layers": [0, 1, 2], **more}
    )


def noise(n):
    return np.random.default_rng(n).normal(0, 0.1, n).astype(np.float32)


@torch.no_grad()
def states(config, samples):
    """(layers, T, width), of all layers."""
    encoder = pretrained.load_encoder(config, "cpu")
    found, _ = encoder(torch.tensor(samples)[None], torch.tensor([len(samples)]))
    return torch.cat(found).numpy()


def test_layers_stand_side_by_side_in_the_order_of_the_settings(config):
    samples = noise(16000)
    of_all = states(config(), samples)
    frames = extract(samples, 16000, config(layers=[2, 0]))
    assert (frames.shape, frames.dtype) == ((50, 32), np.float32)
    assert np.allclose(frames, np.hstack([of_all[2], of_all[0]]), atol=1e-6)


def test_statistics_of_one_layer_after_the_other(config):
    samples = noise(9111)
    of_all = states(config(), samples)
    frame = extract(samples, 16000, config(statistics=["mean", "deviation"]))
    wanted = [statistic for layer in of_all for statistic in (layer.mean(0), layer.std(0))]
    assert frame.shape == (1, 3 * 2 * 16)
    assert np.allclose(frame[0], np.concatenate(wanted), atol=1e-5)


def test_a_long_utterance_is_heard_in_equal_pieces(config):
    samples = noise(40001)
    halves = [states(config(), half)[1] for half in (samples[:20000], samples[20000:])]
    frames = extract(samples, 16000, config(layers=[1], longest=1.5))
    assert np.allclose(frames, np.vstack(halves), atol=1e-6)
    frame = extract(samples, 16000, config(layers=[1], longest=1.5, statistics=["mean"]))
    assert np.allclose(frame[0], np.vstack(halves).mean(0), atol=1e-6)


def test_what_is_beside_an_utterance_does_not_matter(config):
    """Nor does its length: frames and pieces of each come back to it."""
    samples, settings = [noise(n) for n in (16000, 9111, 40001, SHORTEST)], config(longest=1.5)
    recordings = [(f"utt{number}", one, 16000) for number, one in enumerate(samples)]
    for found, one in zip(extract_many(recordings, settings, None, "cpu"), samples, strict=True):
        assert np.array_equal(found, extract(one, 16000, settings))


def test_the_same_encoder_in_one_batch(config):
    """As on a GPU: padded to the longest, with the same frames up to rounding."""
    encoder = pretrained.load_encoder(config(), "cpu")
    samples = [noise(n) for n in (16000, 9111, SHORTEST)]
    for found, one in zip(pretrained.encode(encoder, samples, [0, 1, 2]), samples, strict=True):
        assert np.allclose(found.numpy(), states(config(), one), atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_what_the_cpu_gives(config):
    settings = config(longest=1.5)
    recordings = [(f"utt{n}", noise(n), 16000) for n in (16000, 9111, 40001, SHORTEST)]
    for found, (_, samples, _) in zip(extract_many(recordings, settings, None, "cuda"), recordings, strict=True):
        assert np.allclose(found, extract(samples, 16000, settings), atol=1e-3)


def test_noise_and_rate_are_as_for_any_feature(config):
    samples, settings = noise(8000), config(layers=[1])
    alone = extract(samples, 8000, settings, "snr10", "a")
    (found,) = extract_many([("a", samples, 8000)], settings, "snr10", "cpu")
    assert np.array_equal(found, alone)
    assert not np.array_equal(found, extract(samples, 8000, settings))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"layers": [3]}, r"feature\.layers: .* has the layers 0 to 2, but not 3"),
        ({"weights": "0" * 32}, "its weights have the checksum"),
    ],
)
def test_what_the_encoder_has_not_is_refused(config, more, message):
    with pytest.raises(UserError, match=message):
        extract(noise(16000), 16000, config(**more))


def test_too_few_samples_are_refused(config):
    with pytest.raises(UserError, match=f"too short: {SHORTEST - 1} samples"):
        extract(noise(SHORTEST - 1), 16000, config())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("layers: [1, 1]", r"feature\.: layers: one is there twice|feature: .*layers: one is there twice"),
        ("layers: []", r"feature\.layers: "),
        ("weights: abc", r"feature\.weights: "),
        ("longest: 31", r"feature\.longest: "),
        ("sample_rate: 8000", r"feature\.sample_rate: "),
    ],
)
def test_settings_out_of_range(tmp_path, more, message):
    settings = {"kind": "pretrained", "model": "some/one", "weights": "0" * 32, "layers": "[1]"}
    key, _, value = more.partition(": ")
    lines = "".join(
        f"  {name}: '{text}'\n" if name == "weights" else f"  {name}: {text}\n"
        for name, text in (settings | {key: value}).items()
    )
    svm = "model: {kind: svm, functionals: [mean], cost: [1], gamma: [1], inner_folds: 2}\n"
    (tmp_path / "one.yaml").write_text(f"description: one\nfeature:\n{lines}normalisation: none\n{svm}")
    with pytest.raises(UserError, match=message):
        read_system(tmp_path / "one.yaml")


def test_other_weights_are_another_feature(config):
    assert feature_name(config()) != feature_name(config(weights="0" * 32))
