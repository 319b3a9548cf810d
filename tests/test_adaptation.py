"""A speaker's statistics from a few recordings: by hand, by simulation, and through a recipe's stages 1 to 5."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import ser
from ser import adaptation, identity, make_folds, predict, runs, score, train
from ser.cli import UserError
from ser.config import read_protocol, read_system
from ser.normalisation import statistics
from ser.reading import read_features, read_run_fold
from ser.runs import read_run
from ser.scores import read_scores

ADAPT = {"utterances": 3, "balanced": True, "draws": 2}


def frames(seed, number=4, size=3, mean=0.0, deviation=1.0):
    """Matrices of unequal length."""
    rng = np.random.default_rng(seed)
    return [(mean + deviation * rng.standard_normal((place + 2, size))).astype(np.float32) for place in range(number)]


def test_moments_are_numpys():
    some = frames(0, mean=-30)
    pooled = np.concatenate(some).astype(np.float64)
    found = adaptation.moments(some)
    np.testing.assert_allclose(found.mean, pooled.mean(0))
    np.testing.assert_allclose(found.variance, pooled.var(0))


@pytest.mark.parametrize(("utterances", "relevance"), [(1, 5.0), (4, 5.0), (20, 0.5)])
def test_the_first_two_moments_are_interpolated(utterances, relevance):
    """The statistics are those of a mixture of the two distributions; E[x] and E[x^2] by numpy."""
    own, training = frames(1, mean=2, deviation=3), frames(2, 9, mean=-1)
    share = utterances / (utterances + relevance)
    one, other = (np.concatenate(some).astype(np.float64) for some in (own, training))
    mean = share * one.mean(0) + (1 - share) * other.mean(0)
    square = share * (one**2).mean(0) + (1 - share) * (other**2).mean(0)
    found = adaptation.shrunk(adaptation.moments(own), adaptation.moments(training), utterances, relevance)
    assert {name: value.dtype for name, value in found.items()} == {"mean": np.float32, "deviation": np.float32}
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["deviation"], np.sqrt(square - mean**2), rtol=1e-5)


def test_both_ends_are_the_statistics_of_other_normalisations():
    own, training = frames(1, mean=2), frames(2, 9)
    of_both = adaptation.moments(own), adaptation.moments(training)
    for found, same in (
        (adaptation.shrunk(*of_both, 4, 1e-9), statistics(own)),
        (adaptation.shrunk(None, of_both[1], 0, 5.0), statistics(training)),
    ):
        for name, value in same.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-6)


def test_one_frame_and_constant_values():
    """One frame has no variance, but is not divided by 0; nor are values that never change."""
    training = adaptation.moments(np.array([[[0.0, 5.0], [2.0, 5.0]]]))
    found = adaptation.shrunk(adaptation.moments(np.array([[[1.0, 5.0]]])), training, 1, 1.0)
    np.testing.assert_allclose(found["mean"], [1, 5])
    np.testing.assert_allclose(found["deviation"], [np.sqrt(0.5), 1])


def test_shrinking_comes_closer_to_new_speakers():
    """Speakers' means differ by 1, recordings of a speaker by 2: the relevance that suits them is 4. Neither a
    speaker's two recordings nor the training part alone tell as much."""
    rng = np.random.default_rng(0)
    true = rng.standard_normal(1000)
    training = adaptation.moments([(rng.standard_normal(5000) + 2 * rng.standard_normal(5000))[:, None]])
    errors = {}
    for relevance in (1e-6, 4.0, 1e6):
        means = [
            adaptation.shrunk(
                adaptation.moments(mean + 2 * np.random.default_rng(place).standard_normal((2, 1, 1))),
                training,
                2,
                relevance,
            )["mean"][0]
            for place, mean in enumerate(true)
        ]
        errors[relevance] = np.mean((means - true) ** 2)
    assert errors[1e-6] == pytest.approx(2, rel=0.1)  # 4 / 2, of two recordings
    assert errors[1e6] == pytest.approx(1, rel=0.1)
    assert errors[4.0] == pytest.approx(2 / 3, rel=0.1)


def test_what_is_kept_is_read_again(tmp_path):
    path = tmp_path / "adaptation.safetensors"
    kept = adaptation.moments(frames(0))
    adaptation.write(path, kept)
    found = adaptation.read(path)
    assert np.array_equal(found.mean, kept.mean) and np.array_equal(found.variance, kept.variance)
    adaptation.write(path, kept._replace(variance=-kept.variance))
    with pytest.raises(
        UserError, match=r"^.*: cannot be read \(not a mean and a variance\); remove or rename .* again$"
    ):
        adaptation.read(path)
    for content in (b"", path.read_bytes()[:-3]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="cannot be read"):
            adaptation.read(path)
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        adaptation.read(path)


