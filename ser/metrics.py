"""WA and UA, from counts."""

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
