"""Scores on disk, and stage 5, which makes them."""

import os
from pathlib import Path

import numpy as np
import pytest
import skops.io

from ser import score, train, train_svm
from ser.cli import UserError
from ser.scores import Scores, read_scores, write_scores

ABOUT = {"system": "a", "overlap": "train 3: all of it", "command": "python -m x --y 'z: #'"}


def made_up(number=20, seed=0):
    rng = np.random.default_rng(seed)
    posteriors = rng.dirichlet([1, 1, 1], number)
    return Scores(
        about=ABOUT,
        classes=["zeal", "anger", "calm"],
        utts=[f"u-{place:02d}" for place in rng.permutation(number)],
        true=rng.integers(3, size=number),
        predicted=posteriors.argmax(1),
        posteriors=posteriors,
    )


def test_round_trip(tmp_path):
    scores = made_up()
    write_scores(tmp_path / "new/scores.txt", scores)
    read = read_scores(tmp_path / "new/scores.txt")
    order = np.argsort(scores.utts)
    assert read.utts == sorted(scores.utts)
    assert (read.about, read.classes) == (ABOUT, scores.classes)
    assert np.array_equal(read.true, scores.true[order])
    assert np.array_equal(read.predicted, scores.predicted[order])
    np.testing.assert_allclose(read.posteriors, scores.posteriors[order], atol=5e-7)
    write_scores(tmp_path / "again.txt", read)
    assert (tmp_path / "again.txt").read_bytes() == (tmp_path / "new/scores.txt").read_bytes()


def test_the_file_can_be_read_by_eye(tmp_path):
    scores = Scores({"seed": 1, "note": "two\nlines"}, ["a", "b"], ["y", "x"], np.array([0, 1]), np.array([1, 1]), np.array([[0.25, 0.75], [1e-9, 1]]))
    write_scores(tmp_path / "scores.txt", scores)
    assert (tmp_path / "scores.txt").read_text() == (
        "# seed: 1\n# note: two lines\n# utt true predicted a b\nx b b 0.000000 1.000000\ny a b 0.250000 0.750000\n"
    )


def test_the_prediction_survives_posteriors_that_are_almost_equal(tmp_path):
    posteriors = np.array([[0.49999999, 0.50000001]])
    write_scores(tmp_path / "scores.txt", Scores({}, ["a", "b"], ["x"], np.array([1]), posteriors.argmax(1), posteriors))
    assert read_scores(tmp_path / "scores.txt").predicted.tolist() == [1]


