"""Intervals and tests by speaker, against scipy, a simulation, and sums by hand."""

import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import recall_score

from ser import metrics, statistics
from ser.scores import Scores


def run(fold, seed, right, speakers, n_folds=1):
    """A run as `statistics.tested` makes it. right (S, U): for each speaker, which of its utterances are right; every
    other utterance is of class 0."""
    right = np.asarray(right, int)
    counts = np.zeros((len(right), 2, 2))
    for true in (0, 1):
        of_class = right[:, true::2]
        counts[:, true, true] = of_class.sum(1)
        counts[:, true, 1 - true] = (1 - of_class).sum(1)
    return statistics.Tested(f"{fold} of {n_folds}", str(seed), list(speakers), counts)


def simulated(random, n_folds, per_fold, seeds, mean=0.6, of_seed=0.02):
    """Runs whose chance of being right differs by speaker, by seed (the same in all folds), by run, and by speaker and
    run."""
    runs = []
    of_seeds = random.normal(0, of_seed, seeds)
    for fold in range(1, n_folds + 1):
        speakers = [f"s{fold}-{number}" for number in range(per_fold)]
        of_speakers = random.normal(0, 0.08, per_fold)
        for seed in range(seeds):
            both = random.normal(0, 0.02, per_fold)
            chance = np.clip(mean + of_speakers + of_seeds[seed] + random.normal(0, 0.02) + both, 0, 1)
            right = random.random((per_fold, 60)) < chance[:, None]
            runs.append(run(fold, seed, right, speakers, n_folds))
    return runs


@pytest.mark.parametrize(
    ("design", "over"),
    [((1, 24, 5), "speakers and seeds"), ((6, 4, 3), "speakers and seeds"), ((1, 10, 3), "speakers and seeds")],
)
def test_the_interval_holds_the_true_mean_where_speakers_and_seeds_vary_and_students_t_over_runs_does_not(
    design, over, monkeypatch
):
    monkeypatch.setattr(statistics, "DRAWS", 300)
    random = np.random.default_rng(20)
    hits, hits_of_runs = [], []
    for _ in range(700):
        runs = simulated(random, *design)
        found = statistics.interval_of(runs, metrics.wa)
        assert found.over == over
        hits.append(found.has(60))
        values = [metrics.wa(one.counts.sum(0)) for one in runs]
        hits_of_runs.append(abs(np.mean(values) - 60) <= statistics.student(values))
    assert 0.93 <= np.mean(hits) <= 0.97
    assert np.mean(hits_of_runs) < 0.91


def test_over_speakers_it_is_that_of_the_speakers_mean():
    """One run, equally many utterances of each speaker: WA is the mean of the speakers' WA."""
    right = np.random.default_rng(3).random((12, 40)) < np.linspace(0.3, 0.9, 12)[:, None]
    found = statistics.interval_of([run(1, 1, right, "abcdefghijkl")], metrics.wa)
    values = 100 * right.mean(1)
    low, high = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    assert (found.over, found.is_of_one_training) == ("speakers", True)
    assert found.mean == pytest.approx(values.mean())
    assert found.half == pytest.approx((high - low) / 2, rel=0.05)


def test_where_only_seeds_differ_it_is_that_of_the_seeds():
    rows = [np.arange(20) < number for number in (10, 12, 14, 15, 18)]
    runs = [run(1, seed, [row] * 6, "abcdef") for seed, row in enumerate(rows)]
    values = [100 * row.mean() for row in rows]
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    found = statistics.interval_of(runs, metrics.wa)
    assert found.half == pytest.approx((high - low) / 2, rel=0.05)


def test_folds_that_were_trained_once_are_the_units():
    random = np.random.default_rng(4)
    runs = []
    for fold in range(1, 7):
        chance = np.full((4, 30), random.normal(0.6, 0.2))
        runs.append(run(fold, 1, random.random((4, 30)) < chance, [f"{fold}-{i}" for i in range(4)], 6))
    values = [metrics.wa(one.counts.sum(0)) for one in runs]
    low, high = stats.t.interval(0.95, 5, np.mean(values), stats.sem(values))
    found = statistics.interval_of(runs, metrics.wa)
    assert (found.over, found.half) == ("folds", pytest.approx((high - low) / 2))
    # folds that are alike by chance do not hide that speakers differ
    alike = [run(fold, 1, [[1] * 9 + [0], [0] * 9 + [1]], [f"{fold}-1", f"{fold}-2"], 5) for fold in range(1, 6)]
    assert statistics.interval_of(alike, metrics.wa).half > 20


def test_several_draws_of_the_same_speakers_are_crossed_with_them():
    random = np.random.default_rng(5)
    runs = [run(fold, 1, random.random((8, 20)) < 0.6, "abcdefgh", 3) for fold in (1, 2, 3)]
    found = statistics.interval_of(runs, metrics.ua)
    assert found.over == "speakers and folds"
    once = statistics.interval_of(runs[:1], metrics.ua)
    assert 0 < found.half < 2 * once.half


