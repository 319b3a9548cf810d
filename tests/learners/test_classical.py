"""Classical models: functionals, the choice of settings, posteriors; of the SVM and of others."""

import ast
import itertools
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
from pydantic.dataclasses import dataclass
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import ser
from ser import config as config_module
from ser import identity, score, train
from ser.cli import UserError
from ser.config import read_yaml
from ser.learners import classical
from ser.models import logistic
from ser.models.svm import Config
from ser.scores import read_scores
from ser.settings import Positive, strict


def config(**others):
    return Config(
        **({"functionals": ["mean"], "cost": [0.1, 1.0, 10.0], "gamma": [0.05, 0.5, 5.0], "inner_folds": 3} | others)
    )


def data(n_classes=3, per_group=12, n_groups=6, spread=1.3, seed=0):
    """Noisy classes in eight dimensions; (N, 8), classes (N,), groups (N,)."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), per_group)
    targets = np.tile(np.arange(n_classes), -(-len(groups) // n_classes))[: len(groups)]
    centres = rng.standard_normal((n_classes, 8))
    return centres[targets] + spread * rng.standard_normal((len(groups), 8)), targets, groups


def test_functionals_are_numpys():
    frames = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    pooled = classical.pool(frames, config(functionals=["max", "mean", "min", "deviation"]))
    expected = [
        [max(column) for column in frames.T],
        [sum(column) / 30 for column in frames.T],
        [min(column) for column in frames.T],
        [np.sqrt(sum((value - sum(column) / 30) ** 2 for value in column) / 30) for column in frames.T],
    ]
    np.testing.assert_allclose(pooled, np.concatenate(expected), rtol=1e-5, atol=1e-6)
    assert classical.pool(frames, config(functionals=["deviation"])).shape == (4,)


def test_the_settings_are_those_of_the_best_inner_cross_validation():
    pooled, targets, groups = data(per_group=20)
    kept = (targets == 0) | (np.arange(len(targets)) % 4 == 0)  # classes of unlike size, or UA would be WA
    pooled, targets, groups = pooled[kept], targets[kept], groups[kept]
    found, chosen = classical.search(pooled, targets, groups, config(), seed=7, n_jobs=1)
    scores = {}
    for cost, gamma in itertools.product([0.1, 1.0, 10.0], [0.05, 0.5, 5.0]):
        recalls = []
        for train, test in StratifiedGroupKFold(3, shuffle=True, random_state=7).split(pooled, targets, groups):
            scaler = StandardScaler().fit(pooled[train])
            machine = SVC(C=cost, gamma=gamma / 8, class_weight="balanced", break_ties=True).fit(
                scaler.transform(pooled[train]), targets[train]
            )
            recalls.append(
                recall_score(targets[test], machine.predict(scaler.transform(pooled[test])), average="macro")
            )
        scores[cost, gamma] = np.mean(recalls)
    best = max(scores, key=scores.get)
    second, first = sorted(scores.values())[-2:]
    assert first > second + 0.005  # no tie
    assert chosen == {"svc__C": best[0], "svc__gamma": best[1] / 8, "inner_ua": pytest.approx(100 * scores[best])}

    whole = StandardScaler().fit(pooled)  # fitted again on all that there is
    machine = SVC(C=best[0], gamma=best[1] / 8, class_weight="balanced").fit(whole.transform(pooled), targets)
    other, _, _ = data(seed=1)
    assert (found.predict(other) == machine.predict(whole.transform(other))).mean() > 0.98


def test_groups_stay_on_one_side():
    """Each group is a point of its own with a class by chance: only who hears a group in training
    knows its class."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    targets = rng.integers(2, size=40)[groups]
    pooled = 5 * rng.standard_normal((40, 8))[groups] + 0.1 * rng.standard_normal((200, 8))
    _, apart = classical.search(pooled, targets, groups, config(), seed=1, n_jobs=1)
    _, mixed = classical.search(pooled, targets, np.arange(200), config(), seed=1, n_jobs=1)
    assert mixed["inner_ua"] > 95
    assert apart["inner_ua"] < 75


@pytest.mark.parametrize("n_groups", [2, 4, 5])
def test_fewer_groups_than_inner_folds(n_groups):
    """Five inner folds of four speakers: a fold without any would make every score undefined, and the
    choice none."""
    pooled, targets, groups = data(n_groups=n_groups, per_group=30)
    _, best = classical.search(pooled, targets, groups, config(inner_folds=5), seed=1, n_jobs=1)
    _, worst = classical.search(
        pooled, targets, groups, config(inner_folds=5, cost=[1e-6, 2e-6], gamma=[1e-6]), seed=1, n_jobs=1
    )
    assert 100 >= best["inner_ua"] > worst["inner_ua"] >= 0


