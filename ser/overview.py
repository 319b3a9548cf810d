"""Write the state of all papers into README.md, from the papers' tables and the committed scores of all recipes.

A line for each table of which something was run; the other tables of a paper share one. Stage 6 calls it. Scores that
were made here (own) do not count.
"""

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ser import cli
from ser.cli import UserError

if TYPE_CHECKING:
    from ser.config import Paper, Table
    from ser.scores import Scores

README = Path(__file__).parent.parent / "README.md"
START, END = "<!-- overview -->", "<!-- /overview -->"
HEAD = ["paper", "table", "results", "rows run", "largest difference", "honest gap"]
LEGEND = """\
Rows run: rows with scores, of those that have a system here. Largest difference: ours minus published, in points, under
the paper's protocol († the test set selected the networks' epoch; ‡ test speakers are also in the training set). Honest
gap: the same system under the honest protocol (no test speaker is in training, the test set selects nothing) minus
under the paper's, mean over rows. Where a row has several readings, the first with scores counts, and for the gap the
first with scores under both; folds may be missing, as RESULTS.md tells. Written by `python -m ser.overview` from the
scores in `results/`."""


@dataclass(frozen=True)
class Line:
    """A table of a paper. metric: WA if the table has it, else UA. differences: ours minus published by row, in points.
    gaps: honest minus ours under the paper's protocol."""

    recipe: str
    paper: str
    number: str
    title: str
    metric: str
    n_rows: int
    n_run: int
    differences: dict[str, float]
    gaps: list[float]
    marks: str


def main(argv: list[str] | None = None) -> None:
    argparse.ArgumentParser(
        prog="python -m ser.overview", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args(argv)

    from ser.files import read_text, whole

    text = read_text(README) if README.exists() else ""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not end:
        print(f"{README}: not changed: it has no lines {START} and {END} to write between", file=sys.stderr)
        return
    with whole(README) as stream:
        stream.write(f"{before}{start}\n{render()}\n{end}{after}")
    print(README)


def render() -> str:
    """The lines that README.md should have between START and END."""
    return "\n".join(["", *as_table(read(README.parent)), "", LEGEND, ""])


def read(root: Path) -> list[Line]:
    """A line for each table of the papers of all recipes. root: of the repository. Raises UserError for a file that
    cannot be read."""
    from ser.files import standing_in
    from ser.papers import read_papers

    lines = []
    for recipe in sorted(path.parents[1] for path in root.glob("egs/*/conf/papers")):
        try:
            with standing_in(recipe):
                systems = files("conf/*/*.yaml")
                protocols = files("conf/protocols/*.yaml")
                for paper in read_papers(Path("conf/papers"), systems, protocols):
                    lines += [line_of(recipe.name, paper, table, systems, protocols) for table in paper.tables]
        except UserError as error:  # its path is relative to the recipe
            raise UserError(f"{os.path.relpath(recipe)}/{error}") from None
    return lines


def files(pattern: str) -> dict[str, Path]:
    """Files by their names without suffix."""
    return {path.stem: path for path in sorted(Path().glob(pattern))}


def line_of(recipe: str, paper: "Paper", table: "Table", systems: dict[str, Path], protocols: dict[str, Path]) -> Line:
    """The line of a table. Call it in the recipe's folder. systems, protocols: their files."""
    from ser.config import read_protocol
    from ser.folds import shares_speakers

    metric = "wa" if any(row.wa is not None for row in table.rows) else "ua"
    rows = [row for row in table.rows if row.systems]
    differences, gaps, n_run, marks = {}, [], 0, set()
    for row in rows:
        found = [shown(recipe, systems[name], protocols[table.protocol]) for name in row.systems]
        marks |= {"‡" for runs in found for scores in runs if shares_speakers(scores.about["overlap"])}
        ours = [mean(runs, metric) for runs in found]
        first = next((value for value in ours if value is not None), None)
        n_run += first is not None
        published = getattr(row, metric)
        if first is not None and published is not None:
            differences[row.name] = first - published
        if table.honest:
            honest = (mean(shown(recipe, systems[name], protocols[table.honest]), metric) for name in row.systems)
            both = ((a, b) for a, b in zip(honest, ours, strict=True) if a is not None and b is not None)
            gaps += [a - b for a, b in both][:1]
    marks |= {"†"} if n_run and read_protocol(protocols[table.protocol]).select == "test" else set()
    known = "".join(mark for mark in "†‡" if mark in marks)
    return Line(recipe, paper.name, table.number, table.title, metric, len(rows), n_run, differences, gaps, known)


def shown(recipe: str, system: Path, protocol: Path) -> list["Scores"]:
    """The committed scores that RESULTS.md shows of a system under a protocol."""
    if not any(Path("results", system.stem, protocol.stem).glob("*.txt")):
        return []  # without reading the system's modules

    from ser.config import read_protocol, read_system
    from ser.results import find

    return list(find(read_system(system), read_protocol(protocol), recipe, only_committed=True).shown.values())


def mean(runs: list["Scores"], metric: str) -> float | None:
    """The mean of a metric over runs, as in RESULTS.md; None without runs."""
    from ser.metrics import METRICS
    from ser.summary import confusion_of, mean_of, of_folds

    return mean_of(of_folds(runs, lambda scores: float(METRICS[metric].of(confusion_of(scores))))) if runs else None


def as_table(lines: list[Line]) -> list[str]:
    """The table in Markdown: first the tables of which something was run, then a row for all others of a paper."""
    from ser.tables import as_lines

    rows = [HEAD]
    rest: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        if line.n_run:
            rows.append([*heads_of([line]), f"{line.n_run} of {line.n_rows}", largest(line), gap(line)])
        else:
            rest.setdefault((line.recipe, line.paper), []).append(line)
    ran = {line.recipe for line in lines if line.n_run}
    for some in rest.values():
        why = "not run" if some[0].recipe in ran else "not run: needs the corpus"
        rows.append([*heads_of(some), f"0 of {sum(line.n_rows for line in some)}", why, "–"])
    return as_lines(rows)


def heads_of(lines: list[Line]) -> list[str]:
    """The first cells of a row: paper, its tables, and a link to the results. A table alone has its title."""
    recipe, paper = lines[0].recipe, lines[0].paper
    numbers = ", ".join(line.number for line in lines)
    title = f": {lines[0].title}" if len(lines) == 1 else ""
    return [paper, numbers + title, f"[{recipe}](egs/{recipe}/RESULTS.md)"]


def largest(line: Line) -> str:
    """The largest difference from the published numbers, as `-12.9 WA (BLSTM + Att.)`."""
    if not line.differences:
        return "–"
    row, value = max(line.differences.items(), key=lambda item: abs(item[1]))
    return f"{value:+.1f} {line.metric.upper()}{line.marks} ({row})"


def gap(line: Line) -> str:
    """The mean honest gap, as `-31.6 WA (1 row)`."""
    if not line.gaps:
        return "–"
    number = len(line.gaps)
    return f"{sum(line.gaps) / number:+.1f} {line.metric.upper()} ({number} row{'s' * (number > 1)})"


if __name__ == "__main__":
    cli.run(main)
