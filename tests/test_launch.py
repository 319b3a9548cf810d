"""Stages 3 and 4: which runs there are, which are done, and what becomes of failing ones."""

import itertools
import os
import shutil
import stat
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ser import launch, runs, train
from ser.cli import UserError
from ser.files import alone
from ser.reading import read_run_fold
from ser.worker import State

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


def start(*options, learner="network", protocols=("dev", "test"), cmd="./runner --queue long"):
    """Launch; return the runs that the runner was given, or None where it was not called."""
    Path("called").unlink(missing_ok=True)
    arguments = ["--learner", learner, "--corpus", "toy", "--systems", "conf/toy/tiny.yaml", "conf/toy/svm.yaml"]
    launch.main(
        [
            *arguments,
            "--protocols",
            *(f"conf/protocols/selects_on_{name}.yaml" for name in protocols),
            "--cmd",
            cmd,
            *options,
        ]
    )
    return handed() if Path("called").exists() else None


def handed():
    return Path(Path("called").read_text().splitlines()[-1]).read_text().splitlines()


def places(system, protocols, folds, seeds):
    return {
        f"exp/{system}/selects_on_{protocol}/fold{fold}_seed{seed}"
        for protocol, fold, seed in itertools.product(protocols, folds, seeds)
    }


def test_all_runs_of_the_networks(place):
    given = start("--seeds", "3")
    assert len(given) == len(set(given)) == 12
    assert set(given) == places("tiny", ["dev", "test"], [1, 2], [1, 2, 3])


def test_all_runs_of_the_svms(place):
    assert set(start(learner="classical")) == places("svm", ["dev", "test"], [1, 2], [1])


def test_what_the_runner_is_told(place):
    start("--nj", "3", "--num-threads", "2", "--seeds", "5", protocols=["dev"])  # ten runs for three jobs
    queue, name, *arguments, command = Path("called").read_text().splitlines()
    log = Path(command).parent
    assert (queue, name) == ("--queue", "long")
    assert arguments == [
        "--num-threads", "2", "--max-jobs-run", "3", "JOB=1:3", f"{log}/train.JOB.log",
        sys.executable, "-m", "ser.train", "--num-threads", "2", "--list",
    ]  # fmt: skip
    assert log.parent == Path("exp/log")


