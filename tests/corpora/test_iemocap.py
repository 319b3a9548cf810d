import importlib.util
import os
import re
import shutil
import subprocess
import wave
from collections import Counter
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import yaml

from ser import make_folds, prepare_data, validate_data
from ser.cli import UserError
from ser.config import read_protocol
from ser.corpora import iemocap
from ser.datadir import read_table

ROOT = Path(__file__).resolve().parents[2]
PROTOCOLS = ROOT / "egs/iemocap/conf/protocols"
BUILDER = ROOT.parent / "shared/standins/make_iemocap.py"
TIMES = 4  # so many of each label that a tenth drawn at random has every class
LABELS = ("ang", "hap", "exc", "neu", "sad", "fru", "xxx")
HEAD = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
RATERS = "C-E2:\tNeutral;\t()\nC-F1:\tNeutral; Sadness;\t([so to say] Ses01F_impro01_F009)\nA-E3:\tval 3; act 2; dom  2;\t()\n\n"
JUNK = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "

# All of FACTS.md: what the stand-in has to come to, with the classes that the papers use.
OF_CLASS = {"undecided": 2507, "frustrated": 1849, "neutral": 1708, "angry": 1103, "sad": 1084, "excited": 1041}
OF_CLASS |= {"happy": 595, "surprised": 107, "fearful": 40, "other": 3, "disgust": 2}
COLUMNS = ("angry", "happy", "excited", "neutral", "sad", "with", "without")
TABLE = {
    "all": (1103, 595, 1041, 1708, 1084, 5531, 4490),
    "1": (229, 135, 143, 384, 194, 1085, 942),
    "2": (137, 117, 210, 362, 197, 1023, 813),
    "3": (240, 135, 151, 320, 305, 1151, 1000),
    "4": (327, 65, 238, 258, 143, 1031, 793),
    "5": (170, 143, 299, 384, 245, 1241, 942),
    "improvised": (289, 284, 663, 1099, 608, 2943, 2280),
}


def write_wav(path, number):
    """A tenth of a second that no other number has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(16000)
        stream.writeframes(np.arange(number, number + 1600, dtype="<i2").tobytes())


class Corpus:
    """IEMOCAP's tree, small: in each session an improvised and a scripted dialogue, both speakers, every label once, or `times` over."""

    def __init__(self, root, sessions="12345", times=1):
        self.root, self.number, self.dialogs = root, 0, set()
        for session in sessions:
            self.dialog(f"Ses0{session}F_impro01", newline="\r\n" if session == "2" else "\n", labels=LABELS * times)
            self.dialog(f"Ses0{session}M_script01_1", labels=LABELS * times)

    def session(self, dialog):
        return self.root / f"Session{dialog[4]}"

    def dialog(self, dialog, newline="\n", labels=LABELS):
        """Both speakers say a line with each label; beside it stand lines and files that are no utterance."""
        evaluation, script = HEAD, ""
        self.dialogs.add(dialog)
        for letter in "FM":
            for place, label in enumerate(labels):
                utt = f"{dialog}_{letter}{place:03d}"
                self.number += 1
                evaluation += f"[{place}.2901 - {place}.9357]\t{utt}\t{label}\t[2.5000, 3.0000, 1.6667]\n{RATERS}"
                script += f"{utt} [00{place}.2901-00{place}.9357]: Line {self.number}, so there!\n"
                write_wav(self.session(dialog) / f"sentences/wav/{dialog}/{utt}.wav", self.number)
            script += f"{letter}: sorry\n{dialog}_{letter}XX0 [008.2900-008.5400]: Mm-hmm.\n"
        self.write(f"dialog/EmoEvaluation/{dialog}.txt", evaluation, dialog, newline)
        self.write(f"dialog/transcriptions/{dialog}.txt", script, dialog, newline)
        for folder in ("Attribute", "Categorical", "Self-evaluation"):
            self.write(
                f"dialog/EmoEvaluation/{folder}/{dialog}_e2_cat.txt",
                f"{dialog}_F000 :Neutral state; ()\n[1 - 2]\tnothing\n",
                dialog,
            )
        self.write(f"dialog/MOCAP_head/{dialog}.txt", "[1 - 2]\tnothing\n", dialog)
        write_wav(self.session(dialog) / f"dialog/wav/{dialog}.wav", 0)  # the dialogue as a whole
        for place in (
            f"sentences/wav/{dialog}/._{dialog}_F000.wav",
            f"dialog/EmoEvaluation/._{dialog}.txt",
            f"dialog/transcriptions/._{dialog}.txt",
        ):
            (self.session(dialog) / place).write_bytes(JUNK)

    def write(self, place, text, dialog, newline="\n"):
        path = self.session(dialog) / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, newline=newline)

    def edit(self, place, old, new):
        text = (self.root / place).read_text()
        assert text.count(old) == 1
        (self.root / place).write_text(text.replace(old, new))


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """A corpus that is whole, and small."""
    corpus = Corpus(tmp_path / "IEMOCAP_full_release")
    monkeypatch.setattr(iemocap, "DIALOGS", corpus.dialogs)
    monkeypatch.setattr(iemocap, "TOTAL", corpus.number)
    return corpus


