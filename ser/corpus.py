"""Code shared by the modules of ser/corpora: the records they return, and the reading of folders and old texts."""

import filecmp
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ser.cli import UserError

# The non-ASCII characters of Western texts in cp1252, Windows' old encoding. Any other byte indicates another
# encoding, and a pair of bytes that is a UTF-8 character indicates a mixture.
WESTERN = "àâäáæçéèêëîïíñôöóœùûüúÿÀÂÄÁÆÇÉÈÊËÎÏÍÑÔÖÓŒÙÛÜÚŸß’‘“”«»–—…€°\xa0".encode("cp1252")
NOT_WESTERN = re.compile(rb"[^\x00-\x7f" + WESTERN + rb"]|[\xc2-\xf4][\x80-\xbf]")


@dataclass(frozen=True)
class Utterance:
    """One labelled recording.

    utt: the id; it starts with spk and a hyphen, so that sorting by utterance also sorts by speaker (Kaldi).
    spk: the speaker's id. gender: "f", "m", or "" if it is not known. emo: the corpus's own label, in one word. text:
    the words that are spoken, "" for none. path: of the recording. more: further columns of the corpus: {"sent": "1"}
    becomes utt2sent.
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
    """The content of a corpus folder.

    utterances: every labelled recording, each once, in any order.
    left_out: the files left out, by reason ("song", "second copy").
    expected: the ids of all utterances of the complete corpus, as far as they are known.
    total: number of utterances of the complete corpus; None if unknown.
    lacking: one line for each missing part of the corpus whose ids are unknown.
    old_texts: files that are not UTF-8 and were read as cp1252.
    """

    utterances: list[Utterance]
    left_out: Mapping[str, list[Path]] = field(default_factory=dict)
    expected: Iterable[str] = ()
    total: int | None = None
    lacking: Sequence[str] = ()
    old_texts: Sequence[Path] = ()


def files_below(root: Path, *suffixes: str) -> tuple[list[Path], list[Path]]:
    """Find the files with these suffixes (".wav", in either case) at any depth below `root`.

    Files with the same base name and the same bytes are copies, since some downloads of a corpus contain the whole tree
    twice; files of one name that differ are different recordings, such as SAVEE's DC/a01.wav and JE/a01.wav.
    Returns the files, sorted by name, and the second copies; the copy closest to `root` counts as the first.
    Hidden files, such as macOS's `._*`, are ignored. Links to folders are followed. Raises UserError if `root` is not
    a folder or contains no such file, and if a folder, or one of two files of the same name, cannot be read.
    """

    def refuse(error: OSError) -> None:  # by default, os.walk skips such folders
        raise UserError(f"{error.filename}: {error.strerror}; check its permissions, or use a folder without it")

    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the folder of the corpus")
    files, visited = [], set()
    for folder, subfolders, names in os.walk(root, onerror=refuse, followlinks=True):
        if os.path.realpath(folder) in visited:  # a link to a parent folder would never end
            subfolders.clear()
            continue
        visited.add(os.path.realpath(folder))
        subfolders.sort()
        files += [Path(folder, name) for name in names if name.lower().endswith(suffixes) and not name.startswith(".")]
    if not files:
        raise UserError(f"{root}: contains no {' or '.join(suffixes)} file; give the folder of the corpus")
    own: dict[str, list[Path]] = {}
    copies: list[Path] = []
    for file in sorted(files, key=lambda file: (len(file.parts), file)):  # nearest first
        named = own.setdefault(file.name, [])
        is_copy = any(_is_same(other, file) for other in named)
        (copies if is_copy else named).append(file)
    return [file for name in sorted(own) for file in own[name]], copies


def _is_same(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; fetch it again, or remove it") from None


def read_text(path: Path) -> tuple[str, bool]:
    """Read a text file of a corpus, in UTF-8, with or without a byte order mark, or in cp1252.

    Returns the text, and whether it is cp1252. Raises UserError, naming file and byte, if it is neither.
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
    if "\0" in text:  # UTF-16, or not text
        raise UserError(f"{path}: not text at byte {content.index(0) + 1} (0x00); convert the file to UTF-8")
    return text, is_old