def test_python_may_lie_in_a_folder_with_the_name_of_a_job(place, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/scratch/JOBS/python")
    start("--nj", "3", protocols=["dev"])
    *_, array, log, python, _, _, _, _, _, _ = Path("called").read_text().splitlines()
    assert (array, Path(log).name, python) == ("JOB_=1:2", "train.JOB_.log", "/scratch/JOBS/python")


@pytest.mark.parametrize(
    ("text", "folds"), [("2", [2]), ("1,2", [1, 2]), ("2,1", [1, 2]), ("1,1", [1]), ("all", [1, 2])]
)
def test_some_folds(place, text, folds):
    given = start("--folds", text)
    assert len(given) == 2 * len(folds)  # each once
    assert set(given) == places("tiny", ["dev", "test"], folds, [1])


@pytest.mark.parametrize(
    "text", ["3", "0", "1,3", "1-3", "2-1", "x", "1,x", "1,,2", "", "²", "1.0", "1-99999999999999"]
)
def test_folds_that_there_are_not(place, text):
    with pytest.raises(UserError) as error:
        start("--folds", text)
    assert (
        str(error.value) == f"--folds {text}: selects_on_dev has folds 1 to 2; give all, or numbers such as 1,2 or 1-3"
    )
    assert not Path("exp").exists()


def test_folds_that_were_not_made(place):
    place.write_yaml(
        "conf/protocols/selects_on_luck.yaml", **yaml.safe_load(Path("conf/protocols/selects_on_dev.yaml").read_text())
    )
    with pytest.raises(UserError, match="data/folds/selects_on_luck: contains no folds; run stage 1"):
        start(protocols=["luck"])


def test_what_is_done_is_not_run_again(place, monkeypatch, capsys):
    monkeypatch.setenv("DONE", "fold1")
    with pytest.raises(UserError, match="2 of 4 runs failed"):
        start()
    assert len(handed()) == 4
    assert "network: 4 runs, 0 done, 4 to do\n" in capsys.readouterr().out
    monkeypatch.setenv("DONE", "fold2")
    assert set(start()) == places("tiny", ["dev", "test"], [2], [1])
    assert "network: 4 runs, 2 done, 2 to do\n" in capsys.readouterr().out
    assert start() is None
    assert capsys.readouterr().out == "network: 4 runs, 4 done, 0 to do\n"
    monkeypatch.setenv("DONE", ".")
    assert set(start("--seeds", "2")) == places("tiny", ["dev", "test"], [1, 2], [2])


def test_failing_runs_are_named(place, monkeypatch):
    monkeypatch.setenv("DONE", "fold1")
    monkeypatch.setenv("STATUS", "1")
    with pytest.raises(UserError) as error:
        start(protocols=["dev"])
    (log,) = Path("exp/log").iterdir()
    assert str(error.value) == (
        "1 of 2 runs failed: exp/tiny/selects_on_dev/fold2_seed1; "
        f"fix the errors in their logs in {log}, then run the same command again"
    )


def test_a_failing_job_of_run_py(place, monkeypatch, capfd):
    """An archive is gone: the job ends in one line, which run.py shows, and so does the stage."""
    next(Path("dump").glob("*/feats.ark")).unlink()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with pytest.raises(UserError, match="1 of 1 runs failed: exp/svm/selects_on_dev/fold2_seed1; fix "):
        start(
            "--folds",
            "2",
            learner="classical",
            protocols=["dev"],
            cmd=f"{sys.executable} {Path(__file__).parents[1]}/tools/run.py",
        )
    shown = capfd.readouterr().err
    assert "cannot read the features of " in shown
    assert "Traceback" not in shown


# stands for run.py where each job is killed in the first run that it takes
KILLED = """\
#!/bin/sh
printf '%s\\n' "$@" > called
for list in "$@"; do :; done
n=1; while [ -e "$(dirname "$list")/run$n" ]; do n=$((n + 1)); done
echo running > "$(dirname "$list")/run$n"
echo attempt >> attempts
exit 1
"""


def test_runs_whose_process_was_killed_do_not_stop_the_others(place, capsys):
    Path("runner").write_text(KILLED)
    with pytest.raises(UserError, match="4 of 4 runs failed: "):
        start("--nj", "1")
    assert Path("attempts").read_text() == "attempt\n" * 4
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if line.startswith("failed: ")] == [
        f"failed: {folder}: its process ended before the run did; was it killed?" for folder in handed()
    ]
    assert shown[-1] == "0 done, 0 running, 4 failed, 0 left"


def test_a_runner_that_starts_nothing_is_called_once(place, monkeypatch):
    Path("runner").write_text("#!/bin/sh\necho attempt >> attempts; exit 2\n")
    with pytest.raises(UserError, match="the job runner failed .see above. and no run started; fix that and"):
        start("--nj", "1")
    assert Path("attempts").read_text() == "attempt\n"


@pytest.fixture
def waits(monkeypatch):
    """An event: a second ago launch began to wait for the runs of other processes."""
    event, wait_for = threading.Event(), launch.wait_for

    def begin(folders):
        threading.Timer(1, event.set).start()
        wait_for(folders)

    monkeypatch.setattr(launch, "wait_for", begin)
    monkeypatch.setattr(launch, "WAIT_SECONDS", 0.1)
    return event


@contextmanager
def other_process(folder, until, ends):
    """As if another process trained the run from now on until an event, and ended it or not."""
    begun = threading.Event()

    def train():
        with alone(folder / "lock", str(folder)):
            begun.set()
            until.wait(120)
            if ends:
                (folder / "done").touch()

    thread = threading.Thread(target=train)
    thread.start()
    begun.wait()
    yield
    thread.join()