def by_name(found):
    return {utterance.utt.partition("-")[2]: utterance for utterance in found.utterances}


def test_an_utterance(corpus):
    found = iemocap.utterances(corpus.root)
    assert len(found.utterances) == corpus.number == 5 * 2 * 2 * len(LABELS)
    assert not any(found.left_out.values())
    assert set(found.expected) == {utterance.utt for utterance in found.utterances}
    one = by_name(found)["Ses04F_impro01_M002"]
    assert (one.utt, one.spk, one.gender, one.emo) == ("Ses04M-Ses04F_impro01_M002", "Ses04M", "m", "excited")
    assert one.text == f"Line {3 * 4 * len(LABELS) + len(LABELS) + 3}, so there!"
    assert one.path == corpus.root / "Session4/sentences/wav/Ses04F_impro01/Ses04F_impro01_M002.wav"
    assert one.more == {
        "sess": "4",
        "cond": "improvised",
        "dialog": "Ses04F_impro01",
        "scenario": "impro01",
        "vad": "2.5000 3.0000 1.6667",
    }
    assert by_name(found)["Ses04M_script01_1_M002"].more["cond"] == "scripted"


def test_the_speaker_is_in_the_last_field(corpus):
    """Not the letter in front: each dialogue has two speakers."""
    for name, one in by_name(iemocap.utterances(corpus.root)).items():
        assert one.spk == name[:5] + name[-4]
        assert one.gender == {"F": "f", "M": "m"}[name[-4]]
        assert one.utt == f"{one.spk}-{name}"


def test_every_label_has_its_word(tmp_path):
    corpus = Corpus(tmp_path, "1")
    corpus.dialog("Ses01M_impro02", labels=tuple(iemocap.EMOTIONS))
    words = {one.emo for name, one in by_name(iemocap.utterances(tmp_path)).items() if "impro02" in name}
    assert words == OF_CLASS.keys()


def test_dialogues_of_which_one_begins_as_the_other(corpus):
    corpus.dialog("Ses05M_script01_1b")
    corpus.dialog("Ses03M_impro05a")
    corpus.dialog("Ses03M_impro05b")
    found = iemocap.utterances(corpus.root)
    assert len(found.utterances) == corpus.number == (10 + 3) * 2 * len(LABELS)
    dialogs = Counter(one.more["dialog"] for one in found.utterances)
    assert (
        dialogs["Ses05M_script01_1"] == dialogs["Ses05M_script01_1b"] == dialogs["Ses03M_impro05a"] == 2 * len(LABELS)
    )
    texts = [one.text for one in found.utterances]
    assert len(set(texts)) == len(texts)  # each has its own


@pytest.mark.parametrize("place", ["", "IEMOCAP_full_release", "x/IEMOCAP/IEMOCAP_full_release"])
def test_whatever_the_folder_is_called(tmp_path, place):
    Corpus(tmp_path / place, "12")
    found = iemocap.utterances(tmp_path)
    assert len(found.utterances) == 2 * 4 * len(LABELS)
    assert found.left_out["session that is not there"] == [tmp_path / f"Session{number}" for number in (3, 4, 5)]


def test_sessions_on_several_disks(corpus, tmp_path):
    (tmp_path / "disk").mkdir()
    shutil.move(corpus.root / "Session3", tmp_path / "disk")
    (corpus.root / "Session3").symlink_to(tmp_path / "disk/Session3")
    assert len(iemocap.utterances(corpus.root).utterances) == corpus.number


