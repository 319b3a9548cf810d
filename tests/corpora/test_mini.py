"""The synthetic corpus: the same bytes every time, sane recordings, emotions that differ and overlap."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import numpy as np
import pytest

from ser.cli import UserError, explain
from ser.corpora import mini

TWO_SENTENCES = [utt for utt in mini.all_utts() if utt.split("-")[1] in ("s1", "s5")]
PACKAGE = str(Path(mini.__file__).parents[2])


def environment(*first: str) -> dict[str, str]:
    """An environment in which another Python finds `ser`, and modules in the folders `first`."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*first, PACKAGE])}


def samples(path: Path) -> np.ndarray:
    with wave.open(str(path)) as stream:
        assert (stream.getframerate(), stream.getnchannels(), stream.getsampwidth()) == (16000, 1, 2)
        return np.frombuffer(stream.readframes(stream.getnframes()), "<i2") / 2**15


def level(speech: np.ndarray) -> float:
    """RMS in dB of full scale."""
    return 10 * np.log10(np.mean(speech**2))


def pitch(speech: np.ndarray) -> float:
    """Median over the louder half of the frames of the autocorrelation's peak, in Hz."""
    frames = np.lib.stride_tricks.sliding_window_view(speech, 800)[::400]
    frames = frames[np.std(frames, axis=1) > np.median(np.std(frames, axis=1))]
    power = np.abs(np.fft.rfft(frames, 2048)) ** 2
    lags = np.fft.irfft(power)[:, 40:270]  # 400 to 59 Hz
    return float(np.median(16000 / (40 + np.argmax(lags, axis=1))))


def brightness(speech: np.ndarray) -> float:
    """Power above 2 kHz against power below, in dB."""
    power = np.abs(np.fft.rfft(speech)) ** 2
    edge = len(power) // 4
    return 10 * np.log10(power[edge:].sum() / power[:edge].sum())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the sentences by every voice, in every emotion and take."""
    root = tmp_path_factory.mktemp("corpus") / "mini"
    mini.make(root, TWO_SENTENCES)
    return root


@pytest.fixture(scope="module")
def measured(corpus: Path) -> dict[str, np.ndarray]:
    """For each emotion, seconds, level, pitch and brightness of every recording, by voice (N, 4)."""
    rows: dict[str, list] = {emotion: [] for emotion in mini.MANNERS}
    for utt in TWO_SENTENCES:
        speech = samples(mini.wav_path(corpus, utt))
        cues = (len(speech) / 16000, level(speech), pitch(speech), brightness(speech))
        rows[utt.split("-")[2]].append(cues)
    return {emotion: np.array(values) for emotion, values in rows.items()}


def test_every_speaker_says_every_sentence_in_every_emotion_twice():
    assert len(set(mini.all_utts())) == 6 * 8 * 4 * 2
    assert sorted(voice.gender for voice in mini.VOICES.values()) == ["f"] * 3 + ["m"] * 3


def test_another_process_and_order_give_the_same_bytes(corpus: Path, tmp_path: Path):
    # Every voice at least once; espeak-ng by itself gives other bytes each time, flutter and noise.
    utts = TWO_SENTENCES[::7][::-1]
    assert {utt.split("-")[0] for utt in utts} == set(mini.VOICES)
    code = (
        "import sys; from pathlib import Path; from ser.corpora import mini;mini.make(Path(sys.argv[1]), sys.argv[2:])"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path, *utts], check=True, env=environment())
    for utt in utts:
        assert mini.wav_path(tmp_path, utt).read_bytes() == mini.wav_path(corpus, utt).read_bytes(), utt


def test_takes_voices_and_sentences_differ(corpus: Path):
    recordings = {mini.wav_path(corpus, utt).read_bytes() for utt in TWO_SENTENCES}
    assert len(recordings) == len(TWO_SENTENCES) == 96


def test_recordings_are_neither_clipped_nor_silent_nor_too_long(corpus: Path):
    for utt in TWO_SENTENCES:
        speech = samples(mini.wav_path(corpus, utt))
        assert np.abs(speech).max() < 0.96, utt
        assert level(speech) > -45, utt
        assert 1.2 < len(speech) / 16000 < 3.5, utt
        seconds = speech[: len(speech) // 1600 * 1600].reshape(-1, 1600)
        assert np.all(seconds.std(axis=1) > 0), f"{utt}: digital silence"


def test_emotions_differ_as_in_acted_speech(measured: dict[str, np.ndarray]):
    seconds, loudness, height, bright = (
        {emotion: rows[:, column].mean() for emotion, rows in measured.items()} for column in range(4)
    )
    assert seconds["angry"] < 0.97 * seconds["neutral"] and seconds["sad"] > 1.06 * seconds["neutral"]
    assert loudness["angry"] > loudness["happy"] > loudness["neutral"] > loudness["sad"]
    assert height["happy"] > 1.3 * height["neutral"] and height["sad"] < 0.9 * height["neutral"]
    assert height["happy"] > height["angry"] > height["neutral"]
    assert min(bright["angry"], bright["happy"]) > bright["neutral"] > bright["sad"]


def test_emotions_overlap(measured: dict[str, np.ndarray]):
    cues = np.stack(list(measured.values())).reshape(4, 6, -1, 4)  # emotion, voice, recording, cue
    cues = cues - cues.mean(axis=(0, 2), keepdims=True)  # nothing but emotion is left
    cues = (cues / cues.std(axis=(0, 1, 2))).reshape(4, -1, 1, 4)
    distances = np.linalg.norm(cues - cues.mean(axis=1)[:, 0], axis=-1)
    right = np.mean(np.argmin(distances, axis=-1) == np.arange(4)[:, None])
    assert 0.6 < right < 0.97  # the nearest of the emotions' centres; guessing gives 0.25


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence and one take, so that `get` is quick."""
    monkeypatch.setattr(mini, "SENTENCES", {"s1": mini.SENTENCES["s1"]})
    monkeypatch.setattr(mini, "TAKES", ("1",))


