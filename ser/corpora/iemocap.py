"""IEMOCAP, the Interactive Emotional Dyadic Motion Capture database: ten actors in five sessions of two,
in dialogues that are improvised or follow a script.

Busso et al. 2008, https://sail.usc.edu/iemocap/ (a licence for research, on request). In each Session1 to
Session5 there are

    sentences/wav/Ses04F_impro01/Ses04F_impro01_M000.wav
    dialog/EmoEvaluation/Ses04F_impro01.txt     [6.2901 - 8.2357]  Ses04F_impro01_M000  neu  [2.5, 2.5, 2.5]
    dialog/transcriptions/Ses04F_impro01.txt    Ses04F_impro01_M000 [006.2901-008.2357]: Excuse me.

The speaker is the session and the letter of the id's last field: Ses04M says this. The letter in front says
whose movements were recorded in that dialogue, where both speak. Copies differ: files of macOS (`._*`) may
stand beside the real ones, and some texts have DOS line ends.
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
# Each session has each scene twice, with the movements of the woman or the man; five times it is otherwise.
DIALOGS = {f"Ses0{number}{letter}_{scene}" for number in range(1, 6) for letter in "FM" for scene in SCENES}
DIALOGS -= {"Ses01F_impro08", "Ses01M_impro08", "Ses03M_impro05", "Ses03M_impro08"}
DIALOGS |= {f"Ses03M_impro0{part}" for part in ("5a", "5b", "8a", "8b")} | {"Ses05M_script01_1b"}
SESSIONS = tuple(f"Session{number}" for number in range(1, 6))
DEEPEST = 3  # folders between the one that is given and the sessions
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
    "xxx": "undecided",  # the raters have no majority
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
    """Return downloads/iemocap, where the user has put the corpus: its licence has to be asked for."""
    root = downloads / "iemocap"
    if not root.exists():
        raise UserError(
            f"{root}: not there; ask for the corpus at {PAGE}, and give the folder it is unpacked in by --corpus"
        )
    return root


def utterances(root: Path) -> Found:
    """Find the labelled recordings below `root`, IEMOCAP_full_release or a folder that holds it.

    All utterances of the evaluations are expected, and lacking are dialogs that have none. Left out, and
    listed, are recordings that the evaluations or the transcripts lack. Raises UserError where there is
    no session, a session lacks one of its three folders, a line of the evaluations cannot be read, or
    two transcripts of one utterance differ.
    """
    sessions, copies = _sessions(root)
    found, untold = [], []
    unlabelled: list[Path] = []
    old_texts: list[Path] = []
    evaluated = set()
    expected: dict[str, str] = {}  # where it is evaluated
    for session in sessions.values():
        words = _words(session / "dialog/transcriptions", old_texts)
        files, second = files_below(session / "sentences/wav", ".wav")
        copies += second
        paths = {path.stem: path for path in files}
        for place, line in _lines(session / "dialog/EmoEvaluation", old_texts):
            if not line.startswith("["):  # the head, or one rater's opinion
                continue
            match = EVALUATION.fullmatch(line)
            scenario = match and SCENARIO.match(match[2])
            if not match or not scenario:
                raise UserError(
                    f"{place}: {line!r} is not `[start - end] utterance label [valence, activation, dominance]`; "
                    "take the file from the archive again"
                )
            name, dialog, number, condition, letter, emotion, *vad = match.groups()
            spk = f"Ses0{number}{letter}"
            utt = f"{spk}-{name}"
            if utt in expected:
                raise UserError(f"{place}: {name} is also at {expected[utt]}; remove the one that is wrong")
            expected[utt] = place
            evaluated.add(dialog)
            path = paths.pop(name, None)
            if path and name not in words:
                untold.append(path)
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
        raise UserError(f"{root}: no labelled recording in it, such as {SESSIONS[0]}/sentences/wav/*/*.wav")
    left_out = {
        "session that is not there": [root / name for name in SESSIONS if name not in sessions],
        "recording without a label": unlabelled,
        "recording without a transcript": untold,
        "second copy": copies,
    }
    lacking = [f"{dialog}: no evaluation of this dialog" for dialog in sorted(DIALOGS - evaluated)]
    if not lacking and len(expected) < TOTAL:
        lacking = [f"{TOTAL - len(expected)} utterances that no evaluation has"]
    return Found(found, left_out, frozenset(expected), TOTAL, lacking, old_texts)


def _sessions(root: Path) -> tuple[dict[str, Path], list[Path]]:
    """Find the folders Session1 to Session5 nearest to `root`, by name, and second copies as near as they."""
    for depth in range(DEEPEST + 1):
        folders = [path for path in sorted(root.glob("*/" * depth + "Session[1-5]")) if path.is_dir()]
        if folders:
            first = {path.name: path for path in reversed(folders)}
            return dict(sorted(first.items())), [path for path in folders if path != first[path.name]]
    raise UserError(f"{root}: no {SESSIONS[0]} in it; give the folder that holds the corpus, IEMOCAP_full_release")


def _words(folder: Path, old_texts: list[Path]) -> dict[str, str]:
    """Transcripts by name of utterance; a line of another form is somebody's who has no utterance there."""
    words: dict[str, str] = {}
    places: dict[str, str] = {}
    for place, line in _lines(folder, old_texts):
        match = TRANSCRIPT.fullmatch(line)
        if match:
            name, said = match[1], " ".join(match[2].split())
            if words.setdefault(name, said) != said:
                raise UserError(f"{place}: {name} has other words at {places[name]}; remove the one that is wrong")
            places.setdefault(name, place)
    return words


def _lines(folder: Path, old_texts: list[Path]) -> Iterator[tuple[str, str]]:
    """Yield place (file:line) and line of every text that is in `folder` itself; add to `old_texts`."""
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    files = [folder / name for name in names if name.lower().endswith(".txt") and not name.startswith(".")]
    if not files:
        raise UserError(f"{folder}: no .txt file in it; take the folder from the archive again")
    for path in files:
        text, is_old = read_text(path)
        old_texts += [path] * is_old
        for number, line in enumerate(text.splitlines(), 1):
            yield f"{path}:{number}", line.strip()
