"""Stage 6: write RESULTS.md and the figures from the scores in results/.

Call it in the recipe's folder. Our numbers come from the scores in results/ (see ser/results.py). The papers' numbers
come from conf/papers (see ser/papers.py), which also names the protocol that is meant to reproduce them. A row without
scores says so, and the command below the table makes them. Systems of other recipes with scores in results/ are also
rows.

The figures of the main system go to figures/, and RESULTS.md links them; those of the other systems go to
figures/others/, which git ignores. A figure is drawn again only when its numbers have changed.
"""

import argparse
import shlex
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ser import cli
from ser.cli import UserError

if TYPE_CHECKING:
    from ser.config import Paper, Protocol, System, Table
    from ser.results import Results
    from ser.statistics import Interval

INTRODUCTION = """\
Written by stage 6 from the scores in results/; never edited by hand. `. ./path.sh; python -m ser.verify` computes it
again. What the columns mean: [How to read the tables](#how-to-read-the-tables).
"""
HOW_TO_READ = """\
- **WA**, weighted accuracy: the share of all test utterances that are classified correctly. **UA**, unweighted
  accuracy (UAR): the mean of the classes' recalls. Both in per cent: means over folds, after averaging a fold's seeds.
- **published**: the paper's number; beside it ours under the protocol meant to reproduce it; **difference**: ours minus
  the published one; **in interval**: whether the published number lies in our interval. The last columns are ours under
  an honest protocol: no test speaker is in training, and the test set selects nothing.
- **±**: {method}. No ± with fewer than {fewest} test speakers, or if the speaker of an utterance is unknown.
- **runs**: a run is one fold with one seed; "12 (2 seeds)" are six folds with two seeds each. In means and intervals,
  runs of a fold with the same posteriors, such as other seeds of an SVM, count once. Only runs with the same settings,
  code, folds and recordings are averaged; the section Scores lists what is left out.
- "not run": no scores; "outdated": only scores with other settings or code. The command below a table makes them.
"""
AGAINST = """\
The difference in WA from {main} on the utterances that both have scored, each with the mean of its runs, and p of a
paired permutation test in which the speakers' summed differences change sign, corrected for the number of tests in the
column (Holm, 1979). It does not account for other seeds. No p with fewer than {fewest} speakers.
"""
FIGURES = "The numbers behind each picture are in a text file beside it."
OTHERS = (
    "Stage 6 draws the figures of the other systems that it is given (--systems) to `figures/others/`, which git "
    "ignores."
)


