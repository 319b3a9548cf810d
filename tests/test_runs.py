"""A run's fold and features, with noisy copies."""

import os
from dataclasses import replace
from pathlib import Path

import kaldiio
import numpy as np
import pytest

from ser import identity, runs
from ser.cli import UserError
from ser.reading import read_features, read_groups, read_run_fold


def test_copies_join_the_training_part_alone(noisy):
    recipe, run = noisy
    fold = read_run_fold(run)
    own = recipe.part("train")
    assert set(fold.train) == {*own, *(f"{utt}-snr10" for utt in own), *(f"{utt}-snr0" for utt in own)}
    assert all(fold.train[f"{utt}-snr0"] == fold.train[utt] == recipe.classes[utt] for utt in own)
    assert set(fold.dev) == set(recipe.part("dev"))
    assert set(fold.test) == set(recipe.part("test"))


def test_each_utterance_has_the_features_of_its_noise(noisy):
    recipe, run = noisy
    fold = read_run_fold(run)
    features = read_features(run, fold)
    lengths = features.lengths_of([*fold.train, *fold.dev, *fold.test])
    for utt in recipe.part("train"):
        matrix = recipe.matrices[utt]
        for name, factor in ((utt, 1), (f"{utt}-snr10", 2), (f"{utt}-snr0", 3)):
            assert np.array_equal(features[name], factor * matrix)
            assert lengths[name] == len(matrix)
    for utt in recipe.part("dev"):
        assert np.array_equal(features[utt], recipe.matrices[utt])
    for utt in recipe.part("test"):
        assert np.array_equal(features[utt], -recipe.matrices[utt])


def test_copies_are_in_the_group_of_their_source(noisy):
    _, run = noisy
    groups = read_groups(run, read_run_fold(run))
    assert all(groups[utt] == utt[0] for utt in read_run_fold(run).train)


def test_utterances_may_be_the_groups(noisy):
    """Of a protocol whose folds are `by: utt`, for which there is no table."""
    _, run = noisy
    folds = replace(run.protocol.folds, by="utt")
    groups = read_groups(replace(run, protocol=replace(run.protocol, folds=folds)), read_run_fold(run))
    assert groups == {utt: utt.split("-snr")[0] for utt in read_run_fold(run).train}


def test_missing_copies_are_told(noisy):
    _, run = noisy
    (run.feature_folder("snr0") / "feats.scp").write_text("a-00 nowhere:1\n")
    with pytest.raises(UserError, match="-snr0/feats.scp: no features for .*; run stage 2 again"):
        read_features(run, read_run_fold(run))


def test_what_stage_2_must_have_made(noisy):
    _, run = noisy
    assert run.noises == [None, "snr10", "snr0", "deviation1"]


def test_a_system_takes_its_parts_of_the_feature(recipe):
    """Of a folder that has all parts, those of the system alone, in its order, with and without noise."""
    means = {"kind": "means", "sample_rate": 8000, "n_fft": 64, "hop_length": 32, "n_mels": 3, "n_mfcc": 1}
    system = recipe.yaml.safe_load(Path("conf/toy/svm.yaml").read_text())
    recipe.write_yaml(
        "conf/toy/svm.yaml", **system | {"feature": means | {"parts": ["rms", "mel"]}, "augment": ["snr0"]}
    )
    run = runs.read_run(recipe.lay_out("run", system="svm"))
    for noise, factor in ((None, 1), ("snr0", 2)):
        folder = run.feature_folder(noise)
        folder.mkdir()
        with kaldiio.WriteHelper(f"ark,scp:{folder}/feats.ark,{folder}/feats.scp") as writer:
            for utt, matrix in recipe.matrices.items():
                writer(utt, factor * matrix[:1])
        (folder / "utt2num_frames").write_text("".join(f"{utt} 1\n" for utt in recipe.matrices))
        recipe.seal(folder, "means")
    features = read_features(run, read_run_fold(run))
    assert features.dimension == 4
    utt = recipe.part("train")[0]
    (frame,) = recipe.matrices[utt][:1]  # three mel powers, one coefficient, zero-crossing rate, root mean square
    np.testing.assert_array_equal(features[utt], frame[[5, 0, 1, 2]][None])
    np.testing.assert_array_equal(features[f"{utt}-snr0"], 2 * frame[[5, 0, 1, 2]][None])


