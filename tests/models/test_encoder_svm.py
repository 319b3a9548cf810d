"""The choice of an encoder's layer within the training part, against scikit-learn on columns cut by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import skops.io
import soundfile
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import ser
from ser import score
from ser.cli import UserError
from ser.config import read_system, read_yaml
from ser.learners import classical
from ser.models import svm
from ser.models.encoder_svm import Config
from ser.runs import read_run
from ser.scores import read_scores
from ser.train import train

LAYERS = [2, 0, 5]  # of the encoder, in a frame's order


def config(**others):
    return Config(**({"layers": "best", "cost": [0.1, 10.0], "gamma": [0.1, 1.0], "inner_folds": 3} | others))


def data(distances, n_functionals=1, seed=0):
    """Two classes in three layers of four values: (N, F * 3 * 4), classes (N,), groups (N,). distances: between the
    classes, in each layer."""
    rng = np.random.default_rng(seed)
    targets, groups = np.arange(240) % 2, np.arange(240) // 20
    values = rng.standard_normal((240, n_functionals, 3, 4))
    values[targets == 1] += np.array(distances)[:, None]
    return values.reshape(240, -1), targets, groups


def columns(layer, n_functionals=1):
    """Of a layer's values, counted by hand: first those of the first functional."""
    if layer == "all":
        return [*range(12 * n_functionals)]
    place = LAYERS.index(layer)
    return [12 * functional + 4 * place + value for functional in range(n_functionals) for value in range(4)]


def machine(cost, gamma):
    return make_pipeline(StandardScaler(), SVC(C=cost, gamma=gamma, class_weight="balanced", break_ties=True))


@pytest.mark.parametrize("functionals", [["mean"], ["mean", "deviation"]])
@pytest.mark.parametrize("distances", [(0.2, 0.8, 0.3), (0.5, 0.4, 0.45)])
def test_layer_and_settings_are_the_best_of_all_in_the_same_inner_folds(distances, functionals):
    n = len(functionals)
    pooled, targets, groups = data(distances, n)
    found, chosen = classical.search(pooled, targets, groups, config(functionals=functionals), 7, 1, LAYERS)
    splits = classical.inner_splits(targets, groups, 3, 7)
    scores = {}
    for layer in ("all", *LAYERS):
        own = pooled[:, columns(layer, n)]
        for cost in (0.1, 10.0):
            for gamma in (0.1, 1.0):
                scores[layer, cost, gamma / own.shape[1]] = np.mean(
                    [
                        balanced_accuracy_score(
                            targets[test],
                            machine(cost, gamma / own.shape[1]).fit(own[inner], targets[inner]).predict(own[test]),
                        )
                        for inner, test in splits
                    ]
                )
    best = max(scores, key=scores.get)
    assert list(scores.values()).count(scores[best]) == 1  # no tie
    ua = pytest.approx(100 * scores[best])
    assert chosen == dict(zip(("layers", "svc__C", "svc__gamma", "inner_ua"), (*best, ua), strict=True))
    expected = machine(*best[1:]).fit(pooled[:, columns(best[0], n)], targets)  # fitted again on all that there is
    other, _, _ = data(distances, n, seed=1)
    np.testing.assert_allclose(
        found.decision_function(other), expected.decision_function(other[:, columns(best[0], n)]), atol=1e-9
    )


@pytest.mark.parametrize(("distances", "layer"), [((0, 0.8, 0), 0), ((0, 0, 0.6), 5), ((0.4, 0.4, 0.4), "all")])
def test_the_layer_that_tells_the_classes_is_chosen(distances, layer):
    _, chosen = classical.search(*data(distances), config(), 1, 1, LAYERS)
    assert chosen["layers"] == layer


def test_where_all_layers_are_alike_all_are_taken():
    pooled, targets, groups = data((3, 0, 0))
    pooled = np.tile(pooled[:, :4], 3)  # far apart: every choice is right everywhere
    assert classical.search(pooled, targets, groups, config(), 1, 1, LAYERS)[1]["layers"] == "all"