def test_the_second_copy_counts_once(tmp_path):
    first, second = Corpus(tmp_path / "a", "12"), Corpus(tmp_path / "b", "2")
    again = shutil.copytree(
        first.root / "Session1/sentences/wav/Ses01F_impro01", first.root / "Session1/sentences/wav/more/Ses01F_impro01"
    )
    found = iemocap.utterances(tmp_path)
    assert len(found.utterances) == first.number
    assert all(one.path.is_relative_to(first.root) and not one.path.is_relative_to(again) for one in found.utterances)
    assert found.left_out["second copy"] == [second.root / "Session2", *sorted(again.glob("[!.]*.wav"))]


def test_what_one_side_lacks_is_told(corpus):
    wavs = corpus.root / "Session1/sentences/wav/Ses01F_impro01"
    (wavs / "Ses01F_impro01_F000.wav").unlink()
    write_wav(wavs / "Ses01F_impro01_M900.wav", 9999)
    corpus.edit("Session1/dialog/transcriptions/Ses01F_impro01.txt", "Ses01F_impro01_F001 [", "F: [")
    found = iemocap.utterances(corpus.root)
    assert set(found.expected) - {one.utt for one in found.utterances} == {
        "Ses01F-Ses01F_impro01_F000",
        "Ses01F-Ses01F_impro01_F001",
    }
    assert len(found.expected) == corpus.number
    assert found.left_out["recording without a label"] == [wavs / "Ses01F_impro01_M900.wav"]
    assert found.left_out["recording without a transcript"] == [wavs / "Ses01F_impro01_F001.wav"]


def test_a_missing_recording_is_in_the_report(corpus, tmp_path, capsys):
    (corpus.root / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M000.wav").unlink()
    prepare_data.main(["iemocap", str(corpus.root), str(tmp_path / "data")])
    assert "missing: 1\n  Ses01M-Ses01F_impro01_M000\n" in capsys.readouterr().out
    with pytest.raises(UserError, match="1 recordings missing"):
        prepare_data.main(["--strict", "iemocap", str(corpus.root), str(tmp_path / "data")])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("F000\tneu\t[2.5000, 3.0000, 1.6667]", "F000\tneu\t[2.5000, 3.0000]"),
        ("F000\tneu\t[2.5000, 3.0000, 1.6667]", "F000\tneu\t[2.5000, 3.0000, nan]"),
        ("F000\tneu\t", "F000\tcalm\t"),
        ("F000\tneu\t", "F000\t"),
        ("Ses02F_impro02_F000\tneu", "Ses02F_impro02_X000\tneu"),
        ("Ses02F_impro02_F000\tneu", "Ses02F_other02_F000\tneu"),
        ("Ses02F_impro02_F000\tneu\t[2.5000, 3.0000, 1.6667]", "Ses02"),
    ],
)
def test_a_line_that_is_damaged(corpus, old, new):
    corpus.dialog("Ses02F_impro02", labels=["neu"])
    corpus.edit("Session2/dialog/EmoEvaluation/Ses02F_impro02.txt", old, new)
    with pytest.raises(UserError) as error:
        iemocap.utterances(corpus.root)
    message = str(error.value)
    assert message.startswith(f"{corpus.root}/Session2/dialog/EmoEvaluation/Ses02F_impro02.txt:3: '[0.2901 - 0.9357]")
    assert message.endswith(
        "is not `[start - end] utterance label [valence, activation, dominance]`; unpack the file from the archive again"
    )
    assert "\n" not in message


def test_an_utterance_that_is_evaluated_twice(corpus):
    folder = corpus.root / "Session1/dialog/EmoEvaluation"
    shutil.copy(folder / "Ses01F_impro01.txt", folder / "~Ses01F_impro01.txt")
    with pytest.raises(
        UserError, match=r"/~Ses01F_impro01.txt:3: Ses01F_impro01_F000 is also at .*/Ses01F_impro01.txt:3; remove"
    ):
        iemocap.utterances(corpus.root)


def test_folders_that_are_no_corpus(corpus, tmp_path):
    with pytest.raises(
        UserError, match="/nowhere: contains no Session1; give the folder of the corpus, IEMOCAP_full_release"
    ):
        iemocap.utterances(tmp_path / "nowhere")
    for place in ("dialog/EmoEvaluation", "dialog/transcriptions", "sentences/wav"):
        shutil.move(corpus.root / "Session3" / place, tmp_path / "away")
        with pytest.raises(UserError, match=f"/Session3/{place}: (contains )?no "):
            iemocap.utterances(corpus.root)
        shutil.move(tmp_path / "away", corpus.root / "Session3" / place)
    iemocap.utterances(corpus.root)


