"""Segments of the signal, against a loop over its samples."""

import numpy as np
import pytest

from ser.cli import UserError
from ser.extract import extract as extract_all
from ser.features.samples import Config, extract

RATE = 1000


def segments_of(samples, length, hop):
    """Lists, sample by sample: a new segment begins as long as a sample is in none."""
    rows, start = [], 0
    while True:
        rows.append([float(samples[place]) if place < len(samples) else 0.0 for place in range(start, start + length)])
        if start + length >= len(samples):
            return np.array(rows)
        start += hop


@pytest.mark.parametrize(("length", "hop"), [(8, 8), (8, 3), (8, 1), (1, 1), (50, 50), (50, 20)])
@pytest.mark.parametrize("n_samples", [1, 7, 8, 9, 16, 17, 40])
def test_segments(n_samples, length, hop):
    samples = np.random.default_rng(0).standard_normal(n_samples).astype(np.float32)
    found = extract(samples, Config(sample_rate=RATE, segment_length=length, hop_length=hop))
    assert found.dtype == np.float32 and found.flags.c_contiguous and found.flags.owndata
    np.testing.assert_array_equal(found, segments_of(samples, length, hop))


@pytest.mark.parametrize(
    ("longest", "heard"), [(0.016, 16), (0.0164, 16), (0.039, 39), (0.04, 40), (1.0, 40), (1e-9, 1), (None, 40)]
)
def test_what_is_longer_is_cut_at_the_end(longest, heard):
    samples = np.arange(1, 41, dtype=np.float32)
    found = extract(samples, Config(sample_rate=RATE, segment_length=8, hop_length=8, longest=longest))
    np.testing.assert_array_equal(found, segments_of(samples[:heard], 8, 8))


def test_the_level_is_left_as_it_is():
    config = Config(sample_rate=RATE, segment_length=8, hop_length=8)
    samples = np.random.default_rng(0).uniform(-0.01, 0.01, 20).astype(np.float32)
    np.testing.assert_array_equal(extract(4 * samples, config), 4 * extract(samples, config))


def test_they_are_at_the_sampling_rate_of_the_feature():
    time = np.arange(3000) / 3000
    frames = extract_all(
        np.sin(2 * np.pi * 5 * time).astype(np.float32),
        3000,
        Config(sample_rate=RATE, segment_length=100, hop_length=100),
    )
    assert frames.shape == (10, 100)
    np.testing.assert_allclose(frames.ravel()[50:-50], np.sin(2 * np.pi * 5 * time)[::3][50:-50], atol=1e-3)


def test_no_samples():
    with pytest.raises(UserError, match="too short: 0 samples at 1000 Hz"):
        extract(np.zeros(0, np.float32), Config(sample_rate=RATE, segment_length=8, hop_length=8))


def test_a_hop_that_leaves_samples_out():
    with pytest.raises(ValueError, match="hop_length 9 skips samples; must be at most segment_length, 8"):
        Config(sample_rate=RATE, segment_length=8, hop_length=9)