def test_a_runner_that_is_killed_leaves_its_runs_to_themselves(place, capsys, waits):
    """They continue: they count as in use elsewhere, and are waited for."""
    Path("runner").write_text(KILLED.replace("exit 1", "kill -9 $$"))
    first = place.lay_out("tiny/selects_on_dev/fold1_seed1")
    with other_process(first, waits, ends=True), pytest.raises(UserError, match="3 of 4 runs failed: "):
        start("--nj", "1")
    assert Path("attempts").read_text() == "attempt\n"
    first = first.relative_to(place.folder)
    shown = capsys.readouterr().out
    assert f"elsewhere: {first}: the job runner ended but its process is still running\n" in shown
    assert f"waiting for 1 runs in use by other processes: {first} (process {os.getpid()} on " in shown


@pytest.mark.parametrize("ends", [True, False])
def test_runs_that_another_process_has_are_waited_for_and_finished(place, monkeypatch, capfd, waits, ends):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    first = place.lay_out("tiny/selects_on_dev/fold1_seed1")
    with other_process(first, waits, ends):
        start(protocols=["dev"], cmd=f"{sys.executable} {ROOT}/tools/run.py")
    shown = capfd.readouterr()
    assert (
        "1 done, 0 running, 0 failed, 0 left, 1 in use elsewhere\n" in shown.out
        and "failed: " not in shown.out + shown.err
    )
    assert "waiting for 1 runs in use by other processes: exp/tiny/selects_on_dev/fold1_seed1 (process" in shown.out
    assert len(list(Path("exp").rglob("done"))) == 2
    assert (first / "last.safetensors").exists() is not ends  # trained here, where the other did not end it


def test_one_that_cannot_be_told_from_a_run_in_work_is_not_overwritten(place):
    """A run that is just beginning has no checkpoint yet: its run.yaml stays what it began with."""
    first = place.lay_out("tiny/selects_on_dev/fold1_seed1")
    before = (first / "run.yaml").read_bytes()
    content = yaml.safe_load(Path("conf/toy/tiny.yaml").read_text())
    place.write_yaml("conf/toy/tiny.yaml", **content | {"training": content["training"] | {"epochs": 4}})
    with alone(first / "lock", str(first)):
        start(protocols=["dev"])
    assert (first / "run.yaml").read_bytes() == before


@pytest.mark.parametrize("option", ["--seeds", "--nj", "--num-threads"])
@pytest.mark.parametrize("value", ["0", "-1", "two"])
def test_numbers_that_cannot_be(place, option, value, capsys):
    with pytest.raises(SystemExit):
        start(f"{option}={value}")
    assert f"argument {option}: {value}: must be 1 or more" in capsys.readouterr().err


def test_features_that_were_not_dumped(place):
    shutil.rmtree("dump")
    with pytest.raises(
        UserError, match=r"dump/logmel-\w+: no features here, or only those of an older version; run stage 2"
    ):
        start()
    assert not Path("called").exists()


