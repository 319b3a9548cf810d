"""Noise of a given level, the same for the same utterance."""

import numpy as np
import pytest

from ser import noise

SPEECH = (0.1 * np.sin(np.arange(20000) / 7) * np.linspace(0, 1, 20000)).astype(np.float32)


@pytest.mark.parametrize("decibels", [20, 0, -5])
def test_signal_to_noise_ratio(decibels):
    added = noise.add(SPEECH, f"snr{decibels}", "a-1").astype(float) - SPEECH
    assert 10 * np.log10((SPEECH.astype(float) ** 2).sum() / (added**2).sum()) == pytest.approx(decibels, abs=0.1)


@pytest.mark.parametrize("deviation", [1, 0.05])
def test_deviation_does_not_follow_the_speech(deviation):
    for speech in (SPEECH, 0.01 * SPEECH):
        added = noise.add(speech, f"deviation{deviation}", "a-1") - speech
        assert added.std() == pytest.approx(deviation, rel=0.03)


def test_noise_is_white():
    added = noise.add(SPEECH, "snr0", "a-1") - SPEECH
    power = np.abs(np.fft.rfft(added))[1:] ** 2
    bands = [band.mean() for band in np.array_split(power, 8)]
    assert max(bands) < 1.2 * min(bands)
    assert abs(added.mean()) < 0.05 * added.std()


def test_noise_follows_from_utterance_and_level():
    one = noise.add(SPEECH, "snr10", "a-1")
    assert one.dtype == np.float32
    assert np.array_equal(one, noise.add(SPEECH, "snr10", "a-1"))
    for other in (noise.add(SPEECH, "snr10", "a-2"), noise.add(SPEECH, "snr20", "a-1")):
        assert abs(np.corrcoef(one - SPEECH, other - SPEECH)[0, 1]) < 0.03
