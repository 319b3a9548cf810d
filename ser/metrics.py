"""Metrics computed from confusion matrices.

To add a metric, change only this file: a function of confusion matrices, and a line in METRICS. Training then logs it
for the development set, `monitor: dev_<name>` selects by it, and RESULTS.md can report it.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


def confusion_matrix(true: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Counts (C, C): row the true class, column the predicted one. true, predicted: (N,) class numbers."""
    counts = np.zeros((n_classes, n_classes), int)
    np.add.at(counts, (true, predicted), 1)
    return counts


def wa(confusion: np.ndarray) -> np.ndarray:
    """Weighted accuracy: the share of utterances that are classified correctly, in per cent. nan without utterances.

    As the other metrics: of one confusion matrix (C, C) a number, of several (..., C, C) an array (...).
    """
    return 100 * _share(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum((-2, -1)))


def ua(confusion: np.ndarray) -> np.ndarray:
    """Unweighted accuracy (UAR): the mean recall of the classes that have utterances, in per cent."""
    sizes = confusion.sum(-1)
    return 100 * _mean_of_classes(_share(_right(confusion), sizes), sizes > 0)


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Mean F1 of the classes that occur as true or predicted class, in per cent, as in scikit-learn's f1_score."""
    sizes = confusion.sum(-2) + confusion.sum(-1)
    return 100 * _mean_of_classes(_share(2 * _right(confusion), sizes), sizes > 0)


def _right(confusion: np.ndarray) -> np.ndarray:
    """(..., C): how many utterances of each class are classified correctly."""
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and nan where whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)[()]


def _mean_of_classes(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    """The mean of values (..., C) over the classes that are present (..., C); nan if none is."""
    return _share(np.where(present, values, 0).sum(-1), present.sum(-1))


class Metric(NamedTuple):
    """title: used in tables. of: confusion matrices (..., C, C) -> per cent (...), higher is better."""

    title: str
    of: Callable[[np.ndarray], np.ndarray]


METRICS = {"wa": Metric("WA", wa), "ua": Metric("UA", ua), "f1": Metric("macro-F1", macro_f1)}

COLLAPSE = "more than half of the utterances of other classes are predicted as {0}"


def collapse(confusion: np.ndarray) -> int | None:
    """Number of the class that more than half of the other classes' utterances are predicted as, if there is one."""
    wrongly = confusion.sum(0) - np.diag(confusion)
    others = confusion.sum() - confusion.sum(1)
    taken = np.flatnonzero(2 * wrongly > others)
    return int(taken[0]) if len(taken) else None
