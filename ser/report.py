"""Stage 6: write RESULTS.md and the figures from the scores in results/.

Call it in the recipe's folder. Every number comes from the scores in results/ (see ser/results.py); the papers'
numbers from the system files, which say under which protocol they are to come out. A row without scores
says so, with the command that would make them. Systems of other recipes that have scores in results/ are
rows too.
"""

import argparse
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ser import cli
from ser.cli import UserError

if TYPE_CHECKING:
    import numpy as np

    from ser.config import PaperRow, Protocol, System
    from ser.results import Results, Runs
    from ser.scores import Scores

INTRODUCTION = """\
Written by stage 6 from the scores in results/; never edited by hand.

- **WA**, weighted accuracy: the share of all test utterances that are right. **UA**, unweighted
  accuracy (UAR): the mean of the classes' recalls. Both in per cent.
- Mean and 95 % interval (Student's t) over folds; the seeds of a fold are averaged first, since they share its test
  utterances. Of one fold the interval is over its seeds, and says so: it tells nothing of other test speakers. Runs
  that say the same of every utterance, as another seed of an SVM does, count once. A run is one fold with one seed.
- Only runs that are the same in settings, code, folds and recordings are averaged; what is left out is told below.
- **published**: the paper's number, beside ours under the protocol that is to give it; **difference**: ours less
  the published one.
- "not run": no scores yet; the row's command makes them.
"""

MEASURES = ("wa", "ua")
MARKS = {
    "†": "the test set selected the networks' epoch; an SVM's settings are chosen inside the training part.",
    "§": "made by other code for feature or model than this tree has, or of other recordings or folds than data/ has, or before "
    "scores noted the checksums of the recordings.",
    "‡": "speakers of the test set are in the training set too: of new voices the numbers say nothing.",
}
SHARED_SPEAKERS = re.compile(r"train and test share [1-9]\d* of \d+ speakers")  # as stage 1 words it


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ser.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--corpus", required=True, help="name of the corpus, as the papers' rows in the system files have it"
    )
    parser.add_argument(
        "--systems",
        nargs="*",
        default=[],
        type=Path,
        metavar="YAML",
        help="further rows: system files of other recipes (those in conf/ are rows always)",
    )
    parser.add_argument("--main", default="", help="name of the system that the others are tested against")
    parser.add_argument("--note", default="", help="a sentence to put first, where nothing was run")
    args = parser.parse_args(argv)

    from ser.config import read_system
    from ser.files import whole
    from ser.results import find

    protocols = read_protocols()
    systems = []
    for path in find_systems(args.systems):
        try:
            systems.append((path, read_system(path)))
        except UserError as error:
            if path in args.systems or Path("results", path.stem).exists():
                raise
            print(f"left out, nothing was run of it: {error}", file=sys.stderr)
    papers = {row.protocol for _, system in systems for row in system.paper if row.corpus == args.corpus}
    protocols.sort(key=lambda protocol: protocol.name not in papers)
    if args.main and args.main not in {system.name for _, system in systems}:
        raise UserError(f"--main {args.main}: no such system in conf/*/; take the name of one that is")
    found = {
        (system.name, protocol.name): find(system, protocol, args.corpus)
        for _, system in systems
        for protocol in protocols
    }
    scored = {key: results.shown for key, results in found.items()}
    odd = of_other_folds(found)
    alike = {key: {} if key in odd else runs for key, runs in scored.items()}

    first = [protocol for protocol in protocols if not protocol.table]
    lines = [f"# Results: {args.corpus}", "", *([args.note, ""] if args.note else []), INTRODUCTION]
    for protocol in first:
        lines += describe(protocol, [scored[system.name, protocol.name] for _, system in systems])
    asides = [protocol for protocol in protocols if protocol.table]
    rows = [
        (path, system)
        for path, system in systems
        if is_row(system, args.corpus, first, scored) or not is_row(system, args.corpus, asides, scored)
    ]
    lines += ["", *table(args.corpus, rows, first, found)]
    if args.main:
        tested = against(args.main, [system for _, system in systems], first, alike)
        ran = any(scored[system.name, protocol.name] for _, system in systems for protocol in first)
        if not tested and ran:
            tested = ["", f"Nothing was run beside {args.main} on the same utterances."]
        lines += tested
    for title in dict.fromkeys(protocol.table for protocol in asides):
        own = [protocol for protocol in asides if protocol.table == title]
        lines += ["", f"## {title}", ""]
        for protocol in own:
            lines += describe(protocol, [scored[system.name, protocol.name] for _, system in systems])
        rows = [(path, system) for path, system in systems if is_row(system, args.corpus, own, scored)]
        beside = [protocol for protocol in first if any(same_split(protocol, other) for other in own)]
        told = table(args.corpus, rows, beside + own, found) if rows else ["Not run."]
        lines += ["", *told]
        if args.main:
            lines += against(args.main, [system for _, system in rows], own, alike)
    paths = {system.name: path for path, system in systems}
    lines += ["", "## Scores", "", *tell_scores(found, odd, paths)]
    print("\n".join(lines))
    lines += ["", "## Figures", "", "Each picture has its numbers beside it, as text.", ""]
    shown: list[str] = []  # of the main system, under the first protocol that it was run under
    for _, system in systems:
        for protocol in protocols:
            if scored[system.name, protocol.name]:
                pictures = draw(system, protocol, found[system.name, protocol.name])
                lines.append(link(system, protocol, pictures))
                if system.name == args.main and not shown:
                    shown = ["", *(f"![{path.stem}]({path})" for path in pictures.values())]
    lines += shown
    with whole("RESULTS.md") as stream:
        stream.write("\n".join(lines) + "\n")
    print(Path("RESULTS.md").resolve())


