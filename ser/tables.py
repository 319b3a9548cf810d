"""The tables of RESULTS.md, as lines of Markdown: published numbers, ours, and tests against one system."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ser import metrics
from ser.config import Protocol, System
from ser.folds import shares_speakers
from ser.metrics import METRICS
from ser.papers import Row
from ser.results import Results, Runs
from ser.summary import confusion_of, interval, mean_of, n_runs, of_folds, rights

Found = dict[tuple[str, str], Results]  # by the names of system and protocol
Systems = Sequence[tuple[Path, System]]  # each with its file

PUBLISHED = ("wa", "ua")  # what papers report: the metrics of the main table; the others have their own table
MARKS = {
    "†": "the test set selected the networks' epoch; a classical model's settings are chosen within the training part.",
    "§": "the code of the feature or the model has changed since, data/ has other recordings or folds now, or the "
    "scores do not record the checksums of the recordings.",
    "‡": "not speaker-independent: speakers of the test set are also in the training set, so this does not measure "
    "unseen speakers.",
}


def table(corpus: str, systems: Systems, protocols: Sequence[Protocol], found: Found) -> list[str]:
    """The main table, a row for each system, with our numbers and the papers' under each protocol; and what its marks
    mean."""
    published = {
        protocol.name: [
            name
            for name in PUBLISHED
            if any(
                getattr(paper, name) is not None
                for _, system in systems
                for paper in numbers_of(system, corpus, protocol)
            )
        ]
        for protocol in protocols
    }
    head = ["system", "paper's table"]
    for protocol in protocols:
        head += heads(marked(protocol, found), published[protocol.name])
    rows = [[*head, "parameters", "minutes per run", "command"]]
    for path, system in systems:
        row = [name_of(system, protocols, found), "–"]
        for protocol in protocols:
            papers = numbers_of(system, corpus, protocol)
            row += cells(found[system.name, protocol.name], papers, published[protocol.name])
        rows.append([*row, *costs(path, system, corpus, protocols, found)])
    return as_lines(rows) + footnotes(rows)


def heads(protocol: str, published: Sequence[str]) -> list[str]:
    """The heads of a protocol's columns. published: the metrics for which a paper has a number."""
    row = []
    for name in PUBLISHED:
        title = METRICS[name].title
        row += [f"{protocol} {title}", *[f"published {title}", "difference"] * (name in published)]
    return [*row, "runs"]


def cells(results: Results, papers: Sequence[Row], published: Sequence[str]) -> list[str]:
    """The cells of a row under a protocol, in the order of `heads`."""
    runs = list(results.shown.values())
    row = []
    for name in PUBLISHED:
        ours = of_folds(runs, METRICS[name].of)
        row.append(interval(ours))
        if name in published:
            theirs = [value for paper in papers if (value := getattr(paper, name)) is not None]
            row.append("; ".join(f"{value:g}" for value in theirs) or "–")
            row.append("; ".join(f"{mean_of(ours) - value:+.1f}" for value in theirs if runs) or "–")
    return [*row, n_runs(runs) + marks_of(results)]


def costs(path: Path, system: System, corpus: str, protocols: Sequence[Protocol], found: Found) -> list[str]:
    """The last cells of a row: parameters, minutes per run, and the command that makes its scores."""
    abouts = abouts_of(system, protocols, found)
    numbers = sorted({int(about["parameters"]) for about in abouts if "parameters" in about})
    parameters = " to ".join(f"{number:,}" for number in sorted({*numbers[:1], *numbers[-1:]}))
    minutes = [float(about["train_seconds"]) / 60 for about in abouts]
    belongs = [
        protocol.name
        for protocol in protocols
        if found[system.name, protocol.name].shown or numbers_of(system, corpus, protocol)
    ]
    mean = f"{sum(minutes) / len(minutes):.1f}" if minutes else "–"
    return [parameters or "–", mean, command(path, abouts, belongs)]


def name_of(system: System, protocols: Sequence[Protocol], found: Found) -> str:
    """The first cell of a row."""
    name = f"**{system.name}**: {system.description}"
    if any("vectors none" in about.get("inputs", "") for about in abouts_of(system, protocols, found)):
        name += " (**word vectors learned from scratch**)"
    return name


def abouts_of(system: System, protocols: Sequence[Protocol], found: Found) -> list[dict[str, str]]:
    """The header lines of a system's scores that are shown under some protocols."""
    return [scores.about for protocol in protocols for scores in found[system.name, protocol.name].shown.values()]


def numbers_of(system: System, corpus: str, protocol: Protocol) -> list[Row]:
    """A paper's numbers for a system on this corpus that this protocol is meant to reproduce: none are shown yet."""
    return []


