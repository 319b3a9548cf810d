"""Which scores in results/ a row of a table shows, and which it leaves out.

Scores are shown if they were made with the current settings of the system and protocol files. Only scores that are also
the same in everything else are averaged. If there are several such groups, the table shows the one with the most folds,
then the most runs, then the current code, then the newest. Scores that came with the repository take precedence over
those made here (results/<system>/<protocol>/own/).
"""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser.cli import UserError
from ser.datadir import read_table
from ser.identity import current_code, differences, fingerprint, settings
from ser.runs import code_of, row_of
from ser.scores import Scores, read_scores

if TYPE_CHECKING:
    from ser.config import Protocol, System

ABOUT = {  # header keys of scores, and the form of their values
    "corpus": ".+",
    "fold": r"\d+ of \d+",
    "seed": r"\d+",
    "overlap": ".+",
    "train_seconds": r"\d+(\.\d+)?",
    "date": ".+",
    "commit": ".+",
    "parameters": r"\d*",  # only a network's
}

SPEAKERS = Path("results/utt2spk")  # of the utterances that have scores; written by stage 5
SEXES = Path("results/spk2gender")  # of their speakers

Runs = dict[str, Scores]  # of one system under one protocol, by name of the run


@dataclass(frozen=True)
class Results:
    """The scores in results/ of a system under a protocol.

    shown: the runs that are averaged. beside: runs made here that are not shown, since the repository has its own.
    left_out: all other runs, by reason. is_own: whether those shown were made here. is_older: whether they were made
    with older code, or do not record the recordings' checksums. changed: which of folds, recordings and speakers differ
    in data/ now.
    """

    shown: Runs
    beside: Runs
    left_out: dict[str, Runs]
    is_own: bool
    is_older: bool
    changed: list[str]

    @property
    def trainers(self) -> dict[str, str]:
        """The versions of the training and scoring code that made the runs shown, each with its commit."""
        return {
            f"{scores.about['trainer']} {scores.about.get('scorer')}": scores.about["commit"]
            for scores in self.shown.values()
        }


def find(system: "System", protocol: "Protocol", corpus: str, only_committed: bool = False) -> Results:
    """Read the scores in results/ of a system under a protocol, and choose which to show. only_committed: leave out
    those that were made here (own), and do not look at data/."""
    folder = Path("results", system.name, protocol.name)
    published = read(folder, corpus)
    own = {} if only_committed else read(folder / "own", corpus)
    now = {"system": settings(system), "protocol": settings(protocol)}
    left_out: dict[str, Runs] = defaultdict(dict)
    valid: list[Runs] = []
    for prefix, runs in (("", published), ("own/", own)):
        valid.append({})
        for name, scores in runs.items():
            reason = mismatch(scores, now)
            if reason:
                left_out[reason][prefix + name] = scores
            else:
                valid[-1][name] = scores
    is_own = not valid[0] and bool(valid[1])
    rows: dict[tuple, Runs] = defaultdict(dict)
    for name, scores in (valid[0] or valid[1]).items():
        rows[tuple(sorted(scores.current_row.items()))][name] = scores
    code = code_now(system, protocol)

    def rank(runs: Runs) -> tuple:
        one = next(iter(runs.values()))
        folds = {scores.about["fold"] for scores in runs.values()}
        newest = max(scores.about["date"] for scores in runs.values())
        return len(folds), len(runs), one.current_row["code"] == code, newest

    ordered = sorted(rows.values(), key=rank, reverse=True)
    shown = ordered[0] if ordered else {}
    for runs in ordered[1:]:
        left_out[f"made with different {other_parts(runs, shown)} from those shown"] |= runs
    parts = [scores.current_row for scores in shown.values()]
    is_older = any(row["code"] != code or row["recordings"] == "unknown" for row in parts)
    changed = data_changed(next(iter(shown.values())), protocol) if shown and not only_committed else []
    return Results(shown, valid[1] if valid[0] else {}, dict(left_out), is_own, is_older, changed)


def code_now(system: "System", protocol: "Protocol") -> str:
    """Fingerprint of the code of a system's feature and model in this tree, as scores have it in `current_row`."""
    return current_code(fingerprint(dict(code_of(system, protocol))), settings(system))


