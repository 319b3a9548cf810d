"""What is wrong with the scores in a recipe's results/, by themselves, with each other and with the files in conf/.

Call everything here in the recipe's folder.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ser.cli import UserError
from ser.config import Protocol, System, read_protocol, read_system
from ser.identity import fingerprint, settings
from ser.provenance import UNKNOWN, git
from ser.recipe import find_systems
from ser.results import mismatch, read_speakers, refuse_damaged
from ser.scores import CHECKSUM, Scores, read_scores

Fault = tuple[str, str]  # place, such as a file or file:line; what is wrong there, and what to do
COMMIT = re.compile(r"[0-9a-f]{7,40}( \(ser .+\))?")  # as ser.provenance records it for code that is in git
AGAIN = "restore it with git, or remove it and run stage 5 again"


def fault_of(error: UserError) -> Fault:
    """An error about a file, whose message starts with the file's path."""
    place, _, what = str(error).partition(": ")
    return place, what


def read_systems(names: set[str]) -> tuple[dict[str, tuple[Path, System]], list[Fault]]:
    """The system files of some systems, of this recipe or another."""
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


def read_protocols(names: set[str]) -> tuple[dict[str, tuple[Path, Protocol]], list[Fault]]:
    """The protocol files of some protocols of this recipe."""
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
    systems: dict[str, tuple[Path, System]],
    protocols: dict[str, tuple[Path, Protocol]],
) -> tuple[dict[Path, Scores], list[Fault]]:
    """Check the scores of a system under a protocol; return those without faults, and the faults."""
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


def check_scores(path: Path, scores: Scores, corpus: str, now: dict[str, Any], classes: list[str]) -> Iterator[str]:
    """What is wrong with scores by themselves. now: the settings of the system and protocol files. classes: those of
    the protocol."""
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


def check_identities(runs: dict[Path, Scores]) -> list[Fault]:
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
    faults = []
    for kind, what in (
        ("M", "differs from the file in git; restore it, or commit it if stage 5 wrote it"),
        ("D", "is in git, but not here; restore it with git, or commit its removal"),
    ):
        arguments = ("--name-only", "--relative", f"--diff-filter={kind}", "HEAD", "--", "results/*.txt")
        found = git(Path.cwd(), "diff", *arguments)
        faults += [] if found.startswith(UNKNOWN) else [(name, what) for name in found.splitlines()]
    return faults


def check_protocol(runs: dict[Path, Scores], protocol: Protocol) -> list[Fault]:
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
    draws = protocol.adapt.draws if protocol.adapt else 1
    times = draws * getattr(protocol.folds, "test_parts", 0)  # how often an utterance is tested; 0: as chance has it
    if not times:
        return faults
    for of_folds in tested.values():
        counts = Counter(utt for utts, _ in of_folds.values() for utt in utts)
        often = [utt for utt, count in counts.items() if count > times]
        if often:
            first, *others = [str(path) for utts, path in of_folds.values() if often[0] in utts]
            faults.append((first, f"tests {often[0]}, as do other folds that are apart: {', '.join(others)}"))
    return faults + check_speakers(runs, tested, not (protocol.adapt and protocol.adapt.utterances))


def check_speakers(
    runs: dict[Path, Scores], tested: dict[str, dict[str, tuple[list[str], Path]]], tests_all: bool
) -> list[Fault]:
    """Whether results/utt2spk has the speakers that the scores were made with. tested: as in check_protocol; only folds
    that together test every utterance can tell. tests_all: whether all folds do, so that none is set aside in each."""
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
        elif tests_all and len(of_folds) == int(runs[first].about["fold"].split(" of ")[1]):
            speakers = fingerprint([(utt, utt2spk[utt]) for utt in utts])
            others = [path for path, scores in runs.items() if scores.row["speakers"] != speakers]
            others = [path for path in others if runs[path].row["folds"] == runs[first].row["folds"]]
            if others:
                what = f"has other speakers than those that {others[0]} was made with; restore it with git"
                faults.append(("results/utt2spk", what))
    return faults
