import hashlib

import numpy as np
import pytest
import soundfile

from ser.cli import UserError
from ser.datadir import compute_missing, read_recordings, read_table, read_tables, write_table


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


@pytest.mark.parametrize("odd", ["\u2028", "\u2029", "\xa0", "\ufeff"])
def test_only_a_newline_ends_a_line(tmp_path, odd):
    table = {"u1": f"one{odd}two", "u2": f"three{odd}"}
    write_table(tmp_path / "text", table)
    assert read_table(tmp_path / "text") == table


def test_tabs_part_key_and_value(tmp_path):
    (tmp_path / "text").write_bytes(b"u1\tone two\nu2 \t three\t\n")
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
        (b"a 1\nb 2\na 3\n", "text:3: a occurs twice"),
        (b"a 1\nb \xff\n", "text:2: not UTF-8"),
        (b"\xef\xbb\xbfa 1\n", "text:1: a byte order mark; save the table as UTF-8 without it"),
        (b"a 1\nb 2\r\n", r"text:2: a carriage return \(DOS line ending\); remove it"),
        (b"a 1\nb x\ry\n", r"text:2: a carriage return"),
        (b"a /tmp/x\0y.wav\n", r"text:1: a control character, '\\x00'; remove it"),
        (b"a 1\nb\x1b[2J 2\n", r"text:2: a control character, '\\x1b'"),
        ("a 1\nb 2\x9b3\n".encode(), r"text:2: a control character, '\\x9b'"),
    ],
)
def test_a_bad_table_is_named_with_its_line(tmp_path, content, message):
    (tmp_path / "text").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_table(tmp_path / "text")


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(UserError, match="text: no such table"):
        read_table(tmp_path / "text")


def test_faults_that_can_be_fixed_without_loss_are_ignored_on_request(tmp_path):
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbfb 2\r\n\r\na 1 x\r\nb\t2\r\n")
    assert read_table(tmp_path / "text", fix=True) == {"b": "2", "a": "1 x"}
    for lost in (b"b 2\nb 3\n", b"b \xff\n", b"b \x00\n"):
        (tmp_path / "text").write_bytes(lost)
        with pytest.raises(UserError, match="text:"):
            read_table(tmp_path / "text", fix=True)


def test_all_missing_keys_are_counted_and_the_first_named(tmp_path):
    (tmp_path / "text").write_text("c 1\n")
    again = "or run the stage that writes the table again"
    for needed, told in (("ab", "a, b; add them"), ("abcde", "a, b, d and 1 more; add them"), ("ac", "a; add it")):
        with pytest.raises(UserError) as error:
            read_table(tmp_path / "text", iter(needed))
        assert str(error.value) == f"{tmp_path}/text: no line for {told}, {again}"


@pytest.mark.parametrize(
    "bad",
    [
        {"a b": "1"}, {"": "1"}, {"a": "1\n2"}, {"a": "1\r"}, {"a": "\udcff"}, {"a": "x\0y"}, {"a": "\x1b[2J"}, {"a\x7f": "1"},
        {"a": "\x85"}, {"a": "\x0c"}, {"a": "\x1c"}, {"\ufeffa": "1"},
    ],
)  # fmt: skip
def test_what_a_table_cannot_hold_is_refused_before_anything_is_written(tmp_path, bad):
    with pytest.raises(UserError, match="text cannot store"):
        write_table(tmp_path / "text", {"good": "line", **bad})
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def data(tmp_path):
    """Three recordings of noise, without utt2dur and utt2md5."""
    rng = np.random.default_rng(0)
    samples = {f"a-{number}": rng.uniform(-0.5, 0.5, 800 * number).astype(np.float32) for number in (1, 2, 3)}
    for utt, of_utt in samples.items():
        soundfile.write(tmp_path / f"{utt}.wav", of_utt, 8000, subtype="FLOAT")
    write_table(tmp_path / "wav.scp", {utt: f"{tmp_path}/{utt}.wav" for utt in samples})
    write_table(tmp_path / "utt2spk", dict.fromkeys(samples, "a"))
    return tmp_path, {utt: hashlib.md5(of_utt.tobytes()).hexdigest() for utt, of_utt in samples.items()}


def test_what_follows_from_the_recordings_is_computed_where_it_is_missing(data, capsys):
    folder, md5s = data
    compute_missing(folder, ["utt2md5", "utt2dur"], False, "ser.x")
    assert read_table(folder / "utt2md5") == md5s
    assert read_table(folder / "utt2dur") == {"a-1": "0.100000", "a-2": "0.200000", "a-3": "0.300000"}
    assert f"{folder}/utt2md5: computed from the recordings, 3 of 3 lines\n" in capsys.readouterr().out


def test_what_is_there_is_left_as_it_is(data, capsys):
    folder, md5s = data
    write_table(folder / "utt2md5", {"a-1": "mine", "a-3": "too"})
    (folder / "a-1.wav").unlink()  # and need not be read
    compute_missing(folder, ["utt2md5"], False, "ser.x")
    assert read_table(folder / "utt2md5") == {"a-1": "mine", "a-2": md5s["a-2"], "a-3": "too"}
    assert capsys.readouterr().out == f"{folder}/utt2md5: computed from the recordings, 1 of 3 lines\n"
    (folder / "wav.scp").unlink()
    compute_missing(folder, ["utt2md5"], False, "ser.x")
    assert capsys.readouterr().out == ""


def test_what_cannot_be_computed_is_told_and_nothing_is_written(data):
    folder, _ = data
    (folder / "a-3.wav").write_bytes(b"")
    with pytest.raises(UserError, match="a-3.wav: empty file"):
        compute_missing(folder, ["utt2md5"], False, "ser.x")
    write_table(folder / "wav.scp", {"a-1": f"{folder}/a-1.wav"})
    with pytest.raises(UserError, match="wav.scp: no line for a-2, a-3; add them"):
        compute_missing(folder, ["utt2md5"], False, "ser.x")
    assert not (folder / "utt2md5").exists()


def test_commands_are_run_where_that_is_allowed(data):
    folder, md5s = data
    wavs = {utt: f"cat {folder}/{utt}.wav |" for utt in md5s}
    write_table(folder / "wav.scp", wavs)
    with pytest.raises(UserError, match="wav.scp:1: a-1 is a shell command, .* with ser.x --allow-pipes"):
        compute_missing(folder, ["utt2md5"], False, "ser.x")
    compute_missing(folder, ["utt2md5"], True, "ser.x")
    assert read_table(folder / "utt2md5") == md5s
    assert read_recordings(folder / "wav.scp", True, "ser.x") == wavs


def test_the_tables_of_a_data_directory(data):
    folder, md5s = data
    (folder / "report.txt").write_text("not a table\n\n")
    (folder / "utt2spk.bak").write_text("\n\n")
    write_table(folder / "spk2utt", {"a": "a-1"})
    write_table(folder / "utt2own", dict.fromkeys(md5s, "x"))
    tables = read_tables(folder)
    assert tables.keys() == {"wav.scp", "utt2spk", "utt2own"}
    assert tables["utt2own"] == dict.fromkeys(md5s, "x")
    (folder / "segments").touch()
    with pytest.raises(UserError, match="segments: not supported"):
        read_tables(folder)
    with pytest.raises(UserError, match="nowhere: no such folder"):
        read_tables(folder / "nowhere")
