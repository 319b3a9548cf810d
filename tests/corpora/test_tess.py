import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ser.cli import UserError
from ser.corpora import tess

SHARED = Path(__file__).parents[2].parent / "shared"


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_name_tells_everything(tmp_path):
    touch(tmp_path, "OAF_back_angry.wav", "YAF_beg_ps.wav")
    older, younger = tess.utterances(tmp_path).utterances
    assert (older.utt, older.spk, older.gender, older.emo) == ("oaf-back-angry", "oaf", "f", "angry")
    assert (older.text, older.more, older.path) == (
        "say the word back",
        {"word": "back"},
        tmp_path / "OAF_back_angry.wav",
    )
    assert (younger.utt, younger.spk, younger.emo) == ("yaf-beg-surprised", "yaf", "surprised")


@pytest.mark.parametrize(
    "place",
    [
        "OAF_back_fear.wav", "OAF_Fear/OAF_back_fear.wav", "YAF_pleasant_surprised/OAF_back_fear.wav",
        "TESS Toronto emotional speech set data/OAF_Fear/OAF_back_fear.wav", "x/OAF_back_FEAR.WAV", "oaf_Back_fear.wav",
    ],
)  # fmt: skip
def test_whatever_the_folders_and_the_case(tmp_path, place):
    touch(tmp_path, place)
    (found,) = tess.utterances(tmp_path).utterances
    assert (found.utt, found.emo) == ("oaf-back-fearful", "fearful")


def test_the_file_without_an_f(tmp_path):
    touch(tmp_path, "OA_bite_neutral.wav")
    (found,) = tess.utterances(tmp_path).utterances
    assert (found.utt, found.spk) == ("oaf-bite-neutral", "oaf")


def test_the_nested_copy_counts_once(tmp_path):
    touch(tmp_path, "OAF_Fear/OAF_back_fear.wav", "TESS/OAF_Fear/OAF_back_fear.wav", "OAF_Fear/._OAF_back_fear.wav")
    found = tess.utterances(tmp_path)
    assert [utterance.path for utterance in found.utterances] == [tmp_path / "OAF_Fear/OAF_back_fear.wav"]
    assert found.left_out["second copy of a file of that name"] == [tmp_path / "TESS/OAF_Fear/OAF_back_fear.wav"]


def test_other_names_are_left_out(tmp_path):
    others = [
        "OAF_back.wav",
        "OAF_nosuchword_sad.wav",
        "OAF_back_bored.wav",
        "XAF_back_sad.wav",
        "mine.wav",
        "OAF_back_sad_2.wav",
    ]
    touch(tmp_path, "OAF_back_sad.wav", *others)
    found = tess.utterances(tmp_path)
    assert len(found.utterances) == 1
    assert found.left_out["name that is not TESS's"] == sorted(tmp_path / name for name in others)
    (tmp_path / "OAF_back_sad.wav").unlink()
    with pytest.raises(UserError, match="contains no recording of TESS, such as OAF_back_angry.wav"):
        tess.utterances(tmp_path)


def test_the_whole_corpus_has_2800_recordings():
    assert len(tess.WORDS) == 200 and len(tess.EXPECTED) == 2800
    assert set(Counter(utt.split("-")[2] for utt in tess.EXPECTED).values()) == {400}


def test_where_to_get_it(tmp_path):
    with pytest.raises(
        UserError, match="download the archive from https://doi.org/10.5683/SP2/E8H2MF and unpack it there"
    ):
        tess.get(tmp_path)
    (tmp_path / "tess").mkdir()
    assert tess.get(tmp_path) == tmp_path / "tess"


@pytest.mark.skipif(not (SHARED / "corpora/unpack.py").exists(), reason="needs ../shared/corpora")
def test_the_real_corpus(tmp_path):
    """2799 of 2800 files; two are AIFF, and one is at 96 kHz: the counts of FACTS.md."""
    from ser import audio

    subprocess.run(
        [sys.executable, SHARED / "corpora/unpack.py", tmp_path, "tess"], check=True, stdout=subprocess.DEVNULL
    )
    found = tess.utterances(tmp_path)
    assert tess.EXPECTED - {utterance.utt for utterance in found.utterances} == {"yaf-beg-sad"}
    assert len(found.utterances) == 2799 and not any(found.left_out.values())
    paths = {utterance.utt: utterance.path for utterance in found.utterances}
    for utt in ("yaf-germ-angry", "yaf-neat-fearful"):
        assert paths[utt].read_bytes()[:4] == b"FORM"
        assert audio.header(paths[utt]).rate == 24414
    assert audio.header(paths["oaf-food-fearful"]).rate == 96000
    assert "oaf-bite-neutral" in paths
    shutil.rmtree(tmp_path / "tess", ignore_errors=True)
