"""Published numbers: conf/papers/<paper>.yaml of a recipe has the tables of a paper for its corpus, as printed.

Rows are in the paper's order and have its names. Each names the systems of the recipe that are meant to reproduce it.
"""

import difflib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from ser.cli import UserError
from ser.config import check, read_yaml
from ser.settings import strict

PerCent = Annotated[float, Field(ge=0, le=100)]


@dataclass(config=strict, frozen=True, kw_only=True)
class Row:
    """A row of a paper's table."""

    name: str  # as printed
    wa: PerCent | None = None  # weighted accuracy, in per cent
    ua: PerCent | None = None  # unweighted accuracy, in per cent
    note: str = ""  # what the paper prints beside these, such as an interval or another metric
    # names of the systems that are meant to reproduce it: first the main reading of the paper, then other readings; an
    # empty list if the recipe has none
    systems: list[str]


@dataclass(config=strict, frozen=True, kw_only=True)
class Table:
    """A table of a paper, or the part of it that one protocol is meant to reproduce."""

    number: str  # as printed, such as "III", or the place, such as "Section 5"
    title: str  # what the rows differ in
    protocol: str  # the recipe's protocol that is meant to reproduce it
    # the recipe's protocol of honest evaluation: speakers apart, and the test set selects nothing; null: none has the
    # same classes and the same kind of test utterances
    honest: str | None
    rows: Annotated[list[Row], Field(min_length=1)]  # in the paper's order


@dataclass(config=strict, frozen=True, kw_only=True)
class Paper:
    """The tables of a paper for one corpus."""

    name: str  # short, such as Sherman et al.
    reference: str  # authors, title, venue, year
    tables: Annotated[list[Table], Field(min_length=1)]  # in the paper's order


def read_papers(folder: Path, systems: Collection[str], protocols: Collection[str]) -> list[Paper]:
    """Read all papers in a folder, sorted by file name; [] if there is no such folder.

    systems, protocols: the names that the recipe has. Raises UserError for a file that cannot be read, a name that the
    recipe does not have, or a row without a number and a note.
    """
    papers = []
    for path in sorted(folder.glob("*.yaml")):
        paper = check(Paper, read_yaml(path), path)
        for key, name, what, known in names_in(paper, systems, protocols):
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                remedy = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known)) or 'none'}"
                raise UserError(f"{path}: {key}: there is no {what} {name} in this recipe; {remedy}")
        for place, row in rows_in(paper):
            if row.wa is None and row.ua is None and not row.note:
                raise UserError(f"{path}: {place}: no number; give wa, ua or note")
        papers.append(paper)
    return papers


def names_in(
    paper: Paper, systems: Collection[str], protocols: Collection[str]
) -> Iterator[tuple[str, str, str, Collection[str]]]:
    """The names of systems and protocols in a paper, each with its key, what it names, and the names that there are."""
    for number, table in enumerate(paper.tables):
        for key, name in (("protocol", table.protocol), ("honest", table.honest)):
            if name is not None:
                yield f"tables.{number}.{key}", name, "protocol", protocols
    for place, row in rows_in(paper):
        for name in row.systems:
            yield f"{place}.systems", name, "system", systems


def rows_in(paper: Paper) -> Iterator[tuple[str, Row]]:
    """The rows of all tables of a paper, each with its key."""
    for number, table in enumerate(paper.tables):
        for position, row in enumerate(table.rows):
            yield f"tables.{number}.rows.{position}", row
