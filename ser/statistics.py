"""Intervals of mean metrics and tests between systems, with the speaker as the unit.

Utterances of a speaker are not independent, nor are runs that test the same speakers or share a seed. So what is
resampled are speakers and trainings. tests/test_statistics.py shows by simulation how often the intervals hold the
true value.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ser.summary import of_folds

if TYPE_CHECKING:
    from ser.scores import Scores

Measure = Callable[[np.ndarray], np.ndarray]  # confusion matrices (..., C, C) -> (...), as in ser.metrics

FEWEST = 5  # speakers, or folds, from which an interval can be had
DRAWS = 2000
DRAWS_OF_SIGNS = 99_999  # so that p after Holm's correction can be small
METHOD = (
    "95 % interval of the mean: Student's t times a standard error, whose variance is the sum of those of two "
    "bootstraps, one over the test speakers and one over the seeds (two-way clustering: Cameron, Gelbach and Miller, "
    "2011); where each of five or more folds was trained once, Student's t over folds, if that is wider than over "
    "speakers"
)


@dataclass(frozen=True)
class Interval:
    """mean: over folds, after averaging the runs of each; of `pooled`: over seeds, each with all folds together. half:
    half the width of its 95 % interval, or None.

    over: what the interval is over: "speakers and seeds", "speakers and folds", "folds", or "speakers" (one training);
    or else why there is none.
    """

    mean: float
    half: float | None
    over: str

    @property
    def is_of_one_training(self) -> bool:
        """Whether the interval leaves out how much another training would change."""
        return self.over == "speakers"

    def has(self, value: float) -> bool | None:
        """Whether a value lies within the interval; None if there is no interval."""
        return None if self.half is None else abs(value - self.mean) <= self.half


@dataclass(frozen=True)
class Tested:
    """The confusion matrices of one run. counts (S, C, C): one for each of its speakers. training: what its training
    shares with runs of other folds, such as those with other draws of `adapt`; empty: nothing."""

    fold: str
    seed: str
    speakers: list[str]
    counts: np.ndarray
    training: str = ""


def tested(runs: Sequence["Scores"], speakers: Mapping[str, str]) -> list[Tested]:
    """The confusion matrices of runs by speaker. Runs of a fold with the same posteriors count once: a seed that
    changes nothing is no other training. speakers: of each utterance; one that is not there counts as its own."""

    def by_speaker(scores: "Scores") -> Tested:
        of_utts = [speakers.get(utt, utt) for utt in scores.utts]
        names, numbers = np.unique(of_utts, return_inverse=True)
        counts = np.zeros((len(names), len(scores.classes), len(scores.classes)))
        np.add.at(counts, (numbers, scores.true, scores.predicted), 1)
        return Tested(scores.about["fold"], scores.about["seed"], list(names), counts, training_of(scores.about))

    return [run for of_fold in of_folds(runs, by_speaker) for run in of_fold]


def training_of(about: Mapping[str, str]) -> str:
    """The fold of the recordings that trained a run, which folds with other draws of the recordings that a system may
    adapt to share: stage 1 writes all folds of the first draw, then those of the second."""
    draws = json.loads(about.get("protocol settings", "{}")).get("adapt", {}).get("draws", 1)
    number, _, total = about["fold"].partition(" of ")
    return str((int(number) - 1) % (int(total) // draws) + 1) if draws > 1 else ""


def interval(
    runs: Sequence["Scores"], measure: Measure, speakers: Mapping[str, str], is_pooled: bool = False
) -> Interval:
    """Mean of a metric over some runs of one system under one protocol, and its 95 % interval.

    speakers: of each utterance; if it lacks one, there is no interval. is_pooled: the metric of the test utterances of
    all folds together, for each seed that every fold has. Raises ValueError without runs.
    """
    if not runs:
        raise ValueError("no runs")
    some = tested(runs, speakers)
    found = pooled(some, measure) if is_pooled else interval_of(some, measure)
    are_known = all(utt in speakers for scores in runs for utt in scores.utts)
    return found if are_known else Interval(found.mean, None, "the speakers are not known")


def interval_of(some: Sequence[Tested], measure: Measure) -> Interval:
    """The same for confusion matrices by speaker."""
    folds: dict[str, list[Tested]] = defaultdict(list)
    for run in some:
        folds[run.fold].append(run)
    values = [np.array([float(measure(run.counts.sum(0))) for run in of_fold]) for of_fold in folds.values()]
    means = [of_fold.mean() for of_fold in values]
    mean = float(np.mean(means))
    places: dict[str, set[str]] = defaultdict(set)  # the folds of each speaker
    for run in some:
        for speaker in run.speakers:
            places[speaker].add(run.fold)
    if len(places) < FEWEST:
        return Interval(mean, None, f"fewer than {FEWEST} speakers")
    are_apart = all(len(of_speaker) == 1 for of_speaker in places.values())
    seeds = {frozenset(run.seed for run in of_fold) for of_fold in folds.values()}
    has_seeds = len(seeds) == 1 and len(next(iter(seeds))) > 1
    if are_apart and not has_seeds and len(folds) >= FEWEST:
        # the speakers of a fold share its one training; few folds may be alike by chance, though speakers are not
        half = max(student(means), resampled(list(folds.values()), None, measure))
        return Interval(mean, half, "folds")
    if are_apart:
        trainings = [[run.seed for run in of_fold] for of_fold in folds.values()] if has_seeds else None
        over = "speakers and seeds" if has_seeds else "speakers"
    else:  # such as several random draws of the test utterances
        trainings = [[run.training or run.fold for run in of_fold] for of_fold in folds.values()]
        over = "speakers and folds"
    return Interval(mean, resampled(list(folds.values()), trainings, measure), over)


def pooled(some: Sequence[Tested], measure: Measure) -> Interval:
    """The same for the utterances of all folds together: the mean over seeds of the metric of a seed's folds as one. Of
    folds without a seed in common, the first run of each is taken."""
    folds: dict[str, dict[str, Tested]] = defaultdict(dict)
    for run in some:
        folds[run.fold][run.seed] = run
    common = set.intersection(*(set(of_fold) for of_fold in folds.values()))
    one_each = [next(iter(of_fold.values())) for of_fold in folds.values()]
    by_seed = [[of_fold[seed] for of_fold in folds.values()] for seed in sorted(common)] or [one_each]
    found = interval_of([joined(runs) for runs in by_seed], measure)
    if found.half is None or len(by_seed) > 1 or len(folds) < FEWEST:
        return found
    # each fold was trained once, as in interval_of; one speaker a fold gives the same draws twice
    as_units = [Tested(run.fold, run.seed, [run.fold], run.counts.sum(0, keepdims=True)) for run in by_seed[0]]
    over_folds = resampled([[joined(as_units)]], None, measure)
    return Interval(found.mean, max(found.half, over_folds), "folds")


def joined(runs: Sequence[Tested]) -> Tested:
    """The runs of several folds as one run of a single fold."""
    names = sorted({speaker for run in runs for speaker in run.speakers})
    counts = np.zeros((len(names), *runs[0].counts.shape[1:]))
    for run in runs:
        np.add.at(counts, [names.index(speaker) for speaker in run.speakers], run.counts)
    return Tested("all", runs[0].seed, names, counts)


def student(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of the mean of independent values, by Student's t."""
    from scipy import stats

    return float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)


