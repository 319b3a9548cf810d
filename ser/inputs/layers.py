"""Layers: of how many layers of a pretrained encoder the frames hold the states, for networks that weigh the layers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from ser.folds import Fold
    from ser.runs import Run


class Count:
    """The number of layers, which is the same for all utterances."""

    def __init__(self, number: int) -> None:
        self.sizes = {"n_layers": number}

    def of(self, utts: Sequence[str]) -> "dict[str, Tensor]":
        """Nothing: the states are in the frames."""
        return {}


def check(run: "Run") -> None:
    """Nothing to check: the system says it."""


def checksums(run: "Run") -> dict[str, str | None]:
    """Nothing to add: the feature's settings are part of every run's identity."""
    return {}


def read(run: "Run", fold: "Fold") -> Count:
    """The number of layers of the system's feature; 1 for one that is not an encoder's, such as logmel."""
    return Count(len(getattr(run.system.feature, "layers", [0])))
