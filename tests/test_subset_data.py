"""Data directories cut, combined and fixed, with all of their tables: subset_data, combine_data, fix_data."""

import hashlib

import numpy as np
import pytest
import soundfile

from ser import combine_data, fix_data, subset_data, validate_data
from ser.cli import UserError

SPEAKERS = ("a", "b", "c")


def write(folder, speakers, more=("utt2sent", "utt2own"), start=1):
    """A data directory that the validator accepts: two recordings a speaker; none of `more` is Kaldi's."""
    folder.mkdir(parents=True)
    utts = [f"{spk}-{number}" for spk in speakers for number in (start, start + 1)]
    md5s = {}
    for utt in utts:
        samples = np.random.default_rng(list(utt.encode())).uniform(-0.5, 0.5, 800).astype(np.float32)
        soundfile.write(folder.parent / f"{utt}.wav", samples, 8000, subtype="FLOAT")
        md5s[utt] = hashlib.md5(samples.tobytes()).hexdigest()
    (folder.parent / "x.ark").touch()
    columns = {
        "wav.scp": {utt: f"{folder.parent}/{utt}.wav" for utt in utts},
        "text": {utt: f"words of {utt}" for utt in utts},
        "text_asr": {utt: f"WORDS OF {utt}" for utt in utts},
        "utt2spk": {utt: utt[0] for utt in utts},
        "utt2emo": {utt: "sad" if utt[-1] in "13" else "angry" for utt in utts},
        "utt2dur": dict.fromkeys(utts, "0.100000"),
        "utt2md5": md5s,
        "feats.scp": {utt: f"{folder.parent}/x.ark:{number}" for number, utt in enumerate(utts)},
        "xvector.scp": dict.fromkeys(utts[:1], f"{folder.parent}/x.ark:5"),
        "spk2gender": {spk: "f" if spk == "a" else "m" for spk in speakers},
        "spk2utt": {spk: f"{spk}-{start} {spk}-{start + 1}" for spk in speakers},
        "cmvn.scp": dict.fromkeys(speakers, f"{folder.parent}/x.ark:7"),
        **{name: {utt: f"{name} {utt}" for utt in utts} for name in more},
    }
    for name, column in columns.items():
        (folder / name).write_text("".join(f"{key} {value}\n" for key, value in column.items()))
    return folder


@pytest.fixture
def data(tmp_path):
    return write(tmp_path / "data", SPEAKERS)


def tables(folder):
    return {path.name: path.read_text(errors="surrogateescape") for path in folder.iterdir() if path.is_file()}


def lines(content, *keys):
    return "".join(line for line in content.splitlines(True) if line.split()[0] in keys)


def fails(command, *arguments):
    with pytest.raises(UserError) as error:
        command.main([str(argument) for argument in arguments])
    return str(error.value)


@pytest.mark.parametrize(
    ("options", "utts"),
    [
        (("--utts", "b-1\nb-2\na-1\n"), ["a-1", "b-1", "b-2"]),
        (("--utts", "a-1 and more of a table\n"), ["a-1"]),
        (("--speakers", "c\na\n"), ["a-1", "a-2", "c-1", "c-2"]),
        (("--first", "3"), ["a-1", "a-2", "b-1"]),
    ],
)
def test_a_part_has_every_table(data, capsys, options, utts):
    option, value = options
    if option != "--first":
        (data.parent / "list").write_text(value)
        value = data.parent / "list"
    dest = data.parent / "new/part"
    subset_data.main([option, str(value), str(data), str(dest)])
    speakers = sorted({utt[0] for utt in utts})
    part, whole = tables(dest), tables(data)
    wanted = {name: lines(content, *utts, *speakers) for name, content in whole.items()}
    wanted["spk2utt"] = "".join(f"{spk} {' '.join(utt for utt in utts if utt[0] == spk)}\n" for spk in speakers)
    assert part == {name: content for name, content in wanted.items() if content}
    told = f"{dest}: {len(utts)} utterances, {len(speakers)} speakers, {len(part)} tables\n"
    assert capsys.readouterr().out == told
    validate_data.main([str(dest)])
    assert sorted(path.name for path in dest.parent.iterdir()) == ["part"]