def resampled(folds: Sequence[Sequence[Tested]], trainings: Sequence[Sequence[str]] | None, measure: Measure) -> float:
    """Half the width of the 95 % interval of a mean over folds: see METHOD.

    folds: the runs of each. trainings: the name of each run's training, such as its seed; None: only speakers are
    drawn. With few units a bootstrap is too narrow, so its variances are multiplied by n / (n - 1) and t replaces the
    normal distribution (Hesterberg, 2015, What Teachers Should Know About the Bootstrap, section 4). Cameron, Gelbach
    and Miller subtract the variance of the pairs of speaker and training, which is in both parts. Here it stays: the
    interval is rather too wide than too narrow.
    """
    from scipy import stats

    names = sorted({speaker for of_fold in folds for run in of_fold for speaker in run.speakers})
    number = {name: place for place, name in enumerate(names)}
    kinds = sorted({name for of_fold in trainings or [["only"]] for name in of_fold})

    def variance_of_mean(speakers: np.ndarray, drawn_kinds: np.ndarray) -> float:
        """Over draws. speakers, drawn_kinds (draws, N): how often each speaker and each training was drawn."""
        total, weights = 0.0, 0.0
        for place, of_fold in enumerate(folds):
            for column, run in enumerate(of_fold):
                drawn = speakers[:, [number[speaker] for speaker in run.speakers]]
                kind = kinds.index(trainings[place][column]) if trainings else 0
                weight = drawn.mean(1) * drawn_kinds[:, kind] / len(of_fold)
                total += weight * np.nan_to_num(measure(np.tensordot(drawn, run.counts, 1)))
                weights += weight
        return float(np.var(total / weights))

    random = np.random.default_rng(0)  # the same scores always give the same interval
    n, m = len(names), len(kinds)
    parts = [(variance_of_mean(draws(random, n), np.ones((DRAWS, m))) * n / (n - 1), n - 1)]
    if trainings:
        parts.append((variance_of_mean(np.ones((1, n)), draws(random, m)) * m / (m - 1), m - 1))
    variance = sum(part for part, _ in parts)
    if not variance:
        return 0.0
    degrees = variance**2 / sum(part**2 / degree for part, degree in parts)  # Satterthwaite, 1946
    return float(stats.t.ppf(0.975, degrees) * variance**0.5)


