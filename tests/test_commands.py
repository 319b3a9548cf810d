"""Every command: a quick --help, and faults in one line."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import ser
from ser import cli, make_folds, score, train
from ser.cli import UserError

PACKAGE = Path(ser.__file__).parent
COMMANDS = sorted(path.stem for path in PACKAGE.glob("*.py") if "cli.run(main)" in path.read_text())
CORPORA = " ".join(sorted(path.stem for path in PACKAGE.glob("corpora/[a-z]*.py")))
SLOW = "torch librosa numpy scipy sklearn pydantic yaml matplotlib kaldiio"

# --help as `python -m` gives it, and then the slow modules that it has imported
HELP = f"""
import atexit, runpy, sys
atexit.register(lambda: print(sorted(set("{SLOW}".split()) & sys.modules.keys()), file=sys.stderr))
sys.argv = ["", "--help"]
runpy.run_module("ser.COMMAND", run_name="__main__")
"""


def python(*arguments, folder=None):
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    return subprocess.run([sys.executable, *arguments], env=environment, cwd=folder, capture_output=True, text=True)


def test_the_commands_are_those_of_the_stages():
    assert set(COMMANDS) >= {
        "get_corpus", "prepare_data", "validate_data", "make_folds", "dump_features", "launch", "train", "score", "report",
    }  # fmt: skip


@pytest.mark.parametrize("root", [str(PACKAGE.parent), ""])
@pytest.mark.parametrize("called", [["{package}/train.py"], ["train.py"], ["-m", "ser.train"]])
def test_a_command_that_is_called_as_a_script_or_from_its_folder(called, root):
    """Python looks for every module beside the script, or where the user stands, before all other places."""
    environment = {**os.environ, "PYTHONPATH": root}
    command = [sys.executable, "-X", "importtime", *(word.format(package=PACKAGE) for word in called), "--help"]
    result = subprocess.run(command, env=environment, cwd=PACKAGE, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage: python -m ser.train ")
    assert "ser.cli\n" in result.stderr and " cli\n" not in result.stderr


def test_its_folder_hides_no_other_module():
    program = f"import sys; sys.path.insert(0, {str(PACKAGE)!r}); import ser; print(*sys.path, sep='\\n'); import ser.text, text"
    result = python("-c", program)
    assert str(PACKAGE) not in result.stdout.splitlines() and str(PACKAGE.parent) in result.stdout.splitlines()
    assert result.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'text'"


def seconds_used():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_quick(command):
    times = []
    for _ in range(3):  # the best of three: other programs make it slower, never quicker
        began = seconds_used()
        result = python("-c", HELP.replace("COMMAND", command))
        times.append(seconds_used() - began)
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith(f"usage: python -m ser.{command} ")
        assert result.stderr == "[]\n"  # nothing slow
        if times[-1] < 0.5:
            return
    pytest.fail(f"--help took {min(times):.2f} s of the processor")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["make_folds", "no.yaml", "data", "folds"], "error: no.yaml: no such file\n"),
        (["dump_features", "--systems", "no.yaml", "--", "data", "dump"], "error: no.yaml: no such file\n"),
        (["validate_data", "nowhere"], None),
        (["get_corpus", "nothing", "downloads"], f"error: no corpus 'nothing'; available: {CORPORA}\n"),
    ],
)
def test_a_fault_of_the_users_is_one_line_and_status_1(tmp_path, arguments, error):
    result = python("-m", f"ser.{arguments[0]}", *arguments[1:], folder=tmp_path)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert error in (None, result.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_is_an_error(command):
    module = __import__(f"ser.{command}", fromlist=["main"])
    with pytest.raises(SystemExit) as stop:
        module.main(["--no-such-option"])
    assert stop.value.code == 2


def run(main):
    """What cli.run makes of a command: its exit status, or the line that Python prints before it ends with 1."""
    with pytest.raises(SystemExit) as stop:
        cli.run(main)
    return stop.value.code


def test_a_run_that_is_not_there(tmp_path):
    assert run(lambda: train.main([str(tmp_path / "no")])) == f"error: {tmp_path}/no/run.yaml: no such file"


def test_nothing_to_score_is_no_fault(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = "{kind: svm, functionals: [mean], cost: [1], gamma: [1], inner_folds: 2}"
    feature = "{kind: spectrum, sample_rate: 8000, n_fft: 256, win_length: 200, hop_length: 80, window: hann}"
    Path("a.yaml").write_text(f"description: d\nfeature: {feature}\nnormalisation: none\nmodel: {model}\n")
    with pytest.raises(SystemExit, match="error: b.yaml: no such file"):
        cli.run(lambda: score.main(["--systems", "a.yaml", "--protocols", "b.yaml"]))
    folds = "{kind: groups, by: spk, number: 3}"
    Path("b.yaml").write_text(f"description: d\nclasses: {{x: [a], y: [b]}}\nfolds: {folds}\nselect: last\n")
    cli.run(lambda: score.main(["--systems", "a.yaml", "--protocols", "b.yaml"]))
    assert capsys.readouterr().out == "exp/a/b: no runs; stages 3 and 4 make them\n"


def fails(error):
    def main():
        raise error

    return main


def test_what_becomes_of_errors():
    assert run(fails(UserError("x.yaml:3: bad; mend it"))) == "error: x.yaml:3: bad; mend it"
    assert run(fails(KeyboardInterrupt())) == 130
    assert run(fails(BrokenPipeError())) == 141
    assert run(fails(PermissionError(errno.EACCES, "Permission denied", "/x"))) == (
        "error: /x: Permission denied; check permissions or use another location"
    )
    full = "error: No space left on device; free some space and run the same command again"
    assert run(fails(OSError(errno.ENOSPC, "No space left on device"))) == full
    assert run(fails(OSError(errno.ENOSPC, "No space left on device", "/x"))) == full.replace("error: ", "error: /x: ")


def test_what_a_terminal_would_act_on_is_written_out():
    """A file's name may hold a line break, or what changes the window's title; and bytes that are no UTF-8."""
    name = "é x\x1b]0;pwned\x07\n\r\x85\u2028\ufeff\udcff.wav"
    written = r"é x\x1b]0;pwned\x07\n\r\x85\u2028\ufeff\udcff.wav"
    assert run(fails(UserError(f"{name}: bad; mend it"))) == f"error: {written}: bad; mend it"
    assert run(fails(FileNotFoundError(errno.ENOENT, "No such file", name))) == f"error: {written}: No such file"


@pytest.mark.parametrize("error", [ValueError("ours"), OSError(errno.EIO, "ours"), AssertionError()])
def test_faults_of_ours_keep_their_traceback(error):
    with pytest.raises(type(error)):
        cli.run(fails(error))


def test_a_command_that_ends_well_returns():
    assert cli.run(lambda: None) is None


def test_a_folder_that_cannot_be_written(tmp_path):
    """Here a file stands where the folder would be."""
    (tmp_path / "data").mkdir()
    for name in ("utt2emo", "utt2spk", "utt2sent", "utt2md5"):
        (tmp_path / "data" / name).write_text(
            "".join(f"{spk}-{emo} {spk if name == 'utt2spk' else emo}\n" for spk in "abc" for emo in "xy")
        )
    text = "description: d\nclasses: {x: [x], y: [y]}\nfolds: {kind: groups, by: spk, number: 3}\nselect: dev\n"
    (tmp_path / "protocol.yaml").write_text(text)
    (tmp_path / "folds").write_text("a file")
    told = run(
        lambda: make_folds.main([str(tmp_path / "protocol.yaml"), str(tmp_path / "data"), str(tmp_path / "folds/x")])
    )
    assert told.startswith(f"error: {tmp_path}/folds")


def test_features_need_neither_librosa_nor_numba():
    """numba wants a folder for its cache, which a shared environment and a container's user may not have."""
    modules = sorted(f"ser.features.{path.stem}" for path in PACKAGE.glob("features/[a-z]*.py"))
    result = python("-c", f"import sys, {', '.join(modules)}; print({{'librosa', 'numba'}} & sys.modules.keys())")
    assert (result.stdout, result.stderr) == ("set()\n", "")
