"""Stages 3 and 4: which runs there are, which are done, and what becomes of failing ones."""

import itertools
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ser import launch, runs
from ser.cli import UserError

ROOT = Path(runs.__file__).parents[1]

# stands for run.py: keeps its arguments, makes the runs done whose line matches $DONE, and may fail
RUNNER = """\
#!/bin/sh
printf '%s\\n' "$@" > called
for list in "$@"; do :; done
grep "${DONE-.}" "$list" | while read run; do touch "$run/done"; done
exit "${STATUS-0}"
"""


@pytest.fixture
def place(recipe, monkeypatch):
    runner = Path("runner")
    runner.write_text(RUNNER)
    runner.chmod(runner.stat().st_mode | stat.S_IXUSR)
    return recipe


def start(*options, trainer="network", protocols=("dev", "test"), cmd="./runner --queue long"):
    """Launch; return the runs that the runner was given, or None where it was not called."""
    Path("called").unlink(missing_ok=True)
    arguments = ["--trainer", trainer, "--corpus", "toy", "--systems", "conf/toy/tiny.yaml", "conf/toy/svm.yaml"]
    launch.main([*arguments, "--protocols", *(f"conf/protocols/selects_on_{name}.yaml" for name in protocols), "--cmd", cmd, *options])
    return handed() if Path("called").exists() else None


def handed():
    return Path(Path("called").read_text().splitlines()[-1]).read_text().splitlines()


def places(system, protocols, folds, seeds):
    return {
        f"exp/{system}/selects_on_{protocol}/fold{fold}_seed{seed}" for protocol, fold, seed in itertools.product(protocols, folds, seeds)
    }


def test_all_runs_of_the_networks(place):
    given = start("--seeds", "3")
    assert len(given) == len(set(given)) == 12
    assert set(given) == places("tiny", ["dev", "test"], [1, 2], [1, 2, 3])


def test_all_runs_of_the_svms(place):
    assert set(start(trainer="svm")) == places("svm", ["dev", "test"], [1, 2], [1])


def test_what_the_runner_is_told(place):
    start("--nj", "3", "--num-threads", "2", "--seeds", "5", protocols=["dev"])
    queue, name, *arguments, command = Path("called").read_text().splitlines()
    log = Path(command).parent
    assert (queue, name) == ("--queue", "long")
    assert arguments == [
        "--num-threads", "2", "--max-jobs-run", "3", "JOB=1:10", f"{log}/train.JOB.log",
        sys.executable, "-m", "ser.train", "--job", "JOB",
    ]  # fmt: skip
    assert log.parent == Path("exp/log")


@pytest.mark.parametrize(("text", "folds"), [("2", [2]), ("1,2", [1, 2]), ("2,1", [1, 2]), ("1,1", [1]), ("all", [1, 2])])
def test_some_folds(place, text, folds):
    given = start("--folds", text)
    assert len(given) == 2 * len(folds)  # each once
    assert set(given) == places("tiny", ["dev", "test"], folds, [1])


@pytest.mark.parametrize("text", ["3", "0", "1,3", "1-2", "x", "1,x", "1,,2", "", "²", "1.0"])
def test_folds_that_there_are_not(place, text):
    with pytest.raises(UserError) as error:
        start("--folds", text)
    assert str(error.value) == f"--folds {text}: selects_on_dev has folds 1 to 2; write all, or numbers as 1,2"
    assert not Path("exp").exists()


def test_folds_that_were_not_made(place):
    place.write_yaml("conf/protocols/selects_on_luck.yaml", **yaml.safe_load(Path("conf/protocols/selects_on_dev.yaml").read_text()))
    with pytest.raises(UserError, match="data/folds/selects_on_luck: no folds here; run stage 1"):
        start(protocols=["luck"])


def test_what_is_done_is_not_run_again(place, monkeypatch, capsys):
    monkeypatch.setenv("DONE", "fold1")
    assert len(start()) == 4
    assert "network: 4 runs, 0 done, 4 to do\n" in capsys.readouterr().out
    assert set(start()) == places("tiny", ["dev", "test"], [2], [1])
    assert "network: 4 runs, 2 done, 2 to do\n" in capsys.readouterr().out
    monkeypatch.setenv("DONE", ".")
    start()
    capsys.readouterr()
    assert start() is None
    assert capsys.readouterr().out == "network: 4 runs, 4 done, 0 to do\n"
    assert set(start("--seeds", "2")) == places("tiny", ["dev", "test"], [1, 2], [2])