def test_a_table_of_runs_one_of_which_fails(place, monkeypatch, capfd):
    """Two jobs share the runs; the cause of the failure is fixed; the same command trains the rest."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = ["--seeds", "2", "--nj", "2"]
    run_py = f"{sys.executable} {ROOT}/tools/run.py"
    bad = Path("exp/tiny/selects_on_dev/fold1_seed2")
    place.lay_out("tiny/selects_on_dev/fold1_seed2", seed=2)
    (bad / "checkpoint.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError) as error:
        start(*command, protocols=["dev"], cmd=run_py)
    assert str(error.value).startswith(f"1 of 4 runs failed: {bad}; fix the errors in their logs in exp/log/")
    shown = capfd.readouterr().out.splitlines()
    reason = f"failed: {bad}: {bad}/checkpoint.safetensors: not a complete safetensors file"
    assert sum(line.startswith(reason) for line in shown) == 1
    assert shown[-1].startswith("3 done, 0 running, 1 failed, 0 left")
    dones = {path: path.stat().st_mtime_ns for path in Path("exp").rglob("done")}
    assert len(dones) == 3

    (bad / "checkpoint.safetensors").unlink()
    start(*command, protocols=["dev"], cmd=run_py)
    shown = capfd.readouterr().out
    assert "network: 4 runs, 3 done, 1 to do\n" in shown and shown.endswith("1 done, 0 running, 0 failed, 0 left\n")
    assert all(path.stat().st_mtime_ns == time for path, time in dones.items())


def test_a_run_among_others_ends_in_the_same_bytes_as_alone(place, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    start("--nj", "1", protocols=["dev"], cmd=f"{sys.executable} {ROOT}/tools/run.py")
    alone = place.lay_out("alone", fold=2)
    train.train(alone, "cpu")
    for name in ("best", "last", "normalisation"):
        among = Path(f"exp/tiny/selects_on_dev/fold2_seed1/{name}.safetensors")
        assert among.read_bytes() == (alone / f"{name}.safetensors").read_bytes()


def test_progress(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    progress = launch.Progress(tmp_path / "runs.list", [Path(f"r{n}") for n in range(8)])
    assert str(progress) == "0 done, 0 running, 0 failed, 8 left"
    progress.states[:2] = [State("running", 990), State("failed", 900, "why")]
    assert str(progress) == "0 done, 1 running, 1 failed, 6 left"
    progress.states[2:5] = [State("done", 900, "60.0"), State("done", 950, "120.0"), State("running", 700)]
    # 90 s a run: three wait, one has run for 10 s, one for longer than the others: 350 s for two jobs
    assert str(progress) == "2 done, 2 running, 1 failed, 3 left; about 0:02:55 to go"


def test_a_folder_made_with_other_settings_is_refused(place, capsys):
    for folder in start():
        (Path(folder) / "done").touch()
    file = Path("conf/toy/tiny.yaml")
    content = yaml.safe_load(file.read_text())
    place.write_yaml(str(file), **content | {"description": "in other words"})
    assert start() is None  # words change no result

    place.write_yaml(str(file), **content | {"training": content["training"] | {"epochs": 4}})
    capsys.readouterr()
    with pytest.raises(UserError) as error:
        start()
    assert str(error.value) == (
        "4 of 4 runs cannot continue (see above); undo the change, or give run.sh --overwrite true to remove these "
        "runs and train them again"
    )
    assert capsys.readouterr().out.splitlines() == [
        f"exp/tiny/selects_on_{name}/{{fold1_seed1,fold2_seed1}}: made with different system (training.epochs 3, not 4)"
        for name in ("dev", "test")
    ]
    place.write_yaml(str(file), **content)

    file = Path("conf/protocols/selects_on_dev.yaml")
    content = yaml.safe_load(file.read_text())
    place.write_yaml(str(file), **content | {"classes": {"low": ["calm", "sad"], "high": ["angry"]}})
    with pytest.raises(UserError, match="2 of 4 runs cannot continue .see above."):
        start()
    assert "fold2_seed1}: made with different protocol (classes.low" in capsys.readouterr().out
    place.write_yaml(str(file), **content)
    assert start() is None


def change_epochs(place, epochs):
    content = yaml.safe_load(Path("conf/toy/tiny.yaml").read_text())
    place.write_yaml("conf/toy/tiny.yaml", **content | {"training": content["training"] | {"epochs": epochs}})


def test_overwrite_replaces_the_runs_that_were_made_otherwise_alone(place, capsys):
    for folder in start("--seeds", "2"):
        (Path(folder) / "best.safetensors").write_text("weights")
        (Path(folder) / "done").touch()
    same = yaml.safe_load(Path("exp/tiny/selects_on_dev/fold1_seed1/run.yaml").read_text())
    change_epochs(place, 4)
    capsys.readouterr()
    given = start("--overwrite", protocols=["dev"])  # of seed 1 alone
    assert set(given) == places("tiny", ["dev"], [1, 2], [1])
    assert capsys.readouterr().out.splitlines()[:2] == [
        "removing exp/tiny/selects_on_dev/{fold1_seed1,fold2_seed1}: made with different system (training.epochs 3, not 4)",
        "network: 2 runs, 0 done, 2 to do",
    ]
    for folder in given:
        assert sorted(os.listdir(folder)) == ["done", "run.yaml"]  # the runner's
        assert runs.read_run(folder).system.training.epochs == 4
    for folder in places("tiny", ["dev"], [1, 2], [2]) | places("tiny", ["test"], [1, 2], [1, 2]):
        assert (Path(folder) / "best.safetensors").exists() and runs.read_run(folder).system.training.epochs == 3
    assert start("--overwrite", protocols=["dev"]) is None  # what is as it should be stays
    change_epochs(place, 3)
    start("--overwrite", protocols=["dev"])
    assert yaml.safe_load(Path("exp/tiny/selects_on_dev/fold1_seed1/run.yaml").read_text())["parts"] == same["parts"]


def test_a_run_that_another_process_trains_with_different_settings_is_not_taken_for_ours(
    place, monkeypatch, capfd, waits
):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    first = place.lay_out("tiny/selects_on_dev/fold1_seed1")
    change_epochs(place, 4)
    with other_process(first, waits, ends=True), pytest.raises(UserError, match=r"^1 of 2 runs cannot continue"):
        start(protocols=["dev"], cmd=f"{sys.executable} {ROOT}/tools/run.py")
    shown = capfd.readouterr().out
    assert "exp/tiny/selects_on_dev/fold1_seed1: made with different system (training.epochs 3, not 4)\n" in shown


def test_overwrite_leaves_what_another_process_works_on(place, capsys):
    for folder in start(protocols=["dev"]):
        (Path(folder) / "epochs.jsonl").write_text("{}")
    for done in Path("exp").rglob("done"):
        done.unlink()
    change_epochs(place, 4)
    first = Path("exp/tiny/selects_on_dev/fold1_seed1")
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    with alone(first / "lock", str(first)), pytest.raises(UserError) as error:
        start("--overwrite", protocols=["dev"])
    assert str(error.value).startswith(
        "1 of 2 runs cannot continue (see above); wait until the other process has finished"
    )
    assert f"{first}: in use by another process\n" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in first.iterdir()} == before
    assert handed() == ["exp/tiny/selects_on_dev/fold2_seed1"]
    assert not Path("exp/tiny/selects_on_dev/fold2_seed1/epochs.jsonl").exists()


def test_overwrite_removes_nothing_where_the_features_are_not_there(place):
    for folder in start(protocols=["dev"]):
        (Path(folder) / "best.safetensors").write_text("weights")
    change_epochs(place, 4)
    shutil.rmtree("dump")
    with pytest.raises(UserError, match="no features here"):
        start("--overwrite", protocols=["dev"])
    assert len(list(Path("exp").rglob("best.safetensors"))) == len(list(Path("exp").rglob("done"))) == 2


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
    assert list(read_run_fold(run).train) == place.part("train")


@pytest.mark.parametrize(
    "commit", ["123e45", "12345678e012", "0123456789ab", "1e5", "45fee67-dirty", "null", "1_000", "12:30:45"]
)
def test_text_in_a_run_stays_text(place, commit):
    """A commit of digits and one e is a number to whom nobody told otherwise."""
    run = runs.read_run(place.lay_out("run"))
    made = {"command": "c", "commit": commit, "machine": "m", "versions": {"x": commit}}
    runs.write_run(replace(run, folder=Path("exp/other"), made=made))
    assert runs.read_run("exp/other").made == made


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [("corpus: toy", "other: toy", "corpus: missing"), ("corpus: toy", "corpus: [1]", "corpus: damaged"), ("fold: 1", "fold: one", "fold: damaged"),
     ("data: data/all", "data: {a: 1}", "data: damaged"), ("folds: data", "folds: [data", "")],
)  # fmt: skip
def test_a_damaged_run_is_told_in_a_line(place, old, new, told):
    path = place.lay_out("run") / "run.yaml"
    text = path.read_text()
    assert f"\n{old}" in text
    path.write_text(text.replace(f"\n{old}", f"\n{new}", 1))
    with pytest.raises(UserError, match=rf"run\.yaml(:\d+)?: {told}") as error:
        runs.read_run(path.parent)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "chosen"), [("all", [1, 2, 3, 5]), ("2", [2]), ("1-3", [1, 2, 3]), ("5,1-2", [1, 2, 5]), ("3-5, 1", [1, 3, 5])]
)  # fmt: skip
def test_numbers_of_folds(text, chosen):
    assert launch.choose_folds(text, [1, 2, 3, 5], "p") == chosen