def test_a_part_of_what_is_not_there(data):
    (data.parent / "list").write_text("a-1\nz-1\nz-2\n")
    arguments = (data.parent / "list", data, data.parent / "part")
    told = f"{data.parent}/list: 2 not in {data}/utt2spk, first z-1; remove them from the list"
    assert fails(subset_data, "--utts", *arguments) == told
    assert "list: 3 not in" in fails(subset_data, "--speakers", *arguments)
    (data.parent / "list").write_text("")
    assert "list: empty list" in fails(subset_data, "--utts", *arguments)
    assert fails(subset_data, "--first", "7", *arguments[1:]) == f"--first 7: {data} has 6 utterances; ask for fewer"
    assert (
        fails(subset_data, "--first", "1", data / "no", data.parent / "part")
        == f"{data}/no: no such folder; give a data directory"
    )
    with pytest.raises(SystemExit):
        subset_data.main(["--first", "0", str(data), str(data.parent / "part")])
    assert not (data.parent / "part").exists()


def test_what_is_there_is_not_replaced(data):
    (data.parent / "mine").mkdir()
    (data.parent / "mine/notes").write_text("mine")
    before = tables(data)
    for dest in (data, data.parent / "mine", data.parent / "a-1.wav"):
        told = f"{dest}: exists already; remove it, or use another folder"
        assert fails(subset_data, "--first", "1", data, dest) == told
        assert fails(combine_data, dest, data) == told
    assert tables(data) == before and (data.parent / "mine/notes").read_text() == "mine"


def test_a_copy(data, capsys):
    combine_data.main([str(data.parent / "copy"), str(data)])
    assert tables(data.parent / "copy") == tables(data)
    assert capsys.readouterr().out == f"{data.parent}/copy: 6 utterances, 3 speakers, 14 tables\n"


def test_parts_put_together_are_the_whole_again(data, capsys):
    for name, number in (("one", "c\na\n"), ("other", "b\n")):
        (data.parent / "list").write_text(number)
        subset_data.main(["--speakers", str(data.parent / "list"), str(data), str(data.parent / name)])
    capsys.readouterr()
    combine_data.main([str(data.parent / "both"), str(data.parent / "other"), str(data.parent / "one")])
    whole = tables(data)
    del whole["xvector.scp"]  # of which b has none
    assert tables(data.parent / "both") == whole
    assert capsys.readouterr().out.splitlines() == [
        f"left out: xvector.scp, which is not in {data.parent}/other",
        f"{data.parent}/both: 6 utterances, 3 speakers, 13 tables",
    ]


def test_speakers_with_the_same_id_are_reported(data, capsys):
    """Only the user knows whether they are one person."""
    other = write(data.parent / "other", "bcd", more=["utt2sent"], start=3)
    combine_data.main([str(data.parent / "both"), str(data), str(other)])
    assert capsys.readouterr().out.splitlines() == [
        f"left out: utt2own, which is not in {other}",
        "NOTE: speakers with the same id are treated as one person: b, c",
        f"{data.parent}/both: 12 utterances, 4 speakers, 13 tables",
    ]
    assert (data.parent / "both/spk2utt").read_text() == "a a-1 a-2\nb b-1 b-2 b-3 b-4\nc c-1 c-2 c-3 c-4\nd d-3 d-4\n"
    validate_data.main([str(data.parent / "both")])


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [("text", "words of b-1", "hm"), ("spk2gender", "b m", "b f"), ("utt2spk", "b-1 b", "b-1 a")],
)
def test_two_lines_of_one_key_are_refused(data, name, old, new):
    combine_data.main([str(data.parent / "other"), str(data)])
    other = data.parent / "other" / name
    other.write_text(other.read_text().replace(old, new))
    told = fails(combine_data, data.parent / "both", data, data.parent / "other")
    assert told.startswith(f"{other}: b") and f" in {data / name}; rename one of them" in told
    assert not (data.parent / "both").exists()


