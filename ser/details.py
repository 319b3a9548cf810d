"""The section of RESULTS.md with what is measured beside WA and UA: macro-F1, calibration, the recall of each class,
and WA and UA by sex of the test speaker. Each protocol that was run has its tables, except those with `adapt`."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ser import calibration, metrics, tables
from ser.metrics import METRICS
from ser.results import SEXES, SPEAKERS, read_sexes
from ser.scores import Scores
from ser.summary import confusion_of, mean_of, of_folds

if TYPE_CHECKING:
    from ser.config import Protocol
    from ser.recipe import Report

INTRODUCTION = """\
Means over folds, after averaging the seeds of each fold.

- **macro-F1**: the mean of the classes' F1, in per cent.
- **ECE**, expected calibration error (Guo et al., 2017): how far confidence, the posterior of the predicted class, and
  accuracy lie apart, in percentage points, over 15 bins of confidence. With few utterances it comes out too large.
- **Brier** score (1950): squared differences between posteriors and truth, summed over classes; 0 is best, 2 is worst.
- An SVM here has no probabilities: its posteriors are the softmax of its decision values.
- **recall**: the share of a class's utterances that are classified correctly, in per cent."""
BY_SEX = "- **f**, **m**: WA and UA on the utterances of female and of male test speakers; **difference**: f minus m."

Runs = Mapping[str, Sequence[Scores]]  # of one protocol, by the names of the systems that were run


def section(report: "Report") -> list[str]:
    """The lines of the section; [] if no system was run."""
    lines = []
    sexes = read_sexes()
    sex_of = {utt: sexes[speaker] for utt, speaker in report.speakers.items() if speaker in sexes}
    reason = no_groups(report, sex_of)
    for protocol in (one for one in report.protocols if not one.adapt):
        runs = {
            system.name: list(shown.values())
            for _, system in report.systems
            if (shown := report.found[system.name, protocol.name].shown)
        }
        if runs:
            names = {system: tables.name_of(report, system, [protocol]) for system in runs}
            lines += ["", f"### {tables.marked(report, protocol)}", "", *metrics_table(report, protocol, runs, names)]
            lines += ["", *recall_table(list(protocol.classes), runs, names)]
            lines += [] if reason else ["", *sex_table(sex_of, runs, names)]
    return ["", "## Other metrics", "", INTRODUCTION, reason or BY_SEX, *lines] if lines else []


def metrics_table(report: "Report", protocol: "Protocol", runs: Runs, names: Mapping[str, str]) -> list[str]:
    """The metrics that the other tables do not show, and the calibration. names: the first cells, by system."""
    others = [name for name in METRICS if name not in tables.PUBLISHED]
    pooled = tables.pooled_titles(report, [protocol], others)
    rows = [["system", "runs", *(METRICS[name].title for name in others), *pooled, "ECE", "Brier"]]
    for system, of_system in runs.items():
        row = [names[system], tables.runs_of(report, system, protocol)]
        row += [tables.shown_of(report, system, protocol, name) for name in others]
        row += tables.pooled_cells(report, system, protocol, others)
        ece = mean_of(of_folds(of_system, lambda run: calibration.ece(run.posteriors, run.true)))
        brier = mean_of(of_folds(of_system, lambda run: calibration.brier(run.posteriors, run.true)))
        rows.append([*row, f"{ece:.1f}", f"{brier:.3f}"])
    return tables.as_lines(rows)


def recall_table(classes: Sequence[str], runs: Runs, names: Mapping[str, str]) -> list[str]:
    """The recall of each class. The folds are pooled for a class that some fold does not test. names: the first cells,
    by system."""
    confusions = {system: of_folds(of_system, confusion_of) for system, of_system in runs.items()}
    tested = np.all([run.sum(1) > 0 for folds in confusions.values() for fold in folds for run in fold], 0)
    rows = [["recall", *classes]]
    for system, folds in confusions.items():
        values = np.where(tested, combined(folds, recalls, False), combined(folds, recalls, True))
        rows.append([names[system], *map(one_decimal, values.tolist())])
    lacking = ", ".join(name for name, is_tested in zip(classes, tested, strict=True) if not is_tested)
    note = f"Over the utterances of all folds together, since not every fold tests the class: {lacking}."
    return tables.as_lines(rows) + ["", note] * bool(lacking)


def sex_table(sex_of: Mapping[str, str], runs: Runs, names: Mapping[str, str]) -> list[str]:
    """WA and UA by sex of the test speaker, and their differences. The folds are pooled if some fold does not test
    every class in both sexes. sex_of: by utterance. names: the first cells, by system."""
    confusions = {
        system: [of_folds(of_system, partial(confusion_of_sex, sex, sex_of)) for sex in "fm"]
        for system, of_system in runs.items()
    }
    every = [run for both in confusions.values() for folds in both for fold in folds for run in fold]
    is_pooled = not all(run.sum(1).all() for run in every)
    titles = [METRICS[name].title for name in tables.PUBLISHED]
    rows = [["by sex", *(f"{title} {column}" for title in titles for column in ("f", "m", "difference"))]]
    for system, both in confusions.items():
        row = [names[system]]
        for name in tables.PUBLISHED:
            f, m = (float(combined(folds, METRICS[name].of, is_pooled)) for folds in both)
            row += [one_decimal(f), one_decimal(m), "–" if np.isnan(f - m) else f"{f - m:+.1f}"]
        rows.append(row)
    note = "Over the utterances of all folds together, since not every fold tests each class in both sexes."
    return tables.as_lines(rows) + ["", note] * is_pooled


def no_groups(report: "Report", sex_of: Mapping[str, str]) -> str:
    """Why there is no table by sex, as a line; "" if there is one."""
    utts = {utt for results in report.found.values() for scores in results.shown.values() for utt in scores.utts}
    lacking = len(utts - sex_of.keys())
    if lacking:
        return (
            f"- There are no tables by sex: {SPEAKERS} and {SEXES}, which stage 5 writes, lack the sex of the speakers "
            f"of {lacking} of {len(utts)} test utterances."
        )
    sexes = {sex_of[utt] for utt in utts}
    word = {"f": "female", "m": "male"}
    return f"- There are no tables by sex: all test speakers are {word[sexes.pop()]}." if len(sexes) == 1 else ""


def combined(
    folds: Sequence[Sequence[np.ndarray]], measure: Callable[[np.ndarray], np.ndarray], is_pooled: bool
) -> np.ndarray:
    """A measure of the confusion matrices (C, C) of each fold's seeds: the mean over folds of the mean over seeds; if
    `is_pooled`, that of the sum over folds of the mean over seeds. NaN without utterances."""
    if is_pooled:
        return measure(np.sum([np.mean(fold, 0) for fold in folds], 0))
    return np.mean([np.mean([measure(confusion) for confusion in fold], 0) for fold in folds], 0)


def recalls(confusion: np.ndarray) -> np.ndarray:
    """The recall of each class (C,), in per cent; NaN for a class without utterances."""
    with np.errstate(invalid="ignore"):
        return 100 * np.diag(confusion) / confusion.sum(1)


def confusion_of_sex(sex: str, sex_of: Mapping[str, str], run: Scores) -> np.ndarray:
    """Counts (C, C) of a run's utterances by speakers of one sex."""
    chosen = np.array([sex_of[utt] == sex for utt in run.utts])
    return metrics.confusion_matrix(run.true[chosen], run.predicted[chosen], len(run.classes))


def one_decimal(value: float) -> str:
    """A number in a table; a dash if there is none."""
    return "–" if np.isnan(value) else f"{value:.1f}"
