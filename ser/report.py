"""Stage 6: write RESULTS.md and the figures from the scores in results/.

Call it in the recipe's folder. Every number comes from results/<system>/<protocol>/*.txt; the paper's
numbers from the system files. A row without scores says so, with the command that would make them.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ser import cli
from ser.cli import UserError

if TYPE_CHECKING:
    from ser.config import Protocol, System
    from ser.scores import Scores

INTRODUCTION = """\
Written by stage 6 from the scores in results/; never edited by hand.

- **WA**, weighted accuracy: the share of all test utterances that are right. **UA**, unweighted
  accuracy (UAR): the mean of the classes' recalls. Both in per cent.
- Mean and 95 % interval (Student's t) over runs; a run is one fold with one seed. One run has no interval.
- "not run": no scores yet; the row's command makes them.
"""


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
    parser.add_argument("--note", default="", help="a sentence to put first")
    args = parser.parse_args(argv)

    from ser.config import read_protocol, read_system
    from ser.files import whole
    from ser.scores import read_scores

    protocols = [read_protocol(path) for path in sorted(Path("conf/protocols").glob("*.yaml"))]
    protocols.sort(key=lambda protocol: protocol.select != "test")  # the papers' first, as in the table
    own = [path for path in sorted(Path("conf").glob("*/*.yaml")) if path.parent.name != "protocols"]
    others = [path for path in args.systems if path.resolve() not in {path.resolve() for path in own}]
    systems = [(path, read_system(path)) for path in own + others]
    runs = {}
    for _, system in systems:
        for protocol in protocols:
            files = sorted(Path("results", system.name, protocol.name).glob("*.txt"))
            runs[system.name, protocol.name] = {file.stem: read_scores(file) for file in files}
            for run, scores in runs[system.name, protocol.name].items():
                if scores.about["corpus"] != args.corpus:
                    raise UserError(
                        f"results/{system.name}/{protocol.name}/{run}.txt: of {scores.about['corpus']}, "
                        f"not {args.corpus}; remove results/, which was copied from another recipe"
                    )

    lines = [f"# Results: {args.corpus}", "", *([args.note, ""] if args.note else []), INTRODUCTION]
    for protocol in protocols:
        lines += describe(protocol, [runs[system.name, protocol.name] for _, system in systems])
    lines += ["", *table(args.corpus, systems, protocols, runs), ""]
    figures = []
    for _, system in systems:
        for protocol in protocols:
            if runs[system.name, protocol.name]:
                figures += draw(system, protocol, runs[system.name, protocol.name])
    lines += ["## Figures", "", "Beside each picture stand its numbers, as text.", ""]
    lines += [f"![{path.stem}]({path})" for path in figures] or ["None yet."]
    with whole("RESULTS.md") as stream:
        stream.write("\n".join(lines) + "\n")
    print("\n".join(lines[: -len(figures) - 4] if figures else lines))
    for path in figures:
        print(path.resolve())
    print(Path("RESULTS.md").resolve())


def describe(protocol: "Protocol", of_systems: list[dict[str, "Scores"]]) -> list[str]:
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
    runs: dict[tuple[str, str], dict[str, "Scores"]],
) -> list[str]:
    """The lines of the table: a row a system, the paper's numbers first, then a protocol after the other."""
    header = ["system", "paper's table", "published WA"]
    for protocol in protocols:
        marked = f"{protocol.name}{'†' if protocol.select == 'test' else ''}"
        header += [f"{marked} WA", f"{marked} UA", "runs"]
    header += ["parameters", "minutes a run", "command"]
    rows = [header, ["---"] * len(header)]
    for path, system in systems:
        papers = [row for row in system.paper if row.corpus == corpus]
        row = [f"**{system.name}**: {system.description}", "; ".join(paper.table for paper in papers) or "–"]
        row.append("; ".join(f"{paper.wa:g}" for paper in papers if paper.wa is not None) or "–")
        about: list[dict[str, str]] = []
        for protocol in protocols:
            scored = runs[system.name, protocol.name]
            row += cells(list(scored.values())) if scored else ["not run", "not run", "0"]
            about += [scores.about for scores in scored.values()]
        parameters = sorted({one["parameters"] for one in about if "parameters" in one})
        minutes = [float(one["train_seconds"]) / 60 for one in about]
        row.append(", ".join(f"{int(number):,}" for number in parameters) or "–")
        row.append(f"{sum(minutes) / len(minutes):.1f}" if minutes else "–")
        seeds = max((int(one["seed"]) for one in about), default=1)
        row.append(f"`./run.sh --systems {path}{f' --seeds {seeds}' if seeds > 1 else ''}`")
        rows.append(row)
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    if any(protocol.select == "test" for protocol in protocols):
        lines += [
            "",
            "† the test set selected the networks' epoch; an SVM's settings are chosen inside the training part.",
        ]
    return lines


def cells(scored: list["Scores"]) -> list[str]:
    """WA, UA and number of runs of one system under one protocol."""
    from ser import metrics

    confusions = [
        metrics.confusion_matrix(scores.true, scores.predicted, len(scores.classes)) for scores in scored
    ]
    folds = {scores.about["fold"] for scores in scored}
    total = int(scored[0].about["fold"].split(" of ")[1])
    part = "" if len(folds) == total else f" ({len(folds)} of {total} folds)"
    return [
        interval([metrics.wa(one) for one in confusions]),
        interval([metrics.ua(one) for one in confusions]),
        f"{len(scored)}{part}",
    ]


def interval(values: list[float]) -> str:
    """Mean and half the width of its 95 % interval by Student's t."""
    import numpy as np
    from scipy import stats

    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.1f}"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{mean:.1f} ± {half:.1f}"


def draw(system: "System", protocol: "Protocol", runs: dict[str, "Scores"]) -> list[Path]:
    """Draw the figures of one system under one protocol; return their paths."""
    import json

    from ser import figures, metrics

    first = next(iter(runs.values()))
    counts = sum(
        metrics.confusion_matrix(scores.true, scores.predicted, len(first.classes))
        for scores in runs.values()
    )
    title = f"{system.name}, protocol {protocol.name}, {len(runs)} run{'s' * (len(runs) > 1)}"
    paths = [Path("figures", f"{system.name}_{protocol.name}_confusion.png")]
    figures.confusion(counts, first.classes, title, paths[0])
    logs = {}
    for run in runs:
        file = Path("results", system.name, protocol.name, f"{run}.epochs.jsonl")
        if file.exists():
            logs[run] = [json.loads(line) for line in file.read_text().splitlines()]
    if logs:
        paths.append(Path("figures", f"{system.name}_{protocol.name}_curves.png"))
        heard = "development" if protocol.select == "dev" else "test"  # see ser.train
        figures.learning_curves(logs, heard, title, paths[1])
    return paths


if __name__ == "__main__":
    cli.run(main)
