"""Raw spectra, against librosa's."""

import librosa
import numpy as np
import pytest

from ser.cli import UserError
from ser.dsp import frames
from ser.features.spectrum import Config, extract, heard

RATE = 16000
SETTINGS = {
    "of the paper": dict(n_fft=512, win_length=400, hop_length=160),
    "hann": dict(n_fft=512, win_length=400, hop_length=160, window="hann"),
    "window of n_fft": dict(n_fft=1024, win_length=1024, hop_length=256),
    "odd sizes": dict(n_fft=600, win_length=401, hop_length=77),
    "gaps between windows": dict(n_fft=256, win_length=200, hop_length=333),
}


def make(name="of the paper", **others):
    return Config(**({"sample_rate": RATE} | SETTINGS[name] | others))


def noise(length):
    return np.random.default_rng(0).uniform(-1, 1, length).astype(np.float32)


@pytest.mark.filterwarnings("ignore:n_fft=.* is too large for input signal")
@pytest.mark.parametrize("more", [0, 1, 79, 80, 5000, 33333])
@pytest.mark.parametrize("name", SETTINGS)
def test_equal_to_librosa(name, more):
    config = make(name)
    samples = noise(config.win_length + more)
    spectrum = extract(samples, config)
    expected = np.abs(
        librosa.stft(
            samples,
            n_fft=config.n_fft,
            win_length=config.win_length,
            hop_length=config.hop_length,
            window=config.window,
        )
    ).T
    assert spectrum.dtype == np.float32
    assert spectrum.shape == (1 + len(samples) // config.hop_length, config.n_fft // 2 + 1)
    np.testing.assert_allclose(spectrum, expected, rtol=0, atol=1e-4)


def test_the_paper_has_257_values_every_10_ms():
    assert extract(noise(RATE), make()).shape == (101, 257)


def test_a_tone_stands_in_its_bin():
    """Of full scale: half the sum of the window."""
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    (peak,) = set(extract(tone, make())[5:-5].argmax(1))
    assert peak == 32
    np.testing.assert_allclose(extract(tone, make())[5:-5, 32], 0.54 * 400 / 2, rtol=1e-3)


def test_silence_is_zero():
    assert not extract(np.zeros(4000, np.float32), make()).any()


def test_too_short_for_a_window():
    with pytest.raises(UserError) as error:
        extract(noise(399), make())
    assert str(error.value) == "too short: 399 samples at 16000 Hz, but a window needs 400"


def test_the_samples_are_left_as_they_are():
    samples = noise(4000)
    before = samples.copy()
    extract(samples, make())
    assert np.array_equal(samples, before)
    assert np.array_equal(heard(samples, make()), samples)


@pytest.mark.parametrize(
    ("others", "fault"), [({"win_length": 513}, "win_length 513 must be"), ({"window": "kaiser"}, "window")]
)
def test_settings_that_cannot_be(others, fault):
    with pytest.raises(ValueError, match=fault):
        make(**others)


@pytest.mark.parametrize("length", [1, 2, 7, 8])
@pytest.mark.parametrize("hop", [1, 3, 10])
@pytest.mark.parametrize("n", [8, 9, 30])
def test_frames_are_centred(n, hop, length):
    samples = np.arange(1, n + 1)
    found = frames(samples, length, hop)
    assert found.shape == (1 + n // hop, length)
    for row, frame in enumerate(found):
        first = row * hop - (length - length // 2)
        assert list(frame) == [samples[place] if 0 <= place < n else 0 for place in range(first, first + length)]
