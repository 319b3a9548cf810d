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
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser import cli
from ser.cli import UserError
from ser.overview import END, START, standing_in

if TYPE_CHECKING:
    from ser.config import Protocol, System
    from ser.scores import Scores

Fault = tuple[str, str]  # place, such as a file or file:line; what is wrong there, and what to do
COMMAND = re.compile(r"^<!-- python -m ser\.report ?(.*) -->$", re.MULTILINE)  # in RESULTS.md: how it was written
COMMIT = re.compile(r"[0-9a-f]{7,40}( \(ser .+\))?")  # as ser.provenance records it for code that is in git
AGAIN = "restore it with git, or remove it and run stage 5 again"
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
    faults: list[Fault]


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
    if not (recipe / "conf").is_dir():
        raise UserError(f"{recipe}: not the folder of a recipe (it has no conf/)")
    shown = os.path.relpath(recipe)
    shown = "" if shown == "." else f"{shown}/"
    with standing_in(recipe):
        folders = sorted({path.parent for path in Path().glob("results/*/*/*.txt") if "+" not in path.parts[1]})
        systems, faults = read_systems({path.parts[1] for path in folders})
        protocols, more = read_protocols({path.parts[2] for path in folders})
        faults += more
        runs: dict[Path, Scores] = {}
        for folder in folders:
            found = check_folder(folder, Path.cwd().name, systems, protocols)
            runs |= found[0]
            faults += found[1]
        faults += check_identities(runs) + check_git()
        for name, (_, protocol) in protocols.items():
            faults += check_protocol({path: scores for path, scores in runs.items() if path.parts[2] == name}, protocol)
        n_lines, more = check_results()
        faults += more
    tell(faults, shown)
    return Checked(recipe, shown, runs, systems, protocols, n_lines, faults)


def tell(faults: list[Fault], shown: str) -> int:
    """Print faults; those of one kind in one folder as one line. Returns their number."""
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for place, what in faults:
        places[os.path.dirname(place), what].append(place)
    for (_, what), of_one in places.items():
        more = f" and {len(of_one) - 1} more" * (len(of_one) > 1)
        print(f"error: {cli.plain(f'{shown}{of_one[0]}{more}: {what}')}", file=sys.stderr, flush=True)
    return len(faults)


def fault_of(error: UserError) -> Fault:
    """An error about a file, whose message starts with the file's path."""
    place, _, what = str(error).partition(": ")
    return place, what


def read_systems(names: set[str]) -> tuple[dict[str, tuple[Path, "System"]], list[Fault]]:
    """The system files of some systems, of this recipe or another."""
    from ser.config import read_system
    from ser.report import find_systems

    paths = {path.stem: path for path in find_systems([], only_committed=True)}
    found, faults = {}, []
    for name in sorted(names):
        if name not in paths:
            what = f"no recipe has the system file conf/*/{name}.yaml; restore it, or remove these scores"
            faults.append((f"results/{name}", what))
            continue
        try:
            found[name] = paths[name], read_system(paths[name])
        except UserError as error:
            faults.append(fault_of(error))
    return found, faults


def read_protocols(names: set[str]) -> tuple[dict[str, tuple[Path, "Protocol"]], list[Fault]]:
    """The protocol files of some protocols of this recipe."""
    from ser.config import read_protocol

    paths = {path.stem: path for path in Path("conf/protocols").rglob("*.yaml")}
    found, faults = {}, []
    for name in sorted(names):
        if name not in paths:
            what = "no such protocol file, but there are scores in results/*/; restore it, or remove these scores"
            faults.append((f"conf/protocols/{name}.yaml", what))
            continue
        try:
            found[name] = paths[name], read_protocol(paths[name])
        except UserError as error:
            faults.append(fault_of(error))
    return found, faults


