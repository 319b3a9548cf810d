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
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from ser import cli

if TYPE_CHECKING:
    from ser.config import Protocol
    from ser.recipe import Report
    from ser.results import Results

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
- **±**: {method}. With only two seeds it can be too narrow.
  No ± with fewer than {fewest} test speakers, or if the speaker of an utterance is unknown.
- **runs**: a run is one fold with one seed; "12 (2 seeds)" are six folds with two seeds each. In means and intervals,
  runs of a fold with the same posteriors, such as other seeds of an SVM, count once. Only runs with the same settings,
  code, folds and recordings are averaged; the section Scores lists what is left out.
- "not run": no scores; "outdated": only scores with other settings or code. The command below a table makes them.
"""
POOLED = """\
- **pooled**: over the test utterances of all folds together, for each seed, as the literature gives numbers where some
  fold does not test every class. The means over folds beside it are each over the classes that its fold tests.
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


def main(argv: list[str] | None = None) -> None:
    args = arguments(argv)

    from tqdm import tqdm

    from ser import adaptation_curve, tables
    from ser.draw_results import draw
    from ser.files import whole
    from ser.recipe import read

    report = read(args.corpus, args.systems, args.main)
    text = "\n".join(lines_of(report, args)) + "\n"
    asked = {path.stem for path in args.systems} or set(report.paths)
    for line in tables.summary(report, asked):
        print(line, flush=True)
    rows = [place for place, results in report.found.items() if results.shown and place[0] in {*asked, report.main}]
    for name, protocol in tqdm(rows, desc="figures", leave=False, disable=None):
        is_linked = report.main in ("", name)
        draw(report.system(name), report.protocol(protocol), report.found[name, protocol], is_linked)
    adaptation_curve.draw(report)
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
    from ser.recipe import read

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


def lines_of(report: "Report", args: argparse.Namespace) -> list[str]:
    """The lines of RESULTS.md."""
    from ser import adaptation_curve, details, tables
    from ser.recipe import place_of
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
        lines += ["", f"## {title}", ""]
        if names:
            lines += [f"By UA under {names[0]}, the best first; systems that lack some of its folds come last.", ""]
        one = f'`./run.sh --systems FILE --protocol "{" ".join(names)}"` runs one; its file is under Systems and times.'
        lines += [*others, "", one]
    lines += other_sections(report)
    lines += adaptation_curve.section(report)
    if report.main:
        text = wrapped(AGAINST.format(main=report.main, fewest=FEWEST).replace("\n", " "))
        lacking = [one.name for one in report.main_protocols if not report.found[report.main, one.name].shown]
        if lacking:
            text.append(f"{report.main} has no scores under {' and '.join(lacking)}, so nothing is compared there.")
        none = [f"No other system was run on the same utterances as {report.main}."]
        tests = tables.against(report)
        lines += ["", f"## Against {report.main}", "", *([*text, "", *tests] if tests else none)]
    lines += details.section(report)
    ran = {protocol for (_, protocol), results in report.found.items() if results.shown}
    listed = [protocol for protocol in report.protocols if not protocol.adapt or protocol.name in ran]
    lines += ["", "## Protocols", "", *(line for one in listed for line in describe(report, one))]
    lines += ["", "## Systems and times", "", *tables.costs(report)]
    lines += ["", "## Scores", "", *scores_section(report)]
    lines += ["", "## Figures", "", FIGURES, *[OTHERS] * bool(report.main), "", *figures_section(report)]
    marks = tables.used_marks(lines)
    how = HOW_TO_READ.format(method=METHOD, fewest=FEWEST) + POOLED * bool(report.unlike)
    how += "\n".join(f"- {mark} {IN_FULL[mark]}" for mark in marks)
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


def other_sections(report: "Report") -> list[str]:
    """What is in none of the tables above, and the protocols that are to have a section of their own, by the title that
    their files give."""
    from ser import tables

    lines: list[str] = []
    others = [protocol for protocol in report.protocols if not protocol.adapt]  # which have their own section
    for title in dict.fromkeys(protocol.table for protocol in others):
        table = tables.other_protocols(report, [protocol for protocol in others if protocol.table == title])
        lines += ["", f"## {title or 'Other protocols'}", "", *table] if table else []
    return lines


def describe(report: "Report", protocol: "Protocol") -> list[str]:
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


def scores_section(report: "Report") -> list[str]:
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


def figures_section(report: "Report") -> list[str]:
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
