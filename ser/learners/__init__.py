"""What trains a model and then asks it: one learner for networks, one for scikit-learn's estimators.

`System.learner` says which one a system has; it follows from the model's module (ser/models/__init__.py). A learner is
a module with two functions and a class:

- `fit(run, resources)`: train the model of a run, and write what becomes of it into the run's folder, `done` last;
- `load(run, device, sizes)`: the model of a run that has ended, as a `Learned`.
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
    """device: "auto" (a GPU where there is one), "cpu" or "cuda". num_threads: processor cores; None: what torch takes
    by itself for a network, one for a classical model. checkpoint_seconds: between checkpoints within an epoch. What a
    learner has no use for it ignores."""

    device: str = "auto"
    num_threads: int | None = None
    checkpoint_seconds: float = 60


class Learned(Protocol):
    """A trained model. sizes: n_features and n_classes, and of a network what else its constructor takes."""

    sizes: dict[str, int]

    def posteriors(self, inputs: "Inputs", utts: Sequence[str]) -> "np.ndarray":
        """Posteriors (N, classes) of N utterances, in their order."""

    def about(self) -> dict[str, object]:
        """What the scores of its run say of its training, such as train_seconds."""


def fit(run: "Run", resources: Resources) -> None:
    """Train the model of a run to its end."""
    _learner(run).fit(run, resources)


def load(run: "Run", device: str = "auto", sizes: Mapping[str, int] | None = None) -> Learned:
    """The model of a run that has ended. Raises UserError where it is damaged, or not for inputs of `sizes`."""
    return _learner(run).load(run, device, sizes)


def _learner(run: "Run") -> ModuleType:
    return importlib.import_module(f"ser.learners.{run.system.learner}")
