"""What corpora share: files below a folder, and the modules by name."""

import os

import pytest

from ser.cli import UserError
from ser.corpora import corpus_module
from ser.corpus import files_below


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_files_of_the_same_base_name_are_copies_and_the_nearest_counts(tmp_path):
    deep = touch(tmp_path / "a" / "again" / "one.wav")
    near = touch(tmp_path / "z" / "one.wav")
    upper = touch(tmp_path / "z" / "two.WAV")
    touch(tmp_path / "z" / "._one.wav")
    touch(tmp_path / "z" / "readme.txt")
    assert files_below(tmp_path, ".wav") == ([near, upper], [deep])


def test_files_of_one_name_that_differ_are_no_copies(tmp_path):
    """As in SAVEE, where each speaker's folder has an a01.wav; a second tree of it has copies of all."""
    wanted, copies = [], []
    for speaker, content in (("DC", b"one"), ("JE", b"two"), ("KL", b"other")):
        for root, found in (("", wanted), ("again", copies)):
            path = touch(tmp_path / root / speaker / "a01.wav")
            path.write_bytes(content)
            found.append(path)
    assert files_below(tmp_path, ".wav") == (wanted, copies)


def test_one_of_two_files_that_cannot_be_read_is_an_error(tmp_path):
    touch(tmp_path / "one.wav")
    (tmp_path / "again").mkdir()
    (tmp_path / "again/one.wav").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"again/one.wav: No such file or directory; fetch it again, or remove it"):
        files_below(tmp_path, ".wav")


def test_linked_folders_are_followed_and_circles_end(tmp_path):
    touch(tmp_path / "elsewhere" / "one.wav")
    root = tmp_path / "corpus"
    root.mkdir()
    os.symlink(tmp_path / "elsewhere", root / "Actor_01")
    os.symlink(root, root / "circle")
    two = touch(root / "two.wav")
    assert files_below(root, ".wav") == ([root / "Actor_01" / "one.wav", two], [])


def test_a_folder_that_is_missing_or_holds_nothing_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        files_below(tmp_path / "nowhere", ".wav")
    with pytest.raises(UserError, match="no .wav or .mp4 file"):
        files_below(tmp_path, ".wav", ".mp4")


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    """os.walk passes over it. (The tests may run as a user whom no rights stop.)"""
    closed = tmp_path / "Actor_02"
    closed.mkdir()
    (tmp_path / "one.wav").touch()
    scandir = os.scandir

    def refuse(folder):
        if folder == str(closed):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(
        UserError, match=f"{closed}: Permission denied; check its permissions, or use a folder without it"
    ):
        files_below(tmp_path, ".wav")


def test_corpora_are_found_by_name_alone():
    assert corpus_module("ravdess").__name__ == "ser.corpora.ravdess"
    with pytest.raises(UserError, match="no corpus 'os'; available: .*ravdess"):
        corpus_module("os")
