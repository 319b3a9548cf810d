import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser import prepare_data, validate_data
from ser.cli import UserError
from ser.corpora import ravdess
from ser.corpus import Found, Utterance
from ser.datadir import read_table

KALDI = Path(os.environ.get("KALDI_ROOT", "/nowhere"), "egs/wsj/s5")
RATE = 8000
NAMES = [
    "03-01-01-01-01-01-01",
    "03-01-05-02-01-01-01",
    "03-01-05-02-02-01-01",
    "03-01-01-01-01-01-02",
    "03-01-04-01-02-02-02",
]
UTTS = [f"actor{name[-2:]}-{name}" for name in NAMES]


def record(root, name, frames=800, rate=RATE, channels=1, seed=None, **options):
    """Write noise that differs from name to name, where seed does not say otherwise."""
    path = root / f"Actor_{name[-2:]}" / f"{name}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(zlib.crc32((seed or name).encode()))
    noise = generator.integers(-16000, 16000, (frames, 1), dtype=np.int16)
    soundfile.write(path, noise.repeat(channels, axis=1), rate, **options)
    return path


@pytest.fixture
def corpus(tmp_path):
    for name in NAMES:
        record(tmp_path / "corpus", name)
    return tmp_path / "corpus"


@pytest.fixture
def data(tmp_path):
    return tmp_path / "exp" / "data"


def prepare(corpus, data, *options):
    prepare_data.main([*options, "ravdess", str(corpus), str(data)])


def test_the_tables(corpus, data):
    record(corpus, NAMES[1], frames=1000)
    prepare(corpus, data)
    assert sorted(path.name for path in data.iterdir()) == [
        "report.txt", "spk2gender", "spk2utt", "text", "utt2dur", "utt2emo", "utt2intensity",
        "utt2md5", "utt2sent", "utt2spk", "utt2take", "wav.scp",
    ]  # fmt: skip
    tables = {path.name: read_table(path) for path in data.iterdir() if path.name != "report.txt"}
    paths = [str(corpus / f"Actor_{name[-2:]}/{name}.wav") for name in NAMES]
    assert tables["wav.scp"] == dict(zip(UTTS, paths, strict=True))
    assert tables["utt2spk"] == {utt: utt[:7] for utt in UTTS}
    assert tables["spk2utt"] == {"actor01": " ".join(UTTS[:3]), "actor02": " ".join(UTTS[3:])}
    assert tables["spk2gender"] == {"actor01": "m", "actor02": "f"}
    assert list(tables["utt2emo"].values()) == ["neutral", "angry", "angry", "neutral", "sad"]
    assert list(tables["utt2dur"].values()) == ["0.100000", "0.125000", "0.100000", "0.100000", "0.100000"]
    assert list(tables["utt2sent"].values()) == ["01", "01", "02", "01", "02"]
    assert list(tables["utt2take"].values()) == ["01", "01", "01", "01", "02"]
    assert list(tables["utt2intensity"].values()) == ["normal", "strong", "strong", "normal", "normal"]
    assert tables["text"][UTTS[4]] == "dogs are sitting by the door"
    assert len(set(tables["utt2md5"].values())) == 5


def test_the_validator_accepts_it(corpus, data, capsys):
    prepare(corpus, data)
    capsys.readouterr()
    validate_data.main([str(data)])
    assert capsys.readouterr().out == f"{data}: valid: 5 utterances, 0.00 h, 2 speakers, 3 classes, 11 tables\n"


@pytest.mark.skipif(not (KALDI / "utils").is_dir(), reason="KALDI_ROOT does not point at Kaldi's source tree")
def test_kaldi_accepts_it(corpus, data):
    prepare(corpus, data)
    script = ["utils/validate_data_dir.sh", "--no-feats", data]
    ended = subprocess.run(script, cwd=KALDI, capture_output=True, text=True)
    assert "Successfully validated" in ended.stdout  # a malformed utt2spk too gives exit status 0


def test_a_relative_folder_gives_absolute_paths(corpus, data, monkeypatch):
    monkeypatch.chdir(corpus.parent)
    prepare("corpus", data)
    assert read_table(data / "wav.scp")[UTTS[0]] == str(corpus / f"Actor_01/{NAMES[0]}.wav")


