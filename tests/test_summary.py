"""What is measured of runs, by fold."""

import numpy as np

from ser.scores import Scores
from ser.summary import mean_of, of_folds


def run(fold, posteriors):
    numbers = np.zeros(len(posteriors), int)
    utts = [f"u-{place}" for place in range(len(posteriors))]
    return Scores({"fold": f"{fold} of 3"}, ["a", "b"], utts, numbers, numbers, np.array(posteriors))


def test_runs_with_the_same_posteriors_count_once_in_a_fold():
    one, other = [[0.5, 0.5]], [[0.25, 0.75]]
    runs = [run(1, one), run(1, one), run(1, other), run(3, one)]
    assert of_folds(runs, lambda scores: scores.posteriors[0, 1]) == [[0.5, 0.75], [0.5]]
    assert mean_of([[0.5, 0.75], [0.5]]) == (0.625 + 0.5) / 2
