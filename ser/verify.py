"""Check every RESULTS.md against the committed scores, and the scores against the tree; write nothing.

It needs no corpus, and may be called in any folder. It fails, with one line for each fault, if

- a line of a RESULTS.md, or of the overview in README.md, differs from what the scores give;
- scores were changed by hand, contradict themselves or each other, or stand in the wrong place, such as another corpus;
- they were made with other settings than those of the system and protocol files, or by code that is not in git;
- they differ from the same file in git.

With --rerun it also trains some of the committed runs again, where the corpus is prepared (stage 0), in a temporary
folder, and compares the scores. Folds and features that are missing are made in data/ and dump/; exp/ and results/ are
not touched.
"""

import argparse
import difflib
import itertools
import os
import re
import shlex
import sys
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ser import cli
from ser.cli import UserError
from ser.files import standing_in
from ser.overview import END, START

if TYPE_CHECKING:
    from ser.check_scores import Fault
    from ser.config import Protocol, System
    from ser.scores import Scores

COMMAND = re.compile(r"^<!-- python -m ser\.report ?(.*) -->$", re.MULTILINE)  # in RESULTS.md: how it was written
MOST_LINES = 10  # of one file that are named
WINDOW = 60  # characters of a line that are shown


@dataclass(frozen=True)
class Checked:
    """A recipe. shown: its folder as messages name it, with a slash, or "". runs: the scores without faults, by path in
    the recipe. systems, protocols: those with scores, by name, each with its file. n_lines: of RESULTS.md."""

    recipe: Path
    shown: str
    runs: dict[Path, "Scores"]
    systems: dict[str, tuple[Path, "System"]]
    protocols: dict[str, tuple[Path, "Protocol"]]
    n_lines: int
    faults: list["Fault"]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ser.verify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "recipes",
        nargs="*",
        type=Path,
        metavar="RECIPE",
        help="folders of recipes (default: those in egs/ whose RESULTS.md is in git, and the overview in README.md)",
    )
    parser.add_argument("--rerun", type=int, default=0, metavar="N", help="train N committed runs again (default 0)")
    parser.add_argument("--seed", type=int, default=1, help="of the choice of these runs (default 1)")
    parser.add_argument(
        "--max-minutes",
        type=float,
        default=10,
        metavar="M",
        help="choose only runs whose training took M minutes or less (default 10)",
    )
    args = parser.parse_args(argv)
    if args.rerun < 0:
        parser.error(f"--rerun {args.rerun}: must be 0 or more")

    checked = []
    for recipe in args.recipes or committed_recipes():
        checked.append(check(recipe))
        print(summary(checked[-1]), flush=True)
    n_faults = sum(len(one.faults) for one in checked)
    if not args.recipes:
        n_faults += tell(check_overview(), "")
    if args.rerun:
        from ser.rerun import rerun

        n_faults += rerun(checked, args.rerun, args.seed, args.max_minutes)
    if n_faults:
        raise UserError(f"{n_faults} fault{'s' * (n_faults > 1)} (see above)")


def committed_recipes() -> list[Path]:
    """The recipes whose RESULTS.md is in git."""
    from ser.identity import ROOT
    from ser.provenance import is_committed

    folders = sorted(path.parent for path in (ROOT / "egs").glob("*/conf"))
    found = [path for path in folders if (path / "RESULTS.md").exists() or (path / "results").exists()]
    return [path for path in found if is_committed(path / "RESULTS.md")]


def check(recipe: Path) -> Checked:
    """Check a recipe, and print its faults."""
    from ser import check_scores as checks

    if not (recipe / "conf").is_dir():
        raise UserError(f"{recipe}: not the folder of a recipe (it has no conf/)")
    shown = os.path.relpath(recipe)
    shown = "" if shown == "." else f"{shown}/"
    with standing_in(recipe):
        folders = sorted({path.parent for path in Path().glob("results/*/*/*.txt") if "+" not in path.parts[1]})
        systems, faults = checks.read_systems({path.parts[1] for path in folders})
        protocols, more = checks.read_protocols({path.parts[2] for path in folders})
        faults += more
        runs: dict[Path, Scores] = {}
        for folder in folders:
            found = checks.check_folder(folder, Path.cwd().name, systems, protocols)
            runs |= found[0]
            faults += found[1]
        faults += checks.check_identities(runs) + checks.check_git()
        for name, (_, protocol) in protocols.items():
            faults += checks.check_protocol(
                {path: scores for path, scores in runs.items() if path.parts[2] == name}, protocol
            )
        n_lines, more = check_results()
        faults += more
    tell(faults, shown)
    return Checked(recipe, shown, runs, systems, protocols, n_lines, faults)


def tell(faults: list["Fault"], shown: str) -> int:
    """Print faults; those of one kind in one folder as one line. Returns their number."""
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for place, what in faults:
        places[os.path.dirname(place), what].append(place)
    for (_, what), of_one in places.items():
        more = f" and {len(of_one) - 1} more" * (len(of_one) > 1)
        print(f"error: {cli.plain(f'{shown}{of_one[0]}{more}: {what}')}", file=sys.stderr, flush=True)
    return len(faults)