@dataclass(frozen=True)
class Report:
    """What RESULTS.md reports.

    main: name of the system that the others are tested against, "" for none. systems: each with its file, in the order
    of the files. protocols: those of papers first. papers: their tables for this corpus. elsewhere: for a system, its
    published numbers on other corpora. found: the scores by names of system and protocol. speakers: of each scored
    utterance. odd: the rows whose folds, speakers or recordings differ from those of most.
    """

    corpus: str
    main: str
    systems: list[tuple[Path, "System"]]
    protocols: list["Protocol"]
    papers: list["Paper"]
    elsewhere: dict[str, str]
    found: dict[tuple[str, str], "Results"]
    speakers: dict[str, str]
    odd: set[tuple[str, str]]
    intervals: dict[tuple[str, str, str], "Interval | None"] = field(default_factory=dict)  # computed so far

    @cached_property
    def paths(self) -> dict[str, Path]:
        """The file of each system."""
        return {system.name: path for path, system in self.systems}

    @cached_property
    def in_papers(self) -> set[str]:
        """Names of the systems in a paper's table."""
        return {name for paper in self.papers for table in paper.tables for row in table.rows for name in row.systems}

    @cached_property
    def main_protocols(self) -> list["Protocol"]:
        """The honest protocols and those of the papers' tables, but for those with a section of their own. Without
        papers: all, the speaker-independent ones first."""
        tables = [table for paper in self.papers for table in paper.tables]
        names = [table.honest for table in tables] + [table.protocol for table in tables]
        chosen = [self.protocol(name) for name in dict.fromkeys(names) if name]
        chosen = chosen or sorted(
            self.protocols, key=lambda protocol: (protocol.select == "test", not is_apart(protocol))
        )
        return [protocol for protocol in chosen if not protocol.table]

    @cached_property
    def compared_protocols(self) -> list["Protocol"]:
        """Those under which systems are tested against the main one: as above, and all of the papers' tables."""
        of_papers = {table.protocol for paper in self.papers for table in paper.tables}
        more = [one for one in self.protocols if one.name in of_papers and one not in self.main_protocols]
        return self.main_protocols + more

    def is_in_tables(self, system: str, protocol: "Protocol") -> bool:
        """Whether a paper's table, or else that of the other systems, has a system under a protocol."""
        if system not in self.in_papers:
            return protocol in self.main_protocols
        tables = [table for paper in self.papers for table in paper.tables]
        return any(
            protocol.name in (table.protocol, table.honest) and any(system in row.systems for row in table.rows)
            for table in tables
        )

    def system(self, name: str) -> "System":
        """The system of this name."""
        return next(system for _, system in self.systems if system.name == name)

    def protocol(self, name: str) -> "Protocol":
        """The protocol of this name."""
        return next(protocol for protocol in self.protocols if protocol.name == name)

    def interval(self, system: str, protocol: str, metric: str) -> "Interval | None":
        """Mean and interval of a metric of METRICS; None if there are no scores to show."""
        from ser.metrics import METRICS
        from ser.statistics import interval

        place = system, protocol, metric
        if place not in self.intervals:
            runs = list(self.found[system, protocol].shown.values()) if system else []
            self.intervals[place] = interval(runs, METRICS[metric].of, self.speakers) if runs else None
        return self.intervals[place]

    def abouts(self, system: str, protocols: "Iterable[Protocol]") -> list[dict[str, str]]:
        """The header lines of a system's scores that are shown under some protocols."""
        return [scores.about for one in protocols for scores in self.found[system, one.name].shown.values()]


def is_apart(protocol: "Protocol") -> bool:
    """Whether a protocol's folds keep speakers apart, as far as its file tells."""
    return getattr(protocol.folds, "by", "") in ("spk", "sess")


def main(argv: list[str] | None = None) -> None:
    args = arguments(argv)

    from tqdm import tqdm

    from ser import tables
    from ser.draw_results import draw
    from ser.files import whole

    report = read(args.corpus, args.systems, args.main)
    text = "\n".join(lines_of(report, args)) + "\n"
    asked = {path.stem for path in args.systems} or set(report.paths)
    for line in tables.summary(report, asked):
        print(line, flush=True)
    rows = [place for place, results in report.found.items() if results.shown and place[0] in {*asked, report.main}]
    for name, protocol in tqdm(rows, desc="figures", leave=False, disable=None):
        is_linked = report.main in ("", name)
        draw(report.system(name), report.protocol(protocol), report.found[name, protocol], is_linked)
    with whole("RESULTS.md") as stream:
        stream.write(text)
    print(Path("RESULTS.md").resolve())
    if args.html:
        from ser import page

        page.write(Path("results.html"), report, text.split("\n"))
        print(Path("results.html").resolve())


def render(argv: list[str], only_committed: bool = True) -> str:
    """The text of RESULTS.md. argv: the arguments in the comment at its top. only_committed: from what is in git, not
    from local data/ or scores that were made here (own). Call it in the recipe's folder. Raises UserError for what
    cannot be read."""
    args = arguments(argv)
    return "\n".join(lines_of(read(args.corpus, args.systems, args.main, only_committed), args)) + "\n"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m ser.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", required=True, help="name of the corpus, as in its scores")
    parser.add_argument(
        "--systems",
        nargs="*",
        default=[],
        type=Path,
        metavar="YAML",
        help="systems whose rows are printed and figures drawn (default: all); those of other recipes become rows, too",
    )
    parser.add_argument(
        "--main",
        default="",
        help="name of the system that the others are tested against, and whose figures are shown (default: no tests, "
        "and all figures)",
    )
    parser.add_argument("--note", default="", help="a sentence to put first, such as why nothing was run")
    parser.add_argument(
        "--html", action="store_true", help="also write results.html, a page for a browser: tables, runs, sound"
    )
    return parser.parse_args(argv)