def read_protocols() -> list["Protocol"]:
    """The protocols below conf/protocols. Raises UserError where two have one name."""
    from ser.config import read_protocol

    paths: dict[str, Path] = {}
    for path in sorted(Path("conf/protocols").rglob("*.yaml")):
        other = paths.setdefault(path.stem, path)
        if other != path:
            raise UserError(f"{path}: {other} has that name too; rename one, since results are told by it")
    return [read_protocol(path) for path in paths.values()]


def find_systems(more: list[Path]) -> list[Path]:
    """The system files in conf/, `more`, and those of other recipes that have results here; a name once."""
    ran = {folder.name for folder in Path("results").glob("*")}
    elsewhere = [path for path in sorted(Path("..").glob("*/conf/*/*.yaml")) if path.stem in ran]
    found: dict[str, Path] = {}
    for path in [*sorted(Path("conf").glob("*/*.yaml")), *more, *elsewhere]:
        if path.parent.name != "protocols":
            found.setdefault(path.stem, path)
    return list(found.values())


def describe(protocol: "Protocol", of_systems: "list[Runs]") -> list[str]:
    """What a protocol is, and what its parts share, as counted by stage 1 and kept with the scores."""
    mark = (
        " **The test set selects the networks' epoch: their numbers are too good.**"
        if protocol.select == "test"
        else ""
    )
    lines = [f"- Protocol **{protocol.name}**: {protocol.description}.{mark}"]
    folds_of: dict[str, set[str]] = {}
    for runs in of_systems:
        for run in runs.values():
            folds_of.setdefault(run.about["overlap"], set()).add(run.about["fold"].split()[0])
    return lines + [f"  - fold {', '.join(sorted(folds))}: {overlap}" for overlap, folds in folds_of.items()]


def table(
    corpus: str,
    systems: list[tuple[Path, "System"]],
    protocols: list["Protocol"],
    found: dict[tuple[str, str], "Results"],
) -> list[str]:
    """The lines of a table: a row a system, a protocol after the other, each with the paper's numbers."""
    from ser import metrics

    scored = {key: results.shown for key, results in found.items()}
    papers = {
        protocol.name: [row for _, system in systems for row in numbers_of(system, corpus, protocol)]
        for protocol in protocols
    }
    published = {
        (protocol.name, measure): any(getattr(row, measure) is not None for row in papers[protocol.name])
        for protocol in protocols
        for measure in MEASURES
    }
    rows = [["system", "paper's table"]]
    for protocol in protocols:
        for measure in MEASURES:
            rows[0].append(f"{marked(protocol, scored)} {measure.upper()}")
            rows[0] += [f"published {measure.upper()}", "difference"] * published[protocol.name, measure]
        rows[0].append("runs")
    rows[0] += ["parameters", "minutes a run", "command"]
    for path, system in systems:
        row = [f"**{system.name}**: {system.description}", "; ".join(tables_of(system, corpus, protocols)) or "–"]
        about: list[dict[str, str]] = []
        ran: list[str] = []
        for protocol in protocols:
            runs = list(scored[system.name, protocol.name].values())
            of_paper = numbers_of(system, corpus, protocol)
            for measure in MEASURES:
                ours = of_folds(runs, getattr(metrics, measure))
                row.append(interval(ours))
                if published[protocol.name, measure]:
                    told = [value for paper in of_paper if (value := getattr(paper, measure)) is not None]
                    row.append("; ".join(f"{value:g}" for value in told) or "–")
                    row.append("; ".join(f"{mean_of(ours) - value:+.1f}" for value in told if runs) or "–")
            row.append(n_runs(runs) + marks_of(found[system.name, protocol.name]))
            about += [scores.about for scores in runs]
            ran += [protocol.name] * bool(runs or of_paper)
        parameters = sorted({int(one["parameters"]) for one in about if "parameters" in one})
        if any("vectors none" in one.get("inputs", "") for one in about):
            row[0] += " (**word vectors learned from nothing**)"
        minutes = [float(one["train_seconds"]) / 60 for one in about]
        row.append(
            " to ".join(f"{number:,}" for number in sorted({*parameters[:1], *parameters[-1:]})) or "–"
        )
        row.append(f"{sum(minutes) / len(minutes):.1f}" if minutes else "–")
        rows.append([*row, command(path, about, ran)])
    told = {mark: text for mark, text in MARKS.items() if mark in "".join(map("".join, rows))}
    return as_lines(rows) + [line for mark, text in told.items() for line in ("", f"{mark} {text}")]


