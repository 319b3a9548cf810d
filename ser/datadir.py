"""Kaldi's data directory: plain tables, one utterance a line, sorted as `LC_ALL=C sort` does."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ser.cli import UserError
from ser.files import whole


@dataclass(frozen=True)
class Utterance:
    """One labelled recording, as a module of ser/corpora finds it.

    utt starts with spk and a hyphen, so that sorting by utterance also sorts by speaker (Kaldi).
    gender is "f" or "m". more holds the corpus's own columns: {"sent": "1"} becomes utt2sent.
    """

    utt: str
    spk: str
    gender: str
    emo: str
    text: str
    path: Path
    more: Mapping[str, str] = field(default_factory=dict)


def read_table(path: str | Path) -> dict[str, str]:
    """Read `key value...` lines; the value is the rest of the line ("" where there is none).

    Raises UserError, naming file and line, for a missing file, a blank line, a key that stands
    twice, or bytes that are not UTF-8.
    """
    table: dict[str, str] = {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: no such table; run the stage that writes it") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text at byte {error.start}; convert the file") from None
    for number, line in enumerate(lines, 1):
        key, _, value = line.strip().partition(" ")
        if not key:
            raise UserError(f"{path}:{number}: blank line; remove it")
        if key in table:
            raise UserError(f"{path}:{number}: {key} stands twice; remove one of the lines")
        table[key] = value.strip()
    return table


def write_table(path: str | Path, table: Mapping[str, str]) -> None:
    """Write `key value` lines sorted by the bytes of the key (the order of `LC_ALL=C sort`)."""
    with whole(path) as stream:
        for key in sorted(table, key=str.encode):
            stream.write(f"{key} {table[key]}".rstrip() + "\n")
