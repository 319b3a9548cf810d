"""Att-HACK, expressive speech with social attitudes: 20 speakers say 100 French phrases with four attitudes.

Le Moine and Obin 2020, https://www.openslr.org/88/ (CC BY-NC-ND). Two archives, recordings and
transcripts, with matching file names, regardless of the folders: F01_a1_s001_v01.wav and .txt are

    speaker (F: woman, M: man) - attitude - phrase, s001 to s100 - take, v01 to v05 (3 to 5 per phrase)

Some files have other names, and there may also be macOS files (`._*`).
"""

import re
from pathlib import Path

from ser.cli import UserError
from ser.corpus import Found, Utterance, files_below, read_text
from ser.download import fetch, unpack

URL = "https://www.openslr.org/resources/88/"
ARCHIVES = ("wav", "txt")  # neither size nor checksum is published
SPEAKERS = "F01 F02 F03 M04 F05 F06 M07 F08 M09 F10 M11 M12 M13 F14 F15 M16 M17 F18 M19 F20".split()
ATTITUDES = {"a1": "friendly", "a2": "distant", "a3": "dominant", "a4": "seductive"}
NAME = re.compile(rf"({'|'.join(SPEAKERS)})_({'|'.join(ATTITUDES)})_(s100|s0(?!00)\d\d)_(v0[1-5])")


def get(downloads: Path) -> Path:
    """Download and unpack the two archives unless this is done already; return downloads/atthack.

    The download is verified by the checksum of gzip.
    """
    root = downloads / "atthack"
    for name in ARCHIVES:
        if not (root / name).exists():
            archive = downloads / f"atthack_{name}.tgz"
            fetch(f"{URL}{name}.tgz", archive, None, None)
            unpack(archive, root / name)
    return root


def utterances(root: Path) -> Found:
    """Find the recordings with their transcripts below `root`, at any depth.

    The number of takes is not published, so `expected` is everything that has a recording or a transcript.
    Recordings without a transcript, or with names that do not follow Att-HACK, are left out and listed. Raises
    UserError if there are no recordings or no transcripts, and if two transcripts of one recording differ.
    """
    files, copies = files_below(root, ".wav")
    texts, second_texts = files_below(root, ".txt")
    words: dict[str, str] = {}
    places: dict[str, Path] = {}
    old_texts = []
    for path in [*texts, *second_texts]:
        if NAME.fullmatch(path.stem):
            text, is_old = read_text(path)
            said = " ".join(text.split())
            if words.setdefault(path.stem, said) != said:
                raise UserError(f"{path}: differs from {places[path.stem]}; remove the wrong one")
            places.setdefault(path.stem, path)
            old_texts += [path] * is_old
    found, ill_named, untranscribed = [], [], []
    for path in files:
        match = NAME.fullmatch(path.stem)
        if not match:
            ill_named.append(path)
        elif not words.get(path.stem):
            untranscribed.append(path)
        else:
            spk, attitude, sentence, take = match.groups()
            found.append(
                Utterance(
                    utt=_utt(path.stem),
                    spk=spk,
                    gender=spk[0].lower(),
                    emo=ATTITUDES[attitude],
                    text=words[path.stem],
                    path=path,
                    more={"sent": sentence, "take": take},
                )
            )
    if not found:
        raise UserError(f"{root}: contains no recording with a transcript, such as F01_a1_s001_v01.wav and .txt")
    left_out = {
        "recording without a transcript": untranscribed,
        "name that is not Att-HACK's": ill_named,
        "second copy of a file of that name": copies,
    }
    expected = {*words, *(path.stem for path in untranscribed)}
    return Found(found, left_out, frozenset(map(_utt, expected)), old_texts=old_texts)


def _utt(name: str) -> str:
    return name.replace("_", "-")
