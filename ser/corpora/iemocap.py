"""IEMOCAP, the Interactive Emotional Dyadic Motion Capture database: ten actors in five sessions of two,
in improvised and scripted dialogues.

Busso et al. 2008, https://sail.usc.edu/iemocap/ (research licence, on request). Each of Session1 to Session5
contains

    sentences/wav/Ses04F_impro01/Ses04F_impro01_M000.wav
    dialog/EmoEvaluation/Ses04F_impro01.txt     [6.2901 - 8.2357]  Ses04F_impro01_M000  neu  [2.5, 2.5, 2.5]
    dialog/transcriptions/Ses04F_impro01.txt    Ses04F_impro01_M000 [006.2901-008.2357]: Excuse me.

The speaker is given by the session and the letter in the last field of the id, here Ses04M. The letter after the
session says whose movements were recorded in that dialogue, in which both speak. Copies differ: there may be macOS
files (`._*`), and some texts have DOS line endings.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ser.cli import UserError
from ser.corpus import Found, Utterance, files_below, read_text

PAGE = "https://sail.usc.edu/iemocap/"
TOTAL = 10039  # utterances with a label
SCENES = [f"impro0{number}" for number in range(1, 9)]
SCENES += [f"script{part}" for part in ("01_1", "01_2", "01_3", "02_1", "02_2", "03_1", "03_2")]
# Each session has each scene twice, with the movements of the woman or the man, with a few exceptions.
DIALOGS = {f"Ses0{number}{letter}_{scene}" for number in range(1, 6) for letter in "FM" for scene in SCENES}
DIALOGS -= {"Ses01F_impro08", "Ses01M_impro08", "Ses03M_impro05", "Ses03M_impro08"}
DIALOGS |= {f"Ses03M_impro0{part}" for part in ("5a", "5b", "8a", "8b")} | {"Ses05M_script01_1b"}
SESSIONS = tuple(f"Session{number}" for number in range(1, 6))
DEEPEST = 3  # levels of folders between the given folder and the sessions
EMOTIONS = {
    "ang": "angry",
    "dis": "disgust",
    "exc": "excited",
    "fea": "fearful",
    "fru": "frustrated",
    "hap": "happy",
    "neu": "neutral",
    "oth": "other",
    "sad": "sad",
    "sur": "surprised",
    "xxx": "undecided",  # no majority among the raters
}
CONDITIONS = {"impro": "improvised", "script": "scripted"}
NUMBER = r"\s*(\d+(?:\.\d+)?)\s*"
SCENARIO = re.compile(r"Ses0\d[FM]_((?:impro|script)\d+(?:_\d+)?)")  # of a dialog; parts a and b are one
EVALUATION = re.compile(
    rf"\[[^\]]*\]\s+((Ses0([1-5])[FM]_(impro|script)\w+)_([FM])\d+)\s+({'|'.join(EMOTIONS)})"
    rf"\s+\[{NUMBER},{NUMBER},{NUMBER}\]"
)
TRANSCRIPT = re.compile(r"(Ses\w+_[FM]\d+)\s*\[[^\]]*\]\s*:(.*)")


def get(downloads: Path) -> Path:
    """Return downloads/iemocap, where the user has put the corpus, whose licence has to be requested."""
    root = downloads / "iemocap"
    if not root.exists():
        raise UserError(f"{root}: not found; request the corpus at {PAGE}, and pass its unpacked folder as --corpus")
    return root


def utterances(root: Path) -> Found:
    """Find the labelled recordings below `root`, IEMOCAP_full_release or a folder that contains it.

    `expected` is every utterance in the evaluations; `lacking` lists dialogs without an evaluation. Recordings without
    a label or a transcript are left out and listed. Raises UserError if there is no session, a session lacks one of
    its three folders, a line of the evaluations cannot be parsed, or two transcripts of one utterance differ.
    """
    sessions, copies = _sessions(root)
    found, untranscribed = [], []
    unlabelled: list[Path] = []
    old_texts: list[Path] = []
    evaluated = set()
    expected: dict[str, str] = {}  # -> file:line of its evaluation
    for session in sessions.values():
        words = _words(session / "dialog/transcriptions", old_texts)
        files, second = files_below(session / "sentences/wav", ".wav")
        copies += second
        paths: dict[str, Path] = {}
        for file in files:
            if paths.setdefault(file.stem, file) != file:
                raise UserError(f"{file}: differs from {paths[file.stem]}; remove the wrong one")
        for place, line in _lines(session / "dialog/EmoEvaluation", old_texts):
            if not line.startswith("["):  # the header, or the label of a single rater
                continue
            match = EVALUATION.fullmatch(line)
            scenario = match and SCENARIO.match(match[2])
            if not match or not scenario:
                raise UserError(
                    f"{place}: {line!r} is not `[start - end] utterance label [valence, activation, dominance]`; "
                    "unpack the file from the archive again"
                )
            name, dialog, number, condition, letter, emotion, *vad = match.groups()
            spk = f"Ses0{number}{letter}"
            utt = f"{spk}-{name}"
            if utt in expected:
                raise UserError(f"{place}: {name} is also at {expected[utt]}; remove the wrong one")
            expected[utt] = place
            evaluated.add(dialog)
            path = paths.pop(name, None)
            if path and name not in words:
                untranscribed.append(path)
            elif path:
                found.append(
                    Utterance(
                        utt=utt,
                        spk=spk,
                        gender=letter.lower(),
                        emo=EMOTIONS[emotion],
                        text=words[name],
                        path=path,
                        more={
                            "sess": number,
                            "cond": CONDITIONS[condition],
                            "dialog": dialog,
                            "scenario": scenario[1],
                            "vad": " ".join(vad),
                        },
                    )
                )
        unlabelled += paths.values()
    if not found:
        raise UserError(f"{root}: contains no labelled recording, such as {SESSIONS[0]}/sentences/wav/*/*.wav")
    left_out = {
        "session that is not there": [root / name for name in SESSIONS if name not in sessions],
        "recording without a label": unlabelled,
        "recording without a transcript": untranscribed,
        "second copy": copies,
    }
    lacking = [f"{dialog}: no evaluation of this dialog" for dialog in sorted(DIALOGS - evaluated)]
    if not lacking and len(expected) < TOTAL:
        lacking = [f"{TOTAL - len(expected)} utterances without an evaluation"]
    return Found(found, left_out, frozenset(expected), TOTAL, lacking, old_texts)


def _sessions(root: Path) -> tuple[dict[str, Path], list[Path]]:
    """Find the folders Session1 to Session5 nearest to `root`, by name, and second copies at the same depth."""
    for depth in range(DEEPEST + 1):
        folders = [path for path in sorted(root.glob("*/" * depth + "Session[1-5]")) if path.is_dir()]
        if folders:
            first = {path.name: path for path in reversed(folders)}
            return dict(sorted(first.items())), [path for path in folders if path != first[path.name]]
    raise UserError(f"{root}: contains no {SESSIONS[0]}; give the folder of the corpus, IEMOCAP_full_release")


def _words(folder: Path, old_texts: list[Path]) -> dict[str, str]:
    """Transcripts by name of utterance. Lines in another format belong to speakers without an utterance."""
    words: dict[str, str] = {}
    places: dict[str, str] = {}
    for place, line in _lines(folder, old_texts):
        match = TRANSCRIPT.fullmatch(line)
        if match:
            name, said = match[1], " ".join(match[2].split())
            if words.setdefault(name, said) != said:
                raise UserError(f"{place}: {name} has different words at {places[name]}; remove the wrong line")
            places.setdefault(name, place)
    return words


def _lines(folder: Path, old_texts: list[Path]) -> Iterator[tuple[str, str]]:
    """Yield place (file:line) and line of every text directly in `folder`; add to `old_texts`."""
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    files = [folder / name for name in names if name.lower().endswith(".txt") and not name.startswith(".")]
    if not files:
        raise UserError(f"{folder}: contains no .txt file; unpack the folder from the archive again")
    for path in files:
        text, is_old = read_text(path)
        old_texts += [path] * is_old
        for number, line in enumerate(text.splitlines(), 1):
            yield f"{path}:{number}", line.strip()