def lines_of(report: Report, args: argparse.Namespace) -> list[str]:
    """The lines of RESULTS.md."""
    from ser import details, tables
    from ser.statistics import FEWEST, METHOD
    from ser.tables import IN_FULL, MARKS

    lines = []
    for paper in report.papers:
        lines += ["", f"## {paper.name}", "", f"{paper.reference}."]
        for table in paper.tables:
            lines += ["", f"### {place_of(table)}: {table.title}", "", *tables.paper_table(report, paper, table)]
    if others := tables.other_systems(report):
        title = "Other systems on this corpus" if report.papers else "Systems"
        names = [protocol.name for protocol in report.main_protocols]
        order = (
            f"By UA under {names[0]}, the best first; systems that lack some of its folds come last." if names else ""
        )
        one = f'`./run.sh --systems FILE --protocol "{" ".join(names)}"` runs one; its file is under Systems and times.'
        lines += ["", f"## {title}", "", *[order, ""] * bool(names), *others, "", one]
    lines += other_sections(report)
    if report.main:
        text = wrapped(AGAINST.format(main=report.main, fewest=FEWEST).replace("\n", " "))
        lacking = [one.name for one in report.main_protocols if not report.found[report.main, one.name].shown]
        text += [f"{report.main} has no scores under {' and '.join(lacking)}, so nothing is compared there."] * bool(
            lacking
        )
        none = [f"No other system was run on the same utterances as {report.main}."]
        tests = tables.against(report)
        lines += ["", f"## Against {report.main}", "", *([*text, "", *tests] if tests else none)]
    lines += details.section(report)
    lines += ["", "## Protocols", "", *(line for one in report.protocols for line in describe(report, one))]
    lines += ["", "## Systems and times", "", *tables.costs(report)]
    lines += ["", "## Scores", "", *scores_section(report)]
    lines += ["", "## Figures", "", FIGURES, *[OTHERS] * bool(report.main), "", *figures_section(report)]
    marks = tables.used_marks(lines)
    how = HOW_TO_READ.format(method=METHOD, fewest=FEWEST) + "\n".join(f"- {mark} {IN_FULL[mark]}" for mark in marks)
    lines += ["", "## How to read the tables", "", *wrapped(how)]
    head = [f"# Results: {report.corpus}", "", own_command(args), "", *([args.note, ""] if args.note else [])]
    short = f"Marks: {'; '.join(f'{mark} {MARKS[mark]}' for mark in marks)}."
    return [*head, *INTRODUCTION.splitlines(), *(["", *wrapped(short)] if marks else []), *lines]


def wrapped(text: str) -> list[str]:
    """The lines of a text, those of more than 120 characters on several; the text of a list stays indented."""
    lines = []
    for line in text.splitlines():
        indent = "  " * line.startswith(("- ", "  "))
        lines += textwrap.wrap(line, 120, subsequent_indent=indent, break_on_hyphens=False) or [""]
    return lines


def own_command(args: argparse.Namespace) -> str:
    """The comment with the command that writes RESULTS.md; ser.verify calls it."""
    words = ["--corpus", args.corpus]
    more = [str(path) for path in args.systems if path.parts[0] != "conf"]  # those in conf/ are always rows
    words += [*["--systems"] * bool(more), *more, *(["--main", args.main] if args.main else [])]
    words += ["--note", args.note] if args.note else []
    return f"<!-- python -m ser.report {shlex.join(words)} -->"


def place_of(table: "Table") -> str:
    """`Table III`, `Table IV (five draws)`; a place that is no number stands as it is, such as `Section 5`."""
    first = table.number.partition(" ")[0]
    is_number = first.isdigit() or set(first) <= set("IVX")
    return "Table " * is_number + table.number


