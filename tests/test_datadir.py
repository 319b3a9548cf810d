import os

import pytest

from ser.cli import UserError
from ser.datadir import corpus_module, files_below, read_table, write_table


def test_what_is_written_is_read(tmp_path):
    table = {"b": "two words", "a": "", "c": "semicolon; and: colon"}
    write_table(tmp_path / "text", table)
    assert (tmp_path / "text").read_text() == "a\nb two words\nc semicolon; and: colon\n"
    assert read_table(tmp_path / "text") == table


def test_tables_are_sorted_by_bytes_as_c_does(tmp_path):
    write_table(tmp_path / "text", dict.fromkeys(["é", "z", "a-1", "a", "Z", "a1"], "x"))
    assert [line.split()[0] for line in (tmp_path / "text").read_text().splitlines()] == [
        "Z", "a", "a-1", "a1", "z", "é",
    ]  # fmt: skip


@pytest.mark.parametrize("odd", ["\u2028", "\x85", "\x0c", "\x1c", "\xa0"])
def test_only_a_newline_ends_a_line(tmp_path, odd):
    table = {"u1": f"one{odd}two", "u2": f"three{odd}"}
    write_table(tmp_path / "text", table)
    assert read_table(tmp_path / "text") == table


def test_tabs_and_dos_line_ends_are_read(tmp_path):
    (tmp_path / "text").write_bytes(b"u1\tone two\r\nu2 \t three\r\n")
    assert read_table(tmp_path / "text") == {"u1": "one two", "u2": "three"}


def test_an_empty_table_and_a_missing_last_newline_are_read(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "open").write_bytes(b"a 1\nb 2")
    assert read_table(tmp_path / "empty") == {}
    assert read_table(tmp_path / "open") == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a 1\n\nb 2\n", "text:2: blank line"),
        (b"a 1\nb 2\n \n", "text:3: blank line"),
        (b"a 1\nb 2\na 3\n", "text:3: a stands twice"),
        (b"a 1\nb \xff\n", "text:2: not UTF-8"),
    ],
)
def test_a_bad_table_is_named_with_its_line(tmp_path, content, message):
    (tmp_path / "text").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_table(tmp_path / "text")


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(UserError, match="text: no such table"):
        read_table(tmp_path / "text")


@pytest.mark.parametrize("bad", [{"a b": "1"}, {"": "1"}, {"a": "1\n2"}, {"a": "1\r"}, {"a": "\udcff"}])
def test_what_a_table_cannot_hold_is_refused_before_anything_is_written(tmp_path, bad):
    with pytest.raises(UserError, match="text cannot hold"):
        write_table(tmp_path / "text", {"good": "line", **bad})
    assert list(tmp_path.iterdir()) == []


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_files_are_told_apart_by_base_name_and_the_nearest_counts(tmp_path):
    deep = touch(tmp_path / "a" / "again" / "one.wav")
    near = touch(tmp_path / "z" / "one.wav")
    upper = touch(tmp_path / "z" / "two.WAV")
    touch(tmp_path / "z" / "._one.wav")
    touch(tmp_path / "z" / "readme.txt")
    assert files_below(tmp_path, ".wav") == ([near, upper], [deep])


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
    with pytest.raises(UserError, match=f"{closed}: Permission denied; mend its rights, or give a folder without it"):
        files_below(tmp_path, ".wav")


def test_corpora_are_found_by_name_alone():
    assert corpus_module("ravdess").__name__ == "ser.corpora.ravdess"
    with pytest.raises(UserError, match="no corpus 'os'; there are: .*ravdess"):
        corpus_module("os")
