"""Scores on disk, and stage 5, which makes them."""

import hashlib
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skops.io

from ser import networks, provenance, score, train
from ser import scores as scores_module
from ser.cli import UserError
from ser.epochs import read_log
from ser.identity import settings
from ser.reading import read_run_fold
from ser.runs import read_run
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
    assert {key: value for key, value in read.about.items() if key != "checksum"} == ABOUT
    assert read.classes == scores.classes
    assert np.array_equal(read.true, scores.true[order])
    assert np.array_equal(read.predicted, scores.predicted[order])
    np.testing.assert_allclose(read.posteriors, scores.posteriors[order], atol=5e-7)
    write_scores(tmp_path / "again.txt", read)
    assert (tmp_path / "again.txt").read_bytes() == (tmp_path / "new/scores.txt").read_bytes()


def test_the_file_can_be_read_by_eye(tmp_path):
    scores = Scores(
        {"seed": 1, "note": "two\nlines"},
        ["a", "b"],
        ["y", "x"],
        np.array([0, 1]),
        np.array([1, 1]),
        np.array([[0.25, 0.75], [1e-9, 1]]),
    )
    write_scores(tmp_path / "scores.txt", scores)
    head = "# seed: 1\n# note: two lines\n"
    body = "# utt true predicted a b\nx b b 0.000000 1.000000\ny a b 0.250000 0.750000\n"
    checksum = hashlib.sha256((head + body).encode()).hexdigest()
    assert (tmp_path / "scores.txt").read_text() == f"{head}# checksum: {checksum}\n{body}"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"(u-07 .* )(\S+) (\S+) (\S+)", r"\1\3 \2 \4"),  # a posterior
        ("u-07 (zeal|anger|calm)", "u-07 zeal"),  # a true class
        ("# overlap: train 3", "# overlap: train 4"),
        ("# command: .*\n", ""),
        ("(# checksum: ).", r"\1g"),
        ("(u-07.*\n)(u-08.*\n)", r"\2\1"),  # their order
    ],
)
def test_a_file_that_was_changed_by_hand_is_refused(tmp_path, old, new):
    path = tmp_path / "scores.txt"
    scores = made_up()
    scores.true[scores.utts.index("u-07")] = 2
    write_scores(path, scores)
    changed = re.sub(old, new, path.read_text())
    assert changed != path.read_text()
    path.write_text(changed)
    with pytest.raises(UserError) as error:
        read_scores(path)
    assert str(error.value) == (
        f"{path}: changed since stage 5 wrote it; restore it with git, or remove it and run stage 5 again"
    )
    path.write_text(re.sub("# checksum: .*\n", "", changed))  # of an older version, which wrote none
    assert len(read_scores(path).utts) == 20


def test_another_kind_of_line_end_is_no_change(tmp_path):
    path = tmp_path / "scores.txt"
    write_scores(path, made_up())
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_scores(path).about["checksum"]


def test_the_prediction_survives_posteriors_that_are_almost_equal(tmp_path):
    posteriors = np.array([[0.49999999, 0.50000001]])
    write_scores(
        tmp_path / "scores.txt", Scores({}, ["a", "b"], ["x"], np.array([1]), posteriors.argmax(1), posteriors)
    )
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
    "undefined": ("0.2 0.8", "0.2 nan", 4),
    "infinite": ("0.2 0.8", "0.2 inf", 4),
    "negative": ("0.2 0.8", "-0.2 0.8", 4),
    "more than 1": ("0.2 0.8", "2 0.8", 4),
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


def test_an_utterance_that_stands_twice(tmp_path):
    """It would count twice."""
    (tmp_path / "scores.txt").write_text(GOOD + "x b b 0.1 0.9\n")
    with pytest.raises(UserError, match=r"scores\.txt: x appears twice; run stage 5 again"):
        read_scores(tmp_path / "scores.txt")


def test_scores_without_any(tmp_path):
    (tmp_path / "scores.txt").write_text("# seed: 1\n# utt true predicted a b\n")
    with pytest.raises(UserError, match=r"scores\.txt: contains no scores; run stage 5 again"):
        read_scores(tmp_path / "scores.txt")


def test_the_last_line_counts_without_its_line_end(tmp_path):
    (tmp_path / "scores.txt").write_text(GOOD.removesuffix("\n"))
    assert read_scores(tmp_path / "scores.txt").utts == ["x", "y"]


def run_score(*options):
    score.main(
        [
            *options,
            "--systems",
            "conf/toy/tiny.yaml",
            "conf/toy/svm.yaml",
            "--protocols",
            "conf/protocols/selects_on_test.yaml",
            "--device",
            "cpu",
        ]
    )