def test_the_summary(corpus, data, capsys):
    record(corpus, NAMES[0], rate=2 * RATE)
    prepare(corpus, data)
    assert capsys.readouterr().out.startswith(
        f"ravdess in {corpus}\n"
        "the whole corpus has 1440 utterances, of which 1435 are missing\n"
        "5 utterances, 2 speakers (1 f, 1 m), 3 classes\n"
        "0.00 h, 0.05 to 0.10 s, mean 0.09 s\n"
        "sampling rates: 8000 Hz 4, 16000 Hz 1\n"
        "\n"
        "         angry  neutral  sad  all\n"
        "actor01      2        1    0    3\n"
        "actor02      0        1    1    2\n"
        "all          2        2    1    5\n"
        "\n"
        "missing: 1435\n"
        "  actor01-03-01-01-01-01-02-01\n"
    )


def test_the_report_lists_all_and_the_screen_the_first(corpus, data, capsys):
    prepare(corpus, data)
    out = capsys.readouterr().out
    assert f"  ... and {1435 - prepare_data.LONGEST_LIST} more\n" in out
    report = (data / "report.txt").read_text()
    missing = sorted(set(ravdess.EXPECTED) - set(UTTS))
    assert "missing: 1435\n" + "".join(f"  {utt}\n" for utt in missing) + "unreadable: 0\n" in report


def test_stereo_is_mixed_down_and_said(corpus, data, capsys):
    mono = prepare_md5(corpus, data)
    record(corpus, NAMES[2], channels=2)
    capsys.readouterr()
    assert prepare_md5(corpus, data) == mono  # equal channels: the same audio
    assert f"mixed down when read: 1\n  {UTTS[2]}\n" in capsys.readouterr().out


def prepare_md5(corpus, data):
    prepare(corpus, data)
    return read_table(data / "utt2md5")


def test_clipped_recordings_are_kept_and_listed(corpus, data, capsys):
    path = corpus / f"Actor_01/{NAMES[0]}.wav"
    samples, rate = soundfile.read(path)
    soundfile.write(path, 4 * samples, rate)  # which cuts what is beyond full scale
    prepare(corpus, data)
    assert f"\nclipped: 1\n  {UTTS[0]}\n" in capsys.readouterr().out
    assert list(read_table(data / "wav.scp")) == UTTS


def test_identical_recordings_are_reported(corpus, data, capsys):
    record(corpus, NAMES[0], seed="same", subtype="PCM_16")
    record(corpus, NAMES[3], seed="same", subtype="PCM_16", format="FLAC")  # other bytes, same samples
    prepare(corpus, data)
    assert f"groups of identical recordings: 1\n  {UTTS[0]} = {UTTS[3]}\n" in capsys.readouterr().out


def test_unreadable_recordings_are_left_out_of_every_table_and_listed(corpus, data, capsys):
    (corpus / "Actor_01" / f"{NAMES[0]}.wav").write_bytes(b"")
    cut = corpus / "Actor_02" / f"{NAMES[4]}.wav"
    cut.write_bytes(cut.read_bytes()[:-10])
    prepare(corpus, data)
    out = capsys.readouterr().out
    assert f"unreadable: 2\n  {UTTS[0]}: {corpus}/Actor_01/{NAMES[0]}.wav: empty file" in out
    assert f"\n  {UTTS[4]}: {cut}: cut short: 10 bytes are missing" in out
    assert "5 utterances" not in out and "3 utterances" in out
    for table in data.iterdir():
        if table.name != "report.txt":
            assert UTTS[0] not in table.read_text() and UTTS[4] not in table.read_text()
    validate_data.main([str(data)])


def test_a_recording_without_a_frame_is_left_out_and_listed(corpus, data, capsys):
    """25 ms at 8 kHz are 200 samples."""
    short = record(corpus, NAMES[0], frames=199)
    record(corpus, NAMES[1], frames=200)
    prepare(corpus, data)
    assert (
        f"unreadable: 1\n  {UTTS[0]}: {short}: 0.0249 s long, shorter than a frame of 0.025 s; fetch it again\n"
        in capsys.readouterr().out
    )
    assert list(read_table(data / "wav.scp")) == UTTS[1:]
    with pytest.raises(UserError, match="and 1 unreadable"):
        prepare(corpus, data, "--strict")


def test_a_header_that_claims_too_much_is_listed(corpus, data, capsys):
    path = record(corpus, NAMES[0], format="FLAC", subtype="PCM_16")
    content = bytearray(path.read_bytes())
    content[21] |= 8  # of the number of samples
    path.write_bytes(content)
    prepare(corpus, data)
    assert f"unreadable: 1\n  {UTTS[0]}: {path}: its header says 34" in capsys.readouterr().out
    assert list(read_table(data / "wav.scp")) == UTTS[1:]


