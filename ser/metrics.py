"""Metrics computed from confusion matrices, confidence intervals and significance tests.

To add a metric, change only this file: a function of a confusion matrix, and a line in METRICS. Training then logs it
for the development set, `monitor: dev_<name>` selects by it, and RESULTS.md can report it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


def confusion_matrix(true: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Counts (C, C): row the true class, column the predicted one. true, predicted: (N,) class numbers."""
    counts = np.zeros((n_classes, n_classes), int)
    np.add.at(counts, (true, predicted), 1)
    return counts


def wa(confusion: np.ndarray) -> float:
    """Weighted accuracy: the share of utterances that are classified correctly, in per cent."""
    return 100 * float(np.trace(confusion) / confusion.sum())


def ua(confusion: np.ndarray) -> float:
    """Unweighted accuracy (UAR): the mean recall of the classes that have utterances, in per cent."""
    present = confusion.sum(1) > 0
    return 100 * float(np.mean(np.diag(confusion)[present] / confusion.sum(1)[present]))


def macro_f1(confusion: np.ndarray) -> float:
    """Mean F1 of the classes that occur as true or predicted class, in per cent, as in scikit-learn's f1_score."""
    sizes = confusion.sum(0) + confusion.sum(1)
    return 100 * float(np.mean(2 * np.diag(confusion)[sizes > 0] / sizes[sizes > 0]))


class Metric(NamedTuple):
    """title: used in tables. of: confusion matrix (C, C) -> per cent, higher is better."""

    title: str
    of: Callable[[np.ndarray], float]


METRICS = {"wa": Metric("WA", wa), "ua": Metric("UA", ua), "f1": Metric("macro-F1", macro_f1)}

COLLAPSE = "more than half of the utterances of other classes are predicted as {0}"


def collapse(confusion: np.ndarray) -> int | None:
    """Number of the class that more than half of the other classes' utterances are predicted as, if there is one."""
    wrongly = confusion.sum(0) - np.diag(confusion)
    others = confusion.sum() - confusion.sum(1)
    taken = np.flatnonzero(2 * wrongly > others)
    return int(taken[0]) if len(taken) else None


def half_interval(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of the mean of two or more values, by Student's t."""
    from scipy import stats

    return float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)


def paired_p(differences: np.ndarray) -> float:
    """p of a two-sided paired permutation test: how often the mean of the differences (N,) is at least as far from 0 if
    their signs are random. Exact for few differences, by 9999 draws for many."""
    from scipy import stats

    unlike = differences[differences != 0]  # the others have no sign
    if len(unlike) < 2:
        return 1.0
    with np.errstate(over="ignore"):  # of 2 ** N, which scipy compares with the number of draws
        test = stats.permutation_test(
            (unlike,), np.mean, permutation_type="samples", vectorized=True, batch=1000, rng=0
        )
    return float(test.pvalue)
