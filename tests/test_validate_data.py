import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser import validate_data
from ser.cli import UserError

RATE = 8000
UTTS = ["a-1", "a-2", "b-1", "b-2"]
KALDI = Path(os.environ.get("KALDI_ROOT", "/nowhere"), "egs/wsj/s5")


@pytest.fixture
def data(tmp_path):
    """A data directory without a fault: two speakers, two recordings of 0.1 s each."""
    data = tmp_path / "data"
    data.mkdir()
    for utt in UTTS:
        soundfile.write(tmp_path / f"{utt}.wav", np.zeros(RATE // 10), RATE)
    columns = {
        "wav.scp": [f"{tmp_path}/{utt}.wav" for utt in UTTS],
        "text": ["some words"] * 4,
        "utt2spk": ["a", "a", "b", "b"],
        "utt2emo": ["sad", "angry", "sad", "angry"],
        "utt2dur": ["0.1", "0.1", "0.1", "0.1"],
        "utt2sent": ["1", "2", "1", "2"],
    }
    for name, column in columns.items():
        lines = [f"{utt} {value}\n" for utt, value in zip(UTTS, column, strict=True)]
        (data / name).write_text("".join(lines))
    (data / "spk2utt").write_text("a a-1 a-2\nb b-1 b-2\n")
    (data / "spk2gender").write_text("a f\nb m\n")
    return data


def edit(path, old, new):
    content = path.read_bytes()
    assert content.count(old) == 1, f"{old!r} stands {content.count(old)} times in {path}"
    path.write_bytes(content.replace(old, new))


def faults(data, capsys):
    """Validate; return the faults told, with the folder's path taken out."""
    with pytest.raises(UserError) as error:
        validate_data.main([str(data)])
    told = capsys.readouterr().err.replace(f"{data}/", "").replace(f"{data.parent}/", "").splitlines()
    told = [line.replace(str(data), "data") for line in told]
    assert f"{data}: faults found: {len(told)}; " in str(error.value)
    return told


def test_a_directory_without_a_fault(data, capsys):
    (data / "report.txt").write_text("not a table")
    (data / "utt2spk.bak").write_text("nor this")
    (data / "folds").mkdir()
    validate_data.main([str(data)])
    out, err = capsys.readouterr()
    assert out == f"{data}: valid: 4 utterances, 0.00 h, 2 speakers, 2 classes, 8 tables\n"
    assert err == ""


def test_an_utterance_without_words_is_no_fault(data):
    edit(data / "text", b"a-1 some words\n", b"a-1\n")
    validate_data.main([str(data)])


def test_what_a_recogniser_heard_is_a_table_of_words_too(data, capsys):
    (data / "text_asr").write_text("a-1 SOME WORDS\na-2\nb-1 SUM WORDS\nb-2 SOME\n")
    validate_data.main([str(data)])
    assert "9 tables" in capsys.readouterr().out
    (data / "text_asr").write_text("a-1 SOME <s> WORDS\nb-1 SUM WORDS\nb-2 SOME\n")
    assert faults(data, capsys) == [
        "text_asr:1: a-1 has 'SOME <s> WORDS'; it should be words; <s>, </s> and #0 are reserved by Kaldi",
        "text_asr: no line for a-2 (see utt2spk:2); add it",
    ]


def test_x_vectors_may_be_of_some(data, capsys):
    """Kaldi leaves out what it hears no speech in, and not every utterance is of a protocol."""
    (data / "xvector.ark").touch()
    (data / "xvector.scp").write_text(f"a-1 {data}/xvector.ark:4\nb-2 {data}/xvector.ark:9\n")
    validate_data.main([str(data)])
    (data / "xvector.scp").write_text(f"c-1 {data}/xvector.ark:4\n")
    assert faults(data, capsys) == [f"xvector.scp:1: c-1 is not in utt2spk; {ADD}"]


def test_one_speaker_is_worth_a_warning(data, capsys):
    for table in data.iterdir():
        table.write_text("".join(line for line in table.read_text().splitlines(True) if line[0] == "a"))
    validate_data.main([str(data)])
    assert f"warning: {data}: only one speaker" in capsys.readouterr().err


ADD = "remove the line, or add it there"
FIX = ", as python -m ser.fix_data does"
INVERT = f"make it the inverse of utt2spk{FIX}"
SECONDS = "it should be seconds, a number above 0"
FAULTS = {
    # name: (table, old, new, faults)
    "blank line": ("text", b"a-2 ", b"\na-2 ", [f"text:2: blank line; remove it{FIX}"]),
    "twice": (
        "text",
        b"b-1 ",
        b"a-2 x\nb-1 ",
        ["text:3: duplicate key a-2, first at text:2; remove one of the lines"],
    ),
    "twice, further down": (
        "utt2emo",
        b"b-2 angry",
        b"b-2 angry\na-1 sad",
        ["utt2emo:5: duplicate key a-1, first at utt2emo:1; remove one of the lines"],
    ),
    "out of order": (
        "utt2emo",
        b"a-1 sad\na-2 angry\n",
        b"a-2 angry\na-1 sad\n",
        [f"utt2emo:2: a-1 is out of order; sort the table with LC_ALL=C sort{FIX}"],
    ),
    "out of C's order": (
        "spk2gender",
        b"b m\n",
        b"b m\nB m\n",
        [
            f"spk2gender:3: B is out of order; sort the table with LC_ALL=C sort{FIX}",
            f"spk2gender:3: B is not in utt2spk; {ADD}",
        ],
    ),
    "no last line end": (
        "text",
        b"b-2 some words\n",
        b"b-2 some words",
        ["text:4: the last line has no newline at its end; add it"],
    ),
    "DOS": (
        "utt2emo",
        b"a-2 angry",
        b"a-2 angry\r",
        [f"utt2emo:2: a carriage return (DOS line ending); remove it{FIX}"],
    ),
    "carriage return inside": (
        "text",
        b"a-2 some words",
        b"a-2 some\rwords",
        ["text:2: a carriage return (DOS line ending); remove it"],
    ),
    "byte order mark": (
        "text",
        b"a-1 ",
        b"\xef\xbb\xbfa-1 ",
        [f"text:1: a byte order mark; save the table as UTF-8 without it{FIX}"],
    ),
    "byte 0 in a path": (
        "wav.scp",
        b"a-2.wav",
        b"a\0-2.wav",
        ["wav.scp:2: a control character, '\\x00'; remove it"],
    ),
    "escape in a path": (
        "wav.scp",
        b"a-2.wav",
        b"a-2\x1b]0;x\x07.wav",
        ["wav.scp:2: a control character, '\\x1b'; remove it"],
    ),
    "control character in words": (
        "text",
        b"a-2 some ",
        "a-2 some\x85".encode(),
        ["text:2: a control character, '\\x85'; remove it"],
    ),
    "not UTF-8": ("text", b"a-2 some", b"a-2 s\xffme", ["text:2: not UTF-8; convert the table to UTF-8"]),
    "odd space": (
        "text",
        b"a-2 some ",
        "a-2 some\N{NO-BREAK SPACE}".encode(),
        ["text:2: white space other than space and tab; replace it by a space"],
    ),
    "odd space in a label": (
        "utt2emo",
        b"a-2 angry",
        "a-2 angry\N{NO-BREAK SPACE}".encode(),
        ["utt2emo:2: white space other than space and tab; replace it by a space"],
    ),
    "empty": (
        "utt2sent",
        b"a-1 1\na-2 2\nb-1 1\nb-2 2\n",
        b"",
        ["utt2sent: empty table; make it again, or remove it"],
    ),
    "key gone": ("utt2sent", b"b-1 1\n", b"", ["utt2sent: no line for b-1 (see utt2spk:3); add it"]),
    "key too many": (
        "utt2sent",
        b"b-1 1\n",
        b"b-1 1\nb-11 1\n",
        [f"utt2sent:4: b-11 is not in utt2spk; {ADD}"],
    ),
    "text gone": ("text", b"b-1 some words\n", b"", ["text: no line for b-1 (see utt2spk:3); add it"]),
    "no value": ("utt2sent", b"b-1 1\n", b"b-1\n", ["utt2sent:3: b-1 has ''; it should be not empty"]),
    "two speakers": ("spk2gender", b"b m\n", b"b m\nc m\n", [f"spk2gender:3: c is not in utt2spk; {ADD}"]),
    "gender gone": (
        "spk2gender",
        b"b m\n",
        b"",
        ["spk2gender: no line for b (see utt2spk:3); add it"],
    ),
    "gender": ("spk2gender", b"b m", b"b male", ["spk2gender:2: b has 'male'; it should be f or m"]),
    "two classes": (
        "utt2emo",
        b"a-2 angry",
        b"a-2 angry sad",
        ["utt2emo:2: a-2 has 'angry sad'; it should be one class"],
    ),
    "no class": ("utt2emo", b"a-2 angry", b"a-2", ["utt2emo:2: a-2 has ''; it should be one class"]),
    "symbol": (
        "text",
        b"a-2 some words",
        b"a-2 some <s> words",
        ["text:2: a-2 has 'some <s> words'; it should be words; <s>, </s> and #0 are reserved by Kaldi"],
    ),
    "symbol in brackets": (
        "text",
        b"a-2 some words",
        b"a-2 (#0)",
        ["text:2: a-2 has '(#0)'; it should be words; <s>, </s> and #0 are reserved by Kaldi"],
    ),
    "speaker has another": (
        "spk2utt",
        b"a a-1 a-2",
        b"a a-1 b-1",
        [
            f"spk2utt:1: a lacks a-2; {INVERT}",
            f"spk2utt:1: a has b-1, unlike in utt2spk; {INVERT}",
        ],
    ),
    "speaker has one twice": (
        "spk2utt",
        b"a a-1 a-2",
        b"a a-1 a-2 a-2",
        [f"spk2utt:1: a has an utterance twice; {INVERT}"],
    ),
    "speaker's order": (
        "spk2utt",
        b"a a-1 a-2",
        b"a a-2 a-1",
        [f"spk2utt:1: utterances of a are out of order; {INVERT}"],
    ),
    "speaker gone": (
        "spk2utt",
        b"b b-1 b-2\n",
        b"",
        ["spk2utt: no line for b (see utt2spk:3); add it"],
    ),
    "speaker without utterances": (
        "spk2utt",
        b"b b-1 b-2\n",
        b"b\n",
        [
            "spk2utt:2: b has ''; it should be not empty",
            f"spk2utt:2: b lacks b-1; {INVERT}",
            f"spk2utt:2: b lacks b-2; {INVERT}",
        ],
    ),
    "duration 0": ("utt2dur", b"a-2 0.1", b"a-2 0", [f"utt2dur:2: a-2 has '0'; {SECONDS}"]),
    "duration nan": ("utt2dur", b"a-2 0.1", b"a-2 nan", [f"utt2dur:2: a-2 has 'nan'; {SECONDS}"]),
    "duration word": ("utt2dur", b"a-2 0.1", b"a-2 1s", [f"utt2dur:2: a-2 has '1s'; {SECONDS}"]),
    "duration of another": (
        "utt2dur",
        b"a-2 0.1",
        b"a-2 0.12",
        [
            (
                "utt2dur:2: a-2 has 0.12 s, its recording 0.100 s (a-2.wav); remove the line and run python -m "
                "ser.fix_data data, which computes it"
            )
        ],
    ),
    "tilde": (
        "wav.scp",
        b"a-2 ",
        b"a-2 ~",
        ["wav.scp:2: a-2 has '~a-2.wav'; it should be the path of a file, without ~"],
    ),
    "pipe": (
        "wav.scp",
        b"a-2.wav",
        b"a-2.wav |",
        ["wav.scp:2: a-2 is a shell command, 'a-2.wav |'; replace it by a file, or allow commands with --allow-pipes"],
    ),
    "no recording": (
        "wav.scp",
        b"a-2.wav",
        b"nowhere.wav",
        ["wav.scp:2: a-2: nowhere.wav: No such file or directory; check the path and its permissions"],
    ),
    "no path": (
        "wav.scp",
        b"b-1 ",
        b"b-1\nb-11 ",
        [
            "wav.scp:3: b-1 has ''; it should be the path of a file, without ~",
            f"wav.scp:4: b-11 is not in utt2spk; {ADD}",
        ],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_with_file_and_line_and_nothing_else_is(data, capsys, fault):
    table, old, new, told = FAULTS[fault]
    edit(data / table, old, new)
    assert faults(data, capsys) == told


MADE = "run python -m ser.fix_data data, which makes it"
PART = "add it (python -m ser.subset_data copies a part of a data directory with all of its tables)"


@pytest.mark.parametrize("name", validate_data.REQUIRED)
def test_every_table_that_is_needed(data, capsys, name):
    """Stage 0 is the remedy for what it wrote; of another data directory it would replace the whole."""
    (data / name).unlink()
    assert faults(data, capsys) == [f"{name}: no such table; {MADE if name in ('spk2utt', 'utt2dur') else PART}"]
    (data / "report.txt").touch()  # which stage 0 writes
    assert faults(data, capsys) == [f"{name}: no such table; run stage 0 again"]
    (data / name).touch()
    assert f"{name}: empty table; run stage 0 again" in faults(data, capsys)


def test_a_duration_that_stage_0_did_not_write(data, capsys):
    (data / "report.txt").touch()
    edit(data / "utt2dur", b"a-2 0.1", b"a-2 0.12")
    assert faults(data, capsys) == ["utt2dur:2: a-2 has 0.12 s, its recording 0.100 s (a-2.wav); run stage 0 again"]


def test_relative_paths_are_told_with_the_folder_they_are_looked_up_in(data, capsys, monkeypatch):
    monkeypatch.chdir(data)
    edit(data / "wav.scp", f"a-2 {data.parent}/".encode(), b"a-2 sub/")
    (data / "feats.scp").write_text("".join(f"{utt} dump/feats.ark:3\n" for utt in UTTS))
    told = faults(data, capsys)
    assert (
        told[0]
        == "feats.scp:1: a-1: no such archive dump/feats.ark (relative to data); run the stage that writes feats.scp"
    )
    assert (
        told[-1]
        == "wav.scp:2: a-2: sub/a-2.wav: No such file or directory (relative to data); check the path and its permissions"
    )
    assert len(told) == 5


def test_control_characters_of_a_key_are_not_printed_as_such(data, capsys):
    edit(data / "text", b"a-2 ", b"a-2\x1b[2J ")
    told = faults(data, capsys)
    assert "text:2: a-2\\x1b[2J is not in utt2spk; remove the line, or add it there" in told
    assert "\x1b" not in "".join(told)


def test_a_speaker_of_very_many_utterances(data):
    """Quadratic work would take minutes."""
    utts = [f"a-{number:05}" for number in range(36000)]
    utt2spk = {utt: validate_data.Line("utt2spk:1", "a") for utt in utts}
    began = time.process_time()
    assert list(validate_data.wrong_speakers(utt2spk, {"a": validate_data.Line("spk2utt:1", " ".join(utts))})) == []
    assert time.process_time() - began < 1


def test_a_speaker_field_that_is_missing(data, capsys):
    edit(data / "utt2spk", b"a-2 a", b"a-2")
    assert "utt2spk:2: a-2 has ''; it should be one speaker" in faults(data, capsys)


def test_ids_start_with_their_speaker(data, capsys):
    edit(data / "utt2spk", b"b-1 b", b"b-1 a")
    edit(data / "spk2utt", b"a a-1 a-2\nb b-1", b"a a-1 a-2 b-1\nb")
    assert faults(data, capsys) == ["utt2spk:3: b-1 does not start with a; prefix utterance ids with the speaker's id"]


def test_utterances_sorted_otherwise_than_their_speakers(data, capsys):
    """The ids 1-a, 1-b, 2-a are in order, and their speakers a, b, a are not."""
    edit(data / "utt2spk", b"a-2 a", b"a-2 b")
    edit(data / "utt2spk", b"b-1 b", b"b-1 a")
    told = faults(data, capsys)
    assert "utt2spk:3: a comes after b; choose ids that sort by speaker too" in told


OPTIONAL = {
    "feats.scp": (
        b"here.ark:5",
        b"nowhere.ark:5",
        "a-2: no such archive nowhere.ark (relative to data); run the stage that writes feats.scp",
    ),
    "vad.scp": (b"here.ark:5", b"", "a-2 has ''; it should be not empty"),
    "reco2dur": (b"0.1", b"-1", f"a-2 has '-1'; {SECONDS}"),
    "reco2file_and_channel": (b"a A", b"a C", "a-2 has 'a C'; it should be a file and A or B"),
    "utt2lang": (b"en", b"en us", "a-2 has 'en us'; it should be one language"),
    "utt2uniq": (b"x", b"x y", "a-2 has 'x y'; it should be one utterance"),
    "utt2num_frames": (b"10", b"10.5", "a-2 has '10.5'; it should be a whole number above 0"),
    "utt2warp": (b"1.0", b"1.5", "a-2 has '1.5'; it should be a number between 0.5 and 1.5"),
}


@pytest.mark.parametrize("name", OPTIONAL)
def test_tables_that_need_not_be_there_are_checked_where_they_are(data, capsys, monkeypatch, name):
    monkeypatch.chdir(data)
    (data / "here.ark").touch()
    good, bad, what = OPTIONAL[name]
    lines = [utt.encode() + b" " + good + b"\n" for utt in UTTS]
    (data / name).write_bytes(b"".join(lines))
    validate_data.main([str(data)])
    capsys.readouterr()
    lines[1] = b"a-2 " + bad + b"\n"
    (data / name).write_bytes(b"".join(lines[:3]))
    told = [f"{name}: no line for b-2 (see utt2spk:4); add it", f"{name}:2: {what}"]
    assert sorted(faults(data, capsys)) == told


@pytest.mark.parametrize(("name", "good"), [("cmvn.scp", "here.ark:3"), ("spk2warp", "0.9")])
def test_tables_of_speakers_have_the_speakers_for_keys(data, capsys, monkeypatch, name, good):
    monkeypatch.chdir(data)
    (data / "here.ark").touch()
    (data / name).write_text(f"a {good}\nb {good}\n")
    validate_data.main([str(data)])
    (data / name).write_text(f"a {good}\n")
    capsys.readouterr()
    assert faults(data, capsys) == [f"{name}: no line for b (see utt2spk:3); add it"]


def test_segments_are_refused_since_no_stage_reads_them(data, capsys):
    (data / "segments").write_text("".join(f"{utt} {utt} 0 0.05\n" for utt in UTTS))
    assert faults(data, capsys) == [
        "segments:1: segments of recordings; cut them into one file per utterance; no stage reads segments"
    ]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (lambda whole: b"", "empty file"),
        (lambda whole: whole[:44], "cut short: 1600 bytes are missing"),
        (lambda whole: b"<html>", "cannot be read as a recording"),
    ],
)
def test_recordings_are_opened(data, capsys, content, what):
    recording = data.parent / "a-1.wav"
    recording.write_bytes(content(recording.read_bytes()))
    (told,) = faults(data, capsys)
    assert told.startswith(f"wav.scp:1: a-1: a-1.wav: {what}")
    assert told.endswith("; fetch it again")


def test_all_faults_are_told_but_not_without_end(data, capsys):
    (data / "text").write_text("\n" * 30 + "a-1 x\na-2 x\nb-1 x\nb-2 x\n")
    edit(data / "spk2gender", b"b m", b"b x")
    with pytest.raises(UserError, match="faults found: 31"):
        validate_data.main([str(data)])
    told = capsys.readouterr().err.replace(f"{data}/", "").splitlines()
    blank = [f"text:{number}: blank line; remove it{FIX}" for number in range(1, 21)]
    assert told == [
        *blank,
        f"text: ... and 10 more; remove it{FIX}",
        "spk2gender:2: b has 'x'; it should be f or m",
    ]


def test_pipes_are_run_where_they_are_allowed(data, capsys):
    edit(data / "wav.scp", b"a-2.wav", b"a-2.wav >&1 |")
    edit(data / "wav.scp", b"a-2 ", b"a-2 cat ")
    assert "is a shell command" in faults(data, capsys)[0]
    validate_data.main(["--allow-pipes", str(data)])
    edit(data / "wav.scp", b">&1 |", b">&2; exit 4 |")
    with pytest.raises(UserError):
        validate_data.main(["--allow-pipes", str(data)])
    assert "wav.scp:2: a-2: cat " in (told := capsys.readouterr().err) and "; fix the command\n" in told


def test_a_command_in_place_of_an_archive_is_refused(data, capsys):
    (data / "feats.scp").write_text("".join(f"{utt} cat feats.ark |\n" for utt in UTTS))
    assert faults(data, capsys)[0] == (
        f"feats.scp:1: a-1: no such archive cat feats.ark | (relative to {Path.cwd()}); run the stage that writes feats.scp"
    )


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        validate_data.main([str(tmp_path / "nowhere")])


def test_the_exit_status(data):
    command = [sys.executable, "-m", "ser.validate_data", data]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 0
    (data / "text").unlink()
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        f"{data}/text: no such table; {PART}",
        f"error: {data}: faults found: 1; fix them as said above",
    ]


def kaldi_accepts(data):
    script = ["utils/validate_data_dir.sh", "--no-feats", data]
    ended = subprocess.run(script, cwd=KALDI, capture_output=True, text=True)
    return "Successfully validated" in ended.stdout  # a malformed utt2spk too gives exit status 0


@pytest.mark.skipif(not (KALDI / "utils").is_dir(), reason="KALDI_ROOT does not point at Kaldi's source tree")
def test_kaldi_accepts_what_we_accept_and_we_refuse_all_that_kaldi_refuses(data):
    assert kaldi_accepts(data)
    validate_data.main([str(data)])
    refused_by_kaldi = 0
    for table, old, new, _ in FAULTS.values():
        content = (data / table).read_bytes()
        edit(data / table, old, new)
        refused_by_kaldi += not kaldi_accepts(data)
        (data / table).write_bytes(content)
    # That we refuse every one of FAULTS is tested above; that Kaldi does most shows that it ran.
    assert refused_by_kaldi > len(FAULTS) / 2
