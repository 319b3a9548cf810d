"""Word vectors in GloVe's format: `word v1 v2 ...` a line, parted by single spaces, all of one size."""

import gzip
import math
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ser.cli import UserError

if TYPE_CHECKING:
    import numpy as np


def select_vectors(path: Path, words: Collection[str]) -> dict[str, str]:
    """Find the vectors of some words in a file; return them as it writes them: word -> "v1 v2 ...".

    The file is read once, a line at a time: text as GloVe's authors publish it, in a .zip of its own or a .gz
    too, and word2vec's and fastText's text, whose first line says how much there is. Where a word stands
    twice the first counts, the more frequent one in files that are sorted so. Raises UserError, naming file
    and line, where a line has another number of values than those before, or the values of a word that is
    wanted (those of others are not looked at) are no finite numbers; and where the file is missing, damaged
    or empty.
    """
    wanted = {word.encode(): word for word in words}
    found = {}
    for place, word, values in _lines(path):
        if word in wanted and wanted[word] not in found:
            _numbers(place, values)
            found[wanted[word]] = values.decode()
    return found


def read_vectors(path: Path) -> "dict[str, np.ndarray]":
    """Read all vectors of a file, as `ser.dump_vectors` writes it: word -> (D,) float32, in the file's order.

    Raises UserError as `select_vectors` does, and where a word is not UTF-8.
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
    size = 0
    with _opened(path) as stream:
        for number, line in enumerate(stream, 1):
            place, line = f"{path}:{number}", line.rstrip()  # fastText's lines end with a space
            if not size:
                if number == 1 and len(counts := line.split(b" ")) == 2 and all(map(bytes.isdigit, counts)):
                    continue
                size = line.count(b" ")
                if not size:
                    raise _wrong(place, "not a word and its values")
                _numbers(place, line.split(b" ", 1)[1])
            spaces = line.count(b" ") - size  # in the word: glove.840B has some that hold a space
            *word, values = line.split(b" ", spaces + 1) if spaces >= 0 else [line]
            if not word or (spaces and _is_number(word[-1])):
                raise _wrong(place, f"{line.count(b' ')} values in place of {size}")
            yield place, b" ".join(word), values
    if not size:
        raise UserError(f"{path}: no vectors in it; fetch it again, or give another file of word vectors")


@contextmanager
def _opened(path: Path) -> Iterator[Iterable[bytes]]:
    """Open a file of vectors, packed or not; give its lines."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as stream:
                yield stream
        elif path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                if len(names) != 1:
                    raise UserError(f"{path}: holds {len(names)} files; unpack it and give one of them")
                with archive.open(names[0]) as stream:
                    yield stream
        else:
            with open(path, "rb") as stream:
                yield stream
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; give one of word vectors, as ser.get_vectors fetches"
        ) from None
    except (EOFError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: damaged ({error}); fetch it again") from None


def _numbers(place: str, values: bytes) -> list[float]:
    numbers = []
    for value in values.split(b" "):
        if not _is_number(value):
            raise _wrong(place, f"{value.decode(errors='replace')!r} is not a number")
        numbers.append(float(value))
    return numbers


def _is_number(text: bytes) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _wrong(place: str, what: str) -> UserError:
    return UserError(f"{place}: {what}; give a file of word vectors as text, such as glove.6B.300d.txt")
