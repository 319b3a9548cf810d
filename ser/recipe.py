"""What a recipe has to report: its systems, protocols, papers and scores. The tables and figures are made from it.

Call everything here in the recipe's folder.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ser.cli import UserError
from ser.config import Paper, Protocol, System, Table, read_protocol, read_system
from ser.metrics import METRICS
from ser.papers import read_papers
from ser.results import Results, find, of_other_folds, read_speakers
from ser.statistics import Interval, interval


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
    systems: list[tuple[Path, System]]
    protocols: list[Protocol]
    papers: list[Paper]
    elsewhere: dict[str, str]
    found: dict[tuple[str, str], Results]
    speakers: dict[str, str]
    odd: set[tuple[str, str]]
    intervals: dict[tuple[str, str, str, bool], Interval | None] = field(default_factory=dict)  # computed so far

    @cached_property
    def paths(self) -> dict[str, Path]:
        """The file of each system."""
        return {system.name: path for path, system in self.systems}

    @cached_property
    def tables(self) -> list[Table]:
        """The tables of all papers."""
        return [table for paper in self.papers for table in paper.tables]

    @cached_property
    def in_papers(self) -> set[str]:
        """Names of the systems in a paper's table."""
        return {name for table in self.tables for name in table.systems}

    @cached_property
    def main_protocols(self) -> list[Protocol]:
        """The honest protocols and those of the papers' tables, but for those with a section of their own. Without
        papers: all, the speaker-independent ones first. Those with `adapt` are in ser.adaptation_curve."""
        names = [table.honest for table in self.tables] + [table.protocol for table in self.tables]
        chosen = [self.protocol(name) for name in dict.fromkeys(names) if name]
        chosen = chosen or sorted(
            self.protocols, key=lambda protocol: (protocol.select == "test", not is_apart(protocol))
        )
        return [protocol for protocol in chosen if not protocol.table and not protocol.adapt]

    @cached_property
    def compared_protocols(self) -> list[Protocol]:
        """Those under which systems are tested against the main one: as above, and all of the papers' tables."""
        of_papers = {table.protocol for table in self.tables}
        more = [one for one in self.protocols if one.name in of_papers and one not in self.main_protocols]
        return self.main_protocols + [one for one in more if not one.adapt]

    def is_in_tables(self, system: str, protocol: Protocol) -> bool:
        """Whether a paper's table, or else that of the other systems, has a system under a protocol."""
        if system not in self.in_papers:
            return protocol in self.main_protocols
        return any(protocol.name in (table.protocol, table.honest) and system in table.systems for table in self.tables)

    def system(self, name: str) -> System:
        """The system of this name."""
        return next(system for _, system in self.systems if system.name == name)

    def protocol(self, name: str) -> Protocol:
        """The protocol of this name."""
        return next(protocol for protocol in self.protocols if protocol.name == name)

    def interval(self, system: str, protocol: str, metric: str, is_pooled: bool = False) -> Interval | None:
        """Mean and interval of a metric of METRICS, over folds or of all folds together (is_pooled); None if there are
        no scores to show."""
        place = system, protocol, metric, is_pooled
        if place not in self.intervals:
            runs = list(self.found[system, protocol].shown.values()) if system else []
            self.intervals[place] = interval(runs, METRICS[metric].of, self.speakers, is_pooled) if runs else None
        return self.intervals[place]

    @cached_property
    def unlike(self) -> set[str]:
        """Names of the protocols of which a fold does not test every class, so that a mean over folds is not what all
        utterances together give. Without those with `adapt`."""
        return {
            protocol.name
            for _, system in self.systems
            for protocol in self.protocols
            for run in self.found[system.name, protocol.name].shown.values()
            if not protocol.adapt and len(set(run.true.tolist())) < len(run.classes)
        }

    def abouts(self, system: str, protocols: Iterable[Protocol]) -> list[dict[str, str]]:
        """The header lines of a system's scores that are shown under some protocols."""
        return [scores.about for one in protocols for scores in self.found[system, one.name].shown.values()]


def is_apart(protocol: Protocol) -> bool:
    """Whether a protocol's folds keep speakers apart, as far as its file tells."""
    return getattr(protocol.folds, "by", "") in ("spk", "sess")


def read(corpus: str, more: list[Path], main: str, only_committed: bool = False) -> Report:
    """Read the recipe's systems, protocols, papers and scores. more: other system files. only_committed: as `render`
    needs it. Raises UserError if `main` is not one of the systems, or if a required file cannot be read."""
    paths = find_systems(more, only_committed)
    protocols = read_protocols()
    names = [path.stem for path in paths]
    papers = read_papers(Path("conf/papers"), names, [protocol.name for protocol in protocols])
    in_papers = {name for paper in papers for table in paper.tables for name in table.systems}
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


def read_systems(paths: list[Path], required: list[Path]) -> list[tuple[Path, System]]:
    """The systems in some files, each with its file. A file that cannot be read is left out and reported on standard
    error; raises UserError if it is required or has scores."""
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


def read_protocols() -> list[Protocol]:
    """The protocols below conf/protocols. Raises UserError if two have the same name."""
    paths: dict[str, Path] = {}
    for path in sorted(Path("conf/protocols").rglob("*.yaml")):
        other = paths.setdefault(path.stem, path)
        if other != path:
            raise UserError(f"{path}: {other} has the same name; rename one, since results are stored under it")
    return [read_protocol(path) for path in paths.values()]


def place_of(table: Table) -> str:
    """`Table III`, `Table IV (five draws)`; a place that is no number stands as it is, such as `Section 5`."""
    first = table.number.partition(" ")[0]
    is_number = first.isdigit() or set(first) <= set("IVX")
    return "Table " * is_number + table.number