def test_where_there_is_no_choice_nothing_is_searched(monkeypatch):
    monkeypatch.setattr(classical, "GridSearchCV", None)
    one = config(cost=[2.0], gamma=[0.5])
    pooled, targets, groups = data((1, 0, 0))
    for layers in ([], [3]):
        found, chosen = classical.search(pooled, targets, groups, one, 1, 1, layers)
        assert chosen == {}
        expected = machine(2.0, 0.5 / 12).fit(pooled, targets)
        np.testing.assert_allclose(found.decision_function(pooled), expected.decision_function(pooled))
    with pytest.raises(TypeError):
        classical.search(pooled, targets, groups, one, 1, 1, LAYERS)  # a choice, of layers alone


def test_with_all_layers_it_is_svm(encoded):
    """The same machine, and nothing of layers in its file."""
    pooled, targets, groups = data((0.2, 0.8, 0.3))
    own = config(layers="all")
    other = svm.Config(functionals=["mean"], cost=own.cost, gamma=own.gamma, inner_folds=3)
    (one, chosen), (two, as_svm) = (classical.search(pooled, targets, groups, these, 1, 1) for these in (own, other))
    assert chosen == as_svm and classical.types_of(one) == classical.types_of(two)
    assert np.array_equal(one.decision_function(pooled), two.decision_function(pooled))
    folder = encoded.lay_out("run", system="encoder_svm", model={"layers": "all"})
    assert classical.layers_of(read_run(folder)) == []


def right(scores, recipe):
    return np.mean(
        [scores.classes[one] == recipe.classes[utt] for one, utt in zip(scores.predicted, scores.utts, strict=True)]
    )


def trained(recipe, **model):
    folder = recipe.lay_out("run", system="encoder_svm", model=model)
    train(folder)
    return folder


@pytest.mark.parametrize("functionals", [["mean"], ["mean", "max"]])
def test_it_trains_is_scored_and_hears_recordings(encoded, functionals, capsys):
    folder = trained(encoded, functionals=functionals)
    assert "chosen within the training part: {'layers': 0, " in capsys.readouterr().out
    score.score(folder, Path("results.txt"), "cpu")
    scores = read_scores(Path("results.txt"))
    assert scores.about["chosen"].startswith("layers 0, svc__C 1")
    assert right(scores, encoded) > 0.9

    (folder / "chosen.json").write_text('{"layers": 2, "seconds": 1}')  # only tells: the file of the model decides
    learned = classical.load(read_run(folder))
    assert learned.estimator["layer"].number == 1  # the place of layer 0
    soundfile.write("a.wav", 0.1 * np.random.default_rng(0).standard_normal(8000), 16000)
    prediction = ser.load(folder).predict("a.wav")
    assert sum(prediction.probabilities.values()) == pytest.approx(1)


def test_posteriors_are_those_of_the_layers_columns(encoded):
    folder = trained(encoded, cost=[10.0])
    score.score(folder, Path("results.txt"), "cpu")
    scores = read_scores(Path("results.txt"))

    def pooled(utts):
        return np.stack([encoded.matrices[utt].mean(0)[16:32] for utt in utts])

    utts = sorted(encoded.part("train"))
    expected = machine(10.0, 1 / 16).fit(pooled(utts), [encoded.classes[utt] == "high" for utt in utts])
    decisions = expected.decision_function(pooled(scores.utts))
    high = scores.posteriors[:, scores.classes.index("high")]
    np.testing.assert_allclose(high, 1 / (1 + np.exp(-2 * decisions)), atol=1e-4)


