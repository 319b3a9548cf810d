"""Issa et al.'s five features, against librosa's functions called one by one."""

import subprocess
import sys
import warnings

import librosa
import numpy as np
import pytest
from scipy.ndimage import median_filter

from ser.cli import UserError
from ser.config import feature_name
from ser.features.tonal import Config, columns, extract, harmonic, medians

RATE = 22050
SETTINGS = {"sample_rate": RATE, "n_fft": 2048, "hop_length": 512, "n_mels": 128, "n_mfcc": 40}
SIZES = {"mfcc": 40, "chroma": 12, "mel": 128, "contrast": 7, "tonnetz": 6}


def speech(length, seed=0):
    """A voice of 25 harmonics that glides over noise, with a silent stretch and clicks: float32 (N,)."""
    rng = np.random.default_rng(seed)
    time = np.arange(length) / RATE
    phase = 2 * np.pi * (150 * time + 20 * np.sin(3 * time))
    samples = 0.1 * sum(np.sin(k * phase) / k for k in range(1, 26)) + 0.003 * rng.standard_normal(length)
    samples[length // 4 : length // 3] = 0
    samples[length // 2 :: 4000] += 0.5
    return samples.astype(np.float32)


def of_librosa(samples, rate=RATE, n_fft=2048, hop=512, n_mels=128, n_mfcc=40):
    """The mean of each part over time, as the public functions have it: from the samples, but for chroma and contrast."""
    sizes = {"n_fft": n_fft, "hop_length": hop}
    feature = librosa.feature
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        magnitude = np.abs(librosa.stft(samples, **sizes))
        found = {
            "mfcc": feature.mfcc(y=samples, sr=rate, n_mfcc=n_mfcc, n_mels=n_mels, **sizes),
            "chroma": feature.chroma_stft(S=magnitude, sr=rate),
            "mel": feature.melspectrogram(y=samples, sr=rate, n_mels=n_mels, **sizes),
            "contrast": feature.spectral_contrast(S=magnitude, sr=rate),
            "tonnetz": feature.tonnetz(y=librosa.effects.harmonic(samples, **sizes), sr=rate, hop_length=hop),
        }
    return {part: values.mean(1) for part, values in found.items()}


def compare(frame, expected):
    """Within 1e-4 of each value, or of a part's typical size where it is near 0."""
    start = 0
    for part, values in expected.items():
        own = frame[start : start + len(values)]
        np.testing.assert_allclose(own, values, rtol=1e-4, atol=1e-4 * np.abs(values).mean(), err_msg=part)
        start += len(values)
    assert start == len(frame)


@pytest.mark.parametrize("length", [2048, 2049, 12900, 44099, 70000])
def test_they_are_librosas(length):
    """Down to a window's length: the tonnetz' lowest octave would like 3 s, and gives no warning."""
    samples = speech(length)
    (frame,) = extract(samples, Config(**SETTINGS))
    assert frame.dtype == np.float32 and frame.shape == (193,)
    compare(frame, of_librosa(samples))


def test_other_sizes():
    samples = speech(30000)
    settings = {"sample_rate": 16000, "n_fft": 1024, "hop_length": 300, "n_mels": 40, "n_mfcc": 13}
    (frame,) = extract(samples, Config(**settings))
    compare(frame, of_librosa(samples, 16000, 1024, 300, 40, 13))


def test_silence_has_no_tones():
    (frame,) = extract(np.zeros(22050, np.float32), Config(**SETTINGS))
    assert np.isfinite(frame).all()
    assert not frame[columns(Config(**SETTINGS, parts=["chroma", "mel", "contrast", "tonnetz"]))].any()


def test_a_tone_is_its_pitch_class():
    """440 Hz is an A, the tenth class from C on."""
    samples = np.sin(2 * np.pi * 440 * np.arange(22050) / RATE).astype(np.float32)
    chroma = extract(samples, Config(**SETTINGS))[0, columns(Config(**SETTINGS, parts=["chroma"]))]
    assert chroma.argmax() == 9


def test_the_harmonic_part_is_librosas_to_the_bit():
    """The tuning is the peak of a histogram, which one rounding can move."""
    spectrum = librosa.stft(speech(30000))
    assert np.array_equal(harmonic(spectrum), librosa.decompose.hpss(spectrum)[0])


@pytest.mark.parametrize("shape", [(5, 1), (7, 4), (3, 15), (4, 16), (2, 31), (6, 200)])
def test_running_medians(shape):
    """Rows do not hear each other, however short they are."""
    rows = np.random.default_rng(0).random(shape).astype(np.float32)
    assert np.array_equal(medians(rows), median_filter(rows, size=(1, 31), mode="reflect"))
    assert np.array_equal(medians(np.asfortranarray(rows)), medians(rows))


@pytest.mark.parametrize(
    "parts", [["chroma"], ["tonnetz", "mfcc"], ["contrast", "mel"], ["mfcc", "chroma", "mel", "tonnetz", "contrast"]]
)
def test_a_system_takes_parts_in_the_order_that_it_asks_for(parts):
    samples = speech(20000)
    config = Config(**SETTINGS, parts=parts)
    expected = of_librosa(samples)
    taken = extract(samples, config)[0, columns(config)]
    assert len(taken) == sum(SIZES[part] for part in parts)
    compare(taken, {part: expected[part] for part in parts})


def test_all_parts_are_one_folder_of_features():
    names = {feature_name(Config(**SETTINGS, parts=parts)) for parts in (["mel"], ["mfcc", "tonnetz"], list(SIZES))}
    assert names == {feature_name(Config(**SETTINGS))}
    assert feature_name(Config(**SETTINGS | {"n_mfcc": 13})) not in names


def test_too_short():
    with pytest.raises(UserError, match="too short: 2047 samples at 22050 Hz, but a window needs 2048"):
        extract(speech(2047), Config(**SETTINGS))


def test_a_rate_that_has_not_all_bands():
    with pytest.raises(
        ValueError, match="sample_rate 12800: must be above 12800; the last contrast band starts at 6400 Hz"
    ):
        Config(**SETTINGS | {"sample_rate": 12800})


def test_a_system_file_is_read_without_librosa():
    """Its import takes a second, and every stage reads the features' settings."""
    code = "import sys, ser.features.tonal; sys.exit('librosa' in sys.modules or 'numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
