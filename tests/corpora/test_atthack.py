import functools
import hashlib
import importlib.util
import itertools
import os
import shutil
import tarfile
import threading
import wave
from collections import Counter
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from ser import make_folds, prepare_data, validate_data
from ser.cli import UserError
from ser.config import read_protocol
from ser.corpora import atthack
from ser.datadir import read_table

ROOT = Path(__file__).resolve().parents[2]
PROTOCOLS = ROOT / "egs/atthack/conf/protocols"
BUILDER = ROOT.parent / "shared/standins/make_atthack.py"
INSIDE = Path("Volumes/CLEM_HDD/IRCAM/Open_SLR")  # of both archives
SENTENCES = [f"s{number:03}" for number in range(1, 101)]
ATTITUDES = ["a1", "a2", "a3", "a4"]
WOMEN = "F01 F02 F03 F05 F06 F08 F10 F14 F15 F18 F20".split()
MEN = "M04 M07 M09 M11 M12 M13 M16 M17 M19".split()


def write_wav(path, number=0, rate=16000):
    """A tenth of a second that no other number has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(rate)
        stream.writeframes(np.arange(number, number + rate // 10, dtype="<i2").tobytes())


def add(root, *names, folder=INSIDE):
    """A recording and its transcript each."""
    for number, name in enumerate(names):
        write_wav(root / folder / f"wav/{name}.wav", number)
        path = root / folder / f"txt/{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"Voilà la phrase {name[8:11]}.\n", encoding="utf-8")


def test_a_name_tells_everything(tmp_path):
    add(tmp_path, "F01_a1_s001_v01", "M19_a4_s100_v05")
    found = atthack.utterances(tmp_path)
    woman, man = found.utterances
    assert (woman.utt, woman.spk, woman.gender, woman.emo) == ("F01-a1-s001-v01", "F01", "f", "friendly")
    assert woman.text == "Voilà la phrase 001."
    assert woman.path == tmp_path / INSIDE / "wav/F01_a1_s001_v01.wav"
    assert woman.more == {"sent": "s001", "take": "v01"}
    assert (man.utt, man.spk, man.gender, man.emo) == ("M19-a4-s100-v05", "M19", "m", "seductive")
    assert man.more == {"sent": "s100", "take": "v05"}
    assert set(found.expected) == {woman.utt, man.utt}
    assert not any(found.left_out.values())


def test_the_attitudes_and_the_speakers():
    assert list(atthack.ATTITUDES.values()) == ["friendly", "distant", "dominant", "seductive"]
    assert sorted(atthack.SPEAKERS) == WOMEN + MEN


def test_the_recordings_and_the_transcripts_may_lie_at_any_depth(tmp_path):
    add(tmp_path, "F01_a1_s001_v01", folder="")
    add(tmp_path, "F02_a1_s001_v01", folder=INSIDE / "wav/more")
    assert [one.spk for one in atthack.utterances(tmp_path).utterances] == ["F01", "F02"]


def test_files_of_other_names_are_left_out_and_listed(tmp_path):
    wrong = [
        "F01_a1_s000_v01",
        "F01_a1_s001",
        "F01_a1_s001_v00",
        "F01_a1_s001_v06",
        "F01_a1_s001_v1",
        "F01_a1_s001_v01 copie",
        "F01_a1_s101_v01",
        "F01_a1_s1_v01",
        "F01_a5_s001_v01",
        "F04_a1_s001_v01",  # a man's number
        "f01_a1_s001_v01",
        "noise",
    ]
    add(tmp_path, "F01_a1_s001_v01", *wrong)
    for name in ("wav/._F01_a1_s001_v02.wav", "txt/._F01_a1_s001_v01.txt"):
        (tmp_path / INSIDE / name).write_bytes(b"\x00\x05\x16\x07Mac OS X")
    add(tmp_path, "F01_a1_s001_v01", folder=INSIDE / "again")
    found = atthack.utterances(tmp_path)
    assert [one.path for one in found.utterances] == [tmp_path / INSIDE / "wav/F01_a1_s001_v01.wav"]
    assert {reason: [path.name for path in paths] for reason, paths in found.left_out.items()} == {
        "recording without a transcript": [],
        "name that is not Att-HACK's": sorted(f"{name}.wav" for name in wrong),
        "second copy of a file of that name": ["F01_a1_s001_v01.wav"],
    }
    assert set(found.expected) == {"F01-a1-s001-v01"}


def test_what_lacks_its_recording_or_its_transcript(tmp_path, capsys):
    add(tmp_path, "F01_a1_s001_v01", "F01_a1_s001_v02", "F01_a1_s001_v03", "F01_a1_s001_v04")
    (tmp_path / INSIDE / "wav/F01_a1_s001_v02.wav").unlink()
    (tmp_path / INSIDE / "txt/F01_a1_s001_v03.txt").unlink()
    (tmp_path / INSIDE / "txt/F01_a1_s001_v04.txt").write_text(" \n")
    found = atthack.utterances(tmp_path)
    assert [one.utt for one in found.utterances] == ["F01-a1-s001-v01"]
    assert found.left_out["recording without a transcript"] == [
        tmp_path / INSIDE / f"wav/F01_a1_s001_v0{take}.wav" for take in (3, 4)
    ]
    prepare_data.main(["atthack", str(tmp_path), str(tmp_path / "data")])
    assert "missing: 3\n  F01-a1-s001-v02\n  F01-a1-s001-v03\n  F01-a1-s001-v04\n" in capsys.readouterr().out
    with pytest.raises(UserError, match="3 recordings missing"):
        prepare_data.main(["--strict", "atthack", str(tmp_path), str(tmp_path / "data")])


def test_text_that_is_not_plain(tmp_path):
    """A mark at the start, DOS line ends, several lines and odd spaces do not stop it."""
    add(tmp_path, "F01_a1_s001_v01")
    path = tmp_path / INSIDE / "txt/F01_a1_s001_v01.txt"
    path.write_bytes("\ufeffÇa,\r\n léger\xa0?\r\n".encode())
    found = atthack.utterances(tmp_path)
    assert found.utterances[0].text == "Ça, léger ?" and not found.old_texts


def test_text_of_an_older_encoding_is_read_and_said(tmp_path, capsys):
    add(tmp_path, "F01_a1_s001_v01", "F01_a1_s001_v02")
    path = tmp_path / INSIDE / "txt/F01_a1_s001_v02.txt"
    path.write_bytes("Ça a été préféré à l’œuvre…".encode("cp1252"))
    prepare_data.main(["atthack", str(tmp_path), str(tmp_path / "data")])
    assert read_table(tmp_path / "data/text")["F01-a1-s001-v02"] == "Ça a été préféré à l’œuvre…"
    for text in (capsys.readouterr().out, (tmp_path / "data/report.txt").read_text()):
        assert f"texts that are not UTF-8, read as cp1252: 1\n  {path}\n" in text
    path.write_bytes("préféré".encode("latin-1"))
    assert atthack.utterances(tmp_path).utterances[1].text == "préféré"
    path.write_bytes("préféré".encode("mac-roman"))
    with pytest.raises(
        UserError, match=f"{path}: neither UTF-8 nor, at byte 3 .0x8e., Western text in cp1252; convert the file"
    ):
        atthack.utterances(tmp_path)


def test_two_transcripts_of_one_recording(tmp_path):
    add(tmp_path, "F01_a1_s001_v01")
    add(tmp_path, "F01_a1_s001_v01", folder=INSIDE / "again")
    assert len(atthack.utterances(tmp_path).utterances) == 1
    first, second = (tmp_path / INSIDE / folder / "txt/F01_a1_s001_v01.txt" for folder in ("", "again"))
    second.write_text("Autre phrase.")
    with pytest.raises(UserError, match=f"{second}: differs from {first}; remove the wrong one"):
        atthack.utterances(tmp_path)
    second.unlink()
    first.with_suffix(".TXT").write_text("Autre phrase.")
    with pytest.raises(UserError, match="differs from"):
        atthack.utterances(tmp_path)


def test_folders_that_are_no_corpus(tmp_path):
    with pytest.raises(UserError, match="/nowhere: no such folder"):
        atthack.utterances(tmp_path / "nowhere")
    add(tmp_path, "F01_a1_s001_v01")
    shutil.rmtree(tmp_path / INSIDE / "txt")
    with pytest.raises(UserError, match=f"{tmp_path}: contains no .txt file"):
        atthack.utterances(tmp_path)
    (tmp_path / "readme.txt").touch()
    with pytest.raises(UserError, match=f"{tmp_path}: contains no recording with a transcript, such as"):
        atthack.utterances(tmp_path)


@pytest.fixture
def publisher(tmp_path, monkeypatch):
    """A server with the two archives, as OpenSLR's; `asked` are the requests."""
    add(tmp_path / "published", "F01_a1_s001_v01", "M04_a2_s002_v03")
    for name in atthack.ARCHIVES:
        with tarfile.open(tmp_path / f"published/{name}.tgz", "w:gz") as archive:
            archive.add(tmp_path / "published" / INSIDE / name, INSIDE / name)
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=tmp_path / "published")

        def log_message(self, *_):
            asked.append(f"{self.command} {self.path}")

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setattr(atthack, "URL", f"http://127.0.0.1:{server.server_port}/")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield asked
        server.shutdown()
        thread.join()


