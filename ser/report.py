"""Stage 6: write RESULTS.md and the figures from the scores in results/.

Call it in the recipe's folder. Our numbers come from the scores in results/ (see ser/results.py). The papers' numbers
come from the system files, which also name the protocol that is meant to reproduce them. A row without scores says so
and gives the command that makes them. Systems of other recipes with scores in results/ are also rows.

The figures of the main system go to figures/, and RESULTS.md links them; those of the other systems go to
figures/others/, which git ignores. A figure is drawn again only when its numbers have changed.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ser import cli
from ser.cli import UserError

if TYPE_CHECKING:
    from ser.config import Protocol, System
    from ser.results import Results

INTRODUCTION = """\
Written by stage 6 from the scores in results/; never edited by hand.

- **WA**, weighted accuracy: the share of all test utterances that are classified correctly. **UA**, unweighted
  accuracy (UAR): the mean of the classes' recalls. Both in per cent.
- Mean and 95 % interval (Student's t) over folds; the seeds of a fold are averaged first, since they share its test
  utterances. With one fold only, the interval is over its seeds, is marked "(seeds)", and says nothing about other test
  speakers. Runs with the same posteriors, such as other seeds of an SVM, count once. A run is one fold with one seed.
- Only runs with the same settings, code, folds and recordings are averaged; the section Scores lists what is left out.
- **published**: the paper's number, beside ours under the protocol meant to reproduce it; **difference**: ours minus
  the published one.
- "not run": no scores with these settings; the row's command makes them. Scores with other settings are under Scores.
"""
FIGURES = "The numbers behind each picture are in a text file beside it."
OTHERS = (
    "Stage 6 draws the confusion matrices and learning curves of the other systems to `figures/others/`, "
    "which git ignores."
)


@dataclass(frozen=True)
class Report:
    """What RESULTS.md reports.

    main: name of the system that the others are tested against, "" for none. systems: one per row, each with its file.
    protocols: those of papers first. found: the scores by names of system and protocol. odd: the rows whose folds,
    speakers or recordings differ from those of most.
    """

    corpus: str
    main: str
    systems: list[tuple[Path, "System"]]
    protocols: list["Protocol"]
    found: dict[tuple[str, str], "Results"]
    odd: set[tuple[str, str]]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ser.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", required=True, help="name of the corpus, as in the paper rows of the system files")
    parser.add_argument(
        "--systems",
        nargs="*",
        default=[],
        type=Path,
        metavar="YAML",
        help="more rows: system files of other recipes (those in conf/ are always rows)",
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
    args = parser.parse_args(argv)

    from ser.files import whole

    report = read(args.corpus, args.systems, args.main)
    lines = [f"# Results: {args.corpus}", "", *([args.note, ""] if args.note else []), INTRODUCTION]
    lines += main_section(report)
    for title in dict.fromkeys(protocol.table for protocol in report.protocols if protocol.table):
        lines += section(report, title)
    lines += [*metrics_section(report), "", "## Scores", "", *scores_section(report)]
    print("\n".join(lines))
    lines += ["", "## Figures", "", FIGURES, *[OTHERS] * bool(report.main), "", *figures_section(report)]
    with whole("RESULTS.md") as stream:
        stream.write("\n".join(lines) + "\n")
    print(Path("RESULTS.md").resolve())
    if args.html:
        from ser import page

        page.write(Path("results.html"), report, lines)
        print(Path("results.html").resolve())


def read(corpus: str, more: list[Path], main: str) -> Report:
    """Read the recipe's systems, protocols and scores. more: other system files. Raises UserError if `main` is not one
    of the systems, or if a required file cannot be read."""
    from ser.results import find, of_other_folds

    systems = read_systems(more)
    if main and main not in {system.name for _, system in systems}:
        raise UserError(f"--main {main}: no such system in conf/*/; give the name of one of them")
    papers = {row.protocol for _, system in systems for row in system.paper if row.corpus == corpus}
    protocols = sorted(read_protocols(), key=lambda protocol: protocol.name not in papers)
    found = {
        (system.name, protocol.name): find(system, protocol, corpus) for _, system in systems for protocol in protocols
    }
    return Report(corpus, main, systems, protocols, found, of_other_folds(found))


def read_systems(more: list[Path]) -> list[tuple[Path, "System"]]:
    """The systems that are rows, each with its file. A file that cannot be read is left out and reported on standard
    error; raises UserError if it was asked for or has scores."""
    from ser.config import read_system

    systems = []
    for path in find_systems(more):
        try:
            systems.append((path, read_system(path)))
        except UserError as error:
            if path in more or Path("results", path.stem).exists():
                raise
            print(f"left out, as it has no scores: {error}", file=sys.stderr)
    return systems


def find_systems(more: list[Path]) -> list[Path]:
    """The system files in conf/, `more`, and those of other recipes that have results here; each name once."""
    ran = {folder.name for folder in Path("results").glob("*")}
    elsewhere = [path for path in sorted(Path("..").glob("*/conf/*/*.yaml")) if path.stem in ran]
    found: dict[str, Path] = {}
    for path in [*sorted(Path("conf").glob("*/*.yaml")), *more, *elsewhere]:
        if path.parent.name != "protocols":
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


def main_section(report: Report) -> list[str]:
    """The protocols without a table of their own, the main table, and the tests against the main system."""
    from ser import tables

    first = [protocol for protocol in report.protocols if not protocol.table]
    others = [protocol for protocol in report.protocols if protocol.table]
    rows = [
        (path, system)
        for path, system in report.systems
        if tables.is_row(system, report.corpus, first, report.found)
        or not tables.is_row(system, report.corpus, others, report.found)
    ]
    lines = [line for protocol in first for line in describe(report, protocol)]
    lines += ["", *tables.table(report.corpus, rows, first, report.found)]
    tests = against_main(report, report.systems, first)
    ran = any(report.found[system.name, protocol.name].shown for _, system in report.systems for protocol in first)
    if report.main and ran and not tests:
        tests = ["", f"No other system was run on the same utterances as {report.main}."]
    return lines + tests


def section(report: Report, title: str) -> list[str]:
    """The same for the protocols of a separate table, beside main-table protocols with the same split."""
    from ser import tables

    own = [protocol for protocol in report.protocols if protocol.table == title]
    beside = [
        protocol
        for protocol in report.protocols
        if not protocol.table and any(tables.same_split(protocol, other) for other in own)
    ]
    rows = [
        (path, system) for path, system in report.systems if tables.is_row(system, report.corpus, own, report.found)
    ]
    lines = ["", f"## {title}", ""]
    for protocol in own:
        lines += describe(report, protocol)
    table = tables.table(report.corpus, rows, beside + own, report.found) if rows else ["Not run."]
    return [*lines, "", *table, *against_main(report, rows, own)]


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
    return lines + [f"  - fold {', '.join(sorted(folds))}: {overlap}" for overlap, folds in folds_of.items()]


def against_main(report: Report, systems: list[tuple[Path, "System"]], protocols: list["Protocol"]) -> list[str]:
    """The tests of some systems against the main one; none if there is no main one."""
    from ser import tables

    return tables.against(report.main, systems, protocols, report.found, report.odd) if report.main else []


def metrics_section(report: Report) -> list[str]:
    """The metrics that are not in the main table."""
    from ser import tables

    return tables.other_metrics(report.systems, report.protocols, report.found)


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
    lines = [
        (
            f"{len(every)} scores: {complete} with a complete identity (settings, code, folds, recordings), "
            f"{len(known) - complete} without the recordings' checksums, {len(every) - len(known)} of unknown origin."
        ),
        "",
    ]
    paths = {system.name: path for path, system in report.systems}
    for (system, protocol), results in report.found.items():
        notes = left_out(results, f"./run.sh --systems {paths[system]} --protocol {protocol}")
        if (system, protocol) in report.odd:
            notes.append(
                "has other folds, speakers or recordings than most rows here, so it is not tested against them."
            )
        lines += [f"- **{system}**, {protocol}: {note}" for note in notes + remarks(results)]
    return lines


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
    """Draw the figures; return lines that link those of the main system (of all systems if there is none) and those of
    ser.draw_run."""
    from ser.draw_results import draw, drawn, link

    lines: list[str] = []
    first: list[str] = []  # of the main system, for the first protocol that has scores
    for _, system in report.systems:
        is_main = report.main in ("", system.name)
        for protocol in report.protocols:
            results = report.found[system.name, protocol.name]
            if not results.shown:
                continue
            pictures = draw(system, protocol, results, Path("figures", folder_of(results, is_main)))
            linked = (pictures if is_main else {}) | drawn(system, protocol, results)
            lines += [link(system, protocol, linked)] * bool(linked)
            if system.name == report.main and not first:
                first = ["", *(f"![{path.stem}]({path})" for path in linked.values())]
    return lines + first


def folder_of(results: "Results", is_main: bool) -> str:
    """The folder below figures/ for the figures of a row: only those of the main system are in git."""
    return "own" if results.is_own else "" if is_main else "others"


if __name__ == "__main__":
    cli.run(main)