def test_the_choice_does_not_see_the_test_part(encoded):
    """Another layer gives the test utterances away, but says nothing of those that train: it is not chosen."""
    (features,) = Path("dump").glob("pretrained-*/feats.ark")
    before = trained(encoded)
    chosen, weights = ((before / name).read_bytes() for name in ("chosen.json", "model.skops"))
    assert json.loads(chosen)["layers"] == 0
    import kaldiio

    for utt in (*encoded.part("test"), *encoded.part("dev")):
        encoded.matrices[utt][:, :16] = 9 if encoded.classes[utt] == "high" else -9  # layer 2
        encoded.matrices[utt][:, 16:32] = 0  # layer 0
    with kaldiio.WriteHelper(f"ark,scp:{features},{features.with_suffix('.scp')}") as writer:
        for utt, matrix in encoded.matrices.items():
            writer(utt, matrix)
    folder = encoded.lay_out("again", system="encoder_svm")
    train(folder)
    again = json.loads((folder / "chosen.json").read_bytes())
    assert {**again, "seconds": 0} == {**json.loads(chosen), "seconds": 0}
    old, new = (
        skops.io.loads(content, trusted=classical.trusted_types(config()))
        for content in (weights, (folder / "model.skops").read_bytes())
    )
    assert np.array_equal(old["model"][1].support_vectors_, new["model"][1].support_vectors_)
    score.score(folder, Path("results.txt"), "cpu")
    assert right(read_scores(Path("results.txt")), encoded) < 0.9


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda pipeline: pipeline["layer"].set_params(number=3), "it takes layer 3 of 3"),
        (lambda pipeline: pipeline["layer"].set_params(number=-1), "it takes layer -1 of 3"),
        (lambda pipeline: pipeline["layer"].set_params(number="1"), "it takes layer 1 of 3"),
        (lambda pipeline: pipeline["layer"].set_params(n_layers=6), "its layers are not those of the system"),
        (lambda pipeline: pipeline["layer"].set_params(n_functionals=2), "its layers are not those of the system"),
        (lambda pipeline: pipeline["layer"].set_params(number=None), "its layers have another size"),
        (lambda pipeline: setattr(pipeline["layer"], "n_features_in_", 96), "its layers have another size"),
        (lambda pipeline: setattr(pipeline["model"][1], "_n_support", np.int32([1, 1])), "its parts are inconsistent"),
        (lambda pipeline: pipeline.steps.pop(0), "it contains something else"),
        (lambda pipeline: pipeline.steps.insert(0, ("more", classical.Layer(1, 3))), "it contains something else"),
    ],
)
def test_a_damaged_model_is_refused(encoded, change, reason):
    folder = trained(encoded)
    pipeline = classical.load(read_run(folder)).estimator
    change(pipeline)
    skops.io.dump(pipeline, folder / "model.skops")
    with pytest.raises(UserError, match=rf"model.skops: not a complete encoder_svm \(.*{reason}.*; remove or rename"):
        classical.load(read_run(folder))


@pytest.mark.parametrize(
    "text", ['{"layers": "all\\n# ua: 100", "seconds": 1}', '{"layers": 1.5, "seconds": 1}', '{"layers": true, "seconds": 1}', '{"layers": 1}', "[]"]
)  # fmt: skip
def test_damaged_choices_are_refused(tmp_path, text):
    (tmp_path / "chosen.json").write_text(text)
    with pytest.raises(UserError, match=r"chosen.json: damaged; remove or rename"):
        classical.read_chosen(tmp_path / "chosen.json")


def test_choices_are_read_as_they_were_written(tmp_path):
    (tmp_path / "chosen.json").write_text('{"layers": "all", "svc__C": 1, "seconds": 2.5}')
    found = classical.read_chosen(tmp_path / "chosen.json")
    assert found == {"layers": "all", "svc__C": 1.0, "seconds": 2.5}


def test_only_an_encoder_has_layers_to_choose_from(recipe):
    model = {"kind": "encoder_svm", "layers": "best", "cost": [1], "gamma": [1], "inner_folds": 2}
    recipe.write_yaml("conf/toy/other.yaml", **read_yaml("conf/toy/svm.yaml") | {"model": model})
    with pytest.raises(
        UserError, match=r"^conf/toy/other.yaml: model.layers: best; write all, since the feature has no layers"
    ):
        read_system("conf/toy/other.yaml")
    recipe.write_yaml("conf/toy/other.yaml", **read_yaml("conf/toy/svm.yaml") | {"model": model | {"layers": "first"}})
    with pytest.raises(UserError, match=r"^conf/toy/other.yaml: model.layers: input should be 'all' or 'best'"):
        read_system("conf/toy/other.yaml")
    recipe.write_yaml("conf/toy/other.yaml", **read_yaml("conf/toy/svm.yaml") | {"model": model | {"layers": "all"}})
    assert read_system("conf/toy/other.yaml").model.functionals == ["mean"]
