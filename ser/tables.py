"""The tables of RESULTS.md, as lines of Markdown: papers' tables, other systems, tests against one system, costs."""

import re
import shlex
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from ser import statistics
from ser.config import Protocol
from ser.folds import shares_speakers
from ser.metrics import METRICS, wa
from ser.results import Results, Runs
from ser.statistics import Interval, interval
from ser.summary import confusion_of, n_folds, n_runs, rights

if TYPE_CHECKING:
    from ser.config import Paper, Row, System, Table
    from ser.recipe import Report

PUBLISHED = ("wa", "ua")  # what papers report; the other metrics are in ser.details
POOLED = "pooled"  # in the head of a column
ONE_TRAINING = "¹"
MARKS = {  # each with its meaning in short
    "†": "the test set selected the epoch",
    "‡": "test speakers are also in training",
    "¶": "has heard unlabelled speech of its test speakers",
    "‖": "its encoder was trained on other speech, perhaps on the test utterances",
    "§": "older code, or recordings without checksums",
    ONE_TRAINING: "one seed: the interval covers other test speakers, not another seed",
}
IN_FULL = {
    "†": "the test set selected the networks' epoch; a classical model's settings are chosen within the training part.",
    "‡": "not speaker-independent: speakers of the test set are also in the training set, so this does not measure "
    "unseen speakers.",
    "¶": "the system has heard unlabelled speech of its test speakers: it normalises each speaker's features over all "
    "recordings of that speaker, test utterances included; under a protocol with `adapt`, over some that are not "
    "scored.",
    "‖": "the system uses a pretrained encoder, named in its file. What that has heard is not known in full: speech of "
    "the test speakers, even the test utterances, may be among it, and with emotion labels if the encoder was trained "
    "for emotions. Systems that are trained from scratch have heard nothing but the training part.",
    "§": "the code of the feature or the model has changed since, data/ has other recordings or folds now, or the "
    "scores do not record the checksums of the recordings.",
    ONE_TRAINING: "one seed, and fewer than five folds: the interval covers other test speakers, but not how much "
    "another seed changes.",
}


def paper_table(report: "Report", paper: "Paper", table: "Table") -> list[str]:
    """A paper's table as the paper prints it: published, ours under its protocol, and ours under the honest one. A row
    has a line for each of its systems."""
    protocol = report.protocol(table.protocol)
    honest = report.protocol(table.honest) if table.honest and table.honest != table.protocol else None
    under = [protocol, honest] if honest else [protocol]
    published = [name for name in PUBLISHED if any(getattr(row, name) is not None for row in table.rows)] or ["wa"]
    head = ["as published", "system"]
    for name in PUBLISHED:
        title = METRICS[name].title
        beside = [f"published {title}", f"{marked(report, protocol)} {title}", "difference", "in interval"]
        head += beside if name in published else beside[1:2]
    head += [f"{marked(report, protocol)} {title}" for title in pooled_titles(report, [protocol])]
    rows = [[*head, "runs", *(heads(report, honest) if honest else [])]]
    for row in table.rows:
        for name in row.systems or [""]:
            line = [row.name, name_of(report, name, under) if name else "–"]
            line += paper_cells(report, row, name, protocol, published)
            rows.append([*line, *(cells(report, name, honest) if honest else [])])
    return [*as_lines(rows), "", command(report, paper, table)]


def paper_cells(report: "Report", row: "Row", system: str, protocol: Protocol, published: Sequence[str]) -> list[str]:
    """The cells of a row with the published numbers and ours beside them. system: "" if the recipe has none."""
    line = []
    with_note = next((name for name in published if getattr(row, name) is not None), published[0])
    for name in PUBLISHED:
        ours = report.interval(system, protocol.name, name)
        theirs = getattr(row, name)
        shown = shown_of(report, system, protocol, name)
        if name not in published:
            line.append(shown)
            continue
        number = "" if theirs is None else f"{theirs:g}"
        note = row.note if name == with_note else ""
        line += [f"{number} ({note})" if number and note else number or note or "–", shown]
        if ours and theirs is not None:
            inside = ours.has(theirs)
            line += [f"{ours.mean - theirs:+.1f}", "–" if inside is None else "yes" if inside else "no"]
        else:
            line += ["–", "–"]
    return [*line, *pooled_cells(report, system, protocol), runs_of(report, system, protocol)]


def heads(report: "Report", protocol: Protocol) -> list[str]:
    """The heads of a protocol's columns, in the order of `cells`."""
    titles = [METRICS[name].title for name in PUBLISHED] + pooled_titles(report, [protocol])
    return [*(f"{marked(report, protocol)} {title}" for title in titles), "runs"]


def cells(report: "Report", system: str, protocol: Protocol) -> list[str]:
    """Ours under a protocol: WA, UA, both pooled if some fold does not test every class, and the number of runs."""
    over_folds = [shown_of(report, system, protocol, name) for name in PUBLISHED]
    return [*over_folds, *pooled_cells(report, system, protocol), runs_of(report, system, protocol)]