# Through the stages


@pytest.fixture
def adapting(recipe):
    """The toy recipe with a protocol that draws three recordings of each speaker, and an SVM that uses them."""
    Path("data/all/utt2emo").write_text(
        "".join(f"{utt} {'calm' if name == 'low' else 'angry'}\n" for utt, name in recipe.classes.items())
    )
    Path("data/all/text").write_text("".join(f"{utt} a word\n" for utt in recipe.classes))
    system = yaml.safe_load(Path("conf/toy/svm.yaml").read_text()) | {"normalisation": "speaker"}
    recipe.write_yaml("conf/toy/svm.yaml", **system)
    write_protocol(recipe, **ADAPT)
    return recipe


def write_protocol(recipe, **adapt):
    protocol = yaml.safe_load(Path("conf/protocols/selects_on_last.yaml").read_text())
    path = "conf/protocols/selects_on_adapt.yaml"
    recipe.write_yaml(path, **protocol | {"adapt": adapt})
    make_folds.main([path, "data/all", "data/folds/selects_on_adapt"])


def adapt_table(fold):
    lines = Path(f"data/folds/selects_on_adapt/fold{fold}/adapt").read_text().splitlines()
    return dict(line.split(" ") for line in lines)


def by_hand(recipe, fold, utt):
    """An utterance of the toy recipe, normalised; the equation is that of ser.adaptation, in other words."""
    train = Path(f"data/folds/selects_on_adapt/fold{fold}/train").read_text().split()[::2]
    drawn = adapt_table(fold)
    own = np.concatenate([recipe.matrices[other] for other in drawn if other[0] == utt[0]]).astype(np.float64)
    rest = np.concatenate([recipe.matrices[other] for other in train]).astype(np.float64)
    w = 3 / (3 + 5)
    mean = w * own.mean(0) + (1 - w) * rest.mean(0)
    deviation = np.sqrt(w * ((own - mean) ** 2).mean(0) + (1 - w) * ((rest - mean) ** 2).mean(0))
    return (recipe.matrices[utt] - mean) / deviation


def test_frames_of_all_speakers_are_normalised_by_what_is_drawn_of_them(adapting):
    run = read_run(adapting.lay_out("run", select="adapt", system="svm", fold=5))
    fold = read_run_fold(run)
    features = read_features(run, fold)
    assert len(fold.adapt) == 3 * 4 and {*fold.adapt} - {*fold.train, *fold.test}
    for utt in [*fold.train, *fold.test]:
        np.testing.assert_allclose(features[utt], by_hand(adapting, 5, utt), rtol=1e-4, atol=1e-4)
    assert np.array_equal(read_features(run, fold)["a-00"], features["a-00"])  # with what it kept in its folder


def test_the_scores_are_those_of_scikit_learn_on_numbers_by_hand(adapting):
    folder = adapting.lay_out("svm/selects_on_adapt/fold2_seed1", select="adapt", system="svm", fold=2)
    train.train(folder)
    score.score(folder, Path("scores.txt"), "cpu")
    scores = read_scores(Path("scores.txt"))
    test = [utt for utt in adapting.classes if utt[0] == "b" and utt not in adapt_table(2)]
    assert scores.utts == test and len(test) == 11
    assert scores.settings("protocol")["adapt"] == {"utterances": 3, "draws": 2}
    assert scores.about["fold"] == "2 of 8"
    chosen = dict(part.rsplit(" ", 1) for part in scores.about["chosen"].split(", "))

    def pooled(utts):
        matrices = [by_hand(adapting, 2, utt) for utt in utts]
        return np.array([[*matrix.mean(0), *matrix.std(0)] for matrix in matrices])

    others = [utt for utt in adapting.classes if utt[0] != "b"]
    targets = [["low", "high"].index(adapting.classes[utt]) for utt in others]
    scaler = StandardScaler().fit(pooled(others))
    machine = SVC(C=float(chosen["svc__C"]), gamma=float(chosen["svc__gamma"]), class_weight="balanced")
    decisions = machine.fit(scaler.transform(pooled(others)), targets).decision_function(scaler.transform(pooled(test)))
    np.testing.assert_allclose(scores.posteriors[:, 1], 1 / (1 + np.exp(-2 * decisions)), atol=2e-3)


