"""WA and UA, from counts; how sure a mean is, and a difference."""

from collections.abc import Sequence

import numpy as np


def confusion_matrix(true: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Counts (C, C): row the true class, column the predicted one. true, predicted: (N,) class numbers."""
    counts = np.zeros((n_classes, n_classes), int)
    np.add.at(counts, (true, predicted), 1)
    return counts


def wa(confusion: np.ndarray) -> float:
    """Weighted accuracy: the share of all utterances that are right, in per cent."""
    return 100 * float(np.trace(confusion) / confusion.sum())


def ua(confusion: np.ndarray) -> float:
    """Unweighted accuracy (UAR): the mean recall of the classes that have utterances, in per cent."""
    present = confusion.sum(1) > 0
    return 100 * float(np.mean(np.diag(confusion)[present] / confusion.sum(1)[present]))


COLLAPSE = "{} takes over: more than half of the utterances of other classes are taken for it"


def collapse(confusion: np.ndarray) -> int | None:
    """The class (number) that more than half of the other classes' utterances are taken for, if one is."""
    wrongly = confusion.sum(0) - np.diag(confusion)
    others = confusion.sum() - confusion.sum(1)
    taken = np.flatnonzero(2 * wrongly > others)
    return int(taken[0]) if len(taken) else None


def half_interval(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of the mean of two values or more, by Student's t."""
    from scipy import stats

    return float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)


def paired_p(differences: np.ndarray) -> float:
    """How often a mean as far from 0 comes up where each of the differences (N,) has its sign by chance:
    a two-sided paired permutation test, exact for few differences, by 9999 draws for many."""
    from scipy import stats

    unlike = differences[differences != 0]  # the others have no sign
    if len(unlike) < 2:
        return 1.0
    with np.errstate(over="ignore"):  # of 2 ** N, which scipy compares with the number of draws
        test = stats.permutation_test(
            (unlike,), np.mean, permutation_type="samples", vectorized=True, batch=1000, rng=0
        )
    return float(test.pvalue)