def test_utterances_of_a_list_are_left_out(corpus, data, tmp_path, capsys, monkeypatch):
    record(corpus, NAMES[0], frames=5)  # too short, and nobody asks
    monkeypatch.setattr(ravdess, "EXPECTED", frozenset([*UTTS, "actor03-03-01-01-01-01-01-03"]))
    unwanted = tmp_path / "unwanted"
    unwanted.write_text(f"{UTTS[3]} the door slams\n{UTTS[0]}\nactor03-03-01-01-01-01-01-03\n")
    prepare(corpus, data, "--strict", "--leave-out", str(unwanted))
    assert list(read_table(data / "wav.scp")) == [UTTS[1], UTTS[2], UTTS[4]]
    out = capsys.readouterr().out
    assert f"left out: listed in {unwanted}: 3\n  {UTTS[0]}\n  {UTTS[3]}\n  actor03" in out
    assert "6 utterances, of which 0 are missing\n3 utterances" in out and "unreadable: 0\n" in out
    validate_data.main([str(data)])
    unwanted.write_text("actor99-1\n")
    with pytest.raises(
        UserError, match=f"{unwanted}: actor99-1 is not an utterance of the corpus; remove it from the list"
    ):
        prepare(corpus, data, "--leave-out", str(unwanted))
    with pytest.raises(UserError, match="/nowhere: no such"):
        prepare(corpus, data, "--leave-out", str(tmp_path / "nowhere"))


def test_what_is_left_out_is_counted(corpus, data, capsys):
    record(corpus, "03-02-01-01-01-01-01")
    record(corpus / "again", NAMES[0])
    record(corpus, "noise-01")
    (corpus / "Actor_01/01-01-01-01-01-01-01.mp4").touch()
    prepare(corpus, data)
    out = capsys.readouterr().out
    for line in [
        f"left out: song: 1\n  {corpus}/Actor_01/03-02-01-01-01-01-01.wav\n",
        "left out: video: 1\n",
        "left out: name that is not RAVDESS's: 1\n",
        f"left out: second copy of a file of that name: 1\n  {corpus}/again/Actor_01/{NAMES[0]}.wav\n",
    ]:
        assert line in out


def test_strict_refuses_missing_recordings_and_writes_nothing(corpus, data, capsys):
    with pytest.raises(UserError, match=f"{corpus}: 1435 recordings missing and 0 unreadable"):
        prepare(corpus, data, "--strict")
    assert "missing: 1435" in capsys.readouterr().out
    assert not data.parent.exists()


def test_strict_wants_every_recording_that_is_there_readable(corpus, data, monkeypatch):
    monkeypatch.setattr(ravdess, "EXPECTED", frozenset(UTTS))
    prepare(corpus, data, "--strict", "--nj", "1")
    assert list(read_table(data / "utt2emo")) == UTTS
    (corpus / "Actor_01" / f"{NAMES[0]}.wav").write_bytes(b"")
    with pytest.raises(UserError, match="0 recordings missing and 1 unreadable"):
        prepare(corpus, data, "--strict")


def test_a_corpus_that_cannot_be_read_at_all_is_an_error(corpus, data):
    for path in corpus.rglob("*.wav"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=f"{corpus}: no recording can be read"):
        prepare(corpus, data)
    assert not data.parent.exists()


def test_it_can_be_run_again_and_leaves_other_files_alone(corpus, data):
    prepare(corpus, data)
    before = {path.name: path.read_bytes() for path in data.iterdir()}
    times = {path: path.stat().st_mtime_ns for path in data.iterdir()}
    (data / "folds").mkdir()
    (data / "folds" / "1").write_text("mine")
    prepare(corpus, data, "--nj", "3")
    assert (data / "folds" / "1").read_text() == "mine"
    assert {path.name: path.read_bytes() for path in data.iterdir() if path.is_file()} == before
    assert {path: path.stat().st_mtime_ns for path in times} == times  # another process may read them now
    (data / "utt2words").touch()  # of another corpus
    (data / "text").write_text("of another corpus\n")
    prepare(corpus, data)
    assert {path.name: path.read_bytes() for path in data.iterdir() if path.is_file()} == before
    assert [path.name for path in data.parent.iterdir()] == ["data"]


def test_a_data_directory_of_another_make_is_left_alone(corpus, data):
    data.mkdir(parents=True)
    for name in ("wav.scp", "utt2own", "text"):
        (data / name).write_text("a mine\n")
    with pytest.raises(UserError, match=f"{data}: a data directory that stage 0 did not write .*; use another folder"):
        prepare(corpus, data)
    assert {path.name: path.read_text() for path in data.iterdir()} == dict.fromkeys(
        ("wav.scp", "utt2own", "text"), "a mine\n"
    )
    for path in data.iterdir():
        path.unlink()
    (data / "notes").write_text("mine")
    prepare(corpus, data)
    assert (data / "notes").read_text() == "mine"