def pooled_titles(report: "Report", protocols: Sequence[Protocol], metrics: Sequence[str] = PUBLISHED) -> list[str]:
    """The heads of the columns of metrics over the utterances of all folds together; [] if no protocol needs them."""
    needed = any(protocol.name in report.unlike for protocol in protocols)
    return [f"{METRICS[name].title} {POOLED}" for name in metrics] * needed


def pooled_cells(report: "Report", system: str, protocol: Protocol, metrics: Sequence[str] = PUBLISHED) -> list[str]:
    """The cells below `pooled_titles` of this protocol."""
    needed = protocol.name in report.unlike
    return [shown_of(report, system, protocol, name, True) for name in metrics] if needed else []


def shown_of(report: "Report", system: str, protocol: Protocol, metric: str, is_pooled: bool = False) -> str:
    """A metric's cell: mean and interval, or why there is none. is_pooled: of all folds together."""
    found = report.interval(system, protocol.name, metric, is_pooled)
    if found:
        return in_words(found)
    if not system:
        return "–"
    return "outdated" if report.found[system, protocol.name].left_out else "not run"


def in_words(found: Interval) -> str:
    """`52.2 ± 4.3`; the mean alone if there is no interval."""
    if found.half is None:
        return f"{found.mean:.1f}"
    return f"{found.mean:.1f} ± {found.half:.1f}" + ONE_TRAINING * found.is_of_one_training


def runs_of(report: "Report", system: str, protocol: Protocol) -> str:
    """The cell with the number of runs and what a reader must know about them."""
    if not system:
        return "–"
    results = report.found[system, protocol.name]
    return n_runs(list(results.shown.values())) + marks_of(results)


def other_systems(report: "Report") -> list[str]:
    """The systems that no paper's table of this corpus has: by UA under the honest protocol, the best first, then those
    that lack folds of it, which other speakers could change most. [] if there is none."""
    protocols = report.main_protocols
    names = [system.name for _, system in report.systems if system.name not in report.in_papers]
    elsewhere = any(report.elsewhere.get(name) for name in names)
    head = ["system", *(cell for protocol in protocols for cell in heads(report, protocol))]
    rows = [[*head, *["published elsewhere"] * elsewhere]]

    def rank(name: str) -> tuple:
        values = [report.interval(name, protocol.name, "ua") for protocol in protocols]
        shown = [scores for one in protocols[:1] for scores in report.found[name, one.name].shown.values()]
        folds, total = n_folds(shown)
        return not folds, folds < total, tuple(one is None or -one.mean for one in values), name

    for name in sorted(names, key=rank):
        row = [name_of(report, name, protocols)]
        row += [cell for protocol in protocols for cell in cells(report, name, protocol)]
        rows.append([*row, *[report.elsewhere.get(name, "–")] * elsewhere])
    return as_lines(rows) if len(rows) > 1 else []


def other_protocols(report: "Report", protocols: Sequence[Protocol]) -> list[str]:
    """A line for each system that was run under one of some protocols; [] if none was. A protocol that has no section
    of its own has lines only for what is in no table above."""
    pooled = pooled_titles(report, protocols)
    rows = [["system", "protocol", *(METRICS[name].title for name in PUBLISHED), *pooled, "runs"]]
    for _, system in report.systems:
        for protocol in protocols:
            is_new = protocol.table or not report.is_in_tables(system.name, protocol)
            if is_new and report.found[system.name, protocol.name].shown:
                name = name_of(report, system.name, [protocol])
                rows.append(
                    [name, marked(report, protocol), *filled(cells(report, system.name, protocol), len(pooled))]
                )
    return as_lines(rows) if len(rows) > 1 else []


def filled(row: list[str], n_pooled: int) -> list[str]:
    """Cells of a protocol, or WA, UA and runs, with dashes where the table has pooled columns and these cells have
    none."""
    lacking = len(PUBLISHED) + n_pooled + 1 - len(row)
    return [*row[:-1], *["–"] * lacking, row[-1]]


