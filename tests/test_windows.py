"""Windows of padded batches, against loops."""

import pytest
import torch

from ser.windows import cut, of_frames

LENGTHS = [40, 12, 3, 31, 17]
SIZES = [(12, 5), (12, 12), (4, 9), (1, 1), (50, 3)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def starts_of(length, window, hop):
    return range(0, max(length - window, 0) + 1, hop)


@pytest.mark.parametrize(("window", "hop"), SIZES)
def test_windows_are_those_of_a_loop(window, hop):
    frames = torch.randn(len(LENGTHS), max(LENGTHS), 3)
    for row, length in zip(frames, LENGTHS, strict=True):
        row[length:] = 1e3  # must not be read
    windows, n_windows = cut(frames, torch.tensor(LENGTHS), window, hop)
    for row, length in enumerate(LENGTHS):
        own = [*frames[row, :length], *[torch.zeros(3)] * window]  # a short utterance is padded
        starts = starts_of(length, window, hop)
        assert n_windows[row] == len(starts)
        for number, start in enumerate(starts):
            assert torch.equal(windows[row, number], torch.stack(own[start : start + window]))
    assert windows.shape == (len(LENGTHS), max(n_windows), window, 3)


@pytest.mark.parametrize(("window", "hop"), SIZES)
def test_weights_of_frames_are_those_of_a_loop(window, hop):
    n_windows = [len(starts_of(length, window, hop)) for length in LENGTHS]
    weights = torch.rand(len(LENGTHS), max(n_windows), dtype=torch.float64)
    for row, number in enumerate(n_windows):
        weights[row, number:] = 0
    found = of_frames(weights, torch.tensor(LENGTHS), window, hop, max(LENGTHS))
    for row, length in enumerate(LENGTHS):
        expected = [0.0] * max(LENGTHS)
        for number, start in enumerate(starts_of(length, window, hop)):
            own = range(start, min(start + window, length))
            for frame in own:
                expected[frame] += weights[row, number].item() / len(own)
        assert found[row].tolist() == pytest.approx(expected)
