"""Whether posteriors are as often right as they say: calibration error, Brier score, reliability.

Confidence is the posterior of the predicted class, the one with the largest posterior.
"""

from typing import NamedTuple

import numpy as np

N_BINS = 15  # as in table 1 of Guo et al.


class Bins(NamedTuple):
    """Utterances in M bins of confidence. edges (M + 1,): a bin lies above its lower edge and includes its upper one.
    counts (M,): utterances. confidence (M,): their mean confidence. accuracy (M,): the share of them that are right.
    Both are from 0 to 1, and NaN for a bin without utterances."""

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def reliability(posteriors: np.ndarray, true: np.ndarray, n_bins: int = N_BINS) -> Bins:
    """Sort utterances into `n_bins` bins of confidence, equally wide from 0 to 1 (Guo et al., 2017, section 2).

    posteriors: (N, C). true: (N,) class numbers.
    """
    confidence = posteriors.max(1)
    right = posteriors.argmax(1) == true
    edges = np.linspace(0, 1, n_bins + 1)
    places = np.digitize(confidence, edges[1:-1], right=True)
    counts = np.bincount(places, minlength=n_bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 of an empty bin
        return Bins(
            edges,
            counts,
            np.bincount(places, confidence, n_bins) / counts,
            np.bincount(places, right, n_bins) / counts,
        )


def ece(posteriors: np.ndarray, true: np.ndarray, n_bins: int = N_BINS) -> float:
    """Expected calibration error, in percentage points: the distance between accuracy and mean confidence of a bin,
    averaged over the utterances (Guo et al., "On calibration of modern neural networks", 2017, equation 3).

    posteriors: (N, C). true: (N,) class numbers. With few utterances it is too large: even exact posteriors do not
    give 0 (Roelofs et al., "Mitigating bias in calibration error estimation", 2022).
    """
    bins = reliability(posteriors, true, n_bins)
    distances = np.abs(bins.accuracy - bins.confidence)
    return 100 * float(np.nansum(bins.counts * distances) / bins.counts.sum())


def brier(posteriors: np.ndarray, true: np.ndarray) -> float:
    """Brier score, from 0 (every posterior is right) to 2: the squared differences between the posteriors and 1 for the
    true class, 0 for the others, summed over classes, averaged over utterances (Brier, "Verification of forecasts
    expressed in terms of probability", 1950, equation 2).

    posteriors: (N, C). true: (N,) class numbers.
    """
    truth = np.eye(posteriors.shape[1])[true]
    return float(((posteriors - truth) ** 2).sum(1).mean())
