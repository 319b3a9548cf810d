"""Log-mel spectrograms, against librosa's."""

import librosa
import numpy as np
import pytest

from ser.cli import UserError
from ser.features.logmel import Config, extract, heard
from ser.spectra import filterbank

RATE = 16000
SETTINGS = {
    # the sizes of egs/ravdess' two features, and odd ones
    "svm": dict(n_fft=512, win_length=400, hop_length=160, n_mels=64, fmin=60.0, fmax=7600.0, window="hamming"),
    "sherman": dict(n_fft=512, win_length=256, hop_length=128, n_mels=128, fmin=0.0, fmax=4000.0, window="hamming"),
    "window of n_fft": dict(
        n_fft=1024, win_length=1024, hop_length=256, n_mels=40, fmin=0.0, fmax=8000.0, window="hann"
    ),
    "odd sizes": dict(n_fft=600, win_length=401, hop_length=77, n_mels=23, fmin=33.3, fmax=7777.0, window="hann"),
    "gaps between windows": dict(
        n_fft=256, win_length=200, hop_length=333, n_mels=13, fmin=0.0, fmax=8000.0, window="hamming"
    ),
}


def make(name, **others):
    return Config(**({"sample_rate": RATE} | SETTINGS[name] | others))


def speech(length, seed=0):
    """A tone that glides, over noise and a click: float32 (N,)."""
    rng = np.random.default_rng(seed)
    time = np.arange(length) / RATE
    samples = 0.3 * np.sin(2 * np.pi * (200 * time + 900 * time**2)) * np.exp(-time) + 0.001 * rng.standard_normal(
        length
    )
    samples[length // 3] += 0.5
    return samples.astype(np.float32)


def by_librosa(samples, config):
    power = librosa.feature.melspectrogram(
        y=samples, sr=config.sample_rate, n_fft=config.n_fft, hop_length=config.hop_length, win_length=config.win_length,
        window=config.window, center=True, pad_mode="constant", power=2.0, n_mels=config.n_mels, fmin=config.fmin, fmax=config.fmax,
    )  # fmt: skip
    return librosa.power_to_db(power, ref=np.max, top_db=config.top_db).T


# a filter that no bin of the FFT falls into stays empty: librosa warns, and gives the floor
pytestmark = pytest.mark.filterwarnings("ignore:Empty filters detected")


@pytest.mark.filterwarnings("ignore:n_fft=.* is too large for input signal")
@pytest.mark.parametrize("more", [0, 1, 79, 80, 5000, 16000, 33333])
@pytest.mark.parametrize("name", SETTINGS)
def test_equal_to_librosa(name, more):
    config = make(name)
    length = config.win_length + more
    samples = speech(length)
    frames = extract(samples, config)
    assert frames.dtype == np.float32
    assert frames.shape == (1 + length // config.hop_length, config.n_mels)
    np.testing.assert_allclose(frames, by_librosa(samples, config), rtol=0, atol=2e-3)
    assert frames.max() == 0


@pytest.mark.parametrize("scale", [1, 0.01])
def test_decibels_that_are_not_below_the_loudest(scale):
    config = make("svm", top_db=None)
    samples = scale * speech(20000)
    power = 10 ** (by_librosa(samples, make("svm", top_db=300.0)) / 10)
    loudest = librosa.feature.melspectrogram(
        y=samples,
        sr=RATE,
        n_fft=512,
        hop_length=160,
        win_length=400,
        window="hamming",
        pad_mode="constant",
        n_mels=64,
        fmin=60,
        fmax=7600,
    ).max()
    np.testing.assert_allclose(
        extract(samples, config), 10 * np.log10(np.maximum(power * loudest, 1e-10)), rtol=0, atol=2e-2
    )
    assert extract(np.zeros(20000, np.float32), config) == pytest.approx(-100)


@pytest.mark.parametrize("derivatives", [1, 2])
def test_derivatives(derivatives):
    """librosa's, of five frames, the end ones repeated."""
    samples = speech(20000)
    static = extract(samples, make("svm"))
    frames = extract(samples, make("svm", derivatives=derivatives))
    assert frames.shape == (len(static), 64 * (1 + derivatives))
    expected = [static]
    for _ in range(derivatives):
        expected.append(librosa.feature.delta(expected[-1], width=5, axis=0, mode="nearest"))
    np.testing.assert_allclose(frames, np.hstack(expected), rtol=0, atol=1e-4)


@pytest.mark.parametrize("others", [{}, {"duration": 0.5}])
def test_too_short_for_a_window(others):
    config = make("svm", **others)
    with pytest.raises(UserError) as error:
        extract(speech(399), config)
    assert str(error.value) == "too short: 399 samples at 16000 Hz, but a window needs 400"


@pytest.mark.parametrize("top_db", [20.0, 80.0, 300.0])
def test_the_floor(top_db):
    config = make("svm", top_db=top_db)
    samples = speech(8000)
    samples[3000:6000] = 0
    frames = extract(samples, config)
    np.testing.assert_allclose(frames, by_librosa(samples, config), rtol=0, atol=2e-3)
    assert frames.min() >= -top_db
    if top_db < 300:
        assert frames.min() == -top_db


@pytest.mark.parametrize("pad", ["front", "end"])
@pytest.mark.parametrize("length", [400, 7999, 8000, 8001, 20000])
def test_a_fixed_duration(pad, length):
    config = make("svm", duration=0.5, pad=pad)
    samples = speech(length)
    zeros = np.zeros(max(8000 - length, 0), np.float32)
    fixed = np.concatenate([zeros, samples] if pad == "front" else [samples, zeros])[:8000]
    frames = extract(samples, config)
    assert frames.shape == (1 + 8000 // 160, 64)
    np.testing.assert_allclose(frames, by_librosa(fixed, config), rtol=0, atol=2e-3)
    assert np.array_equal(heard(samples, config), fixed)
    assert np.array_equal(heard(samples, make("svm")), samples)


def test_the_loudest_cell_is_0_dB_however_loud_it_was():
    config, samples = make("svm"), speech(8000)
    np.testing.assert_allclose(extract(samples, config), extract(samples / 8, config), rtol=0, atol=2e-2)


@pytest.mark.parametrize("name", SETTINGS)
def test_silence_is_finite(name):
    frames = extract(np.zeros(4000, np.float32), make(name))
    assert np.array_equal(frames, np.zeros_like(frames))


def test_the_samples_are_left_as_they_are():
    samples = speech(4000)
    before = samples.copy()
    extract(samples, make("svm"))
    assert np.array_equal(samples, before)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100])
@pytest.mark.parametrize(("n_fft", "n_mels"), [(256, 13), (400, 40), (600, 23), (2048, 128)])
@pytest.mark.parametrize("ends", [(0, None), (60.0, 3999.0), (0.0, 900.0), (1000, None), (1234.5, 3333.3)])
def test_the_filterbank_is_librosa_s_to_the_bit(rate, n_fft, n_mels, ends):
    fmin, fmax = ends[0], ends[1] or rate / 2
    own = filterbank(rate, n_fft, n_mels, fmin, fmax)
    other = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax)
    assert own.dtype == other.dtype
    np.testing.assert_array_equal(own, other)
