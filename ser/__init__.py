"""Recipes for speech emotion recognition: what the stages of egs/*/run.sh call.

From Python: `load` gives a trained model to ask; `ser.folds.read_fold` and `ser.archive.Features` give a fold's
utterances, classes and features, as for scikit-learn.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ser.trained import Model

__version__ = "0.1.0"


def load(folder: "str | Path", device: str = "auto") -> "Model":
    """The trained model of a run, by its folder exp/<system>/<protocol>/<run> or a copy of it; see ser.trained.Model.

    device: "auto" (a GPU where there is one), "cpu" or "cuda".
    """
    from ser.trained import Model  # what takes long to import

    return Model(folder, device)
