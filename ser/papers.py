"""Published numbers: conf/papers/<paper>.yaml of a recipe has the tables of a paper for its corpus, as printed.

Rows are in the paper's order and have its names. Each names the systems of the recipe that are meant to reproduce it.
As a command, in the recipe's folder: print the system files and the protocols of a paper's table, for run.sh.
"""

import argparse
import difflib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ser import cli
from ser.cli import UserError

if TYPE_CHECKING:
    from ser.config import Paper, Row


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ser.papers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--paper", required=True, help="the name of a file conf/papers/<paper>.yaml")
    parser.add_argument("--table", default="", help="number of a table, as in the file (default: all tables)")
    args = parser.parse_args(argv)
    print(*map(" ".join, chosen(args.paper, args.table)), sep="\n")


def chosen(paper: str, number: str) -> tuple[list[str], list[str]]:
    """The system files of a paper's tables, and the names of their protocols. number: of a table; "": all tables.
    Raises UserError if there is none."""
    paths = [path for path in Path("conf").glob("*/*.yaml") if path.parent.name not in ("protocols", "papers")]
    files = {path.stem: path for path in sorted(paths, reverse=True)}  # of two of one name the first, as in ser.report
    papers = {one.key: one for one in read_papers(Path("conf/papers"), files)}
    if paper not in papers:
        raise UserError(f"--paper {paper}: no conf/papers/{paper}.yaml; known: {', '.join(papers) or 'none'}")
    numbers = list(dict.fromkeys(table.number for table in papers[paper].tables))
    if number and number not in numbers:
        raise UserError(f"--table {number}: not in conf/papers/{paper}.yaml; known: {', '.join(numbers)}")
    tables = [table for table in papers[paper].tables if number in ("", table.number)]
    systems = dict.fromkeys(name for table in tables for name in table.systems)
    protocols = dict.fromkeys(name for table in tables for name in (table.protocol, table.honest) if name)
    if not systems:
        raise UserError(f"conf/papers/{paper}.yaml: the table has no systems of this recipe; add some")
    return [str(files[name]) for name in systems], list(protocols)


def read_papers(
    folder: Path, systems: Collection[str] | None = None, protocols: Collection[str] | None = None
) -> list["Paper"]:
    """Read all papers in a folder, sorted by file name; [] if there is no such folder.

    systems, protocols: the names that the recipe has; None: the names in the file are not checked. Raises UserError
    for a file that cannot be read, a name that the recipe does not have, or a row without a number and a note.
    """
    from ser.config import Paper, check, read_yaml

    papers = []
    for path in sorted(folder.glob("*.yaml")):
        paper = check(Paper, read_yaml(path) | {"key": path.stem}, path)
        for place, name, what, known in names_in(paper, systems, protocols):
            if known is not None and name not in known:
                near = difflib.get_close_matches(name, known, 1)
                remedy = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known)) or 'none'}"
                raise UserError(f"{path}: {place}: there is no {what} {name} in this recipe; {remedy}")
        for place, row in rows_in(paper):
            if row.wa is None and row.ua is None and not row.note:
                raise UserError(f"{path}: {place}: no number; give wa, ua or note")
        papers.append(paper)
    return papers


def names_in(
    paper: "Paper", systems: Collection[str] | None, protocols: Collection[str] | None
) -> Iterator[tuple[str, str, str, Collection[str] | None]]:
    """The names of systems and protocols in a paper, each with its place, what it is, and the known ones."""
    for table in paper.tables:
        for key, name in (("protocol", table.protocol), ("honest", table.honest)):
            if name is not None:
                yield f"table {table.number}: {key}", name, "protocol", protocols
    for place, row in rows_in(paper):
        for name in row.systems:
            yield f"{place}: systems", name, "system", systems


def rows_in(paper: "Paper") -> Iterator[tuple[str, "Row"]]:
    """The rows of all tables of a paper, each with its place."""
    for table in paper.tables:
        for row in table.rows:
            yield f'table {table.number}, row "{row.name}"', row


if __name__ == "__main__":
    cli.run(main)
