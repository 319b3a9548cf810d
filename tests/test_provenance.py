"""ser/provenance.py: the commit of the code, be it a checkout, an archive of one, or an installed package."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ser
from ser import provenance

ROOT = Path(ser.__file__).parents[1]
VERSION = ser.__version__


def git(folder, *arguments):
    own = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, env={**os.environ, **own}).stdout


@pytest.fixture
def checkout(tmp_path):
    """A git checkout of the modules of ser."""
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / "ser", folder / "ser", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".gitattributes", folder)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "x")
    git(folder, "tag", "v1")
    return folder


def head(folder):
    return git(folder, "rev-parse", "HEAD").decode()[:12]


def commit_of(folder):
    """What the code in a folder says of itself, called as a user calls it."""
    command = [sys.executable, "-c", "from ser.provenance import commit; print(commit())"]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_of_this_code():
    made = provenance.provenance("a command")
    assert made["command"] == "a command"
    assert made["versions"]["numpy"] == __import__("numpy").__version__
    assert made["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert made["commit"]


def test_a_checkout_is_dirty_where_code_changed(checkout):
    assert provenance.commit(checkout) == head(checkout)
    (checkout / "egs/toy/results/svm").mkdir(parents=True)
    for name in ("RESULTS.md", "results/svm/x.txt"):  # what the stages write
        (checkout / "egs/toy" / name).write_text("one")
        git(checkout, "add", ".")
        git(checkout, "commit", "-qm", "y")
        (checkout / "egs/toy" / name).write_text("other")
    assert provenance.commit(checkout) == head(checkout)
    (checkout / "ser/cli.py").write_text("changed")
    assert provenance.commit(checkout) == f"{head(checkout)}-dirty"


def test_a_hook_of_git_names_another_repository(checkout, tmp_path, monkeypatch):
    git(tmp_path, "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    assert re.fullmatch("[0-9a-f]{12}", provenance.commit(checkout))


@pytest.mark.parametrize("is_committed", [False, True])
def test_another_repository_gives_no_commit(tmp_path, is_committed):
    """Unpacked in a folder of another repository, or installed in its top folder."""
    place = tmp_path / "vendor" if is_committed else tmp_path
    shutil.copytree(ROOT / "ser", place / "ser", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "file").touch()
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "." if is_committed else "file")
    git(tmp_path, "commit", "-qm", "x")
    assert commit_of(place) == f"unknown: not a git checkout (ser {VERSION})"


def test_an_archive_has_the_commit(checkout, tmp_path):
    subprocess.run(["tar", "x"], cwd=tmp_path, input=git(checkout, "archive", "--prefix=unpacked/", "HEAD"), check=True)
    git(tmp_path, "init", "-q")  # another repository around it
    assert commit_of(tmp_path / "unpacked") == f"{head(checkout)} (ser {VERSION})"


@pytest.mark.parametrize(
    ("origin", "commit"),
    [
        ({"url": "https://x", "vcs_info": {"vcs": "git", "commit_id": "0123456789abcdef" * 2}}, "0123456789ab"),
        ({"url": "file:///x", "dir_info": {}}, "unknown: not a git checkout"),
        (None, "unknown: not a git checkout"),  # from a package index
    ],
)
def test_what_pip_recorded(tmp_path, origin, commit):
    shutil.copytree(ROOT / "ser", tmp_path / "ser", ignore=shutil.ignore_patterns("__pycache__"))
    info = tmp_path / "ser-9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ser\nVersion: 9\n")
    if origin:
        (info / "direct_url.json").write_text(json.dumps(origin))
    assert commit_of(tmp_path) == f"{commit} (ser {VERSION})"


def test_no_git(checkout, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.commit(checkout) == f"unknown: cannot run git (ser {VERSION})"


def test_what_is_committed(checkout, tmp_path):
    assert provenance.is_committed(checkout / "ser/cli.py", checkout)
    (checkout / "other").touch()
    assert not provenance.is_committed(checkout / "other", checkout)
    assert provenance.is_committed(tmp_path / "any", tmp_path)  # nobody to ask
