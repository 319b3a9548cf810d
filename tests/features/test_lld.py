"""Emotion descriptors, each against signals of known F0, or against another way to compute it."""

import librosa
import numpy as np
import pytest

from ser.cli import UserError
from ser.dsp import differences
from ser.features import lld
from ser.features.lld import Config, extract, heard, pitch

RATE, HOP, WINDOW = 16000, 160, 400
SIZES = {"sample_rate": RATE, "win_length": WINDOW, "hop_length": HOP, "n_fft": 512}
CONFIG = Config(**SIZES)
F0, VOICING, ENERGY, CROSSINGS, MFCC = 0, 1, 2, 3, slice(4, 16)


def seconds(length):
    return np.arange(round(length * RATE)) / RATE


def harmonics(f0, number=10, tilt=1.0):
    """A voice-like sum of `number` harmonics below 7 kHz, of f0 Hz, a number or one a sample: float32 (N,)."""
    f0 = np.broadcast_to(f0, RATE) if np.ndim(f0) == 0 else f0
    phase = 2 * np.pi * np.cumsum(f0) / RATE
    parts = [np.sin(k * phase) / k**tilt for k in range(1, number + 1) if k * f0.max() < 7000]
    return (0.2 * sum(parts)).astype(np.float32)


def pulses(f0, length=1.0):
    """A band-limited pulse train: all harmonics of the same strength."""
    phases = 2 * np.pi * f0 * seconds(length)
    return (0.02 * sum(np.cos(k * phases) for k in range(1, int(7000 / f0)))).astype(np.float32)


def tone(f0, length=1.0):
    return (0.3 * np.sin(2 * np.pi * f0 * seconds(length))).astype(np.float32)


def noise(length=1.0, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(round(length * RATE))).astype(np.float32)