def data_changed(scores: Scores, protocol: "Protocol") -> list[str]:
    """Which of folds, recordings and speakers differ in the recipe's data/ now; [] if there is no data."""
    data, folds = Path("data/all"), Path("data/folds", protocol.name)
    if not (data / "utt2md5").exists() or not (folds / "classes").exists():
        return []
    try:
        now = row_of(data, folds, protocol)
    except UserError:  # between two stages
        return []
    return [part for part in now if scores.row.get(part) not in (now[part], "unknown")]


def read(folder: Path, corpus: str) -> Runs:
    """The scores in a folder. Raises UserError for those of another corpus."""
    runs = {file.stem: read_scores(file) for file in sorted(folder.glob("*.txt"))}
    for name, scores in runs.items():
        refuse_damaged(folder / f"{name}.txt", scores)
        if scores.about["corpus"] != corpus:
            raise UserError(
                f"{folder / name}.txt: scores of {scores.about['corpus']}, not {corpus}; remove results/, which is "
                "a copy from another recipe"
            )
    return runs


def read_speakers() -> dict[str, str]:
    """The speaker of each utterance that has scores, from results/utt2spk; {} if there is no such table."""
    return read_table(SPEAKERS) if SPEAKERS.exists() else {}


def read_sexes() -> dict[str, str]:
    """The sex of each speaker, "f" or "m", from results/spk2gender; {} if there is no such table. Raises UserError for
    any other value."""
    sexes = read_table(SEXES) if SEXES.exists() else {}
    for number, (speaker, sex) in enumerate(sexes.items(), 1):
        if sex not in ("f", "m"):
            raise UserError(f"{SEXES}:{number}: {speaker} has {sex or 'no value'}; write f or m, or remove the line")
    return sexes


def refuse_damaged(path: Path, scores: Scores) -> None:
    """Raise UserError if a header line of scores is missing or damaged."""
    for key, form in ABOUT.items():
        if not re.fullmatch(form, scores.about.get(key, "")):
            raise UserError(f"{path}: {key}: missing or damaged; run stage 5 again, or fetch the file again")
    if not scores.has_identity:
        return
    lacking = {"code", "folds", "recordings", "speakers"} - scores.row.keys()
    lacking |= {"modules", "trainer"} - scores.about.keys()
    for part in ("system", "protocol"):
        try:
            lacking |= set() if isinstance(scores.settings(part), dict) else {f"{part} settings"}
        except (KeyError, ValueError, RecursionError):
            lacking.add(f"{part} settings")
    if lacking:
        raise UserError(
            f"{path}: {', '.join(sorted(lacking))}: missing or damaged; run stage 5 again, or fetch the file again"
        )


def mismatch(scores: Scores, now: dict[str, Any]) -> str:
    """Why scores do not match the current system and protocol files; "" if they do."""
    if not scores.has_identity:
        return f"of unknown origin (commit {scores.about['commit']})"
    reasons = [
        f"{part} {'; '.join(different[:3])}"
        for part in now
        if (different := differences(scores.settings(part), now[part]))
    ]
    return f"made with different settings: {'; '.join(reasons)}" if reasons else ""


def other_parts(runs: Runs, shown: Runs) -> str:
    """What two rows differ in, in words."""
    one, other = next(iter(runs.values())), next(iter(shown.values()))
    parts = [part for part in {**one.row, **other.row} if one.current_row.get(part) != other.current_row.get(part)]
    modules = [dict(re.findall(r"(\S+) (\S+?)(?:,|$)", scores.about["modules"])) for scores in (one, other)]
    changed = [name for name in {**modules[0], **modules[1]} if modules[0].get(name) != modules[1].get(name)]
    return ", ".join(f"code ({', '.join(changed)})" if part == "code" and changed else part for part in parts)


def of_other_folds(found: dict[tuple[str, str], Results]) -> set[tuple[str, str]]:
    """The rows (system, protocol) whose folds, speakers or recordings differ from those of most rows of the protocol.
    Recordings with unknown checksums count as the same."""
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
