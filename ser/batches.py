"""Batches of utterances of similar length, padded and stacked."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

MOST_PADDING = 0.09  # maximum share of an epoch's frames


@dataclass(frozen=True)
class Batch:
    """utts: ids. frames (B, T, D) float32, zero beyond each utterance's length; lengths (B,) and targets (B,),
    class numbers, int64. extras: the network's other inputs, by name (ser/inputs/__init__.py)."""

    utts: list[str]
    frames: Tensor
    lengths: Tensor
    targets: Tensor
    extras: dict[str, Tensor] = field(default_factory=dict)


def random_batches(lengths: Mapping[str, int], size: int, rng: np.random.Generator) -> list[list[str]]:
    """Every utterance once, in random batches of `size` (the last may be smaller) of similar lengths.

    Shuffled utterances are sorted by length within stretches; then the batches are shuffled. Emotions differ in length
    (sad speech is slow), so fully sorted batches do not represent the corpus, which biases batch normalisation and
    gradients. Stretches are therefore the shortest, doubling from one batch, with at most MOST_PADDING of padding.
    """
    utts = sorted(lengths)
    shuffled = [utts[place] for place in rng.permutation(len(utts))]
    stretch = size
    while True:
        batches = []
        for start in range(0, len(shuffled), stretch):
            alike = sorted(shuffled[start : start + stretch], key=lambda utt: lengths[utt])
            batches += [alike[i : i + size] for i in range(0, len(alike), size)]
        if stretch >= len(shuffled) or padding_share(batches, lengths) <= MOST_PADDING:
            return [batches[place] for place in rng.permutation(len(batches))]
        stretch *= 2


def balanced_batches(targets: Mapping[str, int], size: int, rng: np.random.Generator) -> list[list[str]]:
    """Batches of `size` (the last may be smaller) with equally many utterances of each class, give or take one.

    targets: {utt: class number}. An epoch draws as many utterances as there are. Classes take turns; a class whose
    utterances are used up starts again in a new random order. So utterances of small classes are drawn several times,
    and some of large classes not at all.
    """
    classes: dict[int, list[str]] = {}
    for utt in sorted(targets):
        classes.setdefault(targets[utt], []).append(utt)
    waiting: dict[int, list[str]] = {number: [] for number in sorted(classes)}
    drawn = []
    for number in itertools.islice(itertools.cycle(waiting), len(targets)):
        if not waiting[number]:
            waiting[number] = rng.permutation(classes[number]).tolist()
        drawn.append(waiting[number].pop())
    return [drawn[i : i + size] for i in range(0, len(drawn), size)]


def sorted_batches(lengths: Mapping[str, int], size: int) -> list[list[str]]:
    """Every utterance once, longest first, for evaluation: if memory is too small, it runs out at once."""
    utts = sorted(lengths, key=lambda utt: (-lengths[utt], utt))
    return [utts[i : i + size] for i in range(0, len(utts), size)]


def padding_share(batches: Sequence[Sequence[str]], lengths: Mapping[str, int]) -> float:
    """Share of padding among the frames of padded batches."""
    real = sum(lengths[utt] for batch in batches for utt in batch)
    padded = sum(len(batch) * max(lengths[utt] for utt in batch) for batch in batches)
    return 1 - real / padded


def stack(
    utts: list[str], matrices: Sequence[np.ndarray], targets: Sequence[int], extras: Mapping[str, Tensor]
) -> Batch:
    """Pad and stack the frames (T, D) of some utterances."""
    frames = np.zeros((len(utts), max(map(len, matrices)), matrices[0].shape[1]), np.float32)
    for row, matrix in zip(frames, matrices, strict=True):
        row[: len(matrix)] = matrix
    lengths = torch.tensor([len(matrix) for matrix in matrices])
    return Batch(utts, torch.from_numpy(frames), lengths, torch.tensor(targets), dict(extras))
