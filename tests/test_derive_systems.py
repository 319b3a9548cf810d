"""Systems with other settings, for a try-out."""

from dataclasses import replace
from pathlib import Path

import pytest

from ser import derive_systems, launch, report, runs, score, train
from ser.cli import UserError
from ser.config import read_system
from ser.identity import differences, settings

TINY = "conf/toy/tiny.yaml"


def derive(changes, *systems):
    derive_systems.main(["--set", changes, "--systems", *(systems or [TINY])])


@pytest.fixture
def derived(recipe, capsys):
    """The file that is written for some settings."""

    def derived(changes, system=TINY):
        derive(changes, system)
        (path,) = capsys.readouterr().out.splitlines()
        return path

    return derived


def test_a_derived_system_differs_in_these_settings_alone(derived):
    path = derived("training.learning_rate=1e-3 training.patience=null model.pools=[1,2] augment=[snr10]")
    system, base = read_system(path), read_system(TINY)
    assert system == replace(
        base,
        name=system.name,
        description=system.description,
        training=replace(base.training, learning_rate=1e-3, patience=None),
        model=replace(base.model, pools=[1, 2]),
        augment=["snr10"],
    )
    assert system.description.startswith(f"{base.description}, with ")


def test_the_name_says_the_settings_in_any_order(derived):
    path = derived("training.learning_rate=1e-3 model.dropout=0.5")
    assert path == "exp/systems/tiny+model.dropout=0.5+training.learning_rate=1e-3.yaml"
    assert derived("model.dropout=0.5 training.learning_rate=1e-3") == path
    assert read_system(path).name == "tiny+model.dropout=0.5+training.learning_rate=1e-3"


def test_names_are_safe_and_differ_where_settings_do(derived):
    paths = [derived(f"model.pools={value}") for value in ("[1,2]", "[1,1]", "[2,1]", "[1,02]")]
    assert len(set(paths)) == 4
    for path in paths:
        assert set(Path(path).name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_.=+-")
    many = derived(" ".join(f"training.{key}={value}" for key, value in LONG.items()))
    assert len(Path(many).name) < 130


LONG = {
    "learning_rate": "1e-3",
    "epochs": "2",
    "batch_size": "4",
    "optimiser": "nadam",
    "epsilon": "1e-7",
    "class_weights": "balanced",
}


def test_a_derived_system_may_be_derived_from(derived):
    path = derived("training.epochs=2", derived("model.dropout=0.5"))
    assert path == "exp/systems/tiny+model.dropout=0.5+training.epochs=2.yaml"
    assert differences(settings(read_system(path)), settings(read_system(TINY))) == [
        "model.dropout 0.5, not 0.1",
        "training.epochs 2, not 3",
    ]


def test_exp_may_be_on_another_disk(derived, tmp_path):
    (tmp_path / "disk/deep/exp").mkdir(parents=True)
    Path("exp").symlink_to(tmp_path / "disk/deep/exp")
    assert read_system(derived("training.epochs=2")).training.epochs == 2


FAULTS = {
    "training.epoch=3": f"{TINY} with --set training.epoch=3: training.epoch: unknown key; did you mean training.epochs?",
    "epochs=3": f"{TINY} with --set epochs=3: epochs: unknown key; did you mean training.epochs?",
    "training.epochs=three": f"{TINY} with --set training.epochs=three: training.epochs: input should be a valid integer, not 'three'",
    "model.pools=[1]": f"{TINY} with --set model.pools=[1]: model: pools: 1 values, but channels has 2; give as many",
    "model.pools=[1, 2]": "--set 2]: not KEY=VALUE, such as training.epochs=3; write a list without spaces: model.cost=[1,3]",
    "model.pools=[1": "--set model.pools=[1: not valid YAML: expected ',' or ']', but got '<stream end>'",
    "epochs": "--set epochs: not KEY=VALUE, such as training.epochs=3; write a list without spaces: model.cost=[1,3]",
    "training.epochs=": "--set training.epochs=: not KEY=VALUE, such as training.epochs=3; write a list without spaces: model.cost=[1,3]",
    "training.epochs=2 training.epochs=3": "--set training.epochs=3: training.epochs is set twice; keep one of the two",
    "training=1 training.epochs=3": "--set training=1: training is set twice; keep one of the two",
    "augment=[] augment.x=3": "--set augment=[]: augment is set twice; keep one of the two",
    "description=good": "--set description=good: description cannot be set here; write a system file",
}  # fmt: skip


@pytest.mark.parametrize("changes", FAULTS)
def test_a_fault_names_the_option_and_the_key_and_nothing_is_written(recipe, changes):
    with pytest.raises(UserError) as error:
        derive(changes)
    assert str(error.value) == FAULTS[changes]
    assert not Path("exp").exists()


def test_a_system_that_cannot_have_the_settings_stops_all(recipe):
    with pytest.raises(UserError) as error:
        derive("training.epochs=2", TINY, "conf/toy/svm.yaml")
    assert str(error.value) == (
        "conf/toy/svm.yaml with --set training.epochs=2: training: this system's model is not trained in epochs; "
        "leave it out of --systems"
    )
    assert not Path("exp").exists()


def test_a_try_out_from_training_to_the_table(derived, monkeypatch, capsys):
    """It is recorded as any system, and is a row of the table where it is asked for, and there alone."""
    path = derived("training.epochs=1")
    protocols = ["--protocols", "conf/protocols/selects_on_dev.yaml"]
    Path("runner").write_text("#!/bin/sh\nexit 1\n")
    Path("runner").chmod(0o755)
    common = ["--learner", "network", "--corpus", "toy", "--systems", path, *protocols, "--folds", "1"]
    with pytest.raises(UserError, match="the job runner failed"):
        launch.main([*common, "--cmd", "./runner"])
    folder = Path("exp/tiny+training.epochs=1/selects_on_dev/fold1_seed1")
    assert runs.read_run(folder).system == read_system(path)
    train.train(folder)
    score.main(["--systems", path, *protocols])
    assert Path("results/tiny+training.epochs=1/selects_on_dev/fold1_seed1.txt").exists()
    capsys.readouterr()
    report.main(["--corpus", "toy", "--systems", path])
    assert "| tiny+training.epochs=1 | " in Path("RESULTS.md").read_text()
    report.main(["--corpus", "toy"])
    assert "training.epochs" not in Path("RESULTS.md").read_text()