def test_fixing_a_valid_directory_changes_nothing(data, capsys):
    before = {path: path.stat().st_mtime_ns for path in data.iterdir()}
    fix_data.main([str(data)])
    assert {path: path.stat().st_mtime_ns for path in data.iterdir()} == before
    assert capsys.readouterr().out == f"{data}: 6 utterances; check it with python -m ser.validate_data {data}\n"


def test_a_directory_is_fixed(data, capsys):
    """Unsorted, from DOS, without spk2utt, and with tables that follow from the recordings gone or in part."""
    whole = tables(data)
    (data / "utt2spk").write_text("".join(reversed(whole["utt2spk"].splitlines(True))))
    (data / "text").write_bytes(b"\xef\xbb\xbf" + whole["text"].replace("\n", "\r\n").encode() + b"\r\n")
    (data / "utt2emo").write_text(
        whole["utt2emo"].replace(" ", "\t") + whole["utt2emo"].splitlines(True)[0].replace(" ", "\t")
    )
    (data / "spk2gender").write_text(whole["spk2gender"] + "z f\n")
    (data / "spk2utt").unlink()
    (data / "utt2dur").unlink()
    (data / "utt2md5").write_text(lines(whole["utt2md5"], "a-1", "b-2"))
    broken = tables(data)
    fix_data.main([str(data)])
    assert tables(data) == whole
    assert capsys.readouterr().out.splitlines() == [
        f"fixed: spk2gender spk2utt text utt2emo utt2spk; originals: {data}/.backup",
        f"{data}/utt2dur: computed from the recordings, 6 of 6 lines",
        f"{data}/utt2md5: computed from the recordings, 4 of 6 lines",
        f"{data}: 6 utterances; check it with python -m ser.validate_data {data}",
    ]
    assert tables(data / ".backup") == {name: broken[name] for name in ("spk2gender", "text", "utt2emo", "utt2spk")}
    validate_data.main([str(data)])


def test_utterances_that_some_table_lacks_are_left_out_of_all(data, capsys):
    whole = tables(data)
    (data / "utt2emo").write_text(lines(whole["utt2emo"], "a-1", "a-2", "b-1", "b-2", "x-1"))
    (data / "utt2own").write_text(lines(whole["utt2own"], "a-2", "b-1", "b-2", "c-1", "c-2"))
    fix_data.main([str(data)])
    assert capsys.readouterr().out.startswith(
        "dropped: 3 utterances; utt2emo lacks 2 (c-1, c-2), utt2own lacks 1 (a-1)\nfixed: "
    )
    wanted = {name: lines(content, "a-2", "b-1", "b-2", "a", "b") for name, content in whole.items()}
    assert wanted.pop("xvector.scp") == ""  # of which nothing is left
    assert tables(data) == {**wanted, "spk2utt": "a a-2\nb b-1 b-2\n"}
    for name in ("text", "xvector.scp"):
        assert (data / ".backup" / name).read_text() == whole[name]
    validate_data.main([str(data)])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "utt2own",
            b"",
            "no utterance is in every table: utt2own lacks 6 (a-1, a-2, b-1, ...); add what is missing, or remove the table",
        ),
        ("text", b"a-1 x\na-1 y\n", "text:2: a-1 occurs twice; remove one of the lines"),
        ("text", b"a-1 \xff\n", "text:1: not UTF-8 text; convert the file"),
        ("wav.scp", b"a-1 x\0y\n", "wav.scp:1: a control character, '\\x00'; remove it"),
        (
            "segments",
            b"",
            "segments: not supported; cut the recordings into one file per utterance, and remove this table",
        ),
    ],
)
def test_what_cannot_be_fixed_is_reported_and_nothing_changes(data, name, content, message):
    (data / name).write_bytes(content)
    (data / "spk2utt").unlink()
    before = tables(data)
    assert fails(fix_data, data).replace(f"{data}/", "").replace(f"{data}: ", "") == message
    assert tables(data) == before and not (data / ".backup").exists()