def test_stage_5_scores_what_is_done_and_new(recipe, capsys):
    one, two = (recipe.lay_out(f"tiny/selects_on_test/fold{fold}_seed1", "test", fold=fold) for fold in (1, 2))
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
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == printed[0]  # told again, and not made again
    assert shown[1].startswith("results/tiny/selects_on_test/fold2_seed1.txt: WA ")
    assert result.stat().st_mtime_ns == before
    assert set(read_scores(result.with_stem("fold2_seed1")).utts) == set(
        recipe.part("train")
    )  # fold 2 is the other way round


@pytest.fixture
def scored(recipe, capsys):
    """A run of an SVM and its scores: (folder, file of the scores)."""
    folder = recipe.lay_out("svm/selects_on_test/fold1_seed1", "test", system="svm")
    train.train(folder)
    run_score()
    capsys.readouterr()
    return folder, Path("results/svm/selects_on_test/fold1_seed1.txt")


def test_speakers_and_sexes_are_kept_beside_the_scores(scored, recipe):
    """For the utterances that were scored, in the order of the tables; also where the scores are up to date."""
    folder, result = scored
    test = sorted(recipe.part("test"))
    assert Path("results/utt2spk").read_text() == "".join(f"{utt} d\n" for utt in test)
    assert not Path("results/spk2gender").exists()  # data/all has none
    Path("data/all/spk2gender").write_text("a f\nb m\nc f\nd m\n")
    before = result.stat().st_mtime_ns
    run_score()
    assert result.stat().st_mtime_ns == before
    assert Path("results/spk2gender").read_text() == "d m\n"
    train.train(recipe.lay_out("svm/selects_on_test/fold2_seed1", "test", system="svm", fold=2))
    run_score()
    scored = sorted([*recipe.part("train"), *test])
    assert Path("results/utt2spk").read_text() == "".join(f"{utt} {utt[0]}\n" for utt in scored)
    assert Path("results/spk2gender").read_text() == "a f\nb m\nd m\n"
    stamp = Path("results/utt2spk").stat().st_mtime_ns
    run_score()
    assert Path("results/utt2spk").stat().st_mtime_ns == stamp
    assert sorted(path.name for path in Path("results").iterdir()) == ["spk2gender", "svm", "utt2spk"]


@pytest.mark.parametrize(
    ("table", "line", "told"),
    [("utt2spk", "d-03 x", "d-03 has x, but d"), ("spk2gender", "d f", "d has f, but m")],
)
def test_another_speaker_or_sex_than_in_results(scored, table, line, told):
    folder, result = scored
    result.unlink()
    Path("data/all/spk2gender").write_text("d m\n")
    Path("results", table).write_text(f"{line}\n")
    with pytest.raises(UserError, match=f"^results/{table}: {told} in data/all/{table}; correct the one that is wrong"):
        run_score()
    assert Path("results", table).read_text() == f"{line}\n" and not result.exists()


def test_scores_say_what_they_follow_from(scored):
    folder, result = scored
    scores, run = read_scores(result), read_run(folder)
    assert scores.about["run"] == run.identity
    assert (
        scores.about["model"]
        == hashlib.md5(hashlib.md5((folder / "model.skops").read_bytes()).hexdigest().encode()).hexdigest()
    )
    assert scores.row == run.row
    assert scores.settings("system") == settings(run.system)
    assert scores.settings("protocol") == settings(run.protocol)
    assert "ser.models.svm " in scores.about["modules"] and "ser.features.logmel " in scores.about["modules"]


def test_file_times_are_no_matter(scored, recipe):
    """A run that was made again with different settings is scored, though its scores seem to be newer; and one that is the same is not."""
    folder, result = scored
    before = result.read_bytes()
    os.utime(folder / "done", (2e9, 2e9))
    run_score()
    assert result.read_bytes() == before
    os.utime(result, (3e9, 3e9))
    shutil.rmtree(folder)
    conf = Path("conf/toy/svm.yaml")
    recipe.write_yaml(
        str(conf),
        **(content := recipe.yaml.safe_load(conf.read_text())) | {"model": content["model"] | {"cost": [0.01]}},
    )
    train.train(recipe.lay_out("svm/selects_on_test/fold1_seed1", "test", system="svm"))
    run_score()
    scores = read_scores(result)
    assert scores.settings("system")["model"]["cost"] == [0.01]
    assert scores.about["run"] == read_run(folder).identity
    assert not (result.parent / "own").exists()  # of the same commit and machine


def test_other_weights_are_scored_again(scored):
    folder, result = scored
    machine = skops.io.load(folder / "model.skops")
    machine[-1].intercept_ += 100.0
    machine[-1]._intercept_ += 100.0
    skops.io.dump(machine, folder / "model.skops")
    os.utime(result, (3e9, 3e9))
    before = read_scores(result)
    run_score()
    assert read_scores(result).about["model"] != before.about["model"]
    assert read_scores(result).about["run"] == before.about["run"]