def read(corpus: str, more: list[Path], main: str, only_committed: bool = False) -> Report:
    """Read the recipe's systems, protocols, papers and scores. more: other system files. only_committed: as `render`
    needs it. Raises UserError if `main` is not one of the systems, or if a required file cannot be read."""
    from ser.papers import read_papers
    from ser.results import find, of_other_folds, read_speakers

    paths = find_systems(more, only_committed)
    protocols = read_protocols()
    names = [path.stem for path in paths]
    papers = read_papers(Path("conf/papers"), names, [protocol.name for protocol in protocols])
    in_papers = {name for paper in papers for table in paper.tables for row in table.rows for name in row.systems}
    systems = read_systems(paths, [path for path in paths if path in more or path.stem in in_papers])
    if main and main not in {system.name for _, system in systems}:
        raise UserError(f"--main {main}: no such system in conf/*/; give the name of one of them")
    papers.sort(key=lambda paper: -sum(len(table.rows) for table in paper.tables))  # the recipe's main paper first
    first = {table.protocol for paper in papers for table in paper.tables}
    protocols.sort(key=lambda protocol: protocol.name not in first)
    found = {
        (system.name, protocol.name): find(system, protocol, corpus, only_committed)
        for _, system in systems
        for protocol in protocols
    }
    elsewhere = published_elsewhere()
    odd = of_other_folds(found)
    return Report(corpus, main, systems, protocols, papers, elsewhere, found, read_speakers(), odd)


def published_elsewhere() -> dict[str, str]:
    """For each system in a paper's table of another recipe: corpus, table and numbers."""
    from ser.metrics import METRICS
    from ser.papers import read_papers

    found: dict[str, list[str]] = {}
    for recipe in sorted(path.parent.parent for path in Path("..").glob("*/conf/papers")):
        if recipe.resolve() == Path.cwd():
            continue
        for paper in read_papers(recipe / "conf" / "papers"):
            for table in paper.tables:
                for row in table.rows:
                    values = [
                        f"{METRICS[name].title} {value:g}"
                        for name in ("wa", "ua")
                        if (value := getattr(row, name)) is not None
                    ]
                    for name in row.systems:
                        text = ", ".join(values) or row.note
                        found.setdefault(name, []).append(f"{recipe.name}, {place_of(table)}: {text}")
    return {name: "; ".join(dict.fromkeys(places)) for name, places in found.items()}


def read_systems(paths: list[Path], required: list[Path]) -> list[tuple[Path, "System"]]:
    """The systems in some files, each with its file. A file that cannot be read is left out and reported on standard
    error; raises UserError if it is required or has scores."""
    from ser.config import read_system

    systems = []
    for path in paths:
        try:
            systems.append((path, read_system(path)))
        except UserError as error:
            if path in required or Path("results", path.stem).exists():
                raise
            print(f"left out, as it has no scores: {error}", file=sys.stderr)
    return systems


def find_systems(more: list[Path], only_committed: bool) -> list[Path]:
    """The system files in conf/, `more`, and those of other recipes that have scores here; each name once.
    only_committed: scores that were made here (own) do not count."""
    ran = {path.parts[1] for path in Path("results").glob("*/*/*.txt" if only_committed else "*/**/*.txt")}
    elsewhere = [path for path in sorted(Path("..").glob("*/conf/*/*.yaml")) if path.stem in ran]
    found: dict[str, Path] = {}
    for path in [*sorted(Path("conf").glob("*/*.yaml")), *more, *elsewhere]:
        if path.parent.name not in ("protocols", "papers"):
            found.setdefault(path.stem, path)
    return list(found.values())


def read_protocols() -> list["Protocol"]:
    """The protocols below conf/protocols. Raises UserError if two have the same name."""
    from ser.config import read_protocol

    paths: dict[str, Path] = {}
    for path in sorted(Path("conf/protocols").rglob("*.yaml")):
        other = paths.setdefault(path.stem, path)
        if other != path:
            raise UserError(f"{path}: {other} has the same name; rename one, since results are stored under it")
    return [read_protocol(path) for path in paths.values()]


def other_sections(report: Report) -> list[str]:
    """What is in none of the tables above, and the protocols that are to have a section of their own, by the title that
    their files give."""
    from ser import tables

    lines: list[str] = []
    for title in dict.fromkeys(protocol.table for protocol in report.protocols):
        table = tables.other_protocols(report, [protocol for protocol in report.protocols if protocol.table == title])
        lines += ["", f"## {title or 'Other protocols'}", "", *table] if table else []
    return lines


