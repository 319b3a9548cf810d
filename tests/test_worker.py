"""ser/worker.py: each run of a list is taken once, and none stops the others."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ser import runs as runs_module
from ser import train, worker
from ser.cli import UserError
from ser.files import InUse

ROOT = Path(worker.__file__).parents[1]


@pytest.fixture
def runs(tmp_path):
    (tmp_path / "runs.list").write_text("".join(f"exp/{n}\n" for n in range(1, 201)))
    return tmp_path / "runs.list"


def test_each_run_is_taken_once(runs):
    taken = []
    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(worker.work, runs, taken.append) for _ in range(8)]:
            future.result()
    assert sorted(taken, key=lambda folder: int(folder.name)) == [Path(f"exp/{n}") for n in range(1, 201)]
    assert worker.read_state(runs, 200).name == "done"


def test_a_run_that_fails_does_not_stop_the_others(runs, capsys):
    """Neither by a fault of the user's nor by one of ours."""

    def fails(folder):
        if folder.name == "2":
            raise UserError("a.yaml: wrong; mend it")
        if folder.name == "4":
            raise ValueError("ours\nand more")

    with pytest.raises(UserError, match="2 runs failed .see above.: exp/2 exp/4$"):
        worker.work(runs, fails)
    states = [worker.read_state(runs, n) for n in range(1, 201)]
    assert [state.name for state in states].count("done") == 198
    assert (states[1].name, states[1].more) == ("failed", "a.yaml: wrong; mend it")
    assert (states[3].name, states[3].more) == ("failed", "ValueError: ours")
    shown = capsys.readouterr()
    assert shown.out == "".join(f"== exp/{n}\n" for n in range(1, 201))
    assert shown.err.startswith("error: a.yaml: wrong; mend it\nTraceback ") and shown.err.count("Traceback") == 1
    assert shown.err.endswith("error: ValueError: ours\n")


def test_a_run_that_another_process_has_is_no_failure(runs, capsys):
    def taken(folder):
        if folder.name == "2":
            raise InUse("exp/2 is in use by process 7 on there; skipped")

    worker.work(runs, taken)
    assert worker.read_state(runs, 2)[::2] == ("elsewhere", "exp/2 is in use by process 7 on there; skipped")
    assert "exp/2 is in use by process 7 on there; skipped\n" in capsys.readouterr().out


def test_states(runs):
    assert worker.read_state(runs, 3) == worker.State("waiting")

    def look(folder):
        number = int(folder.name)
        assert worker.read_state(runs, number).name == "running"
        assert worker.read_state(runs, number + 1).name == "waiting"

    worker.work(runs, look)
    state = worker.read_state(runs, 3)
    assert state.name == "done" and 0 <= float(state.more) < 1
    worker.state_file(runs, 4).write_text("")  # taken this moment
    assert worker.read_state(runs, 4).name == "running"


def test_two_copies_of_a_run(recipe):
    """Started at once: one works, the other says so and leaves it alone."""
    folder = recipe.lay_out("run", epochs=40)
    command = [sys.executable, "-m", "ser.train", "--device", "cpu", str(folder)]
    environment = {**__import__("os").environ, "PYTHONPATH": str(ROOT)}
    with (
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as one,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as other,
    ):
        said = [process.communicate(timeout=60)[1] for process in (one, other)]
    assert sorted([one.returncode, other.returncode]) == [0, 1]
    works, leaves = (one, other) if one.returncode == 0 else (other, one)
    assert said[[one, other].index(works)] == ""
    error = said[[one, other].index(leaves)]
    assert error.startswith(f"error: {folder} is in use by process {works.pid} on ") and error.endswith("; skipped\n")
    undisturbed = recipe.lay_out("undisturbed", epochs=40)
    train.train(undisturbed, "cpu")
    assert (folder / "last.safetensors").read_bytes() == (undisturbed / "last.safetensors").read_bytes()


def test_a_run_that_another_process_has_just_ended(recipe, monkeypatch):
    folder = recipe.lay_out("run", epochs=1)

    def ends_meanwhile(path, what, own=worker.alone):
        (folder / "done").touch()
        return own(path, what)

    monkeypatch.setattr(worker, "alone", ends_meanwhile)
    worker.once(folder, lambda run: pytest.fail("trained again"))
    assert runs_module.read_run(folder).is_done
