"""What every feature owes (ser/features/__init__.py), of each setting that a recipe has."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ser import encoders
from ser.config import feature_name, kinds, load_kind, read_system, without_parts
from ser.extract import extract

EGS = Path(__file__).resolve().parents[2] / "egs"
SYSTEMS = [
    read_system(path) for path in sorted(EGS.glob("*/conf/*/*.yaml")) if path.parent.name not in ("protocols", "papers")
]
FEATURES = {feature_name(system.feature): system.feature for system in SYSTEMS}


def noise(config, seconds):
    size = int(seconds * config.sample_rate)
    return np.random.default_rng(size).normal(0, 0.1, size).astype(np.float32)


def module_of(config):
    return load_kind("feature", without_parts(config)["kind"], "")


@pytest.fixture
def config(name, tiny_encoder):
    """The settings of a feature, but for another encoder, since those of recipes must be fetched."""
    config = FEATURES[name]
    if not hasattr(config, "weights"):
        return config
    network, extractor = encoders.load(tiny_encoder)
    weights = encoders.checksum(tiny_encoder, network.config, extractor)
    return replace(config, model=str(tiny_encoder), weights=weights, layers=[0, 2])


def test_recipes_have_every_feature():
    assert {name.partition("-")[0] for name in FEATURES} == set(kinds("feature"))


@pytest.mark.parametrize("name", FEATURES)
def test_frames(name, config):
    samples = noise(config, 1.2)
    before = samples.copy()
    frames = extract(samples, config.sample_rate, config)
    assert (frames.ndim, frames.dtype, np.isfinite(frames).all()) == (2, np.float32, True)
    assert np.array_equal(samples, before)
    assert np.array_equal(extract(samples, config.sample_rate, config), frames)
    assert extract(noise(config, 0.9), config.sample_rate, config).shape[1] == frames.shape[1]


@pytest.mark.parametrize("name", FEATURES)
def test_where_frames_follow_time_there_is_one_every_hop_length(name, config):
    if hasattr(module_of(config), "heard"):
        samples = noise(config, 1.2)
        of_frames = module_of(config).heard(samples, config)
        assert len(extract(samples, config.sample_rate, config)) == 1 + len(of_frames) // config.hop_length


@pytest.mark.parametrize("name", FEATURES)
def test_parts_are_columns_of_one_folder(name):
    """Of whatever system: the folder's name, and so its frames, know nothing of the parts that it takes."""
    config, module = FEATURES[name], module_of(FEATURES[name])
    assert hasattr(module, "columns") == hasattr(config, "parts")
    if hasattr(module, "columns"):
        size = extract(noise(config, 0.9), config.sample_rate, config).shape[1]
        settings = {key: value for key, value in without_parts(config).items() if key != "kind"}
        assert set(module.columns(type(config)(**settings)).tolist()) == set(range(size))  # by default, all
        for system in SYSTEMS:
            if feature_name(system.feature) == name:
                found = module.columns(system.feature).tolist()
                assert found and set(found) <= set(range(size)) and len(set(found)) == len(found)
