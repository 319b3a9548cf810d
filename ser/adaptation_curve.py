"""The section of RESULTS.md that says how UA grows with the recordings of a test speaker that a system may adapt to:
the protocols with `adapt`, which no other table has."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ser import tables
from ser.identity import settings
from ser.recipe import is_apart

if TYPE_CHECKING:
    from ser.config import Adapt, Protocol, System
    from ser.recipe import Report

TITLE = "Adaptation to the test speaker"
ALL = "all"  # the column of normalisation by speaker without limit
NO_DRAW = "–"
INTRODUCTION = """\
UA of systems that may adapt to some unlabelled recordings of each speaker, by their number. Stage 1 draws them and sets
those of test speakers aside, so that none is scored: **balanced** as equally from all classes as possible, **skewed**
from as few classes as possible, which is the same for one recording; labels serve the draw alone. The columns have
different test recordings; a system that does not adapt, under the same protocols, shows what that alone changes.
Training speakers are treated alike. Only a system with `normalisation: speaker` uses them, and its numbers have a ¶
where it has heard its test speakers; in the column all it has heard all of their recordings, those that are scored
included. After each number: how many runs.
"""


@dataclass(frozen=True)
class Line:
    """A line of the table. protocol: the name of the one without `adapt`, otherwise the same. draw: which recordings
    are drawn. under: for each column, the protocol with scores."""

    system: str
    protocol: str
    draw: str
    under: "Mapping[str, Protocol]"


def section(report: "Report") -> list[str]:
    """The lines of the section; [] if nothing was run under a protocol with `adapt`."""
    found = lines_of(report)
    if not found:
        return []
    columns = columns_of(found)
    rows = [["system", "protocol", "recordings", *columns]]
    for line in found:
        row = [tables.with_encoder(report, line.system), line.protocol, line.draw]
        rows.append(row + [cell(report, line, column) for column in columns])
    path = picture(report, found)
    names = " ".join(protocol.name for protocol in report.protocols if protocol.adapt)
    command = f'`./run.sh --systems FILE --protocol "{names}"` runs one; its file is under Systems and times.'
    figure = ["The numbers behind the picture, with their intervals: " + f"[text]({path.with_suffix('.txt')}).", ""]
    figure.append(f"![adaptation]({path})")
    return ["", f"## {TITLE}", "", *INTRODUCTION.splitlines(), "", *tables.as_lines(rows), "", command, "", *figure]


def cell(report: "Report", line: Line, column: str) -> str:
    """UA with its interval, marked if the system has heard its test speakers, and the number of runs."""
    if column not in line.under:
        return "–"
    protocol = line.under[column]
    mark = "¶" * tables.hears(report.system(line.system), protocol)
    shown = tables.shown_of(report, line.system, protocol, "ua")
    return f"{shown}{mark}; {tables.runs_of(report, line.system, protocol)}"


def draw(report: "Report") -> None:
    """Draw the section's figure, if there is a section."""
    found = lines_of(report)
    if not found:
        return

    from ser import figures

    curves = {}
    for line in found:
        intervals = {column: report.interval(line.system, one.name, "ua") for column, one in line.under.items()}
        points = {column: (one.mean, one.half) for column, one in intervals.items() if one}
        curves[line.system, line.protocol, line.draw] = points
    figures.adaptation(curves, columns_of(found), TITLE, picture(report, found))


def picture(report: "Report", found: list[Line]) -> Path:
    """The section's figure; one of scores that were made here (own) is not in git."""
    is_own = any(report.found[line.system, one.name].is_own for line in found for one in line.under.values())
    return Path("figures", "own" * is_own, "adaptation.png")


def columns_of(found: list[Line]) -> list[str]:
    """The columns of the table: numbers of recordings in order, then ALL."""
    names = {column for line in found for column in line.under}
    return [*sorted(names - {ALL}, key=int), *sorted(names & {ALL})]


def lines_of(report: "Report") -> list[Line]:
    """The lines of the table; [] if nothing was run under a protocol with `adapt`. Systems with normalisation by
    speaker that were run only without limit have a line with that number alone, for each honest protocol."""
    families: dict[str, list[Protocol]] = {}  # protocols that differ in `adapt` alone
    for protocol in report.protocols:
        rest = {key: value for key, value in settings(protocol).items() if key != "adapt"}
        families.setdefault(json.dumps(rest, sort_keys=True), []).append(protocol)
    lines: list[Line] = []
    alone: list[Line] = []
    for family in families.values():
        bases = [one for one in family if not one.adapt]
        name = bases[0].name if bases else NO_DRAW
        is_honest = any(is_apart(one) and one.select != "test" for one in bases)
        for _, system in report.systems:
            of_system = lines_of_system(report, system, family, name)
            if any(column != ALL for line in of_system for column in line.under):
                lines += of_system
            elif is_honest:
                alone += of_system
    return lines + alone if lines else []


def lines_of_system(report: "Report", system: "System", family: "list[Protocol]", name: str) -> list[Line]:
    """A line for each kind of draw under which a system was run. family: protocols that differ in `adapt` alone. name:
    of the one without it."""
    shared: dict[str, Protocol] = {}  # columns that do not depend on a draw
    of_draws: dict[str, dict[str, Protocol]] = {}
    for protocol in family:
        if not report.found[system.name, protocol.name].shown:
            continue
        if protocol.adapt and protocol.adapt.utterances:
            of_draws.setdefault(words(protocol.adapt), {}).setdefault(str(protocol.adapt.utterances), protocol)
        elif protocol.adapt:
            shared.setdefault("0", protocol)
        elif system.normalisation == "speaker":
            shared.setdefault(ALL, protocol)
    if not of_draws and shared:
        of_draws[NO_DRAW] = {}
    return [Line(system.name, name, kind, {**shared, **under}) for kind, under in sorted(of_draws.items())]


def words(adapt: "Adapt") -> str:
    """What is drawn, with the settings that are not the default: "skewed, relevance 2"."""
    others = {key: value for key, value in settings(adapt).items() if key in ("relevance", "seed")}
    more = (f"{key} {value:g}" for key, value in others.items())
    return ", ".join(["balanced" if adapt.balanced else "skewed", *more])