def test_text_that_is_not_plain(corpus):
    """Odd spaces and a mark at the start, as in some copies, do not stop it; another encoding is read and said."""
    path = corpus.root / "Session1/dialog/transcriptions/Ses01F_impro01.txt"
    plain = path.read_text()
    assert plain.startswith("Ses01F_impro01_F000 [")
    for mark, encoding in (("", "utf-8"), ("\ufeff", "utf-8"), ("", "cp1252")):
        path.write_bytes((mark + plain.replace("Line 1, so there!", "  Don’t\xa0go,\t now. ")).encode(encoding))
        found = iemocap.utterances(corpus.root)
        assert by_name(found)["Ses01F_impro01_F000"].text == "Don’t go, now."
        assert found.old_texts == ([path] if encoding == "cp1252" else []) and not any(found.left_out.values())
    path.write_bytes(plain.encode().replace(b"Line 1, so there!", b"Don\x92t\xc2\xa0go"))  # both at once
    with pytest.raises(
        UserError, match=r"Ses01F_impro01.txt: neither UTF-8 nor, at byte \d+ .0xc2., Western text in cp1252"
    ):
        iemocap.utterances(corpus.root)
    path.write_bytes(plain.encode("utf-16-le"))
    with pytest.raises(UserError, match=r"Ses01F_impro01.txt: not text at byte 2 .0x00.; convert the file to UTF-8"):
        iemocap.utterances(corpus.root)


def test_two_transcripts_of_one_utterance(corpus):
    folder = corpus.root / "Session1/dialog/transcriptions"
    shutil.copy(folder / "Ses01F_impro01.txt", folder / "copy.txt")
    found = iemocap.utterances(corpus.root)
    assert len(found.utterances) == corpus.number
    corpus.edit("Session1/dialog/transcriptions/copy.txt", "Line 2,", "Line two,")
    with pytest.raises(UserError, match="/copy.txt:2: Ses01F_impro01_F001 .*; remove the wrong line") as error:
        iemocap.utterances(corpus.root)
    assert f"{folder}/Ses01F_impro01.txt:2" in str(error.value)


def test_the_dialogs_of_the_whole_corpus():
    """Counts of FACTS.md, and its exceptions."""
    assert [sum(dialog[4] == session for dialog in iemocap.DIALOGS) for session in "12345"] == [28, 30, 32, 30, 31]
    assert len(iemocap.DIALOGS) == 151 and iemocap.TOTAL == 10039
    assert not {"Ses01F_impro08", "Ses01M_impro08", "Ses03M_impro05"} & iemocap.DIALOGS
    assert {"Ses03M_impro08b", "Ses03F_impro08", "Ses05M_script01_1", "Ses05M_script01_1b"} <= iemocap.DIALOGS


def strict(corpus, tmp_path, capsys):
    """What stage 0 says of what is missing, and refuses."""
    capsys.readouterr()
    with pytest.raises(UserError) as error:
        prepare_data.main(["--strict", "iemocap", str(corpus.root), str(tmp_path / "data")])
    assert not (tmp_path / "data").exists()
    out = capsys.readouterr().out
    prepare_data.main(["iemocap", str(corpus.root), str(tmp_path / "data")])
    assert capsys.readouterr().out == out
    shutil.rmtree(tmp_path / "data")
    return out, str(error.value)


def test_strict_wants_every_session_dialog_and_utterance(corpus, tmp_path, capsys):
    prepare_data.main(["--strict", "iemocap", str(corpus.root), str(tmp_path / "data")])
    assert f"{corpus.number} utterances, of which 0 are missing\n" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "data")
    in_dialog = 2 * len(LABELS)

    evaluation = corpus.root / "Session3/dialog/EmoEvaluation/Ses03F_impro01.txt"
    evaluation.rename(tmp_path / "away")
    out, error = strict(corpus, tmp_path, capsys)
    assert f"{corpus.number} utterances, of which {in_dialog} are missing\n" in out
    assert "missing parts: 1\n  Ses03F_impro01: no evaluation of this dialog\n" in out
    assert f": {in_dialog} recordings missing and 0 unreadable" in error

    whole = (tmp_path / "away").read_text()
    evaluation.write_text(whole[: whole.index("Ses03F_impro01_F005") - 20])  # cut short between two blocks
    out, error = strict(corpus, tmp_path, capsys)
    assert f"missing parts: 1\n  {in_dialog - 5} utterances without an evaluation\n" in out
    assert f": {in_dialog - 5} recordings missing" in error
    evaluation.write_text(whole)

    shutil.move(corpus.root / "Session3", tmp_path / "away3")
    out, error = strict(corpus, tmp_path, capsys)
    assert "missing parts: 2\n  Ses03F_impro01: no evaluation of this dialog\n  Ses03M_script01_1: no" in out
    assert f": {2 * in_dialog} recordings missing" in error