@pytest.mark.usefixtures("small")
def test_get_makes_the_corpus_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    downloads = tmp_path / "made" / "on the way"
    root = mini.get(downloads)
    assert root == downloads / "mini"
    assert [path.name for path in downloads.iterdir()] == ["mini"]
    assert len(list(root.rglob("*.wav"))) == 6 * 4
    assert root.stat().st_mode & 0o777 == downloads.stat().st_mode & 0o777

    monkeypatch.setattr(mini, "make", None)  # to call it again would fail
    assert mini.get(downloads) == root
    mini.wav_path(root, "clara-s1-sad-1").unlink()
    with pytest.raises(UserError, match="1 recordings are missing, such as clara-s1-sad-1; remove the folder"):
        mini.get(downloads)


@pytest.mark.usefixtures("small")
def test_an_interrupted_get_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synthesise = mini.synthesise

    def interrupted(utt, speak):
        if utt.startswith("bella"):
            raise KeyboardInterrupt
        return synthesise(utt, speak)

    monkeypatch.setattr(mini, "synthesise", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mini.get(tmp_path)
    assert list(tmp_path.iterdir()) == []

    monkeypatch.setattr(mini, "synthesise", synthesise)
    assert mini.get(tmp_path).is_dir()


@pytest.mark.usefixtures("small")
def test_a_killed_get_leaves_no_corpus(tmp_path: Path):
    process = subprocess.Popen([sys.executable, "-m", "ser.get_corpus", "mini", tmp_path], env=environment())
    deadline = time.monotonic() + 30
    while len(list(tmp_path.rglob("*.wav"))) < 5:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(tmp_path.glob("[!.]*")) == []
    assert list(tmp_path.iterdir())  # what it left, which goes with the next call
    assert len(list(mini.get(tmp_path).rglob("*.wav"))) == 6 * 4
    assert [path.name for path in tmp_path.iterdir()] == ["mini"]


@pytest.mark.usefixtures("small")
def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("wave.Wave_write.writeframes", full)
    with pytest.raises(OSError, match="No space left") as error:
        mini.get(tmp_path)
    assert (
        explain(error.value)
        == f"{tmp_path}/mini: No space left on device; free some space and run the same command again"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small")
def test_two_at_a_time_get_the_same_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make = mini.make

    def slower_than_another(root: Path) -> None:
        make(root)
        shutil.copytree(root, tmp_path / "mini")

    monkeypatch.setattr(mini, "make", slower_than_another)
    assert len(list(mini.get(tmp_path).rglob("*.wav"))) == 6 * 4
    assert [path.name for path in tmp_path.iterdir()] == ["mini"]


def test_without_espeak_ng_the_error_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(UserError, match="run tools/install.sh"):
        mini.get(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_espeak_ng_cannot_say_is_an_error():
    plain = {"text": "yes", "rate": 175, "pitch": 50, "pitch_range": 50, "seed": 1}
    with mini.espeak() as speak:
        assert len(speak(variant="en-us", **plain)) > 2000
        with pytest.raises(UserError, match="could not say .*no-such-voice"):
            speak(variant="no-such-voice", **plain)


def test_a_stopped_espeak_ng_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(UserError, match="could not say"), mini.espeak() as speak:
        speak(text="yes")


def test_espeak_ng_is_found_at_the_end_of_a_long_path(tmp_path: Path):
    import espeakng_loader

    folder = tmp_path / ("long " * 40)  # espeak-ng cuts off after 160 characters
    folder.mkdir()
    (folder / "espeakng_loader").symlink_to(Path(espeakng_loader.__file__).parent)
    code = (
        "import espeakng_loader, sys; from pathlib import Path; from ser.corpora import mini;"
        "assert len(str(espeakng_loader.get_data_path())) > 160;"
        "mini.make(Path(sys.argv[1]), ['anna-s1-sad-1'])"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, env=environment(str(folder)))
    assert mini.wav_path(tmp_path, "anna-s1-sad-1").stat().st_size > 30000


def test_utterances_are_read_from_the_corpus(corpus: Path):
    found = mini.utterances(corpus)
    assert sorted(utterance.utt for utterance in found.utterances) == sorted(TWO_SENTENCES)
    assert len(set(found.expected) - {utterance.utt for utterance in found.utterances}) == 384 - 96
    assert not any(found.left_out.values())

    [one] = [utterance for utterance in found.utterances if utterance.utt == "david-s5-happy-2"]
    assert (one.spk, one.gender, one.emo) == ("david", "m", "happy")
    assert one.text == "they moved all the chairs into the garden"
    assert one.path == corpus / "wav/david/david-s5-happy-2.wav"
    assert one.more == {"sent": "s5", "take": "2"}
    for utterance in found.utterances:
        assert utterance.utt.startswith(utterance.spk + "-")
        assert utterance.text == utterance.text.lower().strip() and utterance.text.replace(" ", "").isalpha()


def test_stray_files_and_second_copies_are_left_out(corpus: Path, tmp_path: Path):
    root = tmp_path / "mini"
    shutil.copytree(corpus, root)
    (root / "notes.txt").write_text("not a recording")
    strays = [root / "wav" / name for name in ("anna-s1-angry-9.wav", "holiday.wav")]
    copy = root / "wav" / "old" / "again" / "anna-s1-sad-1.wav"
    copy.parent.mkdir(parents=True)
    for path in (*strays, copy):
        shutil.copy(mini.wav_path(root, "anna-s1-sad-1"), path)

    found = mini.utterances(root)
    assert len(found.utterances) == 96
    assert sorted(path for paths in found.left_out.values() for path in paths) == sorted([*strays, copy])


def test_a_broken_corpus_is_an_error(corpus: Path, tmp_path: Path):
    root = tmp_path / "mini"
    shutil.copytree(corpus, root)
    for name in ("prompts.txt", "speakers.txt"):
        kept = (root / name).read_text()
        (root / name).write_text("".join(kept.splitlines(keepends=True)[1:]))
        with pytest.raises(UserError, match=f"{name}: no line for (s1|anna); remove"):
            mini.utterances(root)
        (root / name).write_text(kept)

    shutil.rmtree(root / "wav")
    with pytest.raises(UserError, match="no .wav file"):
        mini.utterances(root)
    (root / "holiday.wav").touch()
    with pytest.raises(UserError, match="contains no recording of mini"):
        mini.utterances(root)
