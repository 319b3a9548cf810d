"""@NAME@: say here who made the corpus, where to get it, and under which licence.

As it is, this module reads recordings named like f01_angry_12.wav:

    speaker (its first letter is the gender, f or m) _ emotion _ anything
"""

import re
from pathlib import Path

from ser.cli import UserError
from ser.corpus import Found, Utterance, files_below

FORM = re.compile(r"(?P<spk>[fm][a-z0-9]*)_(?P<emo>[a-z]+)_(?P<rest>[A-Za-z0-9_-]+)")


def get(downloads: Path) -> Path:
    """Return downloads/@NAME@, where the user puts the corpus."""
    root = downloads / "@NAME@"
    if not root.exists():
        raise UserError(
            f"{root}: not found; put the corpus there, give its folder with --corpus, or put a Kaldi data directory in "
            "data/all"
        )
    return root


def utterances(root: Path) -> Found:
    """Find the recordings below `root`. Raises UserError if none has a name of this form."""
    files, copies = files_below(root, ".wav")
    found, other_names = [], []
    for path in files:
        match = FORM.fullmatch(path.stem)
        if not match:
            other_names.append(path)
            continue
        spk, emo, rest = match["spk"], match["emo"], match["rest"]
        found.append(Utterance(f"{spk}-{emo}-{rest}", spk, gender=spk[0], emo=emo, text="", path=path))
    if not found:
        raise UserError(
            f"{root}: no recording has a name like f01_angry_12.wav; change FORM in {Path(__file__).name} to the "
            "corpus's own names"
        )
    return Found(found, {"name of another form": other_names, "second copy of a file of that name": copies})