@pytest.mark.parametrize("n_classes", [2, 3, 7])
def test_posteriors_rank_the_classes_as_the_machine_does(n_classes):
    pooled, targets, groups = data(n_classes, per_group=14)
    machine = classical.search(pooled, targets, groups, config(cost=[1.0], gamma=[1.0]), seed=1, n_jobs=1)[0]
    other, _, _ = data(n_classes, per_group=140, spread=3, seed=2)  # far from all classes too
    posteriors = classical.probabilities(machine, other)
    assert posteriors.shape == (len(other), n_classes)
    np.testing.assert_allclose(posteriors.sum(1), 1)
    assert (posteriors > 0).all()
    assert np.array_equal(posteriors.argmax(1), machine.predict(other))
    assert len(set(posteriors.argmax(1))) == n_classes


def test_two_classes_are_the_sigmoid_of_twice_the_decision():
    pooled, targets, groups = data(2)
    machine = classical.search(pooled, targets, groups, config(cost=[1.0], gamma=[1.0]), seed=1, n_jobs=1)[0]
    decisions = machine.decision_function(pooled)
    np.testing.assert_allclose(classical.probabilities(machine, pooled)[:, 1], 1 / (1 + np.exp(-2 * decisions)))


def test_rare_classes_count_as_much():
    """One class has nine tenths of the utterances and overlaps the other: without weights it takes all."""
    rng = np.random.default_rng(0)
    targets = (np.arange(600) % 10 == 0).astype(int)
    pooled = rng.standard_normal((600, 8)) + 0.5 * targets[:, None]
    machine = classical.search(
        pooled, targets, np.arange(600) // 10, config(cost=[0.1], gamma=[0.5]), seed=1, n_jobs=1
    )[0]
    assert machine.predict(pooled)[targets == 1].mean() > 0.5


def test_where_all_are_one_group_each_utterance_is_its_own():
    targets = np.arange(60) % 2
    pooled, groups = np.random.default_rng(0).standard_normal((60, 8)) + targets[:, None], np.zeros(60)
    one, own = (
        classical.search(pooled, targets, these, config(), seed=1, n_jobs=1)[1]
        for these in (groups, np.arange(len(targets)))
    )
    assert one == own


@pytest.mark.parametrize("seed", range(4))
def test_inner_folds_are_the_first_draw_that_serves(seed):
    """Those of scikit-learn for this seed, where all classes train; results do not change."""
    _, targets, groups = data()
    expected = StratifiedGroupKFold(3, shuffle=True, random_state=seed).split(targets, targets, groups)
    for (train, test), (own_train, own_test) in zip(
        expected, classical.inner_splits(targets, groups, 3, seed), strict=True
    ):
        assert np.array_equal(train, own_train) and np.array_equal(test, own_test)


