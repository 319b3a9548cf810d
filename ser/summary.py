"""Summary of the runs of a system under a protocol: counts, and means over folds."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from ser import metrics
from ser.results import Runs
from ser.scores import Scores

Value = TypeVar("Value")


def confusion_of(scores: Scores) -> np.ndarray:
    """Counts (C, C) of a run."""
    return metrics.confusion_matrix(scores.true, scores.predicted, len(scores.classes))


def rights(runs: Runs) -> dict[str, float]:
    """For each utterance, the share of the runs testing it that classified it correctly."""
    answers = defaultdict(list)
    for scores in runs.values():
        for utt, right in zip(scores.utts, scores.true == scores.predicted, strict=True):
            answers[utt].append(right)
    return {utt: float(np.mean(right)) for utt, right in answers.items()}


def n_runs(runs: Sequence[Scores]) -> str:
    """Number of runs of one system under one protocol; of their folds if some are missing; and of seeds if each fold
    could have several."""
    found, total = n_folds(runs)
    seeds = len({scores.about["seed"] for scores in runs})
    remarks = [f"{found} of {total} folds"] * (found < total) + [f"{seeds} seeds"] * (total > 1 and seeds > 1)
    return f"{len(runs)}" + (f" ({', '.join(remarks)})" if remarks else "")


def n_folds(runs: Sequence[Scores]) -> tuple[int, int]:
    """How many folds some runs of one system under one protocol have, and how many the protocol has; 0, 0 without
    runs."""
    totals = [int(scores.about["fold"].split(" of ")[1]) for scores in runs]
    return len({scores.about["fold"] for scores in runs}), max(totals, default=0)


def of_folds(runs: Sequence[Scores], measure: Callable[[Scores], Value]) -> list[list[Value]]:
    """What is measured of runs, one list per fold with a value per run. Runs of a fold with the same posteriors count
    once: a seed that changes nothing adds no evidence."""
    values: dict[str, dict[bytes, Value]] = defaultdict(dict)
    for scores in runs:
        values[scores.about["fold"]].setdefault(scores.posteriors.tobytes(), measure(scores))
    return [list(of_fold.values()) for of_fold in values.values()]


def mean_of(values: Sequence[Sequence[float]]) -> float:
    """The mean over folds of the mean over each fold's seeds. values: as of_folds returns them."""
    means = [sum(of_fold) / len(of_fold) for of_fold in values]
    return sum(means) / len(means)
