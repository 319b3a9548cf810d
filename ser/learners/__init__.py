"""Training and prediction: one learner for networks, one for scikit-learn's estimators.

`System.learner` says which one a system uses; it follows from the model's module (ser/models/__init__.py). A learner is
a module with two functions and a class:

- `fit(run, resources)`: train the model of a run, and write the results into the run's folder, `done` last;
- `load(run, device, sizes)`: the model of a finished run, as a `Learned`.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

    from ser.reading import Inputs
    from ser.runs import Run


@dataclass(frozen=True)
class Resources:
    """device: "auto" (a GPU if there is one), "cpu" or "cuda". num_threads: processor cores; None: torch's default for
    a network, one for a classical model. checkpoint_seconds: time between checkpoints within an epoch. A learner
    ignores what it does not use."""

    device: str = "auto"
    num_threads: int | None = None
    checkpoint_seconds: float = 60


class Learned(Protocol):
    """A trained model. sizes: n_features, n_classes, and whatever else a network's constructor takes."""

    sizes: dict[str, int]

    def posteriors(self, inputs: "Inputs", utts: Sequence[str]) -> "np.ndarray":
        """Posteriors (N, classes) of N utterances, in their order."""

    def about(self) -> dict[str, object]:
        """Header lines about its training for the scores of its run, such as train_seconds."""


def fit(run: "Run", resources: Resources) -> None:
    """Train the model of a run until training ends."""
    _learner(run).fit(run, resources)


def load(run: "Run", device: str = "auto", sizes: Mapping[str, int] | None = None) -> Learned:
    """The model of a finished run. Raises UserError if it is damaged, or does not fit inputs of `sizes`."""
    return _learner(run).load(run, device, sizes)


def _learner(run: "Run") -> ModuleType:
    return importlib.import_module(f"ser.learners.{run.system.learner}")