def numbers_of(system: "System", corpus: str, protocol: "Protocol") -> list["PaperRow"]:
    """What a paper has for a system on this corpus, where this protocol is to give it."""
    return [paper for paper in system.paper if (paper.corpus, paper.protocol) == (corpus, protocol.name)]


def tables_of(system: "System", corpus: str, protocols: list["Protocol"]) -> list[str]:
    """Where the numbers of a system stand in its paper: those that are to come out under these protocols, else those
    under others; those of other corpora, told so, where there are none."""
    under_these = [paper for protocol in protocols for paper in numbers_of(system, corpus, protocol)]
    here = under_these or [paper for paper in system.paper if paper.corpus == corpus]
    return [paper.table for paper in here] or [
        f"on {paper.corpus}: {paper.table}"
        + "".join(
            f", {name} {value:g}" for name, value in (("WA", paper.wa), ("UA", paper.ua)) if value is not None
        )
        for paper in system.paper
    ]


def against(
    main: str, systems: list["System"], protocols: list["Protocol"], scored: "dict[tuple[str, str], Runs]"
) -> list[str]:
    """The lines of the table that tests each system against the main one; none if none was run where it was."""
    import numpy as np

    from ser import metrics

    title = [
        "",
        f"{'###' if any(protocol.table for protocol in protocols) else '##'} Against {main}",
        "",
        (
            f"WA less that of {main} on the utterances that both have scored, each with the mean of its runs, and p "
            "of a paired permutation test over these utterances. It takes them for independent, though a "
            "speaker's are not, and knows nothing of what another seed would give: a small p says that the two "
            "differ on these utterances."
        ),
        "",
    ]
    rows = [
        [
            "system",
            *(f"{marked(protocol, scored)} {cell}" for protocol in protocols for cell in ("WA", "p")),
        ]
    ]
    of_main = {protocol.name: rights(scored[main, protocol.name]) for protocol in protocols}
    for system in systems:
        row = [f"**{system.name}**"]
        for protocol in protocols:
            one, other = rights(scored[system.name, protocol.name]), of_main[protocol.name]
            differences = np.array([one[utt] - other[utt] for utt in sorted(one.keys() & other.keys())])
            if system.name == main or not len(differences):
                row += ["–", "–"]
            else:
                p = metrics.paired_p(differences)
                row += [f"{100 * differences.mean():+.1f}", f"{p:.3f}" if p >= 0.001 else "< 0.001"]
        rows.append(row)
    rows = [rows[0], *(row for row in rows[1:] if set(row[1:]) != {"–"})]
    return title + as_lines(rows) if len(rows) > 1 else []


def same_split(one: "Protocol", other: "Protocol") -> bool:
    """Whether two protocols have the same utterances on the same sides."""
    return all(getattr(one, key) == getattr(other, key) for key in ("classes", "where", "folds", "select"))


def is_row(
    system: "System", corpus: str, protocols: list["Protocol"], scored: "dict[tuple[str, str], Runs]"
) -> bool:
    """Whether a system belongs into the table of these protocols: it was run under one, or its paper's number is to
    come out under one."""
    return any(
        scored[system.name, protocol.name] or numbers_of(system, corpus, protocol) for protocol in protocols
    )