def test_a_folder_that_is_a_link(corpus, data, monkeypatch):
    """As to another disk, to which nothing can be renamed from here."""
    (data.parent.parent / "disk/data").mkdir(parents=True)
    data.parent.mkdir()
    data.symlink_to(data.parent.parent / "disk/data")
    replace = os.replace

    def on_one_disk(source, target):
        assert Path(source).resolve().parents[1] in Path(target).resolve().parents
        replace(source, target)

    monkeypatch.setattr(os, "replace", on_one_disk)
    prepare(corpus, data)
    prepare(corpus, data)
    validate_data.main([str(data)])
    assert data.is_symlink() and [path.name for path in data.parent.iterdir()] == ["data"]


def test_one_that_was_stopped_at_the_first_table_can_be_run_again(corpus, data, monkeypatch):
    replace = os.replace

    def stop(source, target):
        replace(source, target)
        if Path(target).parent == data and Path(target).name not in ("report.txt", "lock"):
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(corpus, data)
    assert len(list(data.iterdir())) == 2
    monkeypatch.undo()
    prepare(corpus, data)
    validate_data.main([str(data)])


def test_one_that_was_stopped_while_writing_is_no_data_directory(corpus, data, monkeypatch):
    prepare(corpus, data)
    (data / "text").write_text("of another call\n")  # or all is left as it is
    replace = os.replace

    def stop(source, target):
        if Path(target) == data / "utt2emo":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(corpus, data)
    assert not (data / "wav.scp").exists()
    with pytest.raises(UserError, match="faults found"):
        validate_data.main([str(data)])
    monkeypatch.undo()
    prepare(corpus, data)
    validate_data.main([str(data)])


def test_two_recordings_of_one_id_are_refused(corpus, data, monkeypatch):
    twins = [Utterance("a-1", "a", "f", "sad", "", corpus / name) for name in ("one.wav", "two.wav")]
    monkeypatch.setattr(ravdess, "utterances", lambda root: Found(twins))
    with pytest.raises(UserError, match=f"{corpus}/two.wav: has the same utterance id, a-1, as {corpus}/one.wav"):
        prepare(corpus, data)


def test_names_that_no_table_can_hold_are_refused(corpus, data, capsys):
    """A folder's name in Latin-1, as old disks have it."""
    os.rename(corpus / "Actor_01", corpus / "Actor_\udce9")
    with pytest.raises(UserError, match="wav.scp cannot store .*rename"):
        prepare(corpus, data)
    assert not data.exists()


def test_a_name_in_latin_1_that_is_left_out_is_listed(corpus, data, capsys):
    (corpus / "caf\udce9.wav").write_bytes(b"")
    prepare(corpus, data)
    assert r"caf\udce9.wav" in capsys.readouterr().out


def test_names_cannot_steer_a_terminal(corpus, data, capsys):
    for name in ("x\x1b]0;pwned\x07.wav", "one\nunreadable: 7.wav", "tab\tand\x9b2J.wav", "\u202egnos.wav"):
        (corpus / name).write_bytes(b"")
    capsys.readouterr()
    prepare(corpus, data)
    for text in (capsys.readouterr().out, (data / "report.txt").read_text()):
        assert all(letter.isprintable() for letter in text.replace("\n", ""))
        for name in (r"x\x1b]0;pwned\x07.wav", r"one\nunreadable: 7.wav", r"tab\tand\x9b2J.wav", r"\u202egnos.wav"):
            assert f"  {corpus}/{name}\n" in text
    os.rename(corpus, corpus.with_name("c\x1b[2J"))
    ended = run("--strict", "ravdess", corpus.with_name("c\x1b[2J"), data)
    assert ended.stdout.startswith(rf"ravdess in {corpus.parent}/c\x1b[2J" + "\n") and "\x1b" not in ended.stdout
    assert ended.returncode == 1 and r"c\x1b[2J: 1435 recordings" in ended.stderr and ended.stderr.count("\n") == 1
    assert "\x1b" not in ended.stderr


