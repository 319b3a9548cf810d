"""Att-HACK, expressive speech with social attitudes: 20 speakers say 100 French phrases in four attitudes.

Le Moine and Obin 2020, https://www.openslr.org/88/ (CC BY-NC-ND). Two archives, of recordings and of
transcripts, with a file of the same name each, whatever the folders: F01_a1_s001_v01.wav and .txt are

    speaker (F: woman, M: man) - attitude - phrase, s001 to s100 - take, v01 to v05, of which there are 3 to 5

Not every file has such a name, and files of macOS (`._*`) may stand beside the real ones.
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
    """Fetch and unpack the two archives unless that is done; return downloads/atthack.

    What came is checked when it is unpacked, by gzip's own checksum.
    """
    root = downloads / "atthack"
    for name in ARCHIVES:
        if not (root / name).exists():
            archive = downloads / f"atthack_{name}.tgz"
            fetch(f"{URL}{name}.tgz", archive, None, None)
            unpack(archive, root / name)
    return root


def utterances(root: Path) -> Found:
    """Find the recordings with their transcripts below `root`, whatever the folders between.

    How many takes there should be is not published: expected is what has a recording or a transcript. Left
    out, and listed, are recordings without transcript, and those whose names are not Att-HACK's. Raises
    UserError where no recording, or no transcript, is there, and where two transcripts of one recording
    differ.
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
                raise UserError(f"{path}: other words than in {places[path.stem]}; remove the one that is wrong")
            places.setdefault(path.stem, path)
            old_texts += [path] * is_old
    found, ill_named, untold = [], [], []
    for path in files:
        match = NAME.fullmatch(path.stem)
        if not match:
            ill_named.append(path)
        elif not words.get(path.stem):
            untold.append(path)
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
        raise UserError(f"{root}: no recording with its transcript in it, such as F01_a1_s001_v01.wav and .txt")
    left_out = {
        "recording without a transcript": untold,
        "name that is not Att-HACK's": ill_named,
        "second copy of a file of that name": copies,
    }
    expected = {*words, *(path.stem for path in untold)}
    return Found(found, left_out, frozenset(map(_utt, expected)), old_texts=old_texts)


def _utt(name: str) -> str:
    return name.replace("_", "-")