@pytest.mark.parametrize("seed", range(20))
def test_a_class_of_two_groups_trains_in_every_inner_fold(seed, capsys):
    """Drawn by chance, both groups would often stand in one inner fold."""
    groups = np.repeat(np.arange(6), 8)
    targets = np.where((groups < 2) & (np.arange(48) % 2 == 0), 2, np.arange(48) % 4 // 2)
    splits = classical.inner_splits(targets, groups, 3, seed)
    assert sorted(np.concatenate([test for _, test in splits])) == list(range(48))
    for train, test in splits:
        assert set(targets[train]) == {0, 1, 2}
        assert not set(groups[train]) & set(groups[test])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("seed", range(5))
def test_where_a_group_has_all_of_a_class_each_utterance_is_its_own(seed, capsys):
    """Two speakers, and one has none of the second class: the other inner fold would train on one class."""
    groups = np.repeat([0, 1], 20)
    targets = (np.arange(40) % 3 == 0).astype(int) * groups  # seven, of the second speaker
    pooled = np.random.default_rng(0).standard_normal((40, 8)) + 3 * targets[:, None]
    splits = classical.inner_splits(targets, groups, 5, seed)
    assert len(splits) == 5 and all(set(targets[train]) == {0, 1} for train, _ in splits)
    told = "inner folds: groups are ignored, since keeping them whole leaves a class out of training\n"
    assert capsys.readouterr().out == told
    again = classical.inner_splits(targets, groups, 5, seed)
    assert all(np.array_equal(one, other) for one, other in zip(splits[0], again[0], strict=True))
    assert classical.search(pooled, targets, groups, config(), seed, n_jobs=1)[1]["inner_ua"] > 80


def test_classes_of_few_utterances():
    few = np.array([0, 0, 1, 1, 1])
    assert len(classical.inner_splits(few, np.arange(5), 5, 1)) == 3  # more could not be stratified
    with pytest.raises(UserError, match="need at least two classes with two training utterances each; use fewer folds"):
        classical.inner_splits(np.array([0, 1, 0, 0]), np.arange(4), 2, 1)
    splits = classical.inner_splits(np.array([0, 1, 0, 1, 0, 1, 2]), np.arange(7), 2, 1)  # the 2 cannot be in both
    assert all({0, 1} <= set(train % 2) for train, _ in splits)


@pytest.mark.parametrize("scale", [1e-12, 1e6])
def test_the_level_of_features_is_no_matter(scale):
    pooled, targets, groups = data()
    one, other = (classical.search(values, targets, groups, config(), 1, 1)[0] for values in (pooled, pooled * scale))
    np.testing.assert_allclose(
        classical.probabilities(one, pooled), classical.probabilities(other, pooled * scale), atol=1e-4
    )


@pytest.fixture
def trees(monkeypatch):
    """A classical model of a few lines: a module of ser/models, as an imagined user adds it."""

    @dataclass(config=strict, frozen=True, kw_only=True)
    class Config:
        functionals: list[str]
        trees: Positive

    def estimator(config, seed):
        return RandomForestClassifier(config.trees, random_state=seed)

    module = types.ModuleType("ser.models.trees")
    module.Config, module.estimator, module.TRUSTED = Config, estimator, ["sklearn.tree._tree.Tree"]
    module.__file__, Config.__module__ = "ser/models/trees.py", "ser.models.trees"
    monkeypatch.setitem(sys.modules, "ser.models.trees", module)
    kinds, parse = config_module.kinds, identity._parse
    monkeypatch.setattr(config_module, "kinds", lambda part: sorted([*kinds(part), *["trees"] * (part == "model")]))
    monkeypatch.setattr(identity, "_parse", lambda name: ast.parse("") if name == "ser.models.trees" else parse(name))
    return module


def test_a_classical_model_of_five_lines_trains_is_scored_and_predicts(recipe, trees, tmp_path):
    """Through stages 3 and 5 and ser.load; the forest is what scikit-learn makes of the same numbers."""
    recipe.write_yaml(
        "conf/toy/trees.yaml",
        **read_yaml("conf/toy/svm.yaml") | {"model": {"kind": "trees", "functionals": ["mean", "max"], "trees": 20}},
    )
    folder = recipe.lay_out("trees/selects_on_dev/fold1_seed3", system="trees", seed=3)
    train.train(folder)
    score.score(folder, Path("results.txt"), "cpu")
    scores = read_scores(Path("results.txt"))

    def pooled(part):
        matrices = [recipe.matrices[utt] for utt in sorted(recipe.part(part))]
        return np.array([[*matrix.mean(0), *matrix.max(0)] for matrix in matrices], np.float32)

    targets = [["low", "high"].index(recipe.classes[utt]) for utt in sorted(recipe.part("train"))]
    forest = RandomForestClassifier(20, random_state=3).fit(pooled("train"), targets)
    np.testing.assert_allclose(
        scores.posteriors, forest.predict_proba(pooled("test")), atol=0.051
    )  # a rounded mean may go another way in one tree
    assert "chosen" not in scores.about
    soundfile.write("a.wav", 0.1 * np.random.default_rng(0).standard_normal(4000), 8000)
    prediction = ser.load(folder).predict("a.wav")
    assert prediction.label in ("low", "high") and sum(prediction.probabilities.values()) == pytest.approx(1)


def test_an_estimator_that_could_not_be_read_again_is_refused_when_it_is_trained(recipe, trees):
    trees.TRUSTED = []
    model = {"kind": "trees", "functionals": ["mean"], "trees": 2}
    recipe.write_yaml("conf/toy/trees.yaml", **read_yaml("conf/toy/svm.yaml") | {"model": model})
    folder = recipe.lay_out("trees/selects_on_dev/fold1_seed1", system="trees")
    with pytest.raises(
        UserError, match=r"^ser/models/trees.py: TRUSTED lacks sklearn.tree._tree.Tree, which .* add them"
    ):
        train.train(folder)
    assert not (folder / "done").exists()


def test_a_model_that_is_neither_is_refused(recipe, trees):
    """As the config is read, and not first in training."""
    recipe.write_yaml(
        "conf/toy/trees.yaml",
        **read_yaml("conf/toy/svm.yaml") | {"model": {"kind": "trees", "functionals": ["mean"], "trees": 20}},
    )
    del trees.estimator
    with pytest.raises(
        UserError, match=r"^ser/models/trees.py: has neither Network nor estimator; ser/models/__init__.py says"
    ):
        config_module.read_system("conf/toy/trees.yaml")


def test_logistic_regression_is_scikit_learns():
    pooled, targets, groups = data(per_group=20)
    found, chosen = classical.search(
        pooled, targets, groups, logistic.Config(functionals=["mean"], cost=[0.01, 1.0], inner_folds=3), 1, 1
    )
    scaler = StandardScaler().fit(pooled)
    expected = LogisticRegression(C=chosen["logisticregression__C"], class_weight="balanced", max_iter=1000).fit(
        scaler.transform(pooled), targets
    )
    np.testing.assert_allclose(
        classical.probabilities(found, pooled), expected.predict_proba(scaler.transform(pooled)), atol=1e-6
    )