def test_speakers_are_normalised_over_what_the_fold_has_of_them(noisy):
    recipe, run = noisy
    run = replace(run, system=replace(run.system, normalisation="speaker"))
    fold = read_run_fold(run)
    features = read_features(run, fold)
    raw = read_features(replace(run, system=replace(run.system, normalisation="none")), fold)
    utt2spk = {line.split()[0]: line.split()[1] for line in (run.data / "utt2spk").read_text().splitlines()}
    for spk in set(utt2spk.values()):
        utts = [utt for utt in (*fold.train, *fold.dev, *fold.test) if utt2spk[utt.split("-snr")[0]] == spk]
        if utts:
            own = np.concatenate([raw[utt] for utt in utts]).astype(float)
            for utt in utts:
                np.testing.assert_allclose(features[utt], (raw[utt] - own.mean(0)) / own.std(0), rtol=1e-3, atol=1e-4)


def edit(path, old, new):
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new, 1))


def other_code(monkeypatch, module):
    """As if the source of a module had been edited since."""
    sources = identity.sources

    def edited(*modules):
        return {name: ("edited" if name == module else of_name) for name, of_name in sources(*modules).items()}

    monkeypatch.setattr(runs, "sources", edited)


def test_a_run_that_is_laid_out_again_is_the_same_run(recipe):
    folder = recipe.lay_out("run")
    before = (folder / "run.yaml").read_bytes()
    (folder / "done").touch()
    recipe.lay_out("run")
    assert (folder / "run.yaml").read_bytes() == before
    runs.read_run(folder).refuse_changes()


CHANGES = {
    "split": (
        lambda: edit("data/folds/selects_on_dev/fold1/train", "a-01 low", "a-01 high"),
        r"utterances in data/folds/selects_on_dev/fold1",
    ),
    "recordings": (lambda: edit("data/all/utt2md5", "md5-of-a-01", "another"), r"recordings \(by data/all/utt2md5\)"),
    "speakers": (lambda: edit("data/all/utt2spk", "a-01 a", "a-01 b"), "speakers"),
}


@pytest.mark.parametrize("part", CHANGES)
def test_a_run_notes_by_content_what_changed(recipe, part):
    change, told = CHANGES[part]
    run = runs.read_run(recipe.lay_out("run"))
    parts = run.parts
    change()
    assert [name for name in parts if run.parts[name] != parts[name]] == [part]
    with pytest.raises(
        UserError,
        match=f"exp/run: made with different {told}; remove or rename the folder to train it again, or undo the change$",
    ):
        run.refuse_changes()


def test_what_another_fold_has_is_no_matter_to_a_run_but_to_its_row(recipe):
    run = runs.read_run(recipe.lay_out("run"))
    identity, row = run.identity, run.row
    edit("data/folds/selects_on_dev/fold2/dev", "c-01 low\n", "")
    run.refuse_changes()
    assert run.identity == identity
    assert [part for part in row if run.row[part] != row[part]] == ["folds"]


def test_file_times_are_no_matter(recipe):
    run = runs.read_run(recipe.lay_out("run"))
    for path in (*Path("data").rglob("*"), *Path("dump").rglob("*")):
        os.utime(path, (1, 1))
    run.refuse_changes()
    read_features(run, read_run_fold(run))


@pytest.mark.parametrize(
    "module", ["ser.models.sherman", "ser.layers", "ser.features.logmel", "ser.normalisation", "ser.batches"]
)
def test_other_code_is_another_run(recipe, monkeypatch, module):
    run = runs.read_run(recipe.lay_out("run"))
    other_code(monkeypatch, module)
    with pytest.raises(UserError, match=rf"exp/run: made with different code \({module}\); remove or rename"):
        run.refuse_changes()


def test_the_training_code_does_not_matter_to_a_finished_run(recipe, monkeypatch):
    run = runs.read_run(recipe.lay_out("run"))
    other_code(monkeypatch, "ser.learners.network")
    run.refuse_changes(ignore=["trainer"])
    with pytest.raises(UserError, match=r"made with different code \(ser\.learners\.network\)"):
        run.refuse_changes()


def test_features_of_other_code_or_recordings_are_refused(recipe, monkeypatch):
    run = runs.read_run(recipe.lay_out("run"))
    dump = run.feature_folder()
    edit(dump / "utt2md5", "md5-of-a-01", "another")
    with pytest.raises(UserError, match=f"{dump}: made from different recordings: a-01; run stage 2 again"):
        read_features(run, read_run_fold(run))
    recipe.seal(dump)
    read_features(run, read_run_fold(run))
    other_code(monkeypatch, "ser.features.logmel")
    with pytest.raises(
        UserError, match=rf"{dump}: made with different code \(ser\.features\.logmel\); run stage 2 again"
    ):
        read_features(run, read_run_fold(run))


def test_a_run_that_has_not_started_is_laid_out_again_and_one_that_has_is_refused(recipe):
    folder = recipe.lay_out("run", epochs=3)
    assert "identity" in (folder / "run.yaml").read_text()
    recipe.lay_out("run", epochs=2)
    assert runs.read_run(folder).system.training.epochs == 2
    (folder / "epochs.jsonl").touch()
    with pytest.raises(
        UserError,
        match=r"exp/run: made with different system \(training.epochs 2, not 3\); remove or rename the folder",
    ):
        recipe.lay_out("run", epochs=3)
    assert runs.read_run(folder).system.training.epochs == 2


