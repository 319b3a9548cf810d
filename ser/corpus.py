"""What the modules of ser/corpora share: the records that they fill, and the reading of folders and old texts."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ser.cli import UserError

# What Western texts in cp1252, as Windows wrote them, have beyond ASCII. Another byte is of another encoding,
# and two that are a character of UTF-8 say that it is a mixture.
WESTERN = "àâäáæçéèêëîïíñôöóœùûüúÿÀÂÄÁÆÇÉÈÊËÎÏÍÑÔÖÓŒÙÛÜÚŸß’‘“”«»–—…€°\xa0".encode("cp1252")
NOT_WESTERN = re.compile(rb"[^\x00-\x7f" + WESTERN + rb"]|[\xc2-\xf4][\x80-\xbf]")


@dataclass(frozen=True)
class Utterance:
    """One labelled recording.

    utt: the id; it starts with spk and a hyphen, so that sorting by utterance also sorts by speaker (Kaldi).
    spk: the speaker's id. gender: "f" or "m". emo: the corpus's own label, in one word. text: the words that are
    said, "" where nothing is. path: of the recording. more: the corpus's own columns: {"sent": "1"} becomes utt2sent.
    """

    utt: str
    spk: str
    gender: str
    emo: str
    text: str
    path: Path
    more: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """What stands in a corpus's folder.

    utterances: every labelled recording, each once, in any order.
    left_out: for each reason ("song", "second copy"), the files left out for it.
    expected: the ids of all utterances of the whole corpus, as far as they are known.
    total: how many utterances the whole corpus has; None where nobody knows.
    lacking: lines on parts of the corpus that are not there, whose ids nobody knows.
    old_texts: the files that are not UTF-8 and were read as cp1252.
    """

    utterances: list[Utterance]
    left_out: Mapping[str, list[Path]] = field(default_factory=dict)
    expected: Iterable[str] = ()
    total: int | None = None
    lacking: Sequence[str] = ()
    old_texts: Sequence[Path] = ()


def files_below(root: Path, *suffixes: str) -> tuple[list[Path], list[Path]]:
    """Find the files with these suffixes (".wav", in either case) at any depth below `root`.

    Files with the same base name count as copies, since some downloads of a corpus hold the whole tree a second
    time. Returns the files, sorted by name, and the second copies; the copy nearest to `root` comes
    first. Hidden files, such as macOS's `._*`, are no recordings. Links to folders are followed.
    Raises UserError where `root` is no folder or holds no such file, and where a folder cannot be read.
    """

    def refuse(error: OSError) -> None:  # os.walk would pass over the folder
        raise UserError(f"{error.filename}: {error.strerror}; check its permissions, or give a folder without it")

    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the folder that holds the corpus")
    files, visited = [], set()
    for folder, subfolders, names in os.walk(root, onerror=refuse, followlinks=True):
        if os.path.realpath(folder) in visited:  # a link that leads back up would never end
            subfolders.clear()
            continue
        visited.add(os.path.realpath(folder))
        subfolders.sort()
        files += [Path(folder, name) for name in names if name.lower().endswith(suffixes) and not name.startswith(".")]
    if not files:
        raise UserError(f"{root}: no {' or '.join(suffixes)} file in it; give the folder that holds the corpus")
    first: dict[str, Path] = {}
    nearest_first = sorted(files, key=lambda file: (len(file.parts), file))
    copies = [file for file in nearest_first if first.setdefault(file.name, file) != file]
    return [first[name] for name in sorted(first)], copies


def read_text(path: Path) -> tuple[str, bool]:
    """Read a text of a corpus: UTF-8, with or without a mark at its start, or cp1252.

    Returns the text, and whether it is cp1252. Raises UserError, naming file and byte, where it is neither.
    """
    content = path.read_bytes()
    is_old = False
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        if odd := NOT_WESTERN.search(content):
            raise UserError(
                f"{path}: neither UTF-8 nor, at byte {odd.start() + 1} ({odd[0][0]:#04x}), Western text in "
                "cp1252; convert the file to UTF-8"
            ) from None
        text, is_old = content.decode("cp1252"), True
    if "\0" in text:  # UTF-16, or no text at all
        raise UserError(f"{path}: no text at byte {content.index(0) + 1} (0x00); convert the file to UTF-8")
    return text, is_old