@pytest.mark.parametrize("key", ["commit", "machine"])
def test_committed_scores_of_another_commit_or_machine_stay(scored, capsys, monkeypatch, key):
    folder, result = scored
    monkeypatch.setattr(provenance, "is_committed", lambda path: path == result)
    scores = read_scores(result)
    write_scores(result, replace(scores, about={**scores.about, key: "another", "model": "another"}))
    published = result.read_text()
    run_score()
    own = result.parent / "own" / result.name
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("results/")]
    assert told[0].startswith(f"{result}: kept, since it is in git and from another commit or machine (commit ")
    assert told[0].endswith("; give run.sh --replace true to replace it")
    assert told[1].startswith(f"{own}: WA ")
    assert result.read_text() == published
    assert read_scores(own).about["run"] == read_run(folder).identity
    before = own.stat().st_mtime_ns
    run_score()
    assert own.stat().st_mtime_ns == before  # current
    run_score("--replace")
    assert read_scores(result).about[key] != "another"
    assert not own.exists()


def test_scores_that_git_does_not_know_are_replaced(scored, monkeypatch):
    """They are the user's own, of an earlier commit."""
    folder, result = scored
    monkeypatch.setattr(provenance, "is_committed", lambda path: False)
    scores = read_scores(result)
    write_scores(result, replace(scores, about={**scores.about, "commit": "earlier", "model": "another"}))
    run_score()
    assert read_scores(result).about["commit"] == "0"
    assert not (result.parent / "own").exists()


def test_scores_cut_at_the_end_of_a_line_are_made_again(scored, capsys):
    folder, result = scored
    whole = result.read_text()
    result.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match=r"fold1_seed1.txt: 11 utterances instead of 12; run stage 5 again"):
        read_scores(result)
    run_score()
    assert result.read_text() == whole


def test_other_code_of_scoring_scores_again(scored, monkeypatch):
    folder, result = scored
    before = read_scores(result).about["scorer"]
    sources = scores_module.learner_sources
    monkeypatch.setattr(scores_module, "learner_sources", lambda system: {**sources(system), "ser.networks": "edited"})
    run_score()
    assert read_scores(result).about["scorer"] != before


def test_runs_of_other_settings_than_the_file_has_are_left_out(scored, capsys, recipe):
    folder, result = scored
    content = recipe.yaml.safe_load(Path("conf/toy/svm.yaml").read_text())
    recipe.write_yaml("conf/toy/svm.yaml", **content | {"model": content["model"] | {"cost": [7]}})
    before = result.read_bytes()
    run_score()
    told = "exp/svm/selects_on_test/fold1_seed1: left out, made with different settings: model.cost [1.0, 10.0], not [7.0]\n"
    assert told in capsys.readouterr().out
    assert result.read_bytes() == before


def test_a_log_that_is_damaged_is_written_again(recipe):
    folder = recipe.lay_out("tiny/selects_on_test/fold1_seed1", "test")
    train.train(folder, "cpu")
    run_score()
    log = Path("results/tiny/selects_on_test/fold1_seed1.epochs.jsonl")
    log.write_text("damaged")
    run_score()
    assert log.read_bytes() == (folder / "epochs.jsonl").read_bytes()


def test_a_run_that_cannot_be_scored_does_not_stop_the_others(recipe, capsys):
    folders = [
        recipe.lay_out(f"svm/selects_on_test/fold{fold}_seed1", "test", system="svm", fold=fold) for fold in (1, 2)
    ]
    for folder in folders:
        train.train(folder)
    (folders[0] / "chosen.json").write_text("x")
    with pytest.raises(UserError, match="fold1_seed1/chosen.json: damaged"):
        run_score()
    assert "results/svm/selects_on_test/fold2_seed1.txt: WA" in capsys.readouterr().out
    (folders[1] / "chosen.json").write_text("x")
    shutil.rmtree("results")
    with pytest.raises(UserError, match="2 runs could not be scored .see above."):
        run_score()
    assert capsys.readouterr().err.count("error: exp/svm/selects_on_test/fold") == 2


def test_scores_of_a_changed_run_are_refused(scored):
    folder, result = scored
    table = Path("data/all/utt2md5")
    table.write_text(table.read_text().replace("md5-of-a-00", "another"))
    with pytest.raises(UserError, match=rf"^{folder.relative_to(Path.cwd())}: made with different recordings"):
        run_score()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"svc__C": 1}', b'{"seconds": "x"}', b'{"seconds": NaN}', b"\xff", b"[" * 9999],
)
def test_a_damaged_choice_is_told_in_a_line(scored, content):
    folder, result = scored
    result.unlink()
    (folder / "chosen.json").write_bytes(content)
    with pytest.raises(
        UserError, match=r"^exp/svm/selects_on_test/fold1_seed1/chosen\.json: damaged; remove or rename exp/"
    ):
        run_score()