def test_get_fetches_and_unpacks_what_is_not_there(publisher, tmp_path):
    downloads = tmp_path / "downloads"
    for _ in range(2):
        assert atthack.get(downloads) == downloads / "atthack"
    assert publisher == ["HEAD /wav.tgz", "GET /wav.tgz", "HEAD /txt.tgz", "GET /txt.tgz"]
    assert [one.utt for one in atthack.utterances(downloads / "atthack").utterances] == [
        "F01-a1-s001-v01",
        "M04-a2-s002-v03",
    ]

    publisher.clear()  # killed while it unpacked the second
    shutil.rmtree(downloads / "atthack/txt")
    atthack.get(downloads)
    assert publisher == []
    assert len(atthack.utterances(downloads / "atthack").utterances) == 2


def test_an_archive_that_came_damaged_is_not_unpacked(publisher, tmp_path):
    path = tmp_path / "published/wav.tgz"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(
        UserError, match=f"{tmp_path}/downloads/atthack_wav.tgz: cannot be unpacked .*remove it and fetch it again"
    ):
        atthack.get(tmp_path / "downloads")
    assert not list((tmp_path / "downloads/atthack").glob("*"))


@functools.cache
def folds_of(data, name):
    """Stage 1; train, dev and test of each fold, {utt: class}."""
    dest = data.parent / "folds" / name
    make_folds.main([str(PROTOCOLS / f"{name}.yaml"), str(data), str(dest)])
    return [
        tuple(read_table(dest / f"fold{number}" / part) for part in ("train", "dev", "test"))
        for number in range(1, len(list(dest.glob("fold*"))) + 1)
    ]


