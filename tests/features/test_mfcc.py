"""MFCC and their derivatives, against librosa's functions called one by one."""

import librosa
import numpy as np
import pytest

from ser.cli import UserError
from ser.features.mfcc import Config, extract, heard

RATE = 16000
SETTINGS = {
    # Peng et al.: 25 ms, 10 ms, Hamming, 32; librosa's defaults where they say nothing
    "peng": dict(
        n_fft=2048, win_length=400, hop_length=160, n_mels=128, n_mfcc=32, fmin=0.0, fmax=8000.0, window="hamming"
    ),
    "a short FFT": dict(
        n_fft=512, win_length=400, hop_length=160, n_mels=40, n_mfcc=32, fmin=0.0, fmax=8000.0, window="hamming"
    ),
    "window of n_fft": dict(
        n_fft=1024, win_length=1024, hop_length=256, n_mels=64, n_mfcc=13, fmin=20.0, fmax=7600.0, window="hann"
    ),
    "odd sizes": dict(
        n_fft=600, win_length=401, hop_length=77, n_mels=23, n_mfcc=23, fmin=33.3, fmax=7777.0, window="hann"
    ),
}


def make(name="peng", **others):
    return Config(**({"sample_rate": RATE} | SETTINGS[name] | others))


def speech(length, seed=0):
    """A tone that glides over noise, with a silent stretch and a click: float32 (N,)."""
    rng = np.random.default_rng(seed)
    time = np.arange(length) / RATE
    samples = 0.3 * np.sin(2 * np.pi * (200 * time + 900 * time**2)) * np.exp(-time) + 0.01 * rng.standard_normal(
        length
    )
    samples[length // 4 : length // 3] = 0
    samples[length // 2] += 0.5
    return samples.astype(np.float32)


def by_librosa(samples, config):
    mfcc = librosa.feature.mfcc(
        y=samples, sr=config.sample_rate, n_fft=config.n_fft, hop_length=config.hop_length, win_length=config.win_length,
        window=config.window, n_mels=config.n_mels, n_mfcc=config.n_mfcc, fmin=config.fmin, fmax=config.fmax,
    )  # fmt: skip
    derivatives = [librosa.feature.delta(mfcc, order=order) for order in range(1, config.derivatives + 1)]
    return np.concatenate([mfcc, *derivatives]).T


def same(ours, librosas):
    """Within 1e-4 of each value; coefficients are up to some hundreds, and float32 has seven digits of these."""
    assert ours.dtype == np.float32 and ours.shape == librosas.shape
    np.testing.assert_allclose(ours, librosas, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:n_fft=.* is too large for input signal")
@pytest.mark.parametrize("length", [1440, 1441, 2048, 16000, 33333])
@pytest.mark.parametrize("derivatives", [0, 1, 2])
@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "window of n_fft"])
def test_equal_to_librosa(name, derivatives, length):
    config, samples = make(name, derivatives=derivatives), speech(length)
    frames = extract(samples, config)
    assert frames.shape == (1 + length // config.hop_length, config.n_mfcc * (1 + derivatives))
    same(frames, by_librosa(samples, config))


@pytest.mark.parametrize("length", [2048, 16000])
def test_a_window_of_n_fft(length):
    config, samples = make("window of n_fft", derivatives=2), speech(length)
    same(extract(samples, config), by_librosa(samples, config))


@pytest.mark.parametrize("scale", [1e-4, 1])
def test_they_tell_how_loud_an_utterance_is(scale):
    """As in librosa: decibels of 1, not of the loudest."""
    config, samples = make(derivatives=2), scale * speech(16000)
    same(extract(samples, config), by_librosa(samples, config))


def test_the_floor():
    samples = speech(8000)
    samples[3000:6000] *= 1e-6
    mel = {
        "y": samples,
        "sr": RATE,
        "n_fft": 512,
        "win_length": 400,
        "hop_length": 160,
        "window": "hamming",
        "n_mels": 40,
    }
    power = librosa.feature.melspectrogram(**mel)
    found = []
    for top_db in (20.0, 80.0, None):
        expected = librosa.feature.mfcc(S=librosa.power_to_db(power, top_db=top_db), n_mfcc=32).T
        found.append(extract(samples, make("a short FFT", top_db=top_db)))
        # without a floor the cells of rounding errors count
        np.testing.assert_allclose(found[-1], expected, rtol=1e-4, atol=1e-4 if top_db else 0.1)
    assert not np.allclose(found[0], found[1]) and not np.allclose(found[1], found[2])


def test_silence():
    config, samples = make(derivatives=2), np.zeros(4000, np.float32)
    frames = extract(samples, config)
    same(frames, by_librosa(samples, config))
    assert frames[:, 0] == pytest.approx(-100 * np.sqrt(128)) and np.abs(frames[:, 1:]).max() < 1e-3


def test_shorter_than_a_window():
    with pytest.raises(UserError) as error:
        extract(speech(399), make())
    assert str(error.value) == "too short: 399 samples at 16000 Hz, but a window needs 400"


def test_fewer_frames_than_a_derivative_takes():
    """librosa raises an error, too."""
    samples = speech(1279)
    assert extract(samples, make()).shape == (8, 32)
    with pytest.raises(librosa.ParameterError, match="width=9 cannot exceed"):
        by_librosa(speech(2047), make("window of n_fft", derivatives=1))
    for derivatives in (1, 2):
        with pytest.raises(UserError) as error:
            extract(samples, make(derivatives=derivatives))
        assert str(error.value) == "too short: 8 frames, but the derivative of the MFCC needs 9"
        assert extract(speech(1280), make(derivatives=derivatives)).shape == (9, 32 * (1 + derivatives))


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"n_mfcc": 129}, "n_mfcc 129 must be at most n_mels, 128"),
        ({"win_length": 2049}, "win_length 2049 must be at most n_fft, 2048"),
        ({"fmax": 8001.0}, "fmin 0, fmax 8001: must be fmin < fmax <= sample_rate / 2"),
        ({"derivatives": 3}, "derivatives"),
        ({"window": "boxcar"}, "window"),
        ({"top_db": 0.0}, "top_db"),
    ],
)
def test_settings_that_cannot_be(others, message):
    with pytest.raises(ValueError, match=message):
        make(**others)


def test_the_samples_are_those_that_are_heard_and_left_as_they_are():
    samples = speech(4000)
    before = samples.copy()
    extract(samples, make(derivatives=2))
    assert np.array_equal(samples, before) and heard(samples, make()) is samples
