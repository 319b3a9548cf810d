"""Sherman et al.'s eight features, against librosa's functions called one by one."""

import librosa
import numpy as np
import pytest

from ser.cli import UserError
from ser.config import feature_name
from ser.features.timbre import Config, columns, extract

RATE = 16000
SETTINGS = {"sample_rate": RATE, "n_fft": 2048, "hop_length": 512, "n_mels": 128, "n_mfcc": 20}
SIZES = {
    "mfcc": 20,
    "mfcc_delta": 20,
    "centroid": 1,
    "contrast": 7,
    "low_contrast": 1,
    "bandwidth": 1,
    "rolloff": 1,
    "zcr": 1,
    "rms": 1,
}
EIGHT = [part for part in SIZES if part != "low_contrast"]


def speech(length, seed=0):
    """A voice of 25 harmonics that glides over noise, with a silent stretch and a click: float32 (N,)."""
    rng = np.random.default_rng(seed)
    time = np.arange(length) / RATE
    phase = 2 * np.pi * (120 * time + 30 * np.sin(3 * time))
    voice = sum(np.sin(k * phase) / k for k in range(1, 26)) * np.exp(-time)
    samples = 0.1 * voice + 0.003 * rng.standard_normal(length)
    samples[length // 4 : length // 3] = 0
    samples[length // 2] += 0.5
    return samples.astype(np.float32)


def of_librosa(samples, rate=RATE, n_fft=2048, hop=512, n_mels=128, n_mfcc=20):
    """Each part (T, values), from the samples."""
    sizes = {"n_fft": n_fft, "hop_length": hop}
    feature = librosa.feature
    found = {
        "mfcc": feature.mfcc(y=samples, sr=rate, n_mfcc=n_mfcc, n_mels=n_mels, **sizes),
        "centroid": feature.spectral_centroid(y=samples, sr=rate, **sizes),
        "contrast": feature.spectral_contrast(y=samples, sr=rate, **sizes),
        "bandwidth": feature.spectral_bandwidth(y=samples, sr=rate, **sizes),
        "rolloff": feature.spectral_rolloff(y=samples, sr=rate, **sizes),
        "zcr": feature.zero_crossing_rate(samples, frame_length=n_fft, hop_length=hop),
        # the authors' code takes the energy of the spectrum, which has a window, not that of the samples
        "rms": feature.rms(S=np.abs(librosa.stft(samples, **sizes)), frame_length=n_fft),
    }
    found["mfcc_delta"] = feature.delta(found["mfcc"])
    found["low_contrast"] = found["contrast"][:1]
    return {part: values.T for part, values in found.items()}


def compare(frames, expected, config):
    """Within 1e-4 of each value, or of a part's typical size where it is near 0. The roll-off is the frequency
    of a bin: where the sum of magnitudes stands on the edge, rounding may decide for the next."""
    for part, values in expected.items():
        ours = frames[:, columns(Config(**config, parts=[part]))]
        assert ours.shape == values.shape, part
        if part == "rolloff":
            bins = np.abs(ours - values) / (config["sample_rate"] / config["n_fft"])
            assert bins.max() < 1.01 and (bins > 0.01).mean() < 0.02, part
        else:
            np.testing.assert_allclose(ours, values, rtol=1e-4, atol=1e-4 * np.abs(values).mean(), err_msg=part)


@pytest.mark.parametrize("length", [4096, 4097, 16000, 80000, 79999, 33333])
def test_they_are_librosas(length):
    samples = speech(length)
    frames = extract(samples, Config(**SETTINGS))
    assert frames.dtype == np.float32 and frames.shape == (1 + length // 512, 52)
    compare(frames, of_librosa(samples), SETTINGS)


def test_other_sizes():
    samples = speech(20000)
    settings = {"sample_rate": 22050, "n_fft": 1024, "hop_length": 300, "n_mels": 40, "n_mfcc": 13}
    compare(extract(samples, Config(**settings)), of_librosa(samples, 22050, 1024, 300, 40, 13), settings)


def test_they_are_librosas_where_an_utterance_is_filled_at_the_front():
    """As the paper's IEMOCAP: 5 s are 157 frames, and what stands before the speech is digital silence."""
    samples = speech(30000)
    frames = extract(samples, Config(**SETTINGS, duration=5.0, pad="front"))
    assert frames.shape == (157, 52)
    padded = np.concatenate([np.zeros(50000, np.float32), samples])
    compare(frames, of_librosa(padded), SETTINGS)
    silent = frames[:90]  # of digital silence: no spectrum has a shape
    for part in ("centroid", "bandwidth", "rolloff", "rms", "zcr"):
        assert not silent[:, columns(Config(**SETTINGS, parts=[part]))].any()


def test_longer_than_the_duration_is_cut_at_the_end():
    samples = speech(100000)
    frames = extract(samples, Config(**SETTINGS, duration=5.0, pad="front"))
    compare(frames, of_librosa(samples[:80000]), SETTINGS)


@pytest.mark.parametrize(
    "parts",
    [
        EIGHT,
        ["rms", "mfcc"],
        ["low_contrast"],
        ["contrast", "low_contrast"],
        [part for part in EIGHT if part != "contrast"],
    ],
)
def test_a_system_takes_parts_in_the_order_that_it_asks_for(parts):
    samples = speech(20000)
    config = Config(**SETTINGS, parts=parts)
    frames = extract(samples, config)
    expected = of_librosa(samples)
    taken = frames[:, columns(config)]
    assert taken.shape[1] == sum(SIZES[part] for part in parts)
    places = np.cumsum([0, *(SIZES[part] for part in parts)])
    for start, end, part in zip(places, places[1:], parts, strict=False):
        np.testing.assert_allclose(
            taken[:, start:end], expected[part], rtol=1e-3, atol=1e-3 * np.abs(expected[part]).mean()
        )


def test_nine_systems_share_one_folder_of_features():
    left_out = [[part for part in EIGHT if part != left] for left in EIGHT]
    assert len({feature_name(Config(**SETTINGS, parts=parts)) for parts in [EIGHT, *left_out]}) == 1


@pytest.mark.parametrize(
    ("length", "message"),
    [
        (2047, "too short: 2047 samples at 16000 Hz, but a window needs 2048"),
        (4095, "too short: 8 frames, but the derivative of the MFCC needs 9"),
    ],
)
def test_too_short(length, message):
    with pytest.raises(UserError, match=message):
        extract(speech(length), Config(**SETTINGS))


def test_short_ones_are_filled_where_there_is_a_duration():
    assert extract(speech(4095), Config(**SETTINGS, duration=1.0)).shape == (32, 52)


def test_a_rate_that_has_not_all_bands():
    with pytest.raises(
        ValueError, match="sample_rate 12800: must be above 12800; the last contrast band starts at 6400 Hz"
    ):
        Config(**SETTINGS | {"sample_rate": 12800})