def draws(random: np.random.Generator, n: int) -> np.ndarray:
    """(DRAWS, n): how often each of n units is drawn, n times with replacement."""
    places = random.integers(0, n, (DRAWS, n)) + n * np.arange(DRAWS)[:, None]
    return np.bincount(places.ravel(), minlength=DRAWS * n).reshape(DRAWS, n)


@dataclass(frozen=True)
class Comparison:
    """difference: in WA, in per cent. p: of a paired permutation test by speaker; None with too few speakers, or if
    one is not known."""

    difference: float
    p: float | None


def compare(one: Mapping[str, float], other: Mapping[str, float], speakers: Mapping[str, str]) -> Comparison | None:
    """Compare two systems on the utterances that both have scored; None if there is none.

    one, other: for each utterance the share of its runs that are right. The signs of the speakers' summed differences
    are exchanged, since a speaker's utterances are not independent.
    """
    both = sorted(one.keys() & other.keys())
    if not both:
        return None
    of_speakers: dict[str, float] = defaultdict(float)
    for utt in both:
        of_speakers[speakers.get(utt, utt)] += one[utt] - other[utt]
    differences = np.array(list(of_speakers.values()))
    enough = all(utt in speakers for utt in both) and len(differences) >= FEWEST
    return Comparison(100 * float(differences.sum()) / len(both), paired_p(differences) if enough else None)


def paired_p(differences: np.ndarray) -> float:
    """p of a two-sided paired permutation test: how often the mean of the differences (N,) is at least as far from 0 if
    their signs are random. Exact for few differences, by DRAWS_OF_SIGNS draws for many."""
    from scipy import stats

    unlike = differences[differences != 0]  # the others have no sign
    if len(unlike) < 2:
        return 1.0
    with np.errstate(over="ignore"):  # of 2 ** N, which scipy compares with the number of draws
        test = stats.permutation_test(
            (unlike,),
            np.mean,
            permutation_type="samples",
            vectorized=True,
            n_resamples=DRAWS_OF_SIGNS,
            batch=10000,
            rng=0,
        )
    return float(test.pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm, 1979): the chance that any of the tests that are called significant
    is not stays below the level."""
    order = np.argsort(values, kind="stable")
    corrected = np.empty(len(values))
    steps = np.asarray(values, float)[order] * (len(values) - np.arange(len(values)))
    corrected[order] = np.minimum(1, np.maximum.accumulate(steps)) if len(values) else []
    return [float(value) for value in corrected]