def other_metrics(systems: Systems, protocols: Sequence[Protocol], found: Found) -> list[str]:
    """The section with the metrics that are not in the main table, for all systems that were run; [] if none was."""
    names = [name for name in METRICS if name not in PUBLISHED]
    ran = [protocol for protocol in protocols if any(found[system.name, protocol.name].shown for _, system in systems)]
    rows = [["system", *(f"{marked(protocol, found)} {METRICS[name].title}" for protocol in ran for name in names)]]
    for _, system in systems:
        of_protocols = [list(found[system.name, protocol.name].shown.values()) for protocol in ran]
        if any(of_protocols):
            row = [interval(of_folds(runs, METRICS[name].of)) for runs in of_protocols for name in names]
            rows.append([f"**{system.name}**", *row])
    return ["", "## Other metrics", "", *as_lines(rows)] if names and len(rows) > 1 else []


def against(
    main: str, systems: Systems, protocols: Sequence[Protocol], found: Found, odd: set[tuple[str, str]]
) -> list[str]:
    """The section that tests each system against the main one; [] if none was run on the same utterances. odd: rows
    with different folds, speakers or recordings, as `results.of_other_folds` finds them."""
    rows = [["system", *(f"{marked(protocol, found)} {cell}" for protocol in protocols for cell in ("WA", "p"))]]

    def rights_of(system: str, protocol: Protocol) -> dict[str, float]:
        place = system, protocol.name
        return {} if place in odd else rights(found[place].shown)

    of_main = {protocol.name: rights_of(main, protocol) for protocol in protocols}
    for _, system in systems:
        if system.name != main:
            row = []
            for protocol in protocols:
                row += compare(rights_of(system.name, protocol), of_main[protocol.name])
            if set(row) != {"–"}:
                rows.append([f"**{system.name}**", *row])
    if len(rows) == 1:
        return []
    return [
        "",
        f"{'###' if any(protocol.table for protocol in protocols) else '##'} Against {main}",
        "",
        (
            f"The difference in WA from {main} on the utterances that both have scored, each with the mean of its "
            "runs, and p of a paired permutation test over these utterances. It treats utterances as independent, "
            "though those of one speaker are not, and does not account for other seeds: a small p says that the two "
            "differ on these utterances."
        ),
        "",
        *as_lines(rows),
    ]


def compare(one: dict[str, float], other: dict[str, float]) -> list[str]:
    """Difference in WA on the utterances of both, and its p; two dashes if they have none in common."""
    differences = np.array([one[utt] - other[utt] for utt in sorted(one.keys() & other.keys())])
    if not len(differences):
        return ["–", "–"]
    p = metrics.paired_p(differences)
    return [f"{100 * differences.mean():+.1f}", f"{p:.3f}" if p >= 0.001 else "< 0.001"]


def same_split(one: Protocol, other: Protocol) -> bool:
    """Whether two protocols have the same utterances in the same parts."""
    return all(getattr(one, key) == getattr(other, key) for key in ("classes", "where", "folds", "select"))


def is_row(system: System, corpus: str, protocols: Sequence[Protocol], found: Found) -> bool:
    """Whether a system belongs in the table of these protocols: it was run under one, or one is meant to reproduce its
    paper's number."""
    return any(
        found[system.name, protocol.name].shown or numbers_of(system, corpus, protocol) for protocol in protocols
    )


def marked(protocol: Protocol, found: Found) -> str:
    """Name of a protocol in a table's head, with the marks of what makes its numbers optimistic."""
    runs = [run for (_, name), results in found.items() if name == protocol.name for run in results.shown.values()]
    known = any(shares_speakers(scores.about["overlap"]) for scores in runs)
    return protocol.name + "†" * (protocol.select == "test") + "‡" * known


def marks_of(results: Results) -> str:
    """The marks for what a reader must know about the runs that are shown."""
    return " own" * results.is_own + " §" * (results.is_older or bool(results.changed))


def footnotes(rows: Sequence[Sequence[str]]) -> list[str]:
    """What the marks in a table mean."""
    text = "".join(map("".join, rows))
    return [line for mark, meaning in MARKS.items() if mark in text for line in ("", f"{mark} {meaning}")]


def as_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of Markdown; the first row is its head."""
    return ["| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]]]


def command(path: Path, abouts: Sequence[dict[str, str]], protocols: Sequence[str]) -> str:
    """The command that makes the scores of a system under some protocols. abouts: the header lines of its scores."""
    seeds = max((int(about["seed"]) for about in abouts), default=1)
    names = " ".join(protocols)
    chosen = f' --protocol "{names}"' if len(protocols) > 1 else f" --protocol {names}" * len(protocols)
    vectors = any(re.search(r"\bvectors (?!none)", about.get("inputs", "")) for about in abouts)
    more = " --glove FILE" * vectors + f" --seeds {seeds}" * (seeds > 1)
    return f"`./run.sh --systems {path}{chosen}{more}`"


def numbers(runs: Runs) -> str:
    """WA of each of some runs."""
    return ", ".join(f"{name} WA {metrics.wa(confusion_of(scores)):.1f}" for name, scores in runs.items())
