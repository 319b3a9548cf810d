"""Word vectors in GloVe's format: one `word v1 v2 ...` per line, separated by single spaces, all of one size."""

import codecs
import gzip
import io
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ser.cli import UserError

if TYPE_CHECKING:
    import numpy as np

LONGEST = 1 << 20  # bytes per line: a hundred times the length of a thousand values
LARGEST = 3.4e38  # maximum of float32


def select_vectors(path: Path, words: Collection[str]) -> dict[str, str]:
    """Find the vectors of some words in a file; return them as written there: word -> "v1 v2 ...".

    The file is read once, line by line. It may be text as published by GloVe's authors, also as a .gz or as the
    only file in a .zip, or the text format of word2vec and fastText, whose first line has the counts. If a word occurs
    twice, the first one counts, which is the more frequent one in sorted files. Raises UserError, naming file and
    line, if the number of values differs between lines, or a value of a wanted word is not a finite number (other
    words are not checked); and if the file is missing, damaged or empty. A byte order mark at the start and blank
    lines at the end are ignored.
    """
    wanted = {word.encode(): word for word in words}
    found = {}
    for place, word, values in _lines(path):
        if word in wanted and wanted[word] not in found:
            _numbers(place, values)
            found[wanted[word]] = values.decode()
    return found


def read_vectors(path: Path) -> "dict[str, np.ndarray]":
    """Read all vectors of a file, as written by `ser.dump_vectors`: word -> (D,) float32, in the file's order.

    Raises UserError as `select_vectors` does, and if a word is not UTF-8.
    """
    import numpy as np

    vectors = {}
    for place, word, values in _lines(path):
        try:
            vectors[word.decode()] = np.array(_numbers(place, values), np.float32)
        except UnicodeDecodeError:
            raise _wrong(place, "not UTF-8 text") from None
    return vectors


def _lines(path: Path) -> Iterator[tuple[str, bytes, bytes]]:
    """Yield place (file:line), word and values of each line."""
    size, blank = 0, ""
    with _opened(path) as stream:
        for number, line in enumerate(iter(lambda: stream.readline(LONGEST), b""), 1):
            place = f"{path}:{number}"
            if len(line) == LONGEST:
                raise _wrong(place, f"a line of {LONGEST} bytes or more")
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)  # added by an editor, not part of the first word
            line = line.rstrip()  # fastText's lines end with a space
            if not line:
                blank = blank or place
                continue
            if blank:  # only allowed at the end of the file
                raise _wrong(blank, "blank line")
            if not size:
                if number == 1 and len(counts := line.split(b" ")) == 2 and all(map(bytes.isdigit, counts)):
                    continue
                size = line.count(b" ")
                if not size:
                    raise _wrong(place, "not a word and its values")
                _numbers(place, line.split(b" ", 1)[1])
            spaces = line.count(b" ") - size  # in the word: some words of glove.840B contain spaces
            *word, values = line.split(b" ", spaces + 1) if spaces >= 0 else [line]
            if not word or (spaces and _is_number(word[-1])):
                raise _wrong(place, f"{line.count(b' ')} values instead of {size}")
            if word == [b""]:
                raise _wrong(place, "no word before its values")
            yield place, b" ".join(word), values
    if not size:
        raise UserError(f"{path}: contains no vectors; download it again, or give another file of word vectors")


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedIOBase]:
    """Open a file of vectors, compressed or not."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as stream:
                yield stream
        elif path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                if len(names) != 1:
                    raise UserError(f"{path}: contains {len(names)} files; unpack it and give one of them")
                with archive.open(names[0]) as packed, io.BufferedReader(packed) as stream:  # type: ignore[type-var]
                    yield stream
        else:
            with open(path, "rb") as stream:
                yield stream
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; give a file of word vectors, such as ser.get_vectors downloads"
        ) from None
    except UserError:
        raise
    except Exception as error:  # gzip and zipfile report damaged files in many ways
        if isinstance(error, OSError) and error.filename is not None:  # it cannot be opened
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: damaged ({reason}); download it again") from None


def _numbers(place: str, values: bytes) -> list[float]:
    numbers = []
    for value in values.split(b" "):
        if not _is_number(value):
            raise _wrong(place, f"{value[:40].decode(errors='replace')!r} is not a number")
        numbers.append(float(value))
    return numbers


def _is_number(text: bytes) -> bool:
    """Whether text is a number within float32; 1_0, which Python accepts, is not."""
    try:
        return abs(float(text)) <= LARGEST and b"_" not in text
    except ValueError:
        return False


def _wrong(place: str, what: str) -> UserError:
    return UserError(f"{place}: {what}; give a file of word vectors as text, such as glove.6B.300d.txt")