GOOD = "# seed: 1\n# utt true predicted a b\nx b b 0.1 0.9\ny a b 0.2 0.8\n"
FAULTS = {
    # name: (old, new, line)
    "blank line": ("y a", "\ny a", 4),
    "unknown class": ("x b b", "x c b", 3),
    "unknown prediction": ("x b b", "x b c", 3),
    "a posterior too few": ("0.2 0.8", "0.2", 4),
    "a posterior too many": ("0.2 0.8", "0.2 0.8 0.1", 4),
    "no number": ("0.2 0.8", "0.2 0,8", 4),
    "cut short": ("y a b 0.2 0.8\n", "y a", 4),
    "merge conflict": ("y a", "<<<<<<< HEAD\ny a", 4),
    "no heading": ("# utt true predicted a b\n", "", 2),
    "remark without a value": ("# seed: 1", "# seed", 1),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_line_is_named(tmp_path, name):
    old, new, line = FAULTS[name]
    assert GOOD.count(old) == 1
    path = tmp_path / "scores.txt"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(UserError) as error:
        read_scores(path)
    assert str(error.value) == f"{path}:{line}: not a line of scores; run stage 5 again"


def test_scores_without_any(tmp_path):
    (tmp_path / "scores.txt").write_text("# seed: 1\n# utt true predicted a b\n")
    with pytest.raises(UserError, match=r"scores\.txt: holds no scores; run stage 5 again"):
        read_scores(tmp_path / "scores.txt")


def test_the_last_line_counts_without_its_line_end(tmp_path):
    (tmp_path / "scores.txt").write_text(GOOD.removesuffix("\n"))
    assert read_scores(tmp_path / "scores.txt").utts == ["x", "y"]


def run_score():
    score.main(["--systems", "conf/toy/tiny.yaml", "conf/toy/svm.yaml", "--protocols", "conf/protocols/selects_on_test.yaml", "--device", "cpu"])


def test_stage_5_scores_what_is_done_and_new(recipe, capsys):
    one, two = (recipe.lay_out(f"tiny/selects_on_test/fold{fold}_seed1", "test", fold=fold, epochs=1) for fold in (1, 2))
    train.train(one, "cpu")
    capsys.readouterr()
    run_score()
    printed = capsys.readouterr().out.splitlines()
    result = Path("results/tiny/selects_on_test/fold1_seed1.txt")
    scores = read_scores(result)
    right = 100 * (scores.predicted == scores.true).mean()
    assert printed[0].startswith(f"{result}: WA {right:.1f} UA ")
    assert "exp/tiny/selects_on_test/fold2_seed1: not done, left out" in printed
    assert "exp/svm/selects_on_test: no runs; stages 3 and 4 make them" in printed
    assert result.with_suffix(".epochs.jsonl").read_bytes() == (one / "epochs.jsonl").read_bytes()
    assert scores.about.items() >= {
        ("system", "tiny"), ("corpus", "toy"), ("protocol", "selects_on_test"), ("select", "test"), ("fold", "1 of 2"), ("seed", "1"),
        ("overlap", "sizes of fold 1; train and test share nothing"), ("commit", "0"), ("machine", "this"), ("versions", "python 3"),
        ("command", "a test"),
    }  # fmt: skip

    train.train(two, "cpu")
    capsys.readouterr()
    before = result.stat().st_mtime_ns
    run_score()
    assert capsys.readouterr().out.startswith("results/tiny/selects_on_test/fold2_seed1.txt: WA ")
    assert result.stat().st_mtime_ns == before
    assert set(read_scores(result.with_stem("fold2_seed1")).utts) == set(recipe.part("train"))  # fold 2 is the other way round

    later = result.stat().st_mtime + 10  # the run was made again after it was scored
    os.utime(one / "done", (later, later))
    run_score()
    assert capsys.readouterr().out.startswith(f"{result}: WA ")


def test_stage_5_of_an_svm(recipe, capsys):
    folder = recipe.lay_out("svm/selects_on_test/fold1_seed1", "test", system="svm")
    train_svm.train(folder)
    assert (folder / "done").exists()
    run_score()
    scores = read_scores(Path("results/svm/selects_on_test/fold1_seed1.txt"))
    machine = skops.io.load(folder / "model.skops")
    assert scores.utts == sorted(recipe.part("test"))
    pooled = [np.concatenate([recipe.matrices[utt].mean(0), recipe.matrices[utt].std(0)]) for utt in scores.utts]
    assert np.array_equal(scores.predicted, machine.predict(np.stack(pooled)))
    assert (scores.predicted == scores.true).mean() > 0.8
    assert "parameters" not in scores.about
    assert scores.about["chosen"].startswith("svc__C ")
    assert "nan" not in scores.about["chosen"]

    capsys.readouterr()
    train_svm.train(folder)
    assert capsys.readouterr().out == f"{folder}: done already\n"


def test_an_svms_inner_groups_are_those_of_the_protocol(recipe, monkeypatch):
    """Speakers, of which the training part has two; and utterances where they are drawn at random."""
    heard = []
    monkeypatch.setattr("ser.models.svm.fit", lambda pooled, targets, groups, *others: heard.append(list(groups)) or 1 / 0)
    recipe.write_yaml(
        "conf/protocols/selects_on_chance.yaml", description="d", classes={"low": ["calm"], "high": ["angry"]},
        folds={"kind": "random", "number": 1, "test_share": 0.2, "seed": 1}, select="test",
    )  # fmt: skip
    Path("data/folds/selects_on_chance").symlink_to("selects_on_test")
    for select in ("dev", "test", "chance"):
        with pytest.raises(ZeroDivisionError):
            train_svm.train(recipe.lay_out(select, select, system="svm"))
    utts = recipe.part("train")
    speakers = [utt[0] for utt in utts]  # of the training part: nobody hears the development part
    assert heard == [speakers, speakers, utts]