def test_a_network_that_gives_no_numbers_is_not_scored(recipe):
    """NaN would be taken for the first class."""
    folder = recipe.lay_out("tiny/selects_on_test/fold1_seed1", "test")
    train.train(folder, "cpu")
    weights, notes = networks.load(folder / "best.safetensors")
    networks.save(
        folder / "best.safetensors",
        {name: value * np.nan if "output" in name else value for name, value in weights.items()},
        notes,
    )
    with pytest.raises(
        UserError,
        match=r"best\.safetensors: gives posteriors that are not finite; remove .*fold1_seed1 and train it again",
    ):
        run_score()


def test_features_that_are_no_numbers_are_refused(scored):
    """Where they are read, so that training, scoring and drawing refuse them too."""
    folder, result = scored
    result.unlink()
    utt = read_run_fold(read_run(folder)).test.popitem()[0]
    place = dict(line.split() for line in next(Path("dump").glob("*/feats.scp")).read_text().splitlines())[utt]
    ark, offset = place.rsplit(":", 1)
    content = bytearray(Path(ark).read_bytes())
    first = int(offset) + 15  # behind the header of a matrix of floats
    content[first : first + 4] = np.float32(np.nan).tobytes()
    Path(ark).write_bytes(content)
    with pytest.raises(
        UserError,
        match=rf"{place}: cannot read the features of {utt} \(infinite or undefined values\); remove .* and run stage 2 again",
    ):
        run_score()


LINE = {"epoch": 1, "train_loss": 1.0, "dev_loss": 1.0, "dev_wa": 50.0, "dev_ua": 50.0, "seconds": 1.0}


@pytest.mark.parametrize(
    ("content", "line"),
    [("", ""), ("{", ":1"), (json.dumps(LINE) + "\n{}", ":2"), (json.dumps(LINE) + "\n" + json.dumps(LINE), ":2"), ("[1]", ":1"),
     (json.dumps(LINE | {"dev_loss": "x"}), ":1"), (json.dumps(LINE | {"dev_loss": None}), ":1")],
)  # fmt: skip
def test_a_damaged_log_is_told_in_a_line(tmp_path, content, line):
    (tmp_path / "epochs.jsonl").write_text(content)
    with pytest.raises(UserError, match=rf"epochs\.jsonl{line}: (contains no epochs|not a valid line)"):
        read_log(tmp_path / "epochs.jsonl", ("seconds", "dev_loss"))


def test_a_log(tmp_path):
    (tmp_path / "epochs.jsonl").write_text(json.dumps(LINE) + "\n" + json.dumps(LINE | {"epoch": 2}) + "\n")
    assert read_log(tmp_path / "epochs.jsonl") == [LINE, LINE | {"epoch": 2}]


def test_scores_that_are_not_text(tmp_path):
    (tmp_path / "scores.txt").write_bytes(GOOD.encode() + b"\xff\n")
    with pytest.raises(UserError, match=r"scores\.txt:5: not UTF-8 text; remove the file and run its stage again"):
        read_scores(tmp_path / "scores.txt")


def test_stage_5_of_an_svm(recipe, capsys):
    folder = recipe.lay_out("svm/selects_on_test/fold1_seed1", "test", system="svm")
    train.train(folder)
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
    train.train(folder)
    assert capsys.readouterr().out == f"{folder}: already done\n"


def test_an_svms_inner_groups_are_those_of_the_protocol(recipe, monkeypatch):
    """Speakers, of which the training part has two; and utterances where they are drawn at random."""
    heard = []
    monkeypatch.setattr(
        "ser.learners.classical.search", lambda pooled, targets, groups, *others: heard.append(list(groups)) or 1 / 0
    )
    recipe.write_yaml(
        "conf/protocols/selects_on_chance.yaml", description="d", classes={"low": ["calm"], "high": ["angry"]},
        folds={"kind": "random", "number": 1, "test_share": 0.2, "seed": 1}, select="test",
    )  # fmt: skip
    Path("data/folds/selects_on_chance").symlink_to("selects_on_test")
    for select in ("dev", "test", "chance"):
        with pytest.raises(ZeroDivisionError):
            train.train(recipe.lay_out(select, select, system="svm"))
    utts = recipe.part("train")
    speakers = [utt[0] for utt in utts]  # of the training part: nobody hears the development part
    assert heard == [speakers, speakers, utts]