def check_results() -> tuple[int, list["Fault"]]:
    """Write RESULTS.md again, to compare; return its number of lines, and the lines that differ."""
    from ser import report
    from ser.check_scores import fault_of
    from ser.derive_systems import FOLDER
    from ser.files import read_text

    path = Path("RESULTS.md")
    if not path.exists():
        return 0, [(str(path), "no such file; run stage 6")]
    try:
        text = read_text(path)
    except UserError as error:
        return 0, [fault_of(error)]
    n_lines = text.count("\n")
    command = COMMAND.search(text)
    if not command:
        return n_lines, [(str(path), "no line `<!-- python -m ser.report ... -->` says how to write it; run stage 6")]
    if f"{FOLDER}/" in command[1]:
        return n_lines, [(str(path), "shows systems of run.sh --set, which are not in git; run stage 6 without --set")]
    try:
        again = report.render(shlex.split(command[1]))
        if text != again and text == report.render(shlex.split(command[1]), only_committed=False):
            return n_lines, []  # with data/ and the scores that were made here (own)
    except UserError as error:
        return n_lines, [(str(path), f"cannot be written again: {error}")]
    except (SystemExit, ValueError):  # of argparse and shlex
        return n_lines, [(str(path), f"its command is damaged: {command[0]}; run stage 6")]
    return n_lines, compare(str(path), text, again, 1, "run stage 6")


def check_overview() -> list["Fault"]:
    """The lines of README.md's overview that differ from what the recipes give."""
    from ser import overview
    from ser.files import read_text

    place = os.path.relpath(overview.README)
    before, _, rest = read_text(overview.README).partition(f"{START}\n")
    there, end, _ = rest.partition(f"\n{END}")
    if not end:
        return [(place, f"has no lines {START} and {END}; restore them with git")]
    try:
        again = overview.render()
    except UserError as error:
        return [(place, f"its overview cannot be written again: {error}")]
    return compare(place, there, again, before.count("\n") + 2, "call `python -m ser.overview`")


def compare(place: str, text: str, again: str, first: int, remedy: str) -> list["Fault"]:
    """The lines of a text that differ from those of the text written again, each with both. first: number of the first
    line."""
    old, new = text.split("\n"), again.split("\n")
    faults = []
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for kind, start, end, other_start, other_end in matcher.get_opcodes():
        if kind == "equal":
            continue
        pairs = itertools.zip_longest(old[start:end], new[other_start:other_end])
        for number, (line, wanted) in enumerate(pairs, first + start):
            if line is None:
                what = f"the scores also give {excerpt(wanted, '')} here"
            elif wanted is None:
                what = f"says {excerpt(line, '')}, which the scores do not give"
            else:
                what = f"says {excerpt(line, wanted)}, but the scores give {excerpt(wanted, line)}"
            faults.append((f"{place}:{number}", f"{what}; {remedy}"))
    rest = faults[MOST_LINES:]
    return faults[:MOST_LINES] + [(place, f"{len(rest)} more lines differ; {remedy}")] * bool(rest)


def excerpt(line: str, other: str) -> str:
    """The part of a line, in quotation marks, where it starts to differ from another."""
    common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(line, other, strict=False)))
    start = line.rfind(" ", 0, max(0, common - WINDOW // 3)) + 1
    part = line[start : start + WINDOW]
    return f'"{"... " * (start > 0)}{part}{" ..." * (start + WINDOW < len(line))}"'


def summary(checked: Checked) -> str:
    """What was checked in a recipe, how many faults there are, and what is no fault but worth knowing."""
    from ser.results import code_now, find

    rows: dict[tuple[str, str], list[Scores]] = defaultdict(list)
    for path, scores in checked.runs.items():
        rows[path.parts[1], path.parts[2]].append(scores)
    older = left_out = 0
    with standing_in(checked.recipe):
        for (name, protocol), runs in rows.items():
            system = checked.systems[name][1]
            code = code_now(system, checked.protocols[protocol][1])
            older += sum(scores.current_row["code"] != code for scores in runs)
            if len({tuple(scores.current_row.items()) for scores in runs}) > 1:
                with suppress(UserError):  # of scores beside these, which was told
                    found = find(system, checked.protocols[protocol][1], Path.cwd().name, only_committed=True)
                    left_out += sum(map(len, found.left_out.values()))
    words = [
        f"{len(checked.runs)} scores of {len(checked.systems)} systems",
        f"{checked.n_lines} lines of RESULTS.md",
        f"{len(checked.faults) or 'no'} fault{'s' * (len(checked.faults) != 1)}",
    ]
    remarks = [
        f"{older} scores made by other code of the feature or model than this tree's" * (older > 0),
        f"{left_out} of other code, folds or recordings than those shown are left out of the tables" * (left_out > 0),
    ]
    told = "; ".join(remark for remark in remarks if remark)
    return f"{checked.shown or './'}: {', '.join(words)}{f' ({told})' if told else ''}"


if __name__ == "__main__":
    cli.run(main)