def check_folder(
    folder: Path,
    corpus: str,
    systems: dict[str, tuple[Path, "System"]],
    protocols: dict[str, tuple[Path, "Protocol"]],
) -> tuple[dict[Path, "Scores"], list[Fault]]:
    """Check the scores of a system under a protocol; return those without faults, and the faults."""
    from ser.identity import settings
    from ser.results import refuse_damaged
    from ser.scores import read_scores

    if folder.parts[1] not in systems or folder.parts[2] not in protocols:
        return {}, []  # that fault is known
    protocol = protocols[folder.parts[2]][1]
    now = {"system": settings(systems[folder.parts[1]][1]), "protocol": settings(protocol)}
    runs, faults = {}, []
    for path in sorted(folder.glob("*.txt")):
        try:
            scores = read_scores(path)
            refuse_damaged(path, scores)
        except UserError as error:
            faults.append(fault_of(error))
            continue
        found = [(str(path), what) for what in check_scores(path, scores, corpus, now, list(protocol.classes))]
        faults += found
        if not found:
            runs[path] = scores
    return runs, faults


def check_scores(path: Path, scores: "Scores", corpus: str, now: dict[str, Any], classes: list[str]) -> Iterator[str]:
    """What is wrong with scores by themselves. now: the settings of the system and protocol files. classes: those of
    the protocol."""
    import numpy as np

    from ser.results import mismatch
    from ser.scores import CHECKSUM

    about = scores.about
    place = {"corpus": corpus, "system": path.parts[1], "protocol": path.parts[2]}
    wrong = [f"{key} {about.get(key)}, not {value}" for key, value in place.items() if about.get(key) != value]
    fold, _, number = about["fold"].partition(" of ")
    if path.stem != f"fold{fold}_seed{about['seed']}" or not 1 <= int(fold) <= int(number):
        wrong.append(f"fold {about['fold']}, seed {about['seed']}, not {path.stem}")
    if wrong:
        yield f"scores of another run ({'; '.join(wrong)}); remove the copy"
        return
    if CHECKSUM not in about:
        yield f"has no {CHECKSUM}; {AGAIN}"
    if not COMMIT.fullmatch(about["commit"]):
        yield f"made at commit {about['commit']}, so by code that is not in git; commit the code, and train again"
    reason = mismatch(scores, now) if scores.has_identity else "of unknown origin: records no settings and no code"
    if reason:
        yield f"{reason}; restore the file in conf/, or run the stages again with --replace true"
    if classes != scores.classes:
        yield f"has other classes than the protocol; {AGAIN}"
    # each posterior is rounded to 6 digits, after it was computed with those of a float32
    uneven = np.abs(scores.posteriors.sum(1) - 1) > 0.5e-6 * len(scores.classes) + 1e-6
    if uneven.any():
        yield f"the posteriors of {scores.utts[int(uneven.argmax())]} do not sum to 1; {AGAIN}"
    # rounding keeps the order, so that the largest posterior is still the largest, or shares its place
    predicted = scores.posteriors[np.arange(len(scores.utts)), scores.predicted]
    lower = predicted < scores.posteriors.max(1)
    if lower.any():
        yield f"the predicted class of {scores.utts[int(lower.argmax())]} has not the largest posterior; {AGAIN}"


def check_identities(runs: dict[Path, "Scores"]) -> list[Fault]:
    """Scores that claim to be those of a run with other settings, fold or seed."""
    faults = []
    first: dict[str, tuple[tuple, Path]] = {}
    for path, scores in runs.items():
        what = (scores.settings("system"), scores.settings("protocol"), scores.about["fold"], scores.about["seed"])
        if "run" in scores.about:
            known, where = first.setdefault(scores.about["run"], (what, path))
            if known != what:
                faults.append((str(path), f"has the identity (run) of {where}, which is another run; remove the copy"))
    return faults


def check_git() -> list[Fault]:
    """Scores that differ from those in git, and those that git has and are gone. Who edits scores can compute their
    checksum again, so only git can tell. New scores are no fault here."""
    from ser.provenance import UNKNOWN, git

    faults = []
    for kind, what in (
        ("M", "differs from the file in git; restore it, or commit it if stage 5 wrote it"),
        ("D", "is in git, but not here; restore it with git, or commit its removal"),
    ):
        arguments = ("--name-only", "--relative", f"--diff-filter={kind}", "HEAD", "--", "results/*.txt")
        found = git(Path.cwd(), "diff", *arguments)
        faults += [] if found.startswith(UNKNOWN) else [(name, what) for name in found.splitlines()]
    return faults


