"""Train committed runs again, and compare their scores with the committed ones (ser.verify --rerun).

The same code, recordings, packages and processor give the same bytes. Elsewhere the last digits of features and weights
differ, and what that does depends on the model:

- A classical model is the solution of an optimisation that stops within a tolerance of 1e-3 or less (scikit-learn's
  `tol`), so its posteriors must agree within CLASSICAL.
- In a network the last digit grows with every step, until the run is like one of another seed. So WA and UA must agree
  within what two seeds differ by: the 95th percentile of the differences between the committed seeds of one system and
  fold, over all networks of the recipe's protocol, or of the recipe where the protocol has fewer than ENOUGH pairs.
  One run in twenty of a correct reproduction lies outside.
"""

import io
import itertools
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ser import cli, metrics
from ser.cli import UserError
from ser.files import standing_in
from ser.identity import ROOT
from ser.provenance import provenance
from ser.reading import read_run_fold, refuse_other_features
from ser.results import code_now, data_changed
from ser.runs import Run, refuse_other_protocol, write_run
from ser.score import score
from ser.scores import Scores, read_scores
from ser.summary import confusion_of

if TYPE_CHECKING:
    from ser.verify import Checked

CLASSICAL = 1e-3  # largest difference of a classical model's posteriors
ENOUGH = 10  # pairs of seeds that a percentile needs


class NotHere(UserError):
    """A run cannot be trained again with the data that are here."""


def rerun(recipes: list["Checked"], number: int, seed: int, max_minutes: float) -> int:
    """Train `number` runs again, drawn at random from those that can be; return how many of them differ or fail. Raises
    UserError if there are none."""
    able = [(checked, path) for checked in recipes for path in candidates(checked, max_minutes)]
    random.Random(seed).shuffle(able)
    results: Counter[str] = Counter()
    for checked, path in able:
        if results.total() == number:
            break
        began = time.monotonic()
        try:
            verdict, words = compare(checked, path)
        except NotHere as error:
            print(f"{checked.shown}{path}: not trained again: {error}", flush=True)
            continue
        except UserError as error:
            verdict, words = "failed", f"could not be trained again: {error}"
        results[verdict] += 1
        line = cli.plain(f"{checked.shown}{path}: {words} ({(time.monotonic() - began) / 60:.1f} minutes)")
        is_fault = verdict in ("failed", "outside")
        print(f"error: {line}" if is_fault else line, file=sys.stderr if is_fault else sys.stdout, flush=True)
    if not results:
        raise UserError("--rerun: no committed run can be trained again here (see above)")
    print(
        f"{results.total()} of {number} runs trained again: {results['same']} gave the same bytes, "
        f"{results['within']} agree within the tolerance, {results['outside']} do not, {results['failed']} failed"
    )
    return results["outside"] + results["failed"]


def candidates(checked: "Checked", max_minutes: float) -> list[Path]:
    """The scores of a recipe whose runs can be trained again here; prints how many, and why not the others."""
    with standing_in(checked.recipe):
        if not Path("data/all/wav.scp").exists():
            missing = "data/all is missing; `./run.sh --stop-stage 0` makes it"
            print(f"{checked.shown or './'}: no run can be trained again: {missing}", flush=True)
            return []
        reasons = {path: why_not(checked, path, scores, max_minutes) for path, scores in checked.runs.items()}
    able = [path for path, reason in reasons.items() if not reason]
    others = "".join(f"; {count} {why}" for why, count in Counter(reasons.values()).items() if why)
    print(f"{checked.shown or './'}: {len(able)} of {len(reasons)} runs can be trained again{others}", flush=True)
    return able


def why_not(checked: "Checked", path: Path, scores: Scores, max_minutes: float) -> str:
    """Why a run cannot be trained again, in words; "" if it can."""
    system, protocol = checked.systems[path.parts[1]][1], checked.protocols[path.parts[2]][1]
    if scores.current_row["code"] != code_now(system, protocol):
        return "were made by other code of the feature or model"
    if float(scores.about["train_seconds"]) > 60 * max_minutes:
        return f"took more than {max_minutes:g} minutes"
    if changed := data_changed(scores, protocol):
        return f"were made with other {' and '.join(changed)} than those in data/"
    try:
        run_of(checked, path, scores, Path()).refuse_missing_inputs()
    except UserError as error:
        return f"need what is missing here ({error})"
    return ""


def run_of(checked: "Checked", path: Path, scores: Scores, folder: Path) -> Run:
    """The run of some scores, to be trained in `folder` with the recipe's data/ and dump/."""
    protocol = checked.protocols[path.parts[2]][1]
    return Run(
        folder=folder,
        corpus=scores.about["corpus"],
        system=checked.systems[path.parts[1]][1],
        protocol=protocol,
        fold=int(scores.about["fold"].split()[0]),
        seed=int(scores.about["seed"]),
        data=Path("data/all"),
        folds=Path("data/folds", protocol.name),
        dump=Path("dump"),
        made=provenance("python -m ser.verify --rerun"),
    )


def compare(checked: "Checked", path: Path) -> tuple[str, str]:
    """Train a run again and compare; return "same", "within" or "outside", and how, in words."""
    before = checked.runs[path]
    with standing_in(checked.recipe), tempfile.TemporaryDirectory(prefix="ser_rerun_") as place:
        run = run_of(checked, path, before, Path(place, path.stem))
        prepare(run, checked, path)
        train(run, before)
        result = Path(place, "scores", path.name)
        with redirect_stdout(io.StringIO()):
            score(run.folder, result, "cpu")
        if body(result) == body(path):
            return "same", "the same bytes"
        return judge(before, read_scores(result), run.system.learner == "network", checked.runs, path)


