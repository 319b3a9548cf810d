"""A run's fold and features, with noisy copies."""

from dataclasses import replace
from pathlib import Path

import kaldiio
import numpy as np
import pytest

from ser import runs
from ser.cli import UserError


def test_copies_join_the_training_part_alone(noisy):
    recipe, run = noisy
    fold = run.read_fold()
    own = recipe.part("train")
    assert set(fold.train) == {*own, *(f"{utt}-snr10" for utt in own), *(f"{utt}-snr0" for utt in own)}
    assert all(fold.train[f"{utt}-snr0"] == fold.train[utt] == recipe.classes[utt] for utt in own)
    assert set(fold.dev) == set(recipe.part("dev"))
    assert set(fold.test) == set(recipe.part("test"))


def test_each_utterance_has_the_features_of_its_noise(noisy):
    recipe, run = noisy
    features, fold = run.read_features(), run.read_fold()
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
    groups = run.read_groups()
    assert all(groups[utt] == utt[0] for utt in run.read_fold().train)


def test_utterances_may_be_the_groups(noisy):
    """Of a protocol whose folds are `by: utt`, for which there is no table."""
    _, run = noisy
    folds = replace(run.protocol.folds, by="utt")
    groups = replace(run, protocol=replace(run.protocol, folds=folds)).read_groups()
    assert groups == {utt: utt.split("-snr")[0] for utt in run.read_fold().train}


def test_missing_copies_are_told(noisy):
    _, run = noisy
    (run.feature_folder("snr0") / "feats.scp").write_text("a-00 nowhere:1\n")
    with pytest.raises(UserError, match="-snr0/feats.scp: no features of .*; run stage 2 again"):
        run.read_features()


def test_what_stage_2_must_have_made(noisy):
    _, run = noisy
    assert run.noises == [None, "snr10", "snr0", "deviation1"]


def test_a_system_takes_its_parts_of_the_feature(recipe):
    """Of a folder that has all parts, those of the system alone, in its order, with and without noise."""
    means = {"kind": "means", "sample_rate": 8000, "n_fft": 64, "hop_length": 32, "n_mels": 3, "n_mfcc": 1}
    system = recipe.yaml.safe_load(Path("conf/toy/svm.yaml").read_text())
    recipe.write_yaml("conf/toy/svm.yaml", **system | {"feature": means | {"parts": ["rms", "mel"]}, "augment": ["snr0"]})
    run = runs.read_run(recipe.lay_out("run", system="svm"))
    for noise, factor in ((None, 1), ("snr0", 2)):
        folder = run.feature_folder(noise)
        folder.mkdir()
        with kaldiio.WriteHelper(f"ark,scp:{folder}/feats.ark,{folder}/feats.scp") as writer:
            for utt, matrix in recipe.matrices.items():
                writer(utt, factor * matrix[:1])
        (folder / "utt2num_frames").write_text("".join(f"{utt} 1\n" for utt in recipe.matrices))
    features = run.read_features()
    assert features.dimension == 4
    utt = recipe.part("train")[0]
    (frame,) = recipe.matrices[utt][:1]  # three mel powers, one coefficient, zero-crossing rate, root mean square
    np.testing.assert_array_equal(features[utt], frame[[5, 0, 1, 2]][None])
    np.testing.assert_array_equal(features[f"{utt}-snr0"], 2 * frame[[5, 0, 1, 2]][None])


def test_speakers_are_normalised_over_what_the_fold_has_of_them(noisy):
    recipe, run = noisy
    run = replace(run, system=replace(run.system, normalisation="speaker"))
    features, fold = run.read_features(), run.read_fold()
    raw = replace(run, system=replace(run.system, normalisation="none")).read_features()
    utt2spk = {line.split()[0]: line.split()[1] for line in (run.data / "utt2spk").read_text().splitlines()}
    for spk in set(utt2spk.values()):
        utts = [utt for utt in (*fold.train, *fold.dev, *fold.test) if utt2spk[utt.split("-snr")[0]] == spk]
        if utts:
            own = np.concatenate([raw[utt] for utt in utts]).astype(float)
            for utt in utts:
                np.testing.assert_allclose(features[utt], (raw[utt] - own.mean(0)) / own.std(0), rtol=1e-3, atol=1e-4)


def test_settings_that_were_added_since_do_not_make_it_another_run(recipe):
    """A run.yaml of an older version lacks them; they have the values that were meant then."""
    folder = recipe.lay_out("run")
    run = runs.read_run(folder)
    content = recipe.yaml.safe_load((folder / "run.yaml").read_text())
    for part, key in (("system", "augment"), ("protocol", "noise")):
        del content[part][key]
    del content["protocol"]["folds"]["test_parts"]
    (folder / "run.yaml").write_text(recipe.yaml.safe_dump(content))
    runs.write_run(run)
    content["protocol"]["folds"]["test_parts"] = 2  # not what is meant now
    (folder / "run.yaml").write_text(recipe.yaml.safe_dump(content))
    with pytest.raises(UserError, match="made with other protocol;"):
        runs.write_run(run)
