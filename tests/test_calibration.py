"""Calibration, against scikit-learn, by hand, and on predictors whose calibration is known."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from ser import calibration


def drawn(number, n_classes, seed=0):
    """Posteriors (N, C), and true classes (N,) that are drawn from them: they are calibrated."""
    rng = np.random.default_rng(seed)
    posteriors = rng.dirichlet(np.ones(n_classes), number)
    true = (posteriors.cumsum(1) < rng.random((number, 1))).sum(1)
    return posteriors, true


@pytest.mark.parametrize("n_classes", [2, 4, 8])
@pytest.mark.parametrize("n_bins", [3, 10, 15])
def test_reliability_is_scikit_learns(n_classes, n_bins):
    posteriors, true = drawn(300, n_classes)
    true[::3] = 0  # no longer calibrated
    bins = calibration.reliability(posteriors, true, n_bins)
    right = posteriors.argmax(1) == true
    accuracy, confidence = calibration_curve(right, posteriors.max(1), n_bins=n_bins)
    filled = bins.counts > 0
    np.testing.assert_allclose(bins.accuracy[filled], accuracy)
    np.testing.assert_allclose(bins.confidence[filled], confidence)
    assert np.isnan(bins.accuracy[~filled]).all() and np.isnan(bins.confidence[~filled]).all()
    assert bins.counts.sum() == 300 and len(bins.edges) == n_bins + 1


def test_by_hand():
    posteriors = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    true = np.array([0, 1, 1, 1])
    bins = calibration.reliability(posteriors, true, 4)  # 0.6 and 0.7; 0.8 and 0.9
    assert bins.counts.tolist() == [0, 0, 2, 2]
    np.testing.assert_allclose(bins.confidence[2:], [0.65, 0.85])
    np.testing.assert_allclose(bins.accuracy[2:], [1, 0.5])
    assert calibration.ece(posteriors, true, 4) == pytest.approx(100 * (2 * 0.35 + 2 * 0.35) / 4)
    assert calibration.brier(posteriors, true) == pytest.approx(2 * (0.1**2 + 0.8**2 + 0.3**2 + 0.4**2) / 4)


def test_a_bin_includes_its_upper_edge():
    """As in Guo et al., so that a confidence of 1 has a bin."""
    posteriors = np.array([[0.5, 0.5], [0.75, 0.25], [1.0, 0.0]])
    assert calibration.reliability(posteriors, np.zeros(3, int), 4).counts.tolist() == [0, 1, 1, 1]


def test_brier_of_two_classes_is_twice_scikit_learns():
    """Scikit-learn's has the difference of one class only."""
    posteriors, true = drawn(200, 2)
    assert calibration.brier(posteriors, true) == pytest.approx(2 * brier_score_loss(true, posteriors[:, 1]))


@pytest.mark.parametrize("n_classes", [2, 7])
def test_certain_predictors(n_classes):
    true = np.arange(40) % n_classes
    certain = np.eye(n_classes)
    assert calibration.ece(certain[true], true) == calibration.brier(certain[true], true) == 0
    wrong = certain[(true + 1) % n_classes]
    assert (calibration.ece(wrong, true), calibration.brier(wrong, true)) == (100, 2)


@pytest.mark.parametrize("n_classes", [2, 7])
def test_a_calibrated_predictor(n_classes):
    posteriors, true = drawn(200_000, n_classes)
    assert calibration.ece(posteriors, true) < 0.5
    # of exact posteriors, the mean over utterances of 1 - sum p^2
    assert calibration.brier(posteriors, true) == pytest.approx((1 - (posteriors**2).sum(1)).mean(), abs=0.005)


def test_too_sure_a_predictor():
    """Its confidence is 30 points above its accuracy."""
    rng = np.random.default_rng(0)
    right = rng.random(100_000) < 0.6
    posteriors = np.tile([0.9, 0.1], (100_000, 1))
    assert calibration.ece(posteriors, np.where(right, 0, 1)) == pytest.approx(30, abs=0.5)


def test_few_utterances_make_the_error_of_a_calibrated_predictor_larger():
    small = [calibration.ece(*drawn(240, 7, seed)) for seed in range(50)]
    assert 4 < np.mean(small) < 15