@pytest.mark.parametrize("is_there", [True, False])
def test_the_folder_may_be_a_link(corpus, data, tmp_path, is_there):
    """To another disk, which a rename does not reach: nothing is renamed from outside the target's folder."""
    target = tmp_path / "disk" / "here"
    target.parent.mkdir()
    if is_there:
        target.mkdir()
    data.parent.mkdir()
    data.symlink_to(target)
    places = []
    replace = os.replace

    def watched(source, to):
        places.append((Path(source).parent.parent, Path(to).parent))
        replace(source, to)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", watched)
        prepare(corpus, data)
        prepare(corpus, data)
    moved = [place for place in places if place[1] == target]
    assert len(moved) >= 12 and {source for source, _ in moved} == {target.parent}
    assert data.is_symlink() and [path.name for path in target.parent.iterdir()] == ["here"]
    validate_data.main([str(data)])


def test_the_root_of_a_disk_is_refused_before_anything_is_removed(corpus, data, monkeypatch):
    prepare(corpus, data)
    before = {path.name: path.read_bytes() for path in data.iterdir()}
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == data)
    with pytest.raises(UserError, match=f"{data}: a mount point; use a folder in it"):
        prepare(corpus, data)
    assert {path.name: path.read_bytes() for path in data.iterdir()} == before


def test_a_rate_that_tells_the_class_is_said(corpus, data, capsys):
    """Of 4 speakers x 4 classes x 4, all of one class; and not if it is a speaker's, or one file's."""
    names = [
        f"03-01-0{emotion}-01-0{sentence}-0{take}-0{actor}"
        for emotion in (3, 4, 5, 6)
        for sentence in (1, 2)
        for take in (1, 2)
        for actor in (1, 2, 3, 4)
    ]

    def warnings(is_odd, **odd):
        for name in names:
            record(corpus, name, **odd if is_odd(name) else {})
        capsys.readouterr()
        prepare(corpus, data)
        out = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
        assert out == [line for line in (data / "report.txt").read_text().splitlines() if line.startswith("warning")]
        return out

    end = "; a system may learn it instead of the emotion"
    for path in corpus.rglob("*.wav"):
        path.unlink()
    assert warnings(lambda name: name[6:8] == "05", rate=16000) == [
        "warning: the sampling rate depends on the class: 100% of angry and 0% of the others have 16000 Hz" + end
    ]
    assert warnings(lambda name: name[6:8] != "05", rate=16000) == [
        "warning: the sampling rate depends on the class: 100% of angry and 0% of the others have 8000 Hz" + end
    ]
    assert warnings(lambda name: name[6:8] == "03" and name[-1] != "1", channels=2) == [
        "warning: the number of channels depends on the class: 75% of happy and 0% of the others have 2 channels" + end
    ]
    assert warnings(lambda name: name[-1] == "1", rate=16000) == []
    assert warnings(lambda name: name == names[0], rate=16000, channels=2) == []
    assert warnings(lambda name: True) == []


def test_what_goes_with_a_class():
    classes = ["a"] * 400 + ["b"] * 400 + ["c"] * 20
    assert prepare_data.tied([1] * 820, classes, "Hz") is None
    assert prepare_data.tied([1] * 820, ["a"] * 820, "Hz") is None
    assert prepare_data.tied([1, 2] * 410, ["a"] * 820, "Hz") is None
    assert prepare_data.tied([2, *[1] * 819], classes, "Hz") is None
    chance = np.random.default_rng(0).integers(2, size=(200, 60))
    assert not any(prepare_data.tied(list(values), ["a", "b", "c"] * 20, "Hz") for values in chance)
    assert prepare_data.tied([1] * 800 + [2] * 20, classes, "Hz") == "100% of c and 0% of the others have 2 Hz"
    assert prepare_data.tied([2] * 100 + [1] * 720, classes, "Hz") == "25% of a and 0% of the others have 2 Hz"


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "ser.prepare_data", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
    )


def test_errors_are_one_line_and_a_non_zero_exit(corpus, data, tmp_path):
    for arguments, message in [
        (("nope", corpus, data), "error: no corpus 'nope'; available: "),
        (("ravdess", tmp_path / "nowhere", data), f"error: {tmp_path}/nowhere: no such folder"),
        (("ravdess", corpus, corpus / f"Actor_01/{NAMES[0]}.wav"), "error: "),
        (("--strict", "ravdess", corpus, data), f"error: {corpus}: 1435 recordings missing"),
    ]:
        ended = run(*arguments)
        assert ended.returncode == 1
        assert ended.stderr.startswith(message) and ended.stderr.count("\n") == 1
    ended = run("--nj", "0", "ravdess", corpus, data)
    assert ended.returncode == 2 and "--nj 0: must be 1 or more" in ended.stderr