def speech(length=16000, seed=0):
    """A voice that glides and falls silent, a fricative, a click: float32 (N,)."""
    time = np.arange(length) / RATE
    samples = (
        harmonics(150 + 60 * np.sin(5 * time)) * (np.sin(3 * time) > 0) + 0.05 * noise(length / RATE, seed)[:length]
    )
    samples[length // 3] += 0.5
    return samples.astype(np.float32)


def inner(descriptors, column=F0):
    """Of the frames whose windows lie within the recording."""
    return descriptors[4:-4, column]


@pytest.mark.parametrize("length", [400, 401, 479, 480, 639, 640, 641, 1000, 16000, 41079])
def test_shape_and_type(length):
    descriptors = extract(speech(length), CONFIG)
    assert descriptors.shape == (1 + length // HOP, 32)
    assert descriptors.dtype == np.float32
    assert np.isfinite(descriptors).all()


@pytest.mark.parametrize("signal", [tone, pulses, harmonics])
@pytest.mark.parametrize("f0", [80, 97.3, 123.4, 160, 200.7, 250, 311.1, 400, 477, 500])
def test_f0_of_what_is_periodic(signal, f0):
    descriptors = extract(signal(f0), CONFIG)
    np.testing.assert_allclose(inner(descriptors), f0, rtol=0.005)
    assert inner(descriptors, VOICING).min() > 0.98


@pytest.mark.parametrize("f0", [90, 150, 240])
@pytest.mark.parametrize("kept", [(2, 3, 4, 5), (1, 3, 5, 7), (3, 4, 5), (1, 2, 2, 2)])
def test_no_octave_is_lost(f0, kept):
    """Neither a missing fundamental nor missing or strong harmonics make F0 another."""
    signal = 0.1 * sum(np.sin(2 * np.pi * k * f0 * seconds(1) + k) for k in kept)
    np.testing.assert_allclose(inner(extract(signal.astype(np.float32), CONFIG)), f0, rtol=0.005)


def test_alternate_pulses_that_differ_a_little_are_no_octave_below():
    signal = pulses(200) + 0.1 * pulses(100)
    np.testing.assert_allclose(inner(extract(signal, CONFIG)), 200, rtol=0.005)


def test_vibrato():
    time = seconds(2)
    f0 = 220 * 2 ** (np.sin(2 * np.pi * 5 * time) / 12)  # a semitone either way, five times a second
    found = extract(harmonics(f0), CONFIG)[:, F0]
    np.testing.assert_allclose(found[4:-4], f0[::HOP][4 : len(found) - 4], rtol=0.015)


def test_glide_over_two_octaves():
    time = seconds(2)
    f0 = 110 * 2**time
    found = extract(harmonics(f0), CONFIG)[:, F0]
    np.testing.assert_allclose(found[4:-4], f0[::HOP][4 : len(found) - 4], rtol=0.005)


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_unvoiced(seed):
    descriptors = extract(noise(2, seed), CONFIG)
    assert (descriptors[:, F0] > 0).mean() < 0.03
    assert descriptors[:, VOICING].mean() < 0.4


@pytest.mark.parametrize("snr", [20, 10])
def test_a_voice_in_noise(snr):
    voice, other = harmonics(180), noise()
    other *= np.sqrt(np.mean(voice**2) / np.mean(other**2)) / 10 ** (snr / 20)
    np.testing.assert_allclose(inner(extract(voice + other, CONFIG)), 180, rtol=0.02)


def test_voiced_between_silences():
    samples = np.concatenate([np.zeros(4800), harmonics(200)[:8000], np.zeros(4800)]).astype(np.float32)
    voiced = np.flatnonzero(extract(samples, CONFIG)[:, F0])
    assert abs(voiced[0] - 30) <= 2 and abs(voiced[-1] - 80) <= 2
    assert np.array_equal(voiced, np.arange(voiced[0], voiced[-1] + 1))


@pytest.mark.parametrize(("share", "voiced"), [(0.001, False), (0.02, False), (0.06, True), (0.5, True)])
def test_what_is_far_below_the_loudest_is_silence(share, voiced):
    samples = np.concatenate([tone(200, 0.5), share * tone(120, 0.5)]).astype(np.float32)
    found = extract(samples, CONFIG)[54:-4]
    np.testing.assert_allclose(found[:, F0], 120 if voiced else 0, rtol=0.005)
    assert found[:, VOICING].min() > 0.98


def test_below_the_precision_of_the_samples_nothing_is_voiced():
    samples = np.concatenate([tone(200, 0.5), 1e-7 * tone(120, 0.5)]).astype(np.float32)
    assert not extract(samples, CONFIG)[54:-4, :2].any()


def test_an_offset_that_changes():
    step = np.where(np.arange(RATE) < 8000, 0, 0.5).astype(np.float32)
    away = [*range(4, 46), *range(54, 97)]
    np.testing.assert_allclose(extract(harmonics(200) + step, CONFIG)[away, F0], 200, rtol=0.005)
    assert (extract(noise() + step, CONFIG)[away, F0] > 0).mean() < 0.03


def test_offset_and_loudness_do_not_matter_to_f0():
    samples = speech()
    expected = extract(samples, CONFIG)
    np.testing.assert_allclose(extract(samples + np.float32(0.2), CONFIG), expected, atol=0.02, rtol=1e-3)
    quiet = extract(samples / 64, CONFIG)
    np.testing.assert_allclose(quiet[:, :2], expected[:, :2], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(quiet[:, ENERGY], expected[:, ENERGY] / 64, rtol=1e-4)


def test_clipping_leaves_f0():
    samples = np.clip(5 * harmonics(140), -0.3, 0.3)
    np.testing.assert_allclose(inner(extract(samples, CONFIG)), 140, rtol=0.005)


@pytest.mark.parametrize("value", [0, 0.25])
def test_digital_silence(value):
    descriptors = extract(np.full(5000, value, np.float32), CONFIG)
    assert np.isfinite(descriptors).all()
    assert not descriptors.any()


def test_a_silent_stretch_under_an_offset_is_not_voiced():
    samples = np.concatenate([harmonics(200), np.zeros(8000, np.float32)]) + np.float32(0.1)
    assert not extract(samples, CONFIG)[105:-3, :2].any()


def test_f0_stays_within_its_limits():
    narrow = Config(**SIZES, f0_min=100.0, f0_max=300.0)
    for samples in (speech(), tone(302), tone(98)):
        found = pitch(samples, narrow)[0]
        assert ((found == 0) | ((found >= 100) & (found <= 300))).all()
    np.testing.assert_allclose(inner(extract(tone(50), Config(**SIZES, f0_min=40.0))), 50, rtol=0.005)


def test_the_strongest_candidates_stand_first(monkeypatch):
    samples = pulses(450) + noise()
    frequency, strength, _ = lld.candidates(samples, CONFIG)
    voiced = frequency[:, 1:] > 0
    assert voiced.sum(1).max() > 4
    assert (voiced[:, :-1] >= voiced[:, 1:]).all()
    with np.errstate(divide="ignore", invalid="ignore"):
        worth = strength[:, 1:] + 0.01 * np.log2(frequency[:, 1:])
    assert (worth[:, :-1] >= worth[:, 1:])[voiced[:, 1:]].all()
    monkeypatch.setattr(lld, "CANDIDATES", 2)
    fewer = lld.candidates(samples, CONFIG)
    assert np.array_equal(fewer[0], frequency[:, :3]) and np.array_equal(fewer[1], strength[:, :3])


def test_a_higher_threshold_voices_less():
    voiced = [(pitch(speech(), Config(**SIZES, voicing_threshold=at))[0] > 0).sum() for at in (0.2, 0.45, 0.9)]
    assert voiced[0] >= voiced[1] >= voiced[2] and voiced[0] > voiced[2]


def test_other_rates():
    time = np.arange(44100) / 44100
    config = Config(sample_rate=44100, win_length=1102, hop_length=441, n_fft=2048)
    np.testing.assert_allclose(
        inner(extract(np.sin(2 * np.pi * 233 * time).astype(np.float32), config)), 233, rtol=0.005
    )


@pytest.mark.parametrize("step", [0.01, 0.02])
def test_the_best_path_is_the_best_of_all(step):
    rng = np.random.default_rng(0)
    for _ in range(20):
        frequency = np.hstack([np.zeros((6, 1)), rng.uniform(75, 600, (6, 2))])
        score = rng.uniform(0, 1, (6, 3))

        def worth(path, frequency=frequency, score=score):
            total = sum(score[frame, place] for frame, place in enumerate(path))
            for frame in range(1, 6):
                before, now = frequency[frame - 1, path[frame - 1]], frequency[frame, path[frame]]
                if before and now:
                    total -= 0.01 / step * 0.35 * abs(np.log2(now / before))
                elif before or now:
                    total -= 0.01 / step * 0.14
            return total

        every = [np.unravel_index(number, (3,) * 6) for number in range(3**6)]
        assert tuple(lld.best_path(score, frequency, step)) == tuple(max(every, key=worth))


def test_more_frames_than_a_block(monkeypatch):
    samples = speech(60000)
    expected = extract(samples, CONFIG)
    for block in (1, 7, 1000):
        monkeypatch.setattr(lld, "BLOCK", block)
        np.testing.assert_allclose(extract(samples, CONFIG), expected, rtol=1e-4, atol=1e-4)


def windows_of(samples):
    """Frames centred every hop, by librosa."""
    return librosa.util.frame(np.pad(samples - samples.mean(), WINDOW // 2), frame_length=WINDOW, hop_length=HOP).T


@pytest.mark.parametrize("length", [400, 5000, 16001])
def test_energy_is_the_root_of_the_mean_square(length):
    samples = speech(length)
    found = extract(samples, CONFIG)[:, ENERGY]
    expected = [np.sqrt(sum(float(x) ** 2 for x in window) / WINDOW) for window in windows_of(samples)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("length", [400, 5000, 16001])
def test_zero_crossings_are_librosas(length):
    samples = speech(length)
    found = extract(samples, CONFIG)[:, CROSSINGS]
    padded = np.pad(samples - samples.mean(), WINDOW // 2)
    expected = librosa.feature.zero_crossing_rate(padded, frame_length=WINDOW, hop_length=HOP, center=False)
    np.testing.assert_allclose(found, expected[0], atol=1e-7)


@pytest.mark.parametrize("length", [400, 5000, 16001])
def test_mfcc_by_the_formulas(length):
    """Of the HTK Book: one frame, one band, one coefficient after the other."""
    samples = speech(length)
    found = extract(samples, CONFIG)[:, MFCC]
    mel = lambda hertz: 2595 * np.log10(1 + hertz / 700)  # noqa: E731
    corners = [band * mel(8000) / 27 for band in range(28)]
    for place, window in list(enumerate(windows_of(samples).astype(np.float64)))[:: max(1, length // 2000)]:
        emphasised = [window[0] * 0.03, *(window[n] - 0.97 * window[n - 1] for n in range(1, WINDOW))]
        tapered = [x * (0.54 - 0.46 * np.cos(2 * np.pi * n / (WINDOW - 1))) for n, x in enumerate(emphasised)]
        power = np.abs(np.fft.fft(tapered, 512)) ** 2
        bands = np.zeros(26)
        for place_in_spectrum in range(257):
            at = mel(place_in_spectrum * RATE / 512)
            for band in range(26):
                low, mid, high = corners[band : band + 3]
                if low < at < high:
                    bands[band] += power[place_in_spectrum] * (
                        (at - low) / (mid - low) if at <= mid else (high - at) / (high - mid)
                    )
        logs = np.log(np.maximum(bands * 32767.0**2, 1))
        for i in range(1, 13):
            cepstrum = np.sqrt(2 / 26) * sum(logs[j - 1] * np.cos(np.pi * i / 26 * (j - 0.5)) for j in range(1, 27))
            assert found[place, i - 1] == pytest.approx(cepstrum * (1 + 11 * np.sin(np.pi * i / 22)), abs=0.02)


def test_other_numbers_of_mfcc():
    all_of_them = extract(speech(), CONFIG)
    fewer = extract(speech(), Config(**SIZES, n_mfcc=5))
    assert fewer.shape[1] == 18
    np.testing.assert_allclose(fewer[:, :9], all_of_them[:, :9], rtol=1e-4, atol=1e-4)
    assert extract(speech(), Config(**SIZES, n_mels=40, n_mfcc=20)).shape[1] == 48


@pytest.mark.parametrize("length", [1, 2, 5, 30])
def test_differences_are_slopes_of_fitted_lines(length):
    values = np.random.default_rng(length).standard_normal((length, 3))
    found = differences(values)
    for frame in range(length):
        five = values[np.clip(np.arange(frame - 2, frame + 3), 0, length - 1)]
        np.testing.assert_allclose(found[frame], np.polyfit(np.arange(-2, 3), five, 1)[0], atol=1e-12)


def test_the_second_half_is_the_change_of_the_first():
    descriptors = extract(speech(), CONFIG)
    np.testing.assert_allclose(descriptors[:, 16:], differences(descriptors[:, :16]), rtol=1e-4, atol=1e-4)


def test_too_short_for_a_window():
    with pytest.raises(UserError) as error:
        extract(speech(399), CONFIG)
    assert str(error.value) == "too short: 399 samples at 16000 Hz, but a window needs 400"


def test_the_samples_are_left_as_they_are():
    samples = speech()
    before = samples.copy()
    extract(samples, CONFIG)
    assert np.array_equal(samples, before)
    assert np.array_equal(heard(samples, CONFIG), samples)


@pytest.mark.parametrize(
    ("others", "fault"),
    [
        ({"win_length": 513}, "win_length 513 must be at most n_fft, 512"),
        ({"n_mfcc": 26}, "n_mfcc 26 must be below n_mels, 26"),
        ({"f0_min": 600.0}, "f0_min 600, f0_max 600: must be f0_min < f0_max"),
        ({"f0_max": 4001.0}, "f0_max <= sample_rate / 4"),
        ({"voicing_threshold": 1.0}, "voicing_threshold"),
        ({"deltas": 2}, "deltas"),
    ],
)
def test_settings_that_cannot_be(others, fault):
    with pytest.raises(ValueError, match=fault):
        Config(**SIZES | others)