def scores(posteriors, true, fold="1 of 1", seed="1", utts=None):
    posteriors = np.asarray(posteriors, float)
    utts = utts or [f"s{number}-u" for number in range(len(true))]
    about = {"fold": fold, "seed": seed}
    return Scores(about, ["a", "b"], utts, np.asarray(true), posteriors.argmax(1), posteriors)


def test_fewer_than_five_speakers_give_no_interval():
    posteriors, true = [[0.9, 0.1]] * 8, [0, 1] * 4
    utts = [f"s{number % 4}-{number}" for number in range(8)]
    speakers = {utt: utt.split("-")[0] for utt in utts}
    one = scores(posteriors, true, utts=utts)
    found = statistics.interval([one], metrics.wa, speakers)
    assert (found.mean, found.half, found.over) == (50, None, "fewer than 5 speakers")
    assert found.has(50) is None
    found = statistics.interval([one], metrics.wa, {})
    assert (found.half, found.over) == (None, "the speakers are not known")
    with pytest.raises(ValueError, match="no runs"):
        statistics.interval([], metrics.wa, speakers)


def test_a_seed_that_changes_nothing_is_no_other_training():
    posteriors, true = np.array([[0.9, 0.1], [0.4, 0.6]] * 5), np.array([0, 1, 1, 0, 0, 1, 0, 1, 1, 1])
    one, same = scores(posteriors, true), scores(posteriors, true, seed="2")
    other = scores(1 - posteriors, true, seed="3")
    speakers = dict(zip(one.utts, one.utts, strict=True))
    assert len(statistics.tested([one, same], speakers)) == 1
    assert statistics.interval([one, same], metrics.wa, speakers) == statistics.interval([one], metrics.wa, speakers)
    both = statistics.interval([one, same, other], metrics.wa, speakers)
    assert (both.mean, both.over) == (50, "speakers and seeds")


def test_the_same_scores_give_the_same_interval():
    runs = simulated(np.random.default_rng(6), 1, 6, 2)
    assert statistics.interval_of(runs, metrics.macro_f1) == statistics.interval_of(runs, metrics.macro_f1)


def test_draws_are_with_replacement():
    drawn = statistics.draws(np.random.default_rng(0), 5)
    assert drawn.shape == (statistics.DRAWS, 5)
    assert set(drawn.sum(1)) == {5}
    assert drawn.var(0).mean() == pytest.approx(5 * 0.2 * 0.8, rel=0.1)  # of a multinomial distribution


def test_systems_are_compared_by_speaker():
    """Exact: every choice of signs of the speakers' sums."""
    random = np.random.default_rng(7)
    utts = [f"s{speaker}-{number}" for speaker in range(7) for number in range(6)]
    speakers = {utt: utt.split("-")[0] for utt in utts}
    one = {utt: float(random.random() < 0.8) for utt in utts}
    other = {utt: float(random.random() < 0.5) for utt in utts} | {"only here": 1.0}
    found = statistics.compare(one, other, speakers)
    differences = np.array([one[utt] - other[utt] for utt in utts])
    sums = differences.reshape(7, 6).sum(1)
    means = [np.mean(sums * signs) for signs in itertools.product((1, -1), repeat=7)]
    assert found.difference == pytest.approx(100 * differences.mean())
    assert found.p == pytest.approx(np.mean(np.abs(means) >= abs(sums.mean()) - 1e-12))
    assert statistics.compare(other, one, speakers).p == found.p
    assert statistics.compare(one, {"elsewhere": 1.0}, speakers) is None
    few = {utt: one[utt] for utt in utts[:24]}
    assert statistics.compare(few, other, speakers).p is None  # four speakers
    assert statistics.compare(one, other, {}).p is None


def test_the_paired_test_counts_every_choice_of_signs():
    differences = np.array([0.4, 0.0, -0.2, 1.0, 0.6, 0.2, 0.0, 1.0, -0.4])
    unlike = differences[differences != 0]
    means = [np.mean(unlike * signs) for signs in itertools.product((1, -1), repeat=len(unlike))]
    share = np.mean(np.abs(means) >= abs(unlike.mean()) - 1e-12)
    assert statistics.paired_p(differences) == pytest.approx(share)
    assert statistics.paired_p(-differences) == pytest.approx(share)


def test_the_paired_test_of_many_is_near_the_exact_one():
    differences = np.array([1.0] * 40 + [-1.0] * 22 + [0.0] * 500)
    assert statistics.paired_p(differences) == pytest.approx(stats.binomtest(22, 62).pvalue, abs=0.006)


@pytest.mark.parametrize("differences", [[], [0.0, 0.0], [1.0], [0.0, -0.5]])
def test_too_little_to_tell_a_difference(differences):
    assert statistics.paired_p(np.array(differences)) == 1


