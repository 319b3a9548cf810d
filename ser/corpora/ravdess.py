"""RAVDESS, the speech recordings: 24 actors say two sentences with eight emotions.

Livingstone and Russo 2018, https://zenodo.org/records/1188976 (CC BY-NC-SA 4.0). One folder per
actor; the file name gives all labels: Actor_07/03-01-05-02-02-01-07.wav is

    modality (01 audio and video, 02 video, 03 audio) - channel (01 speech, 02 song) - emotion
    - intensity (01 normal, 02 strong) - statement - repetition - actor (odd: man, even: woman)
"""

import re
from pathlib import Path

from ser.cli import UserError
from ser.corpus import Found, Utterance, files_below
from ser.download import fetch, unpack

URL = "https://zenodo.org/records/1188976/files/Audio_Speech_Actors_01-24.zip?download=1"
SIZE = 208_468_073  # bytes
MD5 = "bc696df654c87fed845eb13823edef8a"

EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}
INTENSITIES = {"01": "normal", "02": "strong"}
STATEMENTS = {"01": "kids are talking by the door", "02": "dogs are sitting by the door"}
REPETITIONS = ("01", "02")
ACTORS = tuple(f"{actor:02}" for actor in range(1, 25))


def get(downloads: Path) -> Path:
    """Download and unpack the speech archive (208 MB) unless this is done already; return downloads/ravdess."""
    root = downloads / "ravdess"
    if not root.exists():
        archive = downloads / "Audio_Speech_Actors_01-24.zip"
        fetch(URL, archive, SIZE, MD5)
        unpack(archive, root)
    return root


def utterances(root: Path) -> Found:
    """Find the speech recordings below `root`, at any depth.

    Songs, videos and files with other names are left out. Raises UserError if there are no speech
    recordings.
    """
    files, copies = files_below(root, ".wav", ".mp4")
    found, songs, videos, ill_named = [], [], [], []
    for path in files:
        if not re.fullmatch(r"\d\d(-\d\d){6}", path.stem):
            ill_named.append(path)
            continue
        modality, channel, emotion, intensity, statement, repetition, actor = path.stem.split("-")
        if modality in ("01", "02") or path.suffix.lower() == ".mp4":
            videos.append(path)
        elif channel == "02":
            songs.append(path)
        elif _utt(path.stem) not in EXPECTED:
            ill_named.append(path)
        else:
            found.append(
                Utterance(
                    utt=_utt(path.stem),
                    spk=f"actor{actor}",
                    gender="m" if int(actor) % 2 else "f",
                    emo=EMOTIONS[emotion],
                    text=STATEMENTS[statement],
                    path=path,
                    more={
                        "sent": statement,
                        "take": repetition,
                        "intensity": INTENSITIES[intensity],
                    },
                )
            )
    if not found:
        raise UserError(f"{root}: contains no speech recording, such as Actor_01/03-01-01-01-01-01-01.wav")
    left_out = {
        "song": songs,
        "video": videos,
        "name that is not RAVDESS's": ill_named,
        "second copy of a file of that name": copies,
    }
    return Found(found, left_out, EXPECTED, total=len(EXPECTED))


def _utt(name: str) -> str:
    return f"actor{name[-2:]}-{name}"


# Neutral was not recorded with strong intensity.
EXPECTED = frozenset(
    _utt(f"03-01-{emotion}-{intensity}-{statement}-{repetition}-{actor}")
    for emotion in EMOTIONS
    for intensity in INTENSITIES
    for statement in STATEMENTS
    for repetition in REPETITIONS
    for actor in ACTORS
    if (EMOTIONS[emotion], INTENSITIES[intensity]) != ("neutral", "strong")
)