def check_protocol(runs: dict[Path, "Scores"], protocol: "Protocol") -> list[Fault]:
    """Contradictions between the scores of a protocol: labels, test utterances, speakers."""
    faults = []
    labels: dict[str, tuple[str, Path]] = {}
    tested: dict[str, dict[str, tuple[list[str], Path]]] = defaultdict(dict)  # {folds: {fold: utterances and a file}}
    for path, scores in runs.items():
        for utt, number in zip(scores.utts, scores.true, strict=True):
            name, where = labels.setdefault(utt, (scores.classes[number], path))
            if name != scores.classes[number]:
                faults.append((str(path), f"{utt} is {scores.classes[number]}, but {name} in {where}; {AGAIN}"))
                break
        utts, where = tested[scores.row["folds"]].setdefault(scores.about["fold"], (scores.utts, path))
        if utts != scores.utts:
            faults.append((str(path), f"has other utterances than {where}, of the same fold; {AGAIN}"))
    times = getattr(protocol.folds, "test_parts", 0)  # how often each utterance is tested; 0: as chance has it
    if not times:
        return faults
    for of_folds in tested.values():
        counts = Counter(utt for utts, _ in of_folds.values() for utt in utts)
        often = [utt for utt, count in counts.items() if count > times]
        if often:
            first, *others = [str(path) for utts, path in of_folds.values() if often[0] in utts]
            faults.append((first, f"tests {often[0]}, as do other folds that are apart: {', '.join(others)}"))
    return faults + check_speakers(runs, tested)


def check_speakers(runs: dict[Path, "Scores"], tested: dict[str, dict[str, tuple[list[str], Path]]]) -> list[Fault]:
    """Whether results/utt2spk has the speakers that the scores were made with. tested: as in check_protocol; only folds
    that together test every utterance can tell."""
    from ser.identity import fingerprint
    from ser.results import read_speakers

    try:
        utt2spk = read_speakers()
    except UserError as error:
        return [fault_of(error)]
    faults = []
    for of_folds in tested.values() if utt2spk else ():
        utts = sorted({utt for utts, _ in of_folds.values() for utt in utts})
        first = next(iter(of_folds.values()))[1]
        lacking = [utt for utt in utts if utt not in utt2spk]
        if lacking:
            faults.append(("results/utt2spk", f"has no speaker of {lacking[0]}, of {first}; restore it with git"))
        elif len(of_folds) == int(runs[first].about["fold"].split(" of ")[1]):
            speakers = fingerprint([(utt, utt2spk[utt]) for utt in utts])
            others = [path for path, scores in runs.items() if scores.row["speakers"] != speakers]
            others = [path for path in others if runs[path].row["folds"] == runs[first].row["folds"]]
            if others:
                what = f"has other speakers than those that {others[0]} was made with; restore it with git"
                faults.append(("results/utt2spk", what))
    return faults


def check_results() -> tuple[int, list[Fault]]:
    """Write RESULTS.md again, to compare; return its number of lines, and the lines that differ."""
    from ser import report
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
    except UserError as error:
        return n_lines, [(str(path), f"cannot be written again: {error}")]
    except (SystemExit, ValueError):  # of argparse and shlex
        return n_lines, [(str(path), f"its command is damaged: {command[0]}; run stage 6")]
    if text != again and text == report.render(shlex.split(command[1]), only_committed=False):
        return n_lines, []  # with data/ and the scores that were made here (own)
    return n_lines, compare(str(path), text, again, 1, "run stage 6")


def check_overview() -> list[Fault]:
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


def compare(place: str, text: str, again: str, first: int, remedy: str) -> list[Fault]:
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
    from ser.identity import current_code, fingerprint, settings
    from ser.results import find
    from ser.runs import code_of

    rows: dict[tuple[str, str], list[Scores]] = defaultdict(list)
    for path, scores in checked.runs.items():
        rows[path.parts[1], path.parts[2]].append(scores)
    older = left_out = 0
    with standing_in(checked.recipe):
        for (name, protocol), runs in rows.items():
            system = checked.systems[name][1]
            code = current_code(fingerprint(dict(code_of(system))), settings(system))
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