def test_holms_correction():
    """As R's p.adjust(p, "holm") gives it; each is at least the p value and at most Bonferroni's."""
    assert statistics.holm([0.01, 0.02, 0.03, 0.04]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert statistics.holm([0.03, 0.001, 0.6, 0.02]) == pytest.approx([0.06, 0.004, 0.6, 0.06])
    assert statistics.holm([]) == []
    values = np.random.default_rng(8).random(20)
    corrected = np.array(statistics.holm(list(values)))
    assert (corrected >= values).all()
    assert (corrected <= np.minimum(1, 20 * values) + 1e-12).all()


@pytest.mark.parametrize(
    ("fold", "settings", "training"),
    [
        ("7 of 30", '{"adapt": {"utterances": 5, "draws": 5}}', "1"),
        ("30 of 30", '{"adapt": {"utterances": 5, "draws": 5}}', "6"),
        ("2 of 6", '{"adapt": {"utterances": 5}}', ""),
        ("2 of 6", "{}", ""),
    ],
)
def test_folds_that_differ_in_the_draw_share_their_training(fold, settings, training):
    assert statistics.training_of({"fold": fold, "protocol settings": settings}) == training


def test_draws_of_one_fold_do_not_make_an_interval_narrow():
    """Five times the same six trainings say no more of other trainings than once: as wide as without draws, almost."""
    rng = np.random.default_rng(0)
    once = []
    for fold in range(6):
        level = 0.7 + rng.normal(0, 0.08)
        right = np.clip(level + rng.normal(0, 0.02, 4), 0, 1)
        counts = np.array([[[60 * share, 60 * (1 - share)], [0, 0]] for share in right])
        once.append(statistics.Tested(f"{fold + 1} of 6", "1", [f"s{fold}{n}" for n in range(4)], counts))
    five = [
        statistics.Tested(f"{6 * draw + number} of 30", "1", run.speakers, run.counts, str(number))
        for draw in range(5)
        for number, run in enumerate(once, 1)
    ]
    half = [statistics.interval_of(some, metrics.wa).half for some in (once, five)]
    assert half[1] > 0.75 * half[0]


def of_one_class(fold, seed, number, rng):
    """A fold that tests one speaker, with `number` utterances of a single class."""
    true = np.full(number, fold % 2)
    utts = [f"f{fold}-{place}" for place in range(number)]
    return scores(rng.dirichlet((2, 2), number), true, f"{fold} of 6", str(seed), utts)


def test_pooled_is_the_mean_over_seeds_of_scikit_learns_recall_over_all_folds():
    """Folds of unlike sizes with one class each, where the mean over folds is another number."""
    rng = np.random.default_rng(8)
    runs = [of_one_class(fold, seed, 2 + 7 * (fold % 3), rng) for fold in range(1, 7) for seed in (1, 2)]
    wanted = []
    for seed in ("1", "2"):
        own = [run for run in runs if run.about["seed"] == seed]
        true, predicted = (np.concatenate([getattr(run, name) for run in own]) for name in ("true", "predicted"))
        wanted.append(100 * recall_score(true, predicted, average="macro"))
    speakers = {utt: utt.partition("-")[0] for run in runs for utt in run.utts}
    found = statistics.interval(runs, metrics.ua, speakers, is_pooled=True)
    assert found.mean == pytest.approx(np.mean(wanted))
    assert found.over == "speakers and seeds" and found.half > 0
    assert abs(found.mean - statistics.interval(runs, metrics.ua, speakers).mean) > 0.1
    one_more = of_one_class(1, 3, 9, rng)  # a seed that other folds lack would weigh its fold more
    assert statistics.interval([*runs, one_more], metrics.ua, speakers, is_pooled=True) == found
    none_known = statistics.interval(runs, metrics.ua, {}, is_pooled=True)
    assert (none_known.mean, none_known.half) == (found.mean, None)


def test_pooled_without_a_seed_in_common_takes_a_run_of_each_fold():
    rng = np.random.default_rng(9)
    runs = [of_one_class(1, 1, 9, rng), of_one_class(2, 2, 5, rng)]
    true, predicted = (np.concatenate([getattr(run, name) for run in runs]) for name in ("true", "predicted"))
    found = statistics.interval(runs, metrics.wa, {}, is_pooled=True)
    assert found.mean == pytest.approx(100 * np.mean(true == predicted))


@pytest.mark.parametrize(("per_fold", "seeds"), [(1, 1), (2, 1), (2, 3)])
def test_the_pooled_interval_holds_the_true_value(per_fold, seeds, monkeypatch):
    """Leave one or two of 24 speakers out. Where each fold was trained once, folds are drawn, and what a seed does to
    all folds alike can't be seen."""
    monkeypatch.setattr(statistics, "DRAWS", 300)
    random = np.random.default_rng(21)
    hits = []
    for _ in range(400):
        found = statistics.pooled(
            simulated(random, 24 // per_fold, per_fold, seeds, of_seed=0.02 * (seeds > 1)), metrics.wa
        )
        assert found.over == ("folds" if seeds == 1 else "speakers and seeds")
        hits.append(found.has(60))
    assert 0.925 <= np.mean(hits) <= 0.99