def prepare(run: Run, checked: "Checked", path: Path) -> None:
    """Make the run's folds and features in data/ and dump/, where they are missing or outdated. Raises NotHere if the
    data are not those of the committed scores."""
    system, protocol = checked.systems[path.parts[1]][0], checked.protocols[path.parts[2]][0]
    if not (run.folds / "classes").exists():
        call("ser.make_folds", protocol, run.data, run.folds)
    try:
        refuse_other_protocol(run.folds, run.protocol)
    except UserError as error:
        raise NotHere(str(error)) from None
    if changed := data_changed(checked.runs[path], run.protocol):
        raise NotHere(f"made with other {' and '.join(changed)} than those in data/")
    try:
        refuse_other_features(run, read_run_fold(run))
    except UserError:
        call("ser.dump_features", "--systems", system, "--protocols", protocol, "--", run.data, run.dump)


def train(run: Run, before: Scores) -> None:
    """Train a run on a CPU, with as many threads as the committed one, since their number may change the last digit."""
    write_run(run)
    threads = re.search(r"--num-threads (\d+)", before.about.get("command", ""))
    call("ser.train", "--device", "cpu", "--num-threads", threads[1] if threads else "1", run.folder)


def call(module: str, *arguments: Any) -> None:
    """Run one of the other commands. Raises UserError with its last line if it fails."""
    # the job runners are in tools/, and the code is this checkout's, whatever folder we stand in
    environment = {**os.environ, "PATH": f"{ROOT / 'tools'}:{os.environ.get('PATH', '')}", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{module}: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}")


def body(path: Path) -> list[str]:
    """The lines of scores that hold classes and posteriors."""
    return [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("# ")]


def judge(before: Scores, after: Scores, is_network: bool, runs: Mapping[Path, Scores], path: Path) -> tuple[str, str]:
    """Whether scores that differ agree within the tolerance, and how they differ, in words. runs: those of the recipe,
    by path; path: of `before`."""
    if before.utts != after.utts or before.classes != after.classes:
        return "outside", "has other test utterances or classes"
    largest = float(np.abs(before.posteriors - after.posteriors).max())
    then, now = ({name: value(scores) for name, value in MEASURES.items()} for scores in (before, after))
    words = ", ".join(f"{name} {then[name]:.1f} then, {now[name]:.1f} now" for name in then)
    words += f", posteriors differ by up to {largest:.6f}"
    if is_network:
        limits, n_pairs, what = spread(runs, path)
        is_within = all(abs(then[name] - now[name]) <= limits[name] for name in then)
        tolerance = ", ".join(f"{name} {limit:.1f}" for name, limit in limits.items())
        tolerance += f" (95 % of {n_pairs} pairs of seeds of {what})"
    else:
        is_within, tolerance = largest <= CLASSICAL, f"posteriors {CLASSICAL:g}"
    others = other_versions(before, after)
    verdict = "within" if is_within else "outside"
    return verdict, f"{words}: {verdict} the tolerance: {tolerance}{f'; {others}' if others else ''}"


MEASURES = {
    "WA": lambda scores: metrics.wa(confusion_of(scores)),
    "UA": lambda scores: metrics.ua(confusion_of(scores)),
}


def spread(runs: Mapping[Path, Scores], path: Path) -> tuple[dict[str, float], int, str]:
    """The 95th percentiles of the differences of WA and UA between two seeds of the same network and fold, the number
    of pairs, and whose they are. Without any pair they are 0."""
    pairs = pairs_of_seeds({place: scores for place, scores in runs.items() if place.parts[2] == path.parts[2]})
    what = f"the protocol {path.parts[2]}"
    if len(pairs) < ENOUGH:
        pairs, what = pairs_of_seeds(runs), "the recipe"
    limits = {
        name: float(np.quantile([abs(value(one) - value(other)) for one, other in pairs] or [0.0], 0.95))
        for name, value in MEASURES.items()
    }
    return limits, len(pairs), what


def pairs_of_seeds(runs: Mapping[Path, Scores]) -> list[tuple[Scores, Scores]]:
    """The pairs of runs of networks that differ in the seed alone, and not in nothing."""
    groups: dict[Any, dict[bytes, Scores]] = defaultdict(dict)
    for path, scores in runs.items():
        if "epochs" in scores.about:  # of a network
            key = (path.parent, scores.about["fold"], *sorted(scores.current_row.items()))
            groups[key][scores.posteriors.tobytes()] = scores
    return [pair for group in groups.values() for pair in itertools.combinations(group.values(), 2)]


def other_versions(before: Scores, after: Scores) -> str:
    """Which packages, machine or training code differ, in words."""
    then, now = (
        dict(re.findall(r"(\S+) (.+?)(?:, |$)", scores.about.get("versions", ""))) for scores in (before, after)
    )
    words = [f"{name} {then[name]} then, {now[name]} now" for name in now if name in then and then[name] != now[name]]
    for key, what in (("machine", "machine"), ("trainer", "training code")):
        if before.about.get(key) != after.about.get(key):
            words.append(f"{what} {before.about.get(key)} then, {after.about.get(key)} now")
    return "; ".join(words)