def summary(report: "Report", systems: Collection[str]) -> list[str]:
    """For the terminal: a line for each protocol under which one of some systems was run, and one for scores that were
    made here and are not shown; [] if none was."""
    pooled = pooled_titles(report, report.protocols)
    rows = [["system", "protocol", *(METRICS[name].title for name in PUBLISHED), *pooled, "runs"]]
    for (name, protocol), results in report.found.items():
        if name in systems and results.shown:
            one = report.protocol(protocol)
            rows.append([name, marked(report, one), *filled(cells(report, name, one), len(pooled))])
        if name in systems and (own := list(results.beside.values())):
            values = (interval(own, METRICS[metric].of, report.speakers) for metric in PUBLISHED)
            rows.append([name, f"{protocol}, made here", *filled([*map(in_words, values), n_runs(own)], len(pooled))])
    if len(rows) == 1:
        return []
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def against(report: "Report") -> list[str]:
    """The tests of each system against the main one; [] if no other was run on the same utterances."""
    protocols = report.compared_protocols
    compared: dict[str, dict[str, statistics.Comparison]] = {}  # by protocol and system
    for protocol in protocols:
        of_main = _rights(report, report.main, protocol)
        compared[protocol.name] = {
            system.name: one
            for _, system in report.systems
            if system.name != report.main
            and (one := statistics.compare(_rights(report, system.name, protocol), of_main, report.speakers))
        }
    protocols = [protocol for protocol in protocols if compared[protocol.name]]
    rows = [["system", *(f"{marked(report, protocol)} {cell}" for protocol in protocols for cell in ("WA", "p"))]]
    corrected = {}
    for protocol in protocols:
        tests = {name: one.p for name, one in compared[protocol.name].items() if one.p is not None}
        corrected[protocol.name] = dict(zip(tests, statistics.holm(list(tests.values())), strict=True))
    for _, system in report.systems:
        row = []
        for protocol in protocols:
            one, p = compared[protocol.name].get(system.name), corrected[protocol.name].get(system.name)
            row.append(f"{one.difference:+.1f}" if one else "–")
            row.append("–" if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001")
        if set(row) - {"–"}:
            rows.append([name_of(report, system.name, protocols), *row])
    return as_lines(rows) if len(rows) > 1 else []


def _rights(report: "Report", system: str, protocol: Protocol) -> dict[str, float]:
    """For each utterance the share of its runs that are right; {} for a row that is not compared."""
    place = system, protocol.name
    return {} if place in report.odd else rights(report.found[place].shown)


def costs(report: "Report") -> list[str]:
    """What each system is, its file, its size, and how long a run takes."""
    rows = [["system", "what it is", "file", "parameters", "minutes per run"]]
    for path, system in report.systems:
        abouts = report.abouts(system.name, report.protocols)
        numbers = sorted({int(about["parameters"]) for about in abouts if about.get("parameters")})
        parameters = " to ".join(f"{number:,}" for number in sorted({*numbers[:1], *numbers[-1:]}))
        minutes = [float(about["train_seconds"]) / 60 for about in abouts]
        mean = f"{sum(minutes) / len(minutes):.1f}" if minutes else "–"
        rows.append([system.name, system.description, f"[{path.name}]({path})", parameters or "–", mean])
    return as_lines(rows)


def command(report: "Report", paper: "Paper", table: "Table") -> str:
    """The command that makes a paper's table, as a block of code."""
    protocols = [report.protocol(name) for name in (table.protocol, table.honest) if name]
    abouts = [about for name in table.systems for about in report.abouts(name, protocols)]
    seeds = max((int(about["seed"]) for about in abouts), default=1)
    vectors = any(re.search(r"\bvectors (?!none)", about.get("inputs", "")) for about in abouts)
    more = " --glove FILE" * vectors + f" --seeds {seeds}" * (seeds > 1)
    return f"    ./run.sh --paper {paper.key} --table {shlex.quote(table.number)}{more}"


def marked(report: "Report", protocol: Protocol) -> str:
    """Name of a protocol in a table's head, with the marks of what makes its numbers optimistic."""
    runs = [
        run for (_, name), results in report.found.items() if name == protocol.name for run in results.shown.values()
    ]
    known = any(shares_speakers(scores.about["overlap"]) for scores in runs)
    return protocol.name + "†" * (protocol.select == "test") + "‡" * known


def name_of(report: "Report", system: str, protocols: Sequence[Protocol]) -> str:
    """The cell with a system's name, marked if it has heard its test speakers, or may have."""
    name = with_encoder(report, system) + "¶" * any(hears(report.system(system), protocol) for protocol in protocols)
    if any("vectors none" in about.get("inputs", "") for about in report.abouts(system, protocols)):
        name += " (word vectors learned from scratch)"
    return name


def with_encoder(report: "Report", system: str) -> str:
    """A system's name, marked if it has a pretrained encoder, in its feature or its model."""
    parts = report.system(system).feature, report.system(system).model
    return system + "‖" * any(hasattr(part, "weights") for part in parts)


def hears(system: "System", protocol: Protocol) -> bool:
    """Whether a system hears unlabelled speech of its test speakers under a protocol."""
    return system.normalisation == "speaker" and (protocol.adapt is None or protocol.adapt.utterances > 0)


def marks_of(results: Results) -> str:
    """The marks for what a reader must know about the runs that are shown."""
    return " own" * results.is_own + " §" * (results.is_older or bool(results.changed))


def used_marks(lines: Sequence[str]) -> list[str]:
    """The marks that are used in some lines."""
    text = "".join(lines)
    return [mark for mark in MARKS if mark in text]


def as_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of Markdown; the first row is its head."""
    every = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return ["| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |" for row in every]


def numbers(runs: Runs) -> str:
    """WA of each of some runs."""
    return ", ".join(f"{name} WA {wa(confusion_of(scores)):.1f}" for name, scores in runs.items())