def test_where_to_get_it(tmp_path):
    with pytest.raises(
        UserError,
        match="/iemocap: not found; request the corpus at https://sail.usc.edu/iemocap/, and pass .* as --corpus",
    ):
        iemocap.get(tmp_path)
    (tmp_path / "iemocap").mkdir()
    assert iemocap.get(tmp_path) == tmp_path / "iemocap"


def folds_of(data, name):
    """Stage 1; the parts of each fold, {utt: class}."""
    dest = data.parent / "folds" / name
    make_folds.main([str(PROTOCOLS / f"{name}.yaml"), str(data), str(dest)])
    return [
        tuple(read_table(dest / f"fold{number}" / part) for part in ("train", "dev", "test"))
        for number in range(1, len(list(dest.glob("fold*"))) + 1)
    ]


def values(data, name, utts):
    table = read_table(data / name)
    return {table[utt] for utt in utts}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Data directory of the small tree."""
    folder = tmp_path_factory.mktemp("small")
    Corpus(folder / "IEMOCAP_full_release", times=TIMES)
    prepare_data.main(["iemocap", str(folder), str(folder / "data")])
    return folder / "data"


def test_the_data_directory_is_valid(small, capsys):
    validate_data.main([str(small)])
    assert f"valid: {20 * TIMES * len(LABELS)} utterances, " in capsys.readouterr().out
    assert {"utt2sess", "utt2cond", "utt2vad", "utt2dialog", "utt2scenario"} <= {path.name for path in small.iterdir()}
    assert len(read_table(small / "spk2utt")) == 10


SPEAKERS_MIXED = {"random_dev": "utt", "dialogs": "dialog", "scenarios": "scenario"}  # what they hold apart
NAMES = sorted(path.stem for path in PROTOCOLS.glob("*.yaml"))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "scenarios"])  # which are too few here
def test_every_protocol_takes_what_its_name_says(small, name):
    folds = folds_of(small, name)
    per_speaker = TIMES * (4 if "no_excited" in name else 5) * (1 if "improvised" in name else 2)
    for train, dev, test in folds:
        assert len(train) + len(dev) + len(test) == len({**train, **dev, **test}) == 10 * per_speaker
        chosen = {*train, *dev, *test}
        assert values(small, "utt2cond", chosen) == (
            {"improvised"} if "improvised" in name else {"improvised", "scripted"}
        )
        labels = {"angry", "happy", "neutral", "sad"} | ({"excited"} if "no_excited" not in name else set())
        assert values(small, "utt2emo", chosen) == labels
        assert set(test.values()) == {"neutral", "happy", "sad", "angry"}
        assert bool(dev) == ("dev" in name or "speakers" in name or name == "dialogs")
    if "random" not in name or name == "random_dev":
        tested = [utt for _, _, test in folds for utt in test]
        assert len(tested) == len(set(tested)) == 10 * per_speaker
    if "random" not in name and name not in SPEAKERS_MIXED:
        for train, dev, test in folds:
            assert not values(small, "utt2spk", test) & values(small, "utt2spk", [*train, *dev])


def test_scenarios_are_dialogs_without_their_session(tmp_path):
    """Of Session3 the man's camera has two parts of one, and Session5 one script twice (FACTS.md)."""
    corpus = Corpus(tmp_path / "Session", sessions="")
    dialogs = {
        "Ses03M_impro05a": "impro05",
        "Ses03F_impro05": "impro05",
        "Ses05M_script01_1b": "script01_1",
        "Ses05M_script01_1": "script01_1",
    }
    for dialog in dialogs:
        corpus.dialog(dialog)
    found = {
        utterance.more["dialog"]: utterance.more["scenario"] for utterance in iemocap.utterances(tmp_path).utterances
    }
    assert found == dialogs


