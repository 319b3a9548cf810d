"""Utterances of like length put together, padded and stacked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ser.archive import Features
from ser.normalisation import Statistics, normalise

SORTED_TOGETHER = 50  # batches: enough to leave little padding, few enough to keep an epoch random


@dataclass(frozen=True)
class Batch:
    """utts: ids. frames (B, T, D) float32, zero beyond each utterance's length; lengths (B,) and
    targets (B,), class numbers, int64."""

    utts: list[str]
    frames: Tensor
    lengths: Tensor
    targets: Tensor


def random_batches(lengths: Mapping[str, int], size: int, rng: np.random.Generator) -> list[list[str]]:
    """Every utterance once, in random batches of `size` and like lengths (the last may be smaller).

    Shuffled utterances are sorted by length within stretches of SORTED_TOGETHER batches; then the
    order of the batches is shuffled.
    """
    utts = sorted(lengths)
    shuffled = [utts[place] for place in rng.permutation(len(utts))]
    batches = []
    for start in range(0, len(shuffled), size * SORTED_TOGETHER):
        stretch = sorted(shuffled[start : start + size * SORTED_TOGETHER], key=lambda utt: lengths[utt])
        batches += [stretch[i : i + size] for i in range(0, len(stretch), size)]
    return [batches[place] for place in rng.permutation(len(batches))]


def sorted_batches(lengths: Mapping[str, int], size: int) -> list[list[str]]:
    """Every utterance once, longest first: for evaluation, and where memory runs out it does at once."""
    utts = sorted(lengths, key=lambda utt: (-lengths[utt], utt))
    return [utts[i : i + size] for i in range(0, len(utts), size)]


def padding_share(batches: Sequence[Sequence[str]], lengths: Mapping[str, int]) -> float:
    """Share of the frames of padded batches that are padding."""
    real = sum(lengths[utt] for batch in batches for utt in batch)
    padded = sum(len(batch) * max(lengths[utt] for utt in batch) for batch in batches)
    return 1 - real / padded


def load(utts: list[str], features: Features, statistics: Statistics, targets: Mapping[str, int]) -> Batch:
    """Read, normalise, pad and stack the features of some utterances."""
    matrices = [normalise(features[utt], statistics) for utt in utts]
    frames = np.zeros((len(utts), max(map(len, matrices)), matrices[0].shape[1]), np.float32)
    for row, matrix in zip(frames, matrices, strict=True):
        row[: len(matrix)] = matrix
    lengths = torch.tensor([len(matrix) for matrix in matrices])
    return Batch(utts, torch.from_numpy(frames), lengths, torch.tensor([targets[utt] for utt in utts]))
