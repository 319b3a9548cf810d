"""Speakers: the number of each utterance's speaker, for networks that also learn to recognise speakers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from ser.folds import Fold
    from ser.runs import Run


class Speakers:
    """numbers: the speaker's number for every utterance; -1 for speakers outside the training part."""

    def __init__(self, numbers: Mapping[str, int]) -> None:
        self.numbers = numbers
        self.sizes = {"n_speakers": max(numbers.values()) + 1}

    def of(self, utts: Sequence[str]) -> "dict[str, Tensor]":
        """speakers (B,)."""
        import torch

        return {"speakers": torch.tensor([self.numbers[utt] for utt in utts])}


def check(run: "Run") -> None:
    """Nothing to check: every data directory has utt2spk."""


def checksums(run: "Run") -> dict[str, str | None]:
    """Nothing to add: speakers are part of every run's identity."""
    return {}


def read(run: "Run", fold: "Fold") -> Speakers:
    """Number the speakers of the training part in order of their names."""
    from ser.identity import table_of

    utt2spk = table_of(run.data / "utt2spk")
    names = sorted({utt2spk[fold.sources[utt]] for utt in fold.train})
    numbers = {name: number for number, name in enumerate(names)}
    return Speakers({utt: numbers.get(utt2spk[source], -1) for utt, source in fold.sources.items()})