@pytest.mark.parametrize("system", ["svm", "tiny"])
def test_new_speakers_are_shrunk_too(adapting, system, capsys):
    """Recordings given together are of one speaker: what the model reads of them, by hand."""
    told = yaml.safe_load(Path(f"conf/toy/{system}.yaml").read_text()) | {"normalisation": "speaker"}
    adapting.write_yaml(f"conf/toy/{system}.yaml", **told)
    folder = adapting.lay_out(f"{system}/selects_on_adapt/fold1_seed1", select="adapt", system=system)
    train.train(folder)
    for name in "ab":
        soundfile.write(f"{name}.wav", 0.1 * np.random.default_rng(ord(name)).standard_normal(4000), 8000)
    model = ser.load(folder)
    raw = {name: model.features(f"{name}.wav") for name in "ab"}
    rest = [adapting.matrices[utt] for utt in adapting.classes if utt[0] != "a"]
    expected = adaptation.shrunk(adaptation.moments(raw.values()), adaptation.moments(rest), 2, 5.0)
    for name, matrix in model.normalised(raw).items():
        wanted = (raw[name] - expected["mean"]) / expected["deviation"]
        np.testing.assert_allclose(matrix, wanted, rtol=1e-4, atol=1e-4)
    together, alone = model.predict(["a.wav", "b.wav"])[0], model.predict("a.wav")
    assert together.probabilities != alone.probabilities
    capsys.readouterr()
    predict.main([str(folder), "a.wav", "b.wav"])
    printed = capsys.readouterr()
    assert "normalised together" in printed.err
    assert f"{together.probabilities['low']:.4f}" in printed.out
    (folder / "adaptation.safetensors").unlink()
    with pytest.raises(UserError, match="adaptation.safetensors: cannot be read"):
        ser.load(folder)


def test_without_recordings_to_adapt_to_nobody_is_heard(adapting, capsys):
    """All are normalised as the training part is, and new recordings one by one."""
    write_protocol(adapting, utterances=0)
    assert adapt_table(1) == {}
    folder = adapting.lay_out("svm/selects_on_adapt/fold1_seed1", select="adapt", system="svm")
    train.train(folder)
    run = read_run(folder)
    fold = read_run_fold(run)
    same = statistics(adapting.matrices[utt] for utt in fold.train)
    for utt in fold.sources:
        wanted = (adapting.matrices[utt] - same["mean"]) / same["deviation"]
        np.testing.assert_allclose(read_features(run, fold)[utt], wanted, rtol=1e-4, atol=1e-4)
    for name in "ab":
        soundfile.write(f"{name}.wav", 0.1 * np.random.default_rng(ord(name)).standard_normal(4000), 8000)
    model = ser.load(folder)
    alone = model.predict("a.wav").probabilities
    assert model.predict(["a.wav", "b.wav"])[0].probabilities == pytest.approx(alone)
    capsys.readouterr()
    predict.main([str(folder), "a.wav", "b.wav"])
    printed = capsys.readouterr()
    assert "normalised together" not in printed.err
    assert f"{alone['low']:.4f}" in printed.out.splitlines()[1]


def test_noisy_copies_are_no_further_utterances(noisy):
    """The statistics of a training speaker are over the drawn utterances and their copies, as those over all are."""
    recipe, run = noisy
    fold = read_run_fold(run)
    object.__setattr__(fold, "adapt", {"a-00": "a", "a-03": "a", "d-01": "d"})
    drawn = fold.with_copies([])
    assert drawn.adapt == fold.adapt
    utt2spk = {utt: source[0] for utt, source in fold.sources.items()} | {"d-01": "d"}
    training = adaptation.moments([recipe.matrices["b-00"]])
    features = read_features(run, fold)
    found = adaptation.of_speakers(features, fold, utt2spk, training, 5.0)
    own = [factor * recipe.matrices[utt] for factor in (1, 2, 3) for utt in ("a-00", "a-03")]
    wanted = adaptation.shrunk(adaptation.moments(own), training, 2, 5.0)
    for name in wanted:
        np.testing.assert_allclose(found["a"][name], wanted[name], rtol=1e-5, atol=1e-5)
    assert np.array_equal(found["b"]["mean"], adaptation.shrunk(None, training, 0, 5.0)["mean"])