def test_one_session_out(small):
    for number, (train, _, test) in enumerate(folds_of(small, "sessions"), 1):
        assert values(small, "utt2sess", test) == {str(number)}
        assert values(small, "utt2sess", train) == set("12345") - {str(number)}


def test_one_session_out_and_a_speaker_selects(small):
    selected = []
    for number, (train, dev, test) in enumerate(folds_of(small, "sessions_dev"), 1):
        speakers = [values(small, "utt2spk", part) for part in (train, dev, test)]
        assert speakers[2] == {f"Ses0{number}F", f"Ses0{number}M"}
        assert [len(part) for part in speakers] == [7, 1, 2] and len(set.union(*speakers)) == 10
        selected += speakers[1]
    assert selected == ["Ses02F", "Ses03M", "Ses04F", "Ses05M", "Ses01F"]


def test_one_speaker_out(small):
    names = [f"Ses0{session}{letter}" for session in range(1, 6) for letter in "FM"]
    folds = folds_of(small, "speakers")
    assert [values(small, "utt2spk", test) for _, _, test in folds] == [{name} for name in names]
    assert [values(small, "utt2spk", dev) for _, dev, _ in folds] == [{name} for name in [*names[1:], names[0]]]
    assert all(len(values(small, "utt2spk", train)) == 8 for train, _, _ in folds)


@pytest.fixture(scope="module")
def standin(tmp_path_factory):
    """Data directory of the stand-in at its full size: its builder's tree, names, labels and texts, all recordings one file."""
    if not BUILDER.exists():
        pytest.skip(f"{BUILDER} is not there")
    spec = importlib.util.spec_from_file_location("make_iemocap", BUILDER)
    builder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(builder)
    folder = tmp_path_factory.mktemp("iemocap")
    with pytest.MonkeyPatch.context() as patch:
        write_wav(folder / "same.wav", 1)
        patch.setattr(builder.Actors, "clips", lambda *_: [])
        patch.setattr(builder, "speech", lambda *_: None)
        patch.setattr(builder.sf, "write", lambda path, *_, **__: os.link(folder / "same.wav", path))
        assert builder.build(folder, folder, 1.0, 0) == 10039
    prepare_data.main(["--strict", "iemocap", str(folder), str(folder / "data")])
    yield folder / "data"
    shutil.rmtree(folder)


def test_the_whole_corpus_has_the_counts_of_the_published_one(standin, capsys):
    validate_data.main([str(standin)])
    assert "valid: 10039 utterances, " in capsys.readouterr().out
    emo, sess, cond, spk = (read_table(standin / f"utt2{name}") for name in ("emo", "sess", "cond", "spk"))
    assert Counter(emo.values()) == OF_CLASS
    assert len(set(read_table(standin / "utt2dialog").values())) == 151
    for row, counts in TABLE.items():
        of = Counter(emo[utt] for utt in emo if row in ("all", sess[utt], cond[utt]))
        with_excited = sum(of[name] for name in COLUMNS[:5])
        assert (*(of[name] for name in COLUMNS[:5]), with_excited, with_excited - of["excited"]) == counts, row
    taken = [utt for utt in emo if emo[utt] in COLUMNS[:5]]
    assert sum(spk[utt] != utt.partition("-")[2][:6] for utt in taken) == 2750  # where the letter in front is wrong


def test_the_protocols_take_those_counts(standin):
    rows = {
        "": ("all", 5),
        "_no_excited": ("all", 6),
        "_improvised": ("improvised", 5),
        "_improvised_no_excited": ("improvised", 6),
    }
    names = {
        name + suffix: at for suffix, at in rows.items() for name in ("sessions", "sessions_dev", "speakers", "random")
    }
    names |= dict.fromkeys(SPEAKERS_MIXED, ("all", 5))
    assert set(NAMES) == names.keys()
    utt2emo = read_table(standin / "utt2emo")
    for name, (row, column) in names.items():
        protocol = read_protocol(PROTOCOLS / f"{name}.yaml")
        utt2class = make_folds.choose(protocol, utt2emo, standin, name)
        assert len(utt2class) == TABLE[row][column]
        folds = make_folds.split(protocol, utt2class, standin, name)
        assert {sum(map(len, parts)) for parts in folds} == {len(utt2class)}
        assert all(
            {utt2class[utt] for utt in part} == {"neutral", "happy", "sad", "angry"}
            for parts in folds
            for part in parts
            if part
        )
        if name in SPEAKERS_MIXED:
            tested = [utt for _, _, test in folds for utt in test]
            assert len(tested) == len(set(tested)) == len(utt2class)
            group = (
                {utt: utt for utt in utt2class}
                if name == "random_dev"
                else read_table(standin / f"utt2{SPEAKERS_MIXED[name]}")
            )
            for parts in folds:
                groups = [{group[utt] for utt in part} for part in parts]
                assert (
                    sum(map(len, groups))
                    == len(set.union(*groups))
                    == {"random_dev": 5531, "dialogs": 151, "scenarios": 15}[name]
                )
        if name.startswith("sessions") and row == "all":
            assert [len(test) for _, _, test in folds] == [TABLE[session][column] for session in "12345"]


