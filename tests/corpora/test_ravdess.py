import itertools
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ser.cli import UserError
from ser.corpora import ravdess

SHARED = Path(__file__).parents[2].parent / "shared"


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_name_tells_everything(tmp_path):
    touch(tmp_path, "Actor_07/03-01-05-02-02-01-07.wav", "Actor_12/03-01-01-01-01-02-12.wav")
    neutral, angry = ravdess.utterances(tmp_path).utterances
    assert angry.utt == "actor07-03-01-05-02-02-01-07"
    assert (angry.spk, angry.gender, angry.emo) == ("actor07", "m", "angry")
    assert angry.text == "dogs are sitting by the door"
    assert angry.more == {"sent": "02", "take": "01", "intensity": "strong"}
    assert angry.path == tmp_path / "Actor_07/03-01-05-02-02-01-07.wav"
    assert (neutral.spk, neutral.gender, neutral.emo) == ("actor12", "f", "neutral")
    assert neutral.text == "kids are talking by the door"
    assert neutral.more == {"sent": "01", "take": "02", "intensity": "normal"}


def test_every_code_of_the_readme():
    """The publisher's list, in its order."""
    assert list(ravdess.EMOTIONS.values()) == [
        "neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised",
    ]  # fmt: skip


def test_the_whole_corpus_has_1440_recordings(tmp_path):
    assert len(ravdess.EXPECTED) == 1440
    touch(tmp_path, *(f"{utt[:7]}/{utt[8:]}.wav" for utt in ravdess.EXPECTED))
    found = ravdess.utterances(tmp_path)
    assert {utterance.utt for utterance in found.utterances} == set(found.expected)
    emotions = Counter(utterance.emo for utterance in found.utterances)
    assert emotions.pop("neutral") == 96
    assert set(emotions.values()) == {192} and len(emotions) == 7
    assert set(Counter(utterance.spk for utterance in found.utterances).values()) == {60}


def test_the_nested_copy_counts_once(tmp_path):
    name = "Actor_01/03-01-01-01-01-01-01.wav"
    touch(tmp_path, name, f"audio_speech_actors_01-24/{name}", "Actor_01/._03-01-01-01-01-01-01.wav")
    found = ravdess.utterances(tmp_path)
    assert [utterance.path for utterance in found.utterances] == [tmp_path / name]
    assert found.left_out["second copy of a file of that name"] == [tmp_path / "audio_speech_actors_01-24" / name]


def test_songs_video_and_foreign_names_are_left_out(tmp_path):
    left_out = {
        "song": ["03-02-05-01-01-01-01.wav"],
        "video": ["01-01-05-01-01-01-01.mp4", "02-01-05-01-01-01-01.mp4", "03-01-05-01-01-01-02.mp4"],
        "name that is not RAVDESS's": [
            "03-01-01-02-01-01-01.wav",  # a strong neutral
            "03-01-05-01-01-01-25.wav",  # an actor too many
            "03-01-05-01-01-01.wav",
            "03-01-09-01-01-01-01.wav",
            "noise.wav",
        ],
        "second copy of a file of that name": [],
    }
    touch(tmp_path, "03-01-05-01-01-01-01.wav", *itertools.chain(*left_out.values()))
    found = ravdess.utterances(tmp_path)
    assert [utterance.path.name for utterance in found.utterances] == ["03-01-05-01-01-01-01.wav"]
    assert {reason: [path.name for path in paths] for reason, paths in found.left_out.items()} == left_out


def test_a_folder_without_speech_is_refused(tmp_path):
    touch(tmp_path, "03-02-05-01-01-01-01.wav")
    with pytest.raises(UserError, match=f"{tmp_path}: contains no speech recording"):
        ravdess.utterances(tmp_path)


def test_get_fetches_and_unpacks_once(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(ravdess, "fetch", lambda url, dest, size, md5: done.append((url, dest, size, md5)))
    monkeypatch.setattr(ravdess, "unpack", lambda archive, dest: (done.append((archive, dest)), dest.mkdir()))
    archive = tmp_path / "Audio_Speech_Actors_01-24.zip"
    for _ in range(2):
        assert ravdess.get(tmp_path) == tmp_path / "ravdess"
    assert done == [
        (ravdess.URL, archive, 208_468_073, "bc696df654c87fed845eb13823edef8a"),
        (archive, tmp_path / "ravdess"),
    ]


@pytest.mark.skipif(not (SHARED / "corpora/ravdess").is_dir(), reason=f"no RAVDESS in {SHARED}/corpora")
def test_the_real_corpus_from_files_to_a_valid_data_directory(tmp_path):
    """Counts of FACTS: 1440 recordings, 1.48 h, five in stereo, one pair of identical ones."""
    for packed in (SHARED / "corpora/ravdess").glob("*/*.*"):  # FLAC, but formats are told by content
        recording = tmp_path / "ravdess" / packed.parent.name / f"{packed.stem}.wav"
        recording.parent.mkdir(parents=True, exist_ok=True)
        recording.symlink_to(packed)
    data = tmp_path / "data"
    command = [sys.executable, "-m", "ser.prepare_data", "--strict", "ravdess", tmp_path / "ravdess", data]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    report = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    assert "1440 utterances, 24 speakers (12 f, 12 m), 8 classes\n1.48 h, 2.94 to 5.27 s" in report
    assert "mixed down when read: 5\n" in report
    assert (
        "groups of identical recordings: 1\n  actor07-03-01-03-01-02-01-07 = actor07-03-01-03-01-02-02-07\n" in report
    )
    command = [sys.executable, "-m", "ser.validate_data", data]
    assert subprocess.run(command, env=environment, stdout=subprocess.DEVNULL).returncode == 0
