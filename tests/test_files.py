"""ser/files.py: files that appear whole, and work that one process does at a time."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ser.cli import UserError
from ser.files import alone, is_same, whole, workplace

ROOT = Path(__file__).parents[1]
WRITER = """
import sys, time
from ser.files import whole
with whole(sys.argv[1]) as stream:
    stream.write("half")
    stream.flush()
    print("here", flush=True)
    time.sleep(60)
"""
HOLDER = """
import sys, time
from pathlib import Path
from ser.files import alone
with alone(Path(sys.argv[1]), "the work"):
    print("here", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def start():
    """Start a program that prints a line and waits; it ends with the test."""
    processes = []

    def begin(program, path):
        process = subprocess.Popen([sys.executable, "-c", program, path], cwd=ROOT, stdout=subprocess.PIPE)
        processes.append(process)
        assert process.stdout.readline() == b"here\n"
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "new/folder/a"
    with whole(path) as stream:
        stream.write("é\n")
        assert not path.exists()
    assert path.read_bytes() == "é\n".encode() and names(path.parent) == ["a"]
    with pytest.raises(ValueError), whole(path, "wb") as stream:
        stream.write(b"other")
        raise ValueError
    assert path.read_bytes() == "é\n".encode() and names(path.parent) == ["a"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_its_rights_are_those_of_any_new_file(tmp_path, umask, mode):
    old = os.umask(umask)
    try:
        with whole(tmp_path / "a"):
            pass
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def test_what_a_killed_writer_left_goes_with_the_next_one(tmp_path, start):
    path = tmp_path / "a [1]*"
    for _ in range(2):
        process = start(WRITER, path)
        process.kill()
        process.wait()
    (leftover,) = names(tmp_path)  # the second writer removed what the first left
    assert leftover.startswith(".a [1]*.") and leftover.endswith(".partial")
    with whole(path) as stream:
        stream.write("whole")
    assert names(tmp_path) == ["a [1]*"] and path.read_text() == "whole"


def test_a_writer_that_lives_is_left_alone(tmp_path, start):
    path = tmp_path / "a"
    start(WRITER, path)
    with whole(path) as stream:
        stream.write("whole")
    assert len(names(tmp_path)) == 2 and path.read_text() == "whole"


def test_a_writer_that_is_asked_to_end_leaves_nothing(tmp_path, start):
    process = start(
        "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(1))\n" + WRITER, tmp_path / "a"
    )
    process.send_signal(signal.SIGTERM)
    process.wait()
    assert names(tmp_path) == []


def test_one_process_at_a_time(tmp_path, start):
    path = tmp_path / "new/lock"
    process = start(HOLDER, path)
    for _ in range(2):
        with pytest.raises(UserError) as error, alone(path, "the work"):
            pytest.fail("let in")
        assert str(error.value).startswith(f"the work is in use by process {process.pid} on ")
        assert str(error.value).endswith("; skipped")
    process.kill()
    process.wait()
    with alone(path, "the work"):
        assert path.read_text().startswith(f"process {os.getpid()} on ")
    assert not path.exists()
    began = time.monotonic()
    with alone(path, "the work"):
        pass
    assert time.monotonic() - began < 1


WAITER = """
import sys
from pathlib import Path
from ser.files import alone
with alone(Path(sys.argv[1]), "the work", wait=True):
    print("in", flush=True)
"""


@pytest.mark.parametrize("killed", [True, False])
def test_the_end_of_another_is_waited_for(tmp_path, start, killed):
    holder = HOLDER if killed else HOLDER.replace("time.sleep(60)", "sys.stdin.read(1)")
    path = tmp_path / "new/lock"
    process = subprocess.Popen(
        [sys.executable, "-c", holder, path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"here\n"
    waiters = [
        subprocess.Popen([sys.executable, "-c", WAITER, path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for waiter in waiters:
        line = waiter.stdout.readline()
        assert line.startswith(f"the work is in use by process {process.pid} on ") and line.endswith(
            "; waiting for it to finish\n"
        )
    assert all(waiter.poll() is None for waiter in waiters)
    if killed:
        process.kill()
    process.communicate(b"" if killed else b"x")
    for waiter in waiters:
        assert waiter.communicate(timeout=20)[0].endswith("in\n")
        assert waiter.returncode == 0
    assert not path.exists()


def test_what_is_refused_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError), alone(tmp_path / "new/lock", "the work"):
        raise ValueError
    assert names(tmp_path) == []
    with workplace(tmp_path / "new/a") as folder:
        folder.rename(tmp_path / "new/a")
    assert names(tmp_path / "new") == ["a"]


def test_what_is_the_same(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "x").mkdir(parents=True)
        (tmp_path / name / "x/1").write_text("one")
        (tmp_path / name / "2").write_text("two")
    assert is_same(tmp_path / "a", tmp_path / "b") and is_same(tmp_path / "a/2", tmp_path / "b/2")
    assert not is_same(tmp_path / "a", tmp_path / "c") and not is_same(tmp_path / "a/2", tmp_path / "a/3")
    assert not is_same(tmp_path / "a/x", tmp_path / "b/2")
    (tmp_path / "b/x/1").write_text("eno")
    assert not is_same(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b/x/1").write_text("one")
    (tmp_path / "b/3").touch()
    assert not is_same(tmp_path / "a", tmp_path / "b") and not is_same(tmp_path / "b", tmp_path / "a")