def test_iemocap_by_audio_and_words(tmp_path):
    """Peng et al.'s system, small, with word vectors, x-vectors and a recogniser's words, from the corpus to the words that it
    attends to."""
    for name in ("path.sh", "tools", "ser"):
        (tmp_path / name).symlink_to(ROOT / name)
    recipe = tmp_path / "egs/iemocap"
    recipe.mkdir(parents=True)
    for name in ("run.sh", "cmd.sh", "path.sh"):
        shutil.copy(ROOT / "egs/iemocap" / name, recipe)
    for name in ("iemocap", "ravdess", "atthack"):
        shutil.copytree(ROOT / "egs" / name / "conf", recipe.parent / name / "conf")
    Corpus(tmp_path / "IEMOCAP_full_release", times=TIMES)
    small = {"filters": 4, "reduced_size": 8, "word_size": 5}
    for name, words in (("small", "text"), ("small_asr", "text_asr")):
        system = {"description": name, "base": "../peng/mscnn_spu_att.yaml", "training": {"epochs": 1}}
        system["model"] = {"kind": "peng", "words": words, **small}
        (recipe / "conf/own").mkdir(exist_ok=True)
        (recipe / f"conf/own/{name}.yaml").write_text(yaml.safe_dump(system))
    vectors = recipe / "downloads/glove.6B/glove.6B.300d.txt"  # as if it had been fetched
    vectors.parent.mkdir(parents=True)
    vectors.write_text("line 1 2 3 4 5\nzebra 1 2 3 4 5\nso -1 0 1 0 -1\n")

    def run(*more):
        options = [
            "--systems",
            "conf/own/*.yaml",
            "--protocol",
            "random_dev",
            "--folds",
            "1",
            "--nj",
            "1",
            "--main",
            "small",
        ]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        result = subprocess.run([recipe / "run.sh", *options, *more], env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    run("--corpus", str(tmp_path), "--glove", "fetch", "--stop-stage", "0")
    texts = (recipe / "data/all/text").read_text()
    (recipe / "data/all/text_asr").write_text(texts.replace("Line", "lime"))
    with kaldiio.WriteHelper(f"ark,scp:{recipe}/data/all/xvector.ark,{recipe}/data/all/xvector.scp") as writer:
        for number, line in enumerate(texts.splitlines()):
            writer(line.split()[0], np.arange(number, number + 4, dtype=np.float32))
    out = run("--stage", "1", "--glove", "fetch")
    assert re.search(
        r"(?m)^fold 1: train 320, dev 40, test 40\n +train and test share 10 of 10 speakers, 0 of 40 sentences, ", out
    )
    assert "words, 2 with a vector; " in out
    assert (recipe / "dump/vectors/vectors.txt").read_text() == "line 1 2 3 4 5\nso -1 0 1 0 -1\n"
    assert len(re.findall(r"(?m)^results/small(?:_asr)?/random_dev/fold1_seed1.txt: WA [0-9.]+ UA ", out)) == 2
    assert (recipe / "figures/small_random_dev_words.png").exists()
    words = [line.split()[-1] for line in (recipe / "figures/small_random_dev_words.txt").read_text().splitlines()]
    assert words.count("line") == 4 and words.count("(unknown)") == 4  # Line 12, so there!
    text = (recipe / "RESULTS.md").read_text()
    others, against = text.split("\n## Other systems on this corpus\n")[1].split("\n## Against small\n")
    assert "\n| small | random_dev‡ | " in others and "\n| small_asr | random_dev‡ | " in others
    assert against.startswith("\nThe difference in WA from small ") and "\n| small_asr | +" in against
