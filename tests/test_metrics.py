"""Metrics, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from ser import metrics


@pytest.mark.parametrize("n_classes", [2, 4, 7])
@pytest.mark.parametrize("skill", [0, 0.6, 1])
def test_as_scikit_learn_has_them(n_classes, skill):
    rng = np.random.default_rng(n_classes)
    true = rng.choice(n_classes, 500, p=rng.dirichlet(np.full(n_classes, 2)))  # classes of unlike size
    predicted = np.where(rng.random(500) < skill, true, rng.integers(n_classes, size=500))
    assert set(true) == set(range(n_classes))
    confusion = metrics.confusion_matrix(true, predicted, n_classes)
    assert np.array_equal(confusion, sklearn_metrics.confusion_matrix(true, predicted, labels=range(n_classes)))
    assert metrics.wa(confusion) == pytest.approx(100 * sklearn_metrics.accuracy_score(true, predicted))
    assert metrics.ua(confusion) == pytest.approx(100 * sklearn_metrics.recall_score(true, predicted, average="macro"))
    f1 = 100 * sklearn_metrics.f1_score(true, predicted, average="macro")
    assert metrics.macro_f1(confusion) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("confusion", "number"),
    [
        ([[10, 0, 0], [0, 10, 0], [0, 0, 10]], None),
        ([[10, 0, 0], [10, 0, 0], [10, 0, 0]], 0),
        ([[4, 6, 0], [0, 10, 0], [0, 4, 6]], None),  # half of the others', not more
        ([[4, 6, 0], [0, 10, 0], [0, 5, 5]], 1),
        ([[0, 0, 1], [0, 0, 0], [0, 0, 90]], 2),  # whatever its own number
        ([[0, 0, 0], [0, 9, 0], [0, 0, 0]], None),  # there are no others
    ],
)
def test_a_class_that_takes_over(confusion, number):
    assert metrics.collapse(np.array(confusion)) == number


def test_by_hand():
    confusion = np.array([[3, 1], [0, 1]])  # 4 of 5 right; recalls 3/4 and 1
    assert metrics.wa(confusion) == pytest.approx(80)
    assert metrics.ua(confusion) == pytest.approx(87.5)
    assert metrics.macro_f1(confusion) == pytest.approx((600 / 7 + 200 / 3) / 2)


@pytest.mark.parametrize(("true", "predicted"), [([0, 0, 2, 2], [0, 2, 2, 2]), ([0, 0, 2], [0, 1, 2]), ([0], [1])])
def test_macro_f1_of_classes_that_are_absent_is_scikit_learns(true, predicted):
    confusion = metrics.confusion_matrix(np.array(true), np.array(predicted), 4)
    f1 = 100 * sklearn_metrics.f1_score(true, predicted, average="macro", zero_division=0)
    assert metrics.macro_f1(confusion) == pytest.approx(f1)


def test_metrics_are_named_by_their_titles():
    perfect = np.diag([3, 1])
    titles = {name: metric.title for name, metric in metrics.METRICS.items()}
    assert titles.items() >= {"wa": "WA", "ua": "UA", "f1": "macro-F1"}.items()
    assert {metric.of(perfect) for metric in metrics.METRICS.values()} == {100}


def test_a_class_without_utterances_has_no_recall():
    true, predicted = np.array([0, 0, 2]), np.array([0, 1, 2])
    confusion = metrics.confusion_matrix(true, predicted, 4)
    assert confusion.shape == (4, 4)
    assert metrics.ua(confusion) == pytest.approx(75)
    assert metrics.wa(confusion) == pytest.approx(200 / 3)


def test_many_matrices_at_once_give_what_each_gives_alone():
    random = np.random.default_rng(9)
    counts = random.integers(0, 5, (4, 3, 5, 5))
    counts[0, 0, 2] = 0  # a class without utterances
    counts[1, 1] = 0  # no utterances at all
    for metric in metrics.METRICS.values():
        values = metric.of(counts)
        assert values.shape == (4, 3)
        assert np.isnan(values[1, 1])
        for place in np.ndindex(4, 3):
            assert metric.of(counts[place]) == pytest.approx(values[place], nan_ok=True)
