"""Segments in a strip, against loops; its activation, against torch's."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from ser.segments import Activation, Segments


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def padded(lengths, size):
    """frames (B, T, size), with what must not be read beyond each length; lengths (B,)."""
    frames = torch.randn(len(lengths), max(lengths), size)
    for row, length in zip(frames, lengths, strict=True):
        row[length:] = math.nan
    return frames, torch.tensor(lengths)


def pieces(frames, segment):
    """The segments of one utterance."""
    return [frames[start : start + segment] for start in range(0, len(frames), segment)]


def lengths_around(segment):
    return sorted({1, 2, max(segment - 1, 1), segment, segment + 1, 2 * segment + 5}, key=lambda length: length % 7)


@pytest.mark.parametrize("segment", [300, 10, 7, 2, 1])
class TestSegments:
    """Against a loop; of 300: utterances of 1, 2, 299, 300, 301 and 605 frames."""

    def test_cut(self, segment):
        lengths = lengths_around(segment)
        segments = Segments(torch.tensor(lengths), segment, pool=2, gap=2)
        number = 0
        for utt, length in enumerate(lengths):
            assert segments.first[utt] == number
            for start in range(0, length, segment):
                size = min(segment, length - start)
                assert segments.utt[number] == utt
                assert segments.size[number] == size
                assert segments.steps[number] == math.ceil(size / 2)
                assert segments.share[number].item() == pytest.approx(size / length)
                number += 1
        assert {len(getattr(segments, name)) for name in ("utt", "size", "steps", "start", "share")} == {number}
        assert len(segments.first) == len(lengths)

    def test_lay(self, segment):
        """All frames once, in order, where `start` says, with room between them and nothing else."""
        lengths = lengths_around(segment)
        frames, _ = padded(lengths, 2)
        segments = Segments(torch.tensor(lengths), segment, pool=2, gap=2)
        strip = segments.lay(frames)
        own = [row[:length] for row, length in zip(frames, lengths, strict=True)]
        assert torch.equal(strip[strip.any(1)], torch.cat(own))
        places = [2 * start for start in segments.start.tolist()]
        of_all = [piece for row in own for piece in pieces(row, segment)]
        for place, after, piece in zip(places, [*places[1:], None], of_all, strict=True):
            assert torch.equal(strip[place : place + len(piece)], piece)
            assert after is None or after - (place + len(piece)) >= 4  # two steps, which a convolution of five sees
        assert len(strip) >= places[-1] + 2 * math.ceil(len(of_all[-1]) / 2)
        assert len(strip) % 2 == 0

    def test_mean(self, segment):
        """As if each frame had its segment's vector."""
        lengths = lengths_around(segment)
        segments = Segments(torch.tensor(lengths), segment, pool=2, gap=2)
        vectors = torch.randn(len(segments.utt), 3)
        means = segments.mean(vectors)
        each = iter(vectors)
        for mean, length in zip(means, lengths, strict=True):
            of_frames = torch.cat([next(each).expand(len(piece), 3) for piece in pieces(torch.zeros(length), segment)])
            torch.testing.assert_close(mean, of_frames.mean(0))
        torch.testing.assert_close(segments.mean(torch.ones(len(vectors), 1)), torch.ones(len(lengths), 1))

    def test_between_and_pick(self, segment):
        """Every step of the strip is a segment's or between two."""
        segments = Segments(torch.tensor(lengths_around(segment)), segment, pool=2, gap=2)
        picked = segments.pick(torch.arange(segments.n_steps)[:, None])[:, :, 0]
        own = [row[:size].tolist() for row, size in zip(picked, segments.steps.tolist(), strict=True)]
        assert [row[0] for row in own] == segments.start.tolist()
        assert sorted(sum(own, segments.between().tolist())) == list(range(segments.n_steps))

    def test_weights_of_frames(self, segment):
        lengths = lengths_around(segment)
        segments = Segments(torch.tensor(lengths), segment, pool=2, gap=2)
        weights = torch.rand(len(segments.utt), int(segments.steps.max()))
        found = segments.of_frames(weights, max(lengths))
        number = 0
        for row, length in zip(found.tolist(), lengths, strict=True):
            for start in range(0, length, segment):
                size = min(segment, length - start)
                for frame in range(size):
                    expected = weights[number, frame // 2].item() / 2 * size / length
                    assert row[start + frame] == pytest.approx(expected)
                number += 1
            assert not any(row[length:])


BETWEEN = [0, 3, 4]


class TestActivation:
    def maps(self):
        return torch.randn(1, 3, 6, 2, dtype=torch.float64).contiguous(memory_format=torch.channels_last)

    def test_it_is_torchs_with_zeros_between(self):
        maps = self.maps()
        expected = F.leaky_relu(maps, 0.01)
        expected[:, :, BETWEEN] = 0
        found = Activation.apply(maps.clone(), torch.tensor(BETWEEN), 0.01)
        assert torch.equal(found, expected)
        assert found.is_contiguous(memory_format=torch.channels_last)

    def test_its_gradient_is_torchs(self):
        ours = self.maps().requires_grad_()
        theirs = ours.detach().clone().requires_grad_()
        upstream = torch.randn(1, 3, 6, 2, dtype=torch.float64)
        between = torch.zeros(6, dtype=torch.bool)
        between[BETWEEN] = True
        (Activation.apply(ours.clone(), torch.tensor(BETWEEN), 0.01) * upstream).sum().backward()
        (F.leaky_relu(theirs, 0.01).masked_fill(between[:, None], 0) * upstream).sum().backward()
        assert torch.equal(ours.grad, theirs.grad)
        assert not ours.grad[:, :, BETWEEN].any() and ours.grad.any()

    def test_its_gradient_is_that_of_differences(self):
        assert gradcheck(
            lambda maps: Activation.apply(maps.clone(), torch.tensor(BETWEEN), 0.01), self.maps().requires_grad_()
        )