def describe(report: Report, protocol: "Protocol") -> list[str]:
    """A protocol's description, the number of its folds, and what their parts share, as counted by stage 1 and stored
    in the scores."""
    from ser.folds import in_words

    mark = (
        " **The test set selects the networks' epoch, so their numbers are optimistic.**"
        if protocol.select == "test"
        else ""
    )
    lines = [f"- Protocol **{protocol.name}**: {protocol.description}.{mark}"]
    folds_of: dict[str, set[str]] = {}
    total = 0
    for _, system in report.systems:
        for scores in report.found[system.name, protocol.name].shown.values():
            fold, _, of_all = scores.about["fold"].partition(" of ")
            total = int(of_all)
            folds_of.setdefault(scores.about["overlap"], set()).add(fold)
    if folds_of:
        lines.append(f"  - {in_words(total, folds_of)}")
    return lines + [f"  - fold {', '.join(sorted(folds, key=int))}: {overlap}" for overlap, folds in folds_of.items()]


def scores_section(report: Report) -> list[str]:
    """Which scores the tables show, and which they leave out and why."""
    every = [
        scores
        for results in report.found.values()
        for runs in (results.shown, results.beside, *results.left_out.values())
        for scores in runs.values()
    ]
    if not every:
        return ["None yet."]
    known = [scores for scores in every if scores.has_identity]
    complete = sum(scores.row["recordings"] != "unknown" for scores in known)
    total = (
        f"{len(every)} scores: {complete} with a complete identity (settings, code, folds, recordings), "
        f"{len(known) - complete} without the recordings' checksums, {len(every) - len(known)} of unknown origin."
    )
    listed: list[str] = []
    for (system, protocol), results in report.found.items():
        notes = left_out(results, f"./run.sh --systems {report.paths[system]} --protocol {protocol}")
        if (system, protocol) in report.odd:
            notes.append(
                "has other folds, speakers or recordings than most rows here, so it is not tested against them."
            )
        listed += [f"- **{system}**, {protocol}: {note}" for note in notes + remarks(results)]
    return [total, *[""] * bool(listed), *listed]


def left_out(results: "Results", command: str) -> list[str]:
    """Which scores are left out, and why. command: the one that runs the row."""
    notes = []
    for reason, runs in results.left_out.items():
        seeds = max(int(scores.about["seed"]) for scores in runs.values())
        options = f" --seeds {seeds}" * (seeds > 1) + " --replace true"
        remedy = f"to replace them, call `{command}{options} --overwrite true`"
        notes.append(f"left out {some(list(runs))}: {reason}; {remedy}.")
    return notes


def remarks(results: "Results") -> list[str]:
    """Other remarks on the scores that are shown."""
    from ser.tables import numbers

    notes = []
    if results.changed:
        notes.append(f"{' and '.join(results.changed)} in data/ have changed since these scores were made.")
    if results.beside:
        notes.append(f"the scores that came with the repository are shown; made here: {numbers(results.beside)}.")
    if results.is_own:
        notes.append("the scores shown were made here (own).")
    if len(results.trainers) > 1:
        commits = ", ".join(sorted(set(results.trainers.values())))
        notes.append(f"trained and scored by {len(results.trainers)} versions of the training code ({commits}).")
    return notes


def some(names: list[str]) -> str:
    """The first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def figures_section(report: Report) -> list[str]:
    """Links to the figures of the main system (of all systems if there is none) and to those of ser.draw_run."""
    from ser.draw_results import drawn, link, pictures

    lines: list[str] = []
    first: list[str] = []  # of the main system, for the first protocol that has scores
    for _, system in report.systems:
        for protocol in report.protocols:
            results = report.found[system.name, protocol.name]
            if not results.shown:
                continue
            linked = pictures(system, protocol, results) if report.main in ("", system.name) else {}
            linked |= drawn(system, protocol, results)
            lines += [link(system, protocol, linked)] * bool(linked)
            if system.name == report.main and not first:
                first = ["", *(f"![{path.stem}]({path})" for path in linked.values())]
    return lines + first


if __name__ == "__main__":
    cli.run(main)