def values(data, name, folds):
    """The values of a table in each part of each fold."""
    table = read_table(data / name)
    return [tuple({table[utt] for utt in part} for part in fold) for fold in folds]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Data directory of all speakers, attitudes and phrases, one take each; only the tables that folds are made of."""
    folder = tmp_path_factory.mktemp("atthack") / "data"
    folder.mkdir()
    utts = {
        f"{spk}-{attitude}-{sent}-v01": (spk, atthack.ATTITUDES[attitude], sent)
        for spk, attitude, sent in itertools.product(WOMEN + MEN, ATTITUDES, SENTENCES)
    }
    for column, name in enumerate(("utt2spk", "utt2emo", "utt2sent")):
        (folder / name).write_text("".join(f"{utt} {of[column]}\n" for utt, of in utts.items()))
    (folder / "utt2md5").write_text("".join(f"{utt} {hashlib.md5(utt.encode()).hexdigest()}\n" for utt in utts))
    return folder


def test_linguistic_selects_on_the_test_set_and_the_others_do_not():
    assert {path.stem: read_protocol(path).select for path in PROTOCOLS.iterdir()} == {
        "linguistic": "test",
        "phrases": "dev",
        "speakers": "dev",
    }


def test_linguistic_tests_two_groups_of_ten_phrases(data):
    folds = folds_of(data, "linguistic")
    sentences = values(data, "utt2sent", folds)
    assert [(len(train), len(dev), len(test)) for train, dev, test in sentences] == [(80, 0, 20)] * 10
    assert all(train | test == set(SENTENCES) for train, _, test in sentences)
    tests = [test for _, _, test in sentences]
    assert Counter(sent for test in tests for sent in test) == dict.fromkeys(SENTENCES, 2)
    assert [len(test & after) for test, after in zip(tests, [*tests[1:], tests[0]], strict=True)] == [
        10
    ] * 10  # the shared group
    assert [len(train & test) for train, _, test in values(data, "utt2spk", folds)] == [20] * 10
    assert not any(set(SENTENCES[start : start + 10]) <= test for test in tests for start in range(0, 100, 10))  # drawn


def test_phrases_are_apart(data):
    groups = [test for _, _, test in values(data, "utt2sent", folds_of(data, "linguistic"))]
    folds = folds_of(data, "phrases")
    sentences = values(data, "utt2sent", folds)
    assert [(len(train), len(dev), len(test)) for train, dev, test in sentences] == [(80, 10, 10)] * 10
    assert all(len(train | dev | test) == 100 for train, dev, test in sentences)
    assert [dev | test for _, dev, test in sentences] == groups  # the same groups, so that the same phrases train
    assert set.union(*(test for _, _, test in sentences)) == set(SENTENCES)


def test_speakers_are_apart_and_women_and_men_even(data):
    speakers = values(data, "utt2spk", folds_of(data, "speakers"))
    assert [(len(train), len(dev), len(test)) for train, dev, test in speakers] == [(12, 4, 4)] * 5
    tests = [test for _, _, test in speakers]
    assert sorted(spk for test in tests for spk in test) == WOMEN + MEN
    assert sorted(len(test & set(WOMEN)) for test in tests) == [2, 2, 2, 2, 3]
    assert [dev for _, dev, _ in speakers] == [*tests[1:], tests[0]]


@pytest.fixture(scope="module")
def standin(tmp_path_factory):
    """The stand-in's tree, names and texts with two phrases, all recordings one file, at the rates of its readme."""
    if not BUILDER.exists():
        pytest.skip(f"{BUILDER} is not there")
    pytest.importorskip("soxr")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BUILDER.parent)
        spec = importlib.util.spec_from_file_location("make_atthack", BUILDER)
        builder = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(builder)
        folder = tmp_path_factory.mktemp("atthack")
        for rate in (16000, 44100):
            write_wav(folder / f"{rate}", 1, rate)
        for actor in range(1, 25):
            for code in range(1, 9):
                path = folder / f"ravdess/Actor_{actor:02}/03-01-{code:02}-01-01-01-{actor:02}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
                path.with_name(path.name.replace("-01-01-01-", "-01-02-01-")).touch()
        patch.setattr(builder, "trimmed", lambda _: np.zeros(1000))
        patch.setattr(builder.sf, "write", lambda path, _, rate, **__: os.link(folder / f"{rate}", path))
        total = builder.build(folder, folder / "corpus", 2, 0)
    yield folder / "corpus", total
    shutil.rmtree(folder)


def test_the_stand_in_from_files_to_a_valid_data_directory(standin, tmp_path, capsys):
    corpus, total = standin
    prepare_data.main(["--strict", "atthack", str(corpus), str(tmp_path / "data")])
    report = capsys.readouterr().out
    assert f"{total} utterances, 20 speakers (11 f, 9 m), 4 classes\n" in report
    assert "missing: 0\n" in report
    assert "sampling rates: 16000 Hz " in report and ", 44100 Hz " in report
    assert "left out: name that is not Att-HACK's: 3\n" in report
    validate_data.main([str(tmp_path / "data")])
    assert f"valid: {total} utterances, " in capsys.readouterr().out
    assert {"utt2sent", "utt2take"} <= {path.name for path in (tmp_path / "data").iterdir()}
    takes = Counter(utt[:-4] for utt in read_table(tmp_path / "data/utt2take"))
    assert len(takes) == 20 * 4 * 2 and set(takes.values()) == {3, 4, 5}
    assert set(read_table(tmp_path / "data/text").values()) == {"Phrase numéro 1.", "Phrase numéro 2."}