def test_what_is_set_aside_is_recorded_in_the_noise_of_the_test(noisy):
    recipe, run = noisy
    fold = read_run_fold(run)
    object.__setattr__(fold, "adapt", {"a-00": "a", "c-00": "c", "d-01": "d"})
    for utt in ("c-00", "d-01"):  # of the development and of the test speaker
        (fold.dev if utt in fold.dev else fold.test).pop(utt)
    features = read_features(run, fold)
    np.testing.assert_allclose(features["d-01"], -recipe.matrices["d-01"], rtol=1e-6)
    np.testing.assert_allclose(features["c-00"], recipe.matrices["c-00"], rtol=1e-6)


# Identity


def test_the_drawn_recordings_are_part_of_a_runs_identity(adapting):
    folder = adapting.lay_out("run", select="adapt", system="svm")
    run = read_run(folder)
    before = run.parts
    drawn = adapt_table(1)
    aside = next(utt for utt in drawn if utt[0] == "a")
    table = Path("data/all/utt2md5")
    text = table.read_text()
    table.write_text(text.replace(f"md5-of-{aside}\n", "another\n"))
    assert run.parts["recordings"] != before["recordings"] and run.parts["split"] == before["split"]
    table.write_text(text)
    assert run.parts == before
    place = Path("data/folds/selects_on_adapt/fold1/adapt")
    there = next(utt for utt in drawn if utt[0] == "b")
    other = next(utt for utt in adapting.classes if utt[0] == "b" and utt not in drawn)
    place.write_text(place.read_text().replace(there, other))
    assert run.parts["split"] != before["split"]


def test_folds_without_a_draw_keep_their_fingerprint(adapting):
    """That of classes and the three parts, as results have it."""
    place = Path("data/folds/selects_on_last")
    lines = [
        sorted(line.split(" ") for line in path.read_text().splitlines())
        for path in (place / "classes", *(place / f"fold1/{part}" for part in ("train", "dev", "test")))
    ]
    assert identity.split_of(place, 1) == identity.fingerprint(*lines)


def test_the_code_of_adaptation_is_that_of_rows_that_adapt(adapting):
    def modules(system, protocol):
        protocol = read_protocol(f"conf/protocols/selects_on_{protocol}.yaml")
        return runs.code_of(read_system(f"conf/toy/{system}.yaml"), protocol).keys()

    assert modules("svm", "adapt") - modules("svm", "last") == {"ser.adaptation"}
    assert "ser.adaptation" not in modules("svm", "last")
    assert modules("tiny", "adapt") == modules("tiny", "last")
    run = read_run(adapting.lay_out("run", select="adapt", system="svm"))
    assert "ser.adaptation" in run.code and "ser.adaptation" not in run.trainer


def test_a_run_of_other_settings_leaves_no_statistics(adapting):
    """A run that was killed before its first checkpoint has kept statistics of other recordings."""
    folder = adapting.lay_out("run", select="adapt", system="svm")
    run = read_run(folder)
    read_features(run, read_run_fold(run))
    assert run.adaptation.exists()
    write_protocol(adapting, **ADAPT, seed=1)
    adapting.lay_out("run", select="adapt", system="svm")
    assert not run.adaptation.exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda path: path.unlink(), "no such table, but the protocol has `adapt`; run stage 1 again"),
        (lambda path: path.write_text("x-1 x\n"), ":1: x-1 is not by x in the data directory; run stage 1 again"),
        (lambda path: path.write_text("a-00 b\n"), ":1: a-00 is not by b in the data directory; run stage 1 again"),
        (lambda path: path.write_text("b-00 b\n"), "0 utterances of a, not 3; run stage 1 again"),
    ],
)
def test_a_table_that_a_hand_has_changed(adapting, change, told):
    run = read_run(adapting.lay_out("run", select="adapt", system="svm"))
    change(Path("data/folds/selects_on_adapt/fold1/adapt"))
    with pytest.raises(UserError) as error:
        read_run_fold(run)
    assert str(error.value).endswith(told)


def test_what_is_scored_cannot_be_adapted_to(adapting):
    run = read_run(adapting.lay_out("run", select="adapt", system="svm"))
    utt = Path("data/folds/selects_on_adapt/fold1/test").read_text().split()[0]
    place = Path("data/folds/selects_on_adapt/fold1/adapt")
    place.write_text(f"{utt} {utt[0]}\n")
    with pytest.raises(UserError, match=rf"adapt:1: {utt} is also in test; remove one of the lines$"):
        read_run_fold(run)
