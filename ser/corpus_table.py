"""A corpus as a CSV table, for stage 0: a line for each recording, and no module in ser/corpora.

    path,speaker,emotion,text,sex,session
    wav/a_01.wav,anna,happy,Good morning.,f,1

The first line names the columns, in any order. path (relative to the table), speaker and emotion are required; speaker
and emotion are one word. text, the words that are spoken, and sex (f or m) may be empty or absent. Any other column
becomes a table utt2<column> of the data directory, for a protocol's `by` and `where`; sentence and session become
utt2sent and utt2sess, which the folds' counts of what train and test share read.
"""

import csv
import io
import os
import re
from pathlib import Path

from ser.cli import UserError
from ser.corpus import Found, Utterance, read_text

REQUIRED = ("path", "speaker", "emotion")
OPTIONAL = ("text", "sex")  # may be empty
SEXES = {"f": "f", "female": "f", "m": "m", "male": "m", "": ""}
SHORT = {"sentence": "sent", "session": "sess"}
TAKEN = ("spk", "emo", "dur", "md5")  # utt2spk and so on come from elsewhere


def utterances(table: Path) -> Found:
    """The recordings that a table names.

    An utterance's id is its speaker and its path as written, without the suffix. Raises UserError, naming the line, for
    a missing or unknown column, an empty cell, a path that occurs twice, a file that is not there, and a speaker with
    two sexes.
    """
    text, is_old = read_text(table)
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    found: list[Utterance] = []
    seen: dict[str, int] = {}  # lines, by path
    sexes: dict[str, str] = {}
    try:
        columns = columns_of(next(lines, []), table)
        for cells in lines:
            if cells:  # no blank line
                place = f"{table}:{lines.line_num}"
                one = utterance(row_of(columns, cells, place), table.parent, place)
                first = seen.setdefault(os.path.normpath(one.path), lines.line_num)
                if first != lines.line_num:
                    raise UserError(f"{place}: {one.path} is also on line {first}; remove one of the lines")
                if sexes.setdefault(one.spk, one.gender) != one.gender:
                    raise UserError(f"{place}: sex: {one.spk} has another on a line before; correct one of them")
                found.append(one)
    except csv.Error as error:
        raise UserError(
            f"{table}:{lines.line_num}: not CSV: {error}; put cells with commas or quotes in quotes"
        ) from None
    if not found:
        raise UserError(f"{table}: names no recording; add a line for each")
    return Found(found, old_texts=[table] * is_old)


def columns_of(names: list[str], table: Path) -> list[str]:
    """The names of the columns. Raises UserError if one is missing, occurs twice, or cannot name a table."""
    columns = [name.strip() for name in names]
    for name in REQUIRED:
        if name not in columns:
            form = f"the first line should name the columns, such as {','.join(REQUIRED)}, separated by commas"
            raise UserError(f"{table}:1: no column {name}; {form}")
    for place, name in enumerate(columns):
        if not re.fullmatch(r"\w+", name) or name in TAKEN:
            raise UserError(
                f"{table}:1: a column cannot be called {name!r}; use another name, of letters, digits and _"
            )
        if SHORT.get(name, name) in [SHORT.get(other, other) for other in columns[:place]]:
            raise UserError(f"{table}:1: the column {name} occurs twice; remove one")
    return columns


def row_of(columns: list[str], cells: list[str], place: str) -> dict[str, str]:
    """The cells of a line by column, with white space made single spaces. Raises UserError for a wrong number of cells,
    and for an empty one that is required."""
    if len(cells) != len(columns):
        raise UserError(
            f"{place}: {len(cells)} cells, but the first line names {len(columns)} columns; put a cell with commas in "
            "quotes"
        )
    row = {
        name: cell.strip() if name == "path" else " ".join(cell.split())
        for name, cell in zip(columns, cells, strict=True)
    }
    for name, cell in row.items():
        if not cell and name not in OPTIONAL:
            raise UserError(f"{place}: {name}: empty; fill it in")
    return row


def utterance(row: dict[str, str], folder: Path, place: str) -> Utterance:
    """The utterance of a line. folder: what its path is relative to."""
    for name in ("speaker", "emotion"):
        if " " in row[name]:
            raise UserError(f"{place}: {name}: {row[name]!r} should be one word; write {row[name].replace(' ', '_')}")
    path, sex = folder / row["path"], row.get("sex", "").lower()
    if not path.is_file():
        raise UserError(f"{place}: path: there is no file {path}; correct it, or remove the line")
    if sex not in SEXES:
        raise UserError(f"{place}: sex: {row['sex']}; write f or m, or leave it empty")
    name = re.sub(r"[^\w.+-]+", "-", os.path.splitext(row["path"])[0]).strip("-.")
    more = {SHORT.get(column, column): cell for column, cell in row.items() if column not in (*REQUIRED, *OPTIONAL)}
    return Utterance(
        f"{row['speaker']}-{name}", row["speaker"], SEXES[sex], row["emotion"], row.get("text", ""), path, more
    )