def test_failing_runs_are_named(place, monkeypatch):
    monkeypatch.setenv("DONE", "fold1")
    monkeypatch.setenv("STATUS", "1")
    with pytest.raises(UserError) as error:
        start(protocols=["dev"])
    (log,) = Path("exp/log").iterdir()
    assert str(error.value) == (
        "1 of 2 runs failed: exp/tiny/selects_on_dev/fold2_seed1; "
        f"mend what their logs in {log} name and run the same command again"
    )


def test_a_failing_job_of_run_py(place, monkeypatch, capfd):
    """The data directory is gone: the job ends in one line, which run.py shows, and so does the stage."""
    Path("data/all/utt2spk").unlink()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with pytest.raises(UserError, match="1 of 1 runs failed: exp/svm/selects_on_dev/fold2_seed1; mend "):
        start("--folds", "2", trainer="svm", protocols=["dev"], cmd=f"{sys.executable} {Path(__file__).parents[1]}/tools/run.py")
    shown = capfd.readouterr().err
    assert "error: data/all/utt2spk: no such table" in shown
    assert "Traceback" not in shown


def test_a_folder_made_with_other_settings_is_refused(place):
    start()
    file = Path("conf/toy/tiny.yaml")
    content = yaml.safe_load(file.read_text())
    place.write_yaml(str(file), **content | {"description": "in other words", "paper": [{"corpus": "toy", "table": "I"}]})
    assert start() is None  # words change no result

    place.write_yaml(str(file), **content | {"training": content["training"] | {"epochs": 4}})
    with pytest.raises(UserError) as error:
        start()
    folder = "exp/tiny/selects_on_dev/fold1_seed1"
    assert str(error.value) == f"{folder}/run.yaml: made with another system; remove or rename the folder {folder} to run it anew"
    place.write_yaml(str(file), **content)

    file = Path("conf/protocols/selects_on_dev.yaml")
    content = yaml.safe_load(file.read_text())
    place.write_yaml(str(file), **content | {"classes": {"low": ["calm", "sad"], "high": ["angry"]}})
    with pytest.raises(UserError, match="made with another protocol;"):
        start()
    place.write_yaml(str(file), **content)
    assert start() is None


def test_a_run_is_read_as_it_was_laid_out(place):
    run = runs.read_run(place.lay_out("run", epochs=7))
    assert (run.corpus, run.fold, run.seed, run.made["command"]) == ("toy", 1, 1, "a test")
    assert (run.system.training.epochs, run.system.model.channels) == (7, [4, 6])
    assert (run.protocol.name, run.protocol.select) == ("selects_on_dev", "dev")
    assert (run.folder, run.data, run.folds, run.dump) == (
        place.folder / "exp/run", Path("data/all"), Path("data/folds/selects_on_dev"), Path("dump"),
    )  # fmt: skip
    other = replace(run, folder=Path("exp/other"))
    runs.write_run(other)
    assert runs.read_run("exp/other") == other
    assert list(run.read_fold().train) == place.part("train")


@pytest.mark.parametrize("commit", ["123e45", "12345678e012", "0123456789ab", "1e5", "45fee67-dirty", "null", "1_000", "12:30:45"])
def test_text_in_a_run_stays_text(place, commit):
    """A commit of digits and one e is a number to whom nobody told otherwise."""
    run = runs.read_run(place.lay_out("run"))
    runs.write_run(replace(run, folder=Path("exp/other"), made={"commit": commit, "versions": {"x": commit}}))
    assert runs.read_run("exp/other").made == {"commit": commit, "versions": {"x": commit}}


def test_a_run_without_its_settings(tmp_path):
    (tmp_path / "run.yaml").write_text("corpus: toy\n")
    with pytest.raises(UserError, match=r"run\.yaml: system: missing; remove the folder and run stage 4 again"):
        runs.read_run(tmp_path)


def test_provenance():
    made = runs.provenance("a command")
    assert made["command"] == "a command"
    assert made["versions"]["numpy"] == __import__("numpy").__version__
    assert made["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert made["commit"]


def test_pick(tmp_path):
    (tmp_path / "runs.list").write_text("a/b\nc d/e\n")
    assert runs.pick(tmp_path / "runs.list", 2) == Path("c d/e")
    assert runs.pick(tmp_path, None) == tmp_path
