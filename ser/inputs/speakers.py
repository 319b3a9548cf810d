"""Who speaks: the number of each utterance's speaker, for networks that learn to tell speakers too."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ser.datadir import read_table

if TYPE_CHECKING:
    from torch import Tensor

    from ser.folds import Fold
    from ser.runs import Run


class Speakers:
    """numbers: of the speaker of every utterance; below 0 for a speaker who does not train."""

    def __init__(self, numbers: Mapping[str, int]) -> None:
        self.numbers = numbers
        self.sizes = {"n_speakers": max(numbers.values()) + 1}

    def of(self, utts: Sequence[str]) -> "dict[str, Tensor]":
        """speakers (B,)."""
        import torch

        return {"speakers": torch.tensor([self.numbers[utt] for utt in utts])}


def check(run: "Run") -> None:
    """utt2spk is there in every data directory."""


def checksums(run: "Run") -> dict[str, str | None]:
    """None of its own: speakers are part of every run's identity."""
    return {}


def read(run: "Run", fold: "Fold") -> Speakers:
    """Speakers who train are numbered by name."""
    utt2spk = read_table(run.data / "utt2spk", fold.sources.values())
    names = sorted({utt2spk[fold.sources[utt]] for utt in fold.train})
    numbers = {name: number for number, name in enumerate(names)}
    return Speakers({utt: numbers.get(utt2spk[source], -1) for utt, source in fold.sources.items()})
