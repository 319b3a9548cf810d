"""The figures of RESULTS.md, drawn from the scores in results/: confusion matrices, reliability diagrams and learning
curves."""

import re
from pathlib import Path

import numpy as np

from ser import figures, inputs
from ser.calibration import reliability
from ser.config import Protocol, System
from ser.epochs import read_log
from ser.results import Results
from ser.runs import first_line
from ser.summary import confusion_of

OF_NETWORKS = ("tsne", "tsne_speakers", "attention", *inputs.every())  # what ser.draw_run draws
IGNORED = ("words",)  # git ignores these, since they show the corpus's text, so RESULTS.md does not link them


def draw(system: System, protocol: Protocol, results: Results, is_linked: bool) -> None:
    """Draw the scores of one system under one protocol; what RESULTS.md does not link goes to figures/others/."""
    runs = results.shown
    classes = next(iter(runs.values())).classes
    title = f"{system.name}, protocol {protocol.name}, {len(runs)} run{'s' * (len(runs) > 1)}"
    paths = pictures(system, protocol, results, is_linked)
    figures.confusion(np.sum([confusion_of(run) for run in runs.values()], 0), classes, title, paths["confusion"])
    posteriors, true = (
        np.concatenate([getattr(run, name) for run in runs.values()]) for name in ("posteriors", "true")
    )
    figures.reliability(reliability(posteriors, true), title, paths["reliability"])
    if "curves" in paths:
        part = "development" if protocol.select == "dev" else "test"  # see ser.learners.network
        logs = {run: read_log(file) for run, file in log_files(system, protocol, results).items()}
        figures.learning_curves(logs, part, title, paths["curves"])


def pictures(system: System, protocol: Protocol, results: Results, is_linked: bool = True) -> dict[str, Path]:
    """The pictures, by kind, that `draw` makes."""
    folder = Path("figures", "own" if results.is_own else "" if is_linked else "others")
    kinds = ["confusion", "reliability"]
    if log_files(system, protocol, results) and not protocol.noise:  # noise is added only in testing
        kinds.append("curves")
    return {kind: folder / f"{system.name}_{protocol.name}_{kind}.png" for kind in kinds}


def log_files(system: System, protocol: Protocol, results: Results) -> dict[str, Path]:
    """The log of the epochs of each run shown that has one."""
    folder = Path("results", system.name, protocol.name, "own" * results.is_own)
    files = {run: folder / f"{run}.epochs.jsonl" for run in results.shown}
    return {run: file for run, file in files.items() if file.exists()}


def drawn(system: System, protocol: Protocol, results: Results) -> dict[str, Path]:
    """The pictures, by kind, that ser.draw_run has drawn of one of the runs shown and git does not ignore."""
    folder = Path("figures", "own" * results.is_own)
    shown = {scores.about.get("model", "")[:8] for scores in results.shown.values()}
    paths = {kind: folder / f"{system.name}_{protocol.name}_{kind}.png" for kind in OF_NETWORKS if kind not in IGNORED}
    head = f"# {system.name}, protocol {protocol.name}, "
    return {
        kind: path
        for kind, path in paths.items()
        if path.exists() and model_of(path) in shown and first_line(path.with_suffix(".txt")).startswith(head)
    }


def model_of(picture: Path) -> str:
    """The first digits of the MD5 of the weights in a picture by ser.draw_run; "" for one by an older version."""
    match = re.search(r", model ([0-9a-f]{8})\b", first_line(picture.with_suffix(".txt")))
    return match[1] if match else ""


def link(system: System, protocol: Protocol, pictures: dict[str, Path]) -> str:
    """The line that links the figures of a system under a protocol."""
    links = [f"[{kind}]({path}) ([text]({path.with_suffix('.txt')}))" for kind, path in pictures.items()]
    return f"- **{system.name}**, {protocol.name}: {', '.join(links)}"