def test_what_was_trained_without_a_word_of_what_is_no_run(recipe):
    """Somebody removed run.yaml: old weights are not a new run's."""
    folder = recipe.lay_out("run")
    (folder / "run.yaml").unlink()
    (folder / "done").touch()
    with pytest.raises(
        UserError, match=r"exp/run: no run.yaml that says what was trained here; remove or rename the folder"
    ):
        recipe.lay_out("run")
    assert not (folder / "run.yaml").exists()


def test_a_vocabulary_of_a_run_that_never_came_to_a_checkpoint_is_not_taken_over(spoken):
    folder = spoken.lay_out("run", system="peng", epochs=3)
    (folder / "vocabulary").write_text("<unk>\nold\n")
    spoken.lay_out("run", system="peng", epochs=3)
    assert (folder / "vocabulary").exists()  # the same run, which may go on
    spoken.lay_out("run", system="peng", epochs=2)
    assert not (folder / "vocabulary").exists()


def test_a_part_that_vanished_is_told(recipe):
    Path("data/all/utt2room").write_text("".join(f"{utt} r\n" for utt in sorted(recipe.classes)))
    protocol = recipe.yaml.safe_load(Path("conf/protocols/selects_on_dev.yaml").read_text())
    protocol["folds"]["by"] = "room"
    recipe.write_yaml("conf/protocols/selects_on_dev.yaml", **protocol)
    run = runs.read_run(recipe.lay_out("run"))
    assert "groups" in run.parts
    Path("data/all/utt2room").unlink()
    with pytest.raises(UserError, match="made with different groups"):
        run.refuse_changes()


def test_a_run_of_an_older_version_is_refused(recipe):
    folder = recipe.lay_out("run")
    content = recipe.yaml.safe_load((folder / "run.yaml").read_text())
    for key in ("identity", "parts", "code", "trainer"):
        del content[key]
    (folder / "run.yaml").write_text(recipe.yaml.safe_dump(content))
    (folder / "done").touch()
    with pytest.raises(UserError, match="made with different code, settings or recordings .an older version made it"):
        recipe.lay_out("run")


def test_settings_that_were_added_since_do_not_make_it_another_run(recipe):
    """A run.yaml of an older version lacks them; they have the values that were meant then."""
    folder = recipe.lay_out("run")
    (folder / "done").touch()
    content = recipe.yaml.safe_load((folder / "run.yaml").read_text())
    for part, key in (("system", "augment"), ("protocol", "noise")):
        del content[part][key]
    del content["protocol"]["folds"]["test_parts"]
    (folder / "run.yaml").write_text(recipe.yaml.safe_dump(content, sort_keys=False))
    runs.read_run(folder).refuse_changes()
    content["protocol"]["folds"]["test_parts"] = 2  # not what is meant now
    (folder / "run.yaml").write_text(recipe.yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(UserError, match="made with different protocol"):
        runs.read_run(folder).refuse_changes()


def test_the_numbers_of_papers_in_an_older_run_are_not_read(recipe):
    folder = recipe.lay_out("run")
    (folder / "done").touch()
    before = runs.read_run(folder)
    content = recipe.yaml.safe_load((folder / "run.yaml").read_text())
    content["system"]["paper"] = [{"corpus": "toy", "table": "IV", "protocol": "paper", "wa": 80.0, "ua": None}]
    content["parts"]["system"] = "other"  # so that the settings themselves are compared
    (folder / "run.yaml").write_text(recipe.yaml.safe_dump(content, sort_keys=False))
    assert runs.read_run(folder) == before
    assert runs.changes(content, before) == {"system": "system"}  # with no setting that differs


def test_folds_of_another_protocol_of_the_same_name_are_refused(recipe):
    run = runs.read_run(recipe.lay_out("run"))
    content = recipe.yaml.safe_load(Path("conf/protocols/selects_on_dev.yaml").read_text()) | {"name": "selects_on_dev"}
    made_for = Path("data/folds/selects_on_dev/protocol.yaml")
    made_for.write_text(recipe.yaml.safe_dump(content | {"description": "in other words"}))
    run.refuse_changes()
    made_for.write_text(recipe.yaml.safe_dump(content | {"folds": {"kind": "groups", "by": "spk", "number": 3}}))
    with pytest.raises(
        UserError,
        match=r"data/folds/selects_on_dev: made for another protocol of this name: folds.number 3, not 4; run stage 1",
    ):
        run.refuse_changes()
