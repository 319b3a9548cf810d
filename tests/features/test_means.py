"""Means of features, against librosa's functions called one by one."""

import librosa
import numpy as np
import pytest

from ser.cli import UserError
from ser.config import feature_name
from ser.features.means import Config, columns, extract

RATE = 22050
SETTINGS = {
    "sample_rate": RATE,
    "n_fft": 2048,
    "hop_length": 512,
    "n_mels": 128,
    "n_mfcc": 40,
    "parts": ["mel", "mfcc", "zcr", "rms"],
}
SIZES = {"mel": 128, "mfcc": 40, "zcr": 1, "rms": 1}


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


def of_librosa(samples, n_fft=2048, hop=512, n_mels=128, n_mfcc=40):
    sizes = {"n_fft": n_fft, "hop_length": hop, "n_mels": n_mels}
    return {
        "mel": librosa.feature.melspectrogram(y=samples, sr=RATE, **sizes).mean(1),
        "mfcc": librosa.feature.mfcc(y=samples, sr=RATE, n_mfcc=n_mfcc, **sizes).mean(1),
        "zcr": librosa.feature.zero_crossing_rate(samples, frame_length=n_fft, hop_length=hop).mean(1),
        "rms": librosa.feature.rms(y=samples, frame_length=n_fft, hop_length=hop).mean(1),
    }


@pytest.mark.parametrize("length", [2048, 2049, 22050, 44099, 30000])
def test_they_are_librosas(length):
    samples = speech(length)
    (frame,) = extract(samples, Config(**SETTINGS))
    assert frame.dtype == np.float32 and frame.shape == (170,)
    np.testing.assert_allclose(frame, np.concatenate(list(of_librosa(samples).values())), rtol=1e-4, atol=1e-4)


def test_other_sizes():
    samples = speech(20000)
    (frame,) = extract(samples, Config(**SETTINGS | {"n_fft": 1024, "hop_length": 300, "n_mels": 30, "n_mfcc": 13}))
    np.testing.assert_allclose(
        frame, np.concatenate(list(of_librosa(samples, 1024, 300, 30, 13).values())), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("parts", [["mel"], ["mfcc"], ["rms", "zcr"], ["zcr", "mfcc", "mel"], ["mel", "mfcc", "rms"]])
def test_a_system_takes_parts_in_the_order_that_it_asks_for(parts):
    samples = speech(9000)
    config = Config(**SETTINGS | {"parts": parts})
    frame = extract(samples, config)[0, columns(config)]
    expected = of_librosa(samples)
    assert len(frame) == sum(SIZES[part] for part in parts)
    np.testing.assert_allclose(frame, np.concatenate([expected[part] for part in parts]), rtol=1e-4, atol=1e-4)


def test_all_parts_are_one_folder_of_features():
    names = {feature_name(Config(**SETTINGS | {"parts": parts})) for parts in (["mel"], ["mfcc", "zcr"], ["rms"])}
    assert names == {feature_name(Config(**{key: SETTINGS[key] for key in SETTINGS if key != "parts"}))}
    assert feature_name(Config(**SETTINGS | {"n_mfcc": 13})) not in names


def test_what_is_quieter_than_80_db_below_the_loudest_counts_as_that():
    """As librosa.power_to_db, which the MFCCs go through: here most frames are digital silence."""
    samples = np.zeros(22050, np.float32)
    samples[5000:6000] = speech(1000)
    mfcc = extract(samples, Config(**SETTINGS))[0, 128:168]
    np.testing.assert_allclose(mfcc, of_librosa(samples)["mfcc"], rtol=1e-4, atol=1e-3)


def test_a_recording_shorter_than_a_window():
    with pytest.raises(UserError, match="too short: 2047 samples at 22050 Hz, but a window needs 2048"):
        extract(speech(2047), Config(**SETTINGS))