def marked(protocol: "Protocol", scored: "dict[tuple[str, str], Runs]") -> str:
    """Name of a protocol in a table's head, with the marks of what makes its numbers too good."""
    runs = [run for (_, name), of_one in scored.items() if name == protocol.name for run in of_one.values()]
    known = any(SHARED_SPEAKERS.search(scores.about["overlap"]) for scores in runs)
    return protocol.name + "†" * (protocol.select == "test") + "‡" * known


def as_lines(rows: list[list[str]]) -> list[str]:
    """A table of Markdown; the first row is its head."""
    return ["| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]]]


def command(path: Path, about: list[dict[str, str]], protocols: list[str]) -> str:
    """The command that makes the scores of a system under some protocols."""
    seeds = max((int(one["seed"]) for one in about), default=1)
    names = (
        f' --protocol "{" ".join(protocols)}"'
        if len(protocols) > 1
        else "".join(f" --protocol {name}" for name in protocols)
    )
    vectors = any(re.search(r"\bvectors (?!none)", one.get("inputs", "")) for one in about)
    more = " --glove FILE" * vectors + f" --seeds {seeds}" * (seeds > 1)
    return f"`./run.sh --systems {path}{names}{more}`"


def confusion_of(scores: "Scores") -> "np.ndarray":
    """Counts (C, C) of a run."""
    from ser import metrics

    return metrics.confusion_matrix(scores.true, scores.predicted, len(scores.classes))


def rights(runs: "Runs") -> dict[str, float]:
    """For each utterance the share of the runs that tested it in which it was right."""
    import numpy as np

    answers = defaultdict(list)
    for scores in runs.values():
        for utt, right in zip(scores.utts, scores.true == scores.predicted, strict=True):
            answers[utt].append(right)
    return {utt: float(np.mean(right)) for utt, right in answers.items()}


def n_runs(runs: list["Scores"]) -> str:
    """Number of runs of one system under one protocol, and of their folds where some are missing."""
    if not runs:
        return "0"
    folds = {scores.about["fold"] for scores in runs}
    total = int(runs[0].about["fold"].split(" of ")[1])
    return f"{len(runs)}" if len(folds) == total else f"{len(runs)} ({len(folds)} of {total} folds)"


def of_folds(runs: list["Scores"], measure: Callable[["np.ndarray"], float]) -> list[list[float]]:
    """A measure of each run, put together by fold. Runs of a fold that say the same of every utterance count once:
    another seed that changes nothing is no further evidence."""
    values: dict[str, dict[bytes, float]] = defaultdict(dict)
    for scores in runs:
        values[scores.about["fold"]][scores.posteriors.tobytes()] = measure(confusion_of(scores))
    return [list(of_fold.values()) for of_fold in values.values()]


def mean_of(values: list[list[float]]) -> float:
    """The mean over folds of the mean over a fold's seeds."""
    means = [sum(of_fold) / len(of_fold) for of_fold in values]
    return sum(means) / len(means)


def interval(values: list[list[float]]) -> str:
    """Mean and half the width of its 95 % interval, of values of each fold: over the folds, whose seeds are averaged
    first; of one fold over its seeds."""
    from ser import metrics

    if not values:
        return "not run"
    told = f"{mean_of(values):.1f}"
    if len(values) > 1:
        return f"{told} ± {metrics.half_interval([sum(of_fold) / len(of_fold) for of_fold in values]):.1f}"
    return f"{told} ± {metrics.half_interval(values[0]):.1f} (seeds)" if len(values[0]) > 1 else told


def marks_of(results: "Results") -> str:
    """What a reader must know of the runs that are shown."""
    return " own" * results.is_own + " §" * (results.is_older or bool(results.changed))


def of_other_folds(found: dict[tuple[str, str], "Results"]) -> set[tuple[str, str]]:
    """The rows of a protocol that are of other folds, speakers or recordings than most of it, by system and
    protocol; recordings whose checksums are unknown are taken for the same."""
    odd = set()
    for part in ("folds", "speakers", "recordings"):
        values: dict[str, dict[str, str]] = defaultdict(dict)  # {protocol: {system: fingerprint}}
        for (system, protocol), results in found.items():
            for scores in list(results.shown.values())[:1]:
                if scores.row[part] != "unknown":
                    values[protocol][system] = scores.row[part]
        for protocol, of_systems in values.items():
            most = Counter(of_systems.values()).most_common(1)[0][0]
            odd |= {(system, protocol) for system, value in of_systems.items() if value != most}
    return odd


def tell_scores(
    found: dict[tuple[str, str], "Results"], odd: set[tuple[str, str]], paths: dict[str, Path]
) -> list[str]:
    """The lines that say what the tables are made of, and which scores are left out of them, and why."""
    every = [
        scores
        for results in found.values()
        for runs in (results.shown, results.beside, *results.left_out.values())
        for scores in runs.values()
    ]
    if not every:
        return ["None yet."]
    known = [scores for scores in every if scores.has_identity]
    whole = sum(scores.row["recordings"] != "unknown" for scores in known)
    lines = [
        f"{len(every)} scores: {whole} with a whole identity (settings, code, folds, recordings), {len(known) - whole} "
        f"without the recordings' checksums, {len(every) - len(known)} of unknown origin.",
        "",
    ]
    for (system, protocol), results in found.items():
        place = f"- **{system}**, {protocol}:"
        for reason, runs in results.left_out.items():
            seeds = max(int(scores.about["seed"]) for scores in runs.values())
            options = f" --seeds {seeds}" * (seeds > 1) + " --replace true"
            remedy = f"`./run.sh --systems {paths[system]} --protocol {protocol}{options}` makes them anew, once their folders in exp/ are out of the way"
            lines.append(f"{place} left out {some(list(runs))}: {reason}; {remedy}.")
        if (system, protocol) in odd:
            lines.append(f"{place} of other folds, speakers or recordings than most rows here, and not tested against them.")
        if results.changed:
            lines.append(f"{place} data/ has other {' and '.join(results.changed)} now than these scores were made of.")
        if results.beside:
            lines.append(f"{place} shown are the published scores; made here, beside them: {numbers(results.beside)}.")
        if results.is_own:
            lines.append(f"{place} shown are the scores made here (own).")
        if len(results.trainers) > 1:
            commits = ", ".join(sorted(set(results.trainers.values())))
            lines.append(
                f"{place} trained and scored by {len(results.trainers)} versions of the code around feature and model ({commits})."
            )
    return lines


def some(names: list[str]) -> str:
    """The first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def numbers(runs: "Runs") -> str:
    """WA of each of some runs."""
    from ser import metrics

    return ", ".join(f"{name} WA {metrics.wa(confusion_of(scores)):.1f}" for name, scores in runs.items())


def link(system: "System", protocol: "Protocol", pictures: dict[str, Path]) -> str:
    """The line that links the figures of a system under a protocol."""
    links = [f"[{kind}]({path}) ([text]({path.with_suffix('.txt')}))" for kind, path in pictures.items()]
    return f"- **{system.name}**, {protocol.name}: {', '.join(links)}"


def draw(system: "System", protocol: "Protocol", results: "Results") -> dict[str, Path]:
    """Draw what the scores of one system under one protocol show; return the pictures, and those that
    ser.draw_run has drawn."""
    from ser import figures
    from ser.scores import read_log

    runs = results.shown
    classes = next(iter(runs.values())).classes
    title = f"{system.name}, protocol {protocol.name}, {len(runs)} run{'s' * (len(runs) > 1)}"
    place = f"figures/{'own/' * results.is_own}{system.name}_{protocol.name}"
    pictures = {"confusion": Path(f"{place}_confusion.png")}
    figures.confusion(sum(map(confusion_of, runs.values())), classes, title, pictures["confusion"])
    logs = {}
    for run in runs:
        file = Path("results", system.name, protocol.name, "own" * results.is_own, f"{run}.epochs.jsonl")
        if file.exists():
            logs[run] = read_log(file)
    if logs and not protocol.noise:  # which training does not hear
        pictures["curves"] = Path(f"{place}_curves.png")
        heard = "development" if protocol.select == "dev" else "test"  # see ser.train
        figures.learning_curves(logs, heard, title, pictures["curves"])
    shown = {scores.about.get("model", "")[:8] for scores in runs.values()}
    for kind in ("tsne", "tsne_speakers", "attention", "words"):  # ser.draw_run's
        path = Path(f"{place}_{kind}.png")
        if path.exists() and model_of(path) in shown:
            pictures[kind] = path
    return pictures


def model_of(picture: Path) -> str:
    """The first digits of the weights that ser.draw_run drew a picture with; "" of an older version's."""
    from ser.runs import first_line

    match = re.search(r", model ([0-9a-f]{8})\b", first_line(picture.with_suffix(".txt")))
    return match[1] if match else ""


if __name__ == "__main__":
    cli.run(main)
