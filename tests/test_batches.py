"""Batches by length: every utterance once, little padding, much chance."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from ser.batches import balanced_batches, padding_share, random_batches, sorted_batches, stack

IEMOCAP = Path(__file__).resolve().parents[2] / "shared/standins/iemocap_utterances.tsv"


def log_normal(number=3000):
    """Lengths of speech: 4.5 s at the median, from under 1 s to over 20 s, in frames of 10 ms."""
    seconds = np.clip(np.exp(np.random.default_rng(5).normal(1.3, 0.6, number)), 0.6, 34)
    return {f"u{place:05d}": int(100 * length) for place, length in enumerate(seconds)}


def iemocap():
    if not IEMOCAP.exists():
        pytest.skip(f"{IEMOCAP} is not there")
    header, *lines = (line.split("\t") for line in IEMOCAP.read_text().splitlines())
    utt, samples = header.index("utt"), header.index("samples_16k")
    return {line[utt]: int(line[samples]) // 160 for line in lines}


def share_of_padding(batches, lengths):
    padded = [
        (max(lengths[utt] for utt in batch) - lengths[utt], max(lengths[utt] for utt in batch))
        for batch in batches
        for utt in batch
    ]
    return sum(padding for padding, _ in padded) / sum(total for _, total in padded)


@pytest.mark.parametrize("number", [1, 5, 31, 32, 33, 1000])
@pytest.mark.parametrize("size", [1, 8, 32])
def test_each_utterance_stands_in_one_batch(number, size):
    lengths = dict(list(log_normal().items())[:number])
    for batches in (random_batches(lengths, size, np.random.default_rng(1)), sorted_batches(lengths, size)):
        assert Counter(utt for batch in batches for utt in batch) == Counter(lengths.keys())
        sizes = [len(batch) for batch in batches]
        assert len(batches) == -(-number // size)
        assert max(sizes) <= size
        assert sum(one < size for one in sizes) <= 1


@pytest.mark.parametrize("size", [4, 40, 42])
@pytest.mark.parametrize("numbers", [(400, 400), (289, 947, 1099, 608), (7, 90, 500, 31, 44, 60, 12), (3,)])
def test_balanced_batches_have_as_many_of_each_class(numbers, size):
    targets = {f"u{number}-{place}": number for number, count in enumerate(numbers) for place in range(count)}
    batches = balanced_batches(targets, size, np.random.default_rng(1))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert sum(map(len, batches)) == len(targets)
    for batch in batches:
        counts = Counter(targets[utt] for utt in batch)
        assert max(counts.values()) - min(counts.get(number, 0) for number in range(len(numbers))) <= 1
    times = Counter(utt for batch in batches for utt in batch)
    for number in range(len(numbers)):  # no utterance comes twice more often than another of its class
        own = [times[utt] for utt in targets if targets[utt] == number]
        assert max(own) - min(own) <= 1
    again = balanced_batches(dict(reversed(targets.items())), size, np.random.default_rng(1))
    assert batches == again
    if len(targets) > 3:
        assert batches != balanced_batches(targets, size, np.random.default_rng(2))


@pytest.mark.parametrize("size", [8, 16, 32, 64])
@pytest.mark.parametrize("corpus", [log_normal, iemocap])
def test_at_most_a_tenth_is_padding(corpus, size):
    lengths = corpus()
    for seed in range(3):
        batches = random_batches(lengths, size, np.random.default_rng(seed))
        share = share_of_padding(batches, lengths)
        assert share <= 0.1
        assert padding_share(batches, lengths) == pytest.approx(share)
    shuffled = np.random.default_rng(0).permutation(sorted(lengths))
    assert (
        share_of_padding([shuffled[i : i + size] for i in range(0, len(shuffled), size)], lengths) > 0.3
    )  # what it saves


def test_batches_are_no_more_alike_than_padding_asks_for():
    """Lengths are sorted within stretches of the corpus that leave 9 % to padding, or less by a doubling."""
    lengths = log_normal()
    for size in (8, 32):
        share = share_of_padding(random_batches(lengths, size, np.random.default_rng(0)), lengths)
        assert share > 0.045
        assert share > 1.5 * share_of_padding(sorted_batches(lengths, size), lengths)


def test_long_and_short_batches_are_mixed():
    lengths = log_normal()
    batches = random_batches(lengths, 32, np.random.default_rng(0))
    means = [np.mean([lengths[utt] for utt in batch]) for batch in batches]
    assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.35


def test_equal_lengths_are_purely_shuffled():
    lengths = {f"u{place:04d}": 500 for place in range(1000)}
    epochs = [random_batches(lengths, 10, np.random.default_rng(seed)) for seed in range(60)]
    # neighbours in the list of ids stand in one batch as often as chance has it: 9 of 999
    pairs = [(f"u{place:04d}", f"u{place + 1:04d}") for place in range(0, 1000, 2)]
    together = 0
    for batches in epochs:
        batch_of = {utt: number for number, batch in enumerate(batches) for utt in batch}
        together += sum(batch_of[one] == batch_of[other] for one, other in pairs)
    expected = 60 * 500 * 9 / 999
    assert abs(together - expected) < 5 * expected**0.5
    # and every utterance comes as early as it comes late
    places = np.zeros(1000)
    for batches in epochs:
        for place, utt in enumerate(utt for batch in batches for utt in batch):
            places[int(utt[1:])] += place / 60
    assert abs(np.corrcoef(np.arange(1000), places)[0, 1]) < 0.15
    assert places.std() < 2 * 1000 / 12**0.5 / 60**0.5


def test_chance_is_the_generators_alone():
    lengths = log_normal(200)
    first = random_batches(lengths, 8, np.random.default_rng([1, 1]))
    assert random_batches(lengths, 8, np.random.default_rng([1, 1])) == first
    backwards = dict(reversed(lengths.items()))
    assert random_batches(backwards, 8, np.random.default_rng([1, 1])) == first
    assert random_batches(lengths, 8, np.random.default_rng([1, 2])) != first


def test_sorted_batches_begin_with_the_longest():
    lengths = {"a": 3, "b": 9, "c": 3, "d": 10, "e": 1}
    assert sorted_batches(lengths, 2) == [["d", "b"], ["a", "c"], ["e"]]


def test_padding_share_by_hand():
    lengths = {"a": 10, "b": 6, "c": 5}
    assert padding_share([["a", "b"], ["c"]], lengths) == pytest.approx(4 / 25)
    assert padding_share([["a"], ["b"], ["c"]], lengths) == 0


def test_frames_are_padded_and_stacked():
    rng = np.random.default_rng(0)
    matrices = [rng.standard_normal((length, 3)).astype(np.float32) for length in (7, 1, 4)]
    words = torch.tensor([[1, 2], [3, 0], [4, 0]])
    batch = stack(["b", "c", "a"], matrices, [0, 1, 2], {"words": words})
    assert batch.utts == ["b", "c", "a"]
    assert (batch.frames.shape, batch.frames.dtype) == ((3, 7, 3), torch.float32)
    assert (batch.lengths.tolist(), batch.lengths.dtype) == ([7, 1, 4], torch.int64)
    assert (batch.targets.tolist(), batch.targets.dtype) == ([0, 1, 2], torch.int64)
    assert batch.extras == {"words": words}
    for matrix, row in zip(matrices, batch.frames.numpy(), strict=True):
        assert np.array_equal(row[: len(matrix)], matrix)
        assert not row[len(matrix) :].any()
