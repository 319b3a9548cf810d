"""The section of RESULTS.md with what is measured beside WA and UA: macro-F1, calibration, the recall of each class,
and WA and UA by sex of the test speaker. Each protocol that was run has its tables."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ser import calibration, metrics, tables
from ser.metrics import METRICS
from ser.results import SEXES, SPEAKERS, read_sexes, read_speakers
from ser.scores import Scores
from ser.summary import confusion_of, mean_of, n_runs, of_folds

if TYPE_CHECKING:
    from ser.config import Protocol
    from ser.report import Report

INTRODUCTION = """\
Mean over folds, after averaging the seeds of each fold.

- **macro-F1**: the mean of the classes' F1, in per cent.
- **ECE**, expected calibration error (Guo et al., 2017): how far confidence, the posterior of the predicted class, and
  accuracy lie apart, in percentage points, over 15 bins of confidence. With few utterances it comes out too large.
- **Brier** score (1950): squared differences between posteriors and truth, summed over classes; 0 is best, 2 is worst.
- An SVM here has no probabilities: its posteriors are the softmax of its decision values.
- **recall**: the share of a class's utterances that are classified correctly, in per cent."""
BY_SEX = "- **f**, **m**: WA and UA on the utterances of female and of male test speakers; **difference**: f minus m."

Folds = Sequence[Sequence[Scores]]  # the runs of a system under a protocol: for each fold, its seeds


def section(report: "Report") -> list[str]:
    """The lines of the section; [] if no system was run."""
    lines = []
    sex_of = read_sex_of()
    reason = no_groups(report, sex_of)
    for protocol in report.protocols:
        rows = {
            system.name: list(runs.values())
            for _, system in report.systems
            if (runs := report.found[system.name, protocol.name].shown)
        }
        if rows:
            lines += ["", f"### {tables.marked(protocol, report.found)}", "", *metrics_table(rows)]
            lines += ["", *recall_table(rows, protocol)]
            lines += [] if reason else ["", *sex_table(rows, sex_of)]
    return ["", "## Other metrics", "", INTRODUCTION, reason or BY_SEX, *lines] if lines else []


def metrics_table(rows: Mapping[str, Sequence[Scores]]) -> list[str]:
    """The metrics that are not in the main table, and the calibration. rows: the runs of each system."""
    names = [name for name in METRICS if name not in tables.PUBLISHED]
    lines = [["system", "runs", *(METRICS[name].title for name in names), "ECE", "Brier"]]
    for system, runs in rows.items():
        folds = by_fold(runs)
        values = [mean_of(of_folds(runs, METRICS[name].of)) for name in names]
        values.append(mean_over(folds, lambda run: calibration.ece(run.posteriors, run.true)))
        brier = mean_over(folds, lambda run: calibration.brier(run.posteriors, run.true))
        lines.append([f"**{system}**", n_runs(runs), *map(one_decimal, values), f"{brier:.3f}"])
    return tables.as_lines(lines)


def recall_table(rows: Mapping[str, Sequence[Scores]], protocol: "Protocol") -> list[str]:
    """The recall of each class. The folds are pooled for a class that some fold does not test. rows: the runs of each
    system."""
    classes = list(protocol.classes)
    tested = [np.bincount(run.true, minlength=len(classes)) > 0 for runs in rows.values() for run in runs]
    pooled = ~np.all(tested, 0)
    lines = [["recall", *classes]]
    for system, runs in rows.items():
        folds = [[confusion_of(run) for run in fold] for fold in by_fold(runs)]
        values = [combined(folds, recall_of(number), bool(pooled[number])) for number in range(len(classes))]
        lines.append([f"**{system}**", *map(one_decimal, values)])
    names = ", ".join(name for name, is_pooled in zip(classes, pooled, strict=True) if is_pooled)
    note = f"Over the utterances of all folds together, since not every fold tests the class: {names}."
    return tables.as_lines(lines) + ["", note] * bool(names)


def sex_table(rows: Mapping[str, Sequence[Scores]], sex_of: Mapping[str, str]) -> list[str]:
    """WA and UA by sex of the test speaker, and their differences. The folds are pooled if some fold does not test
    every class in both sexes. rows: the runs of each system. sex_of: by utterance."""
    of_sexes = {
        system: [[{sex: confusion_of_sex(run, sex, sex_of) for sex in "fm"} for run in fold] for fold in by_fold(runs)]
        for system, runs in rows.items()
    }
    confusions = [run[sex] for folds in of_sexes.values() for fold in folds for run in fold for sex in "fm"]
    is_pooled = not all(confusion.sum(1).all() for confusion in confusions)
    titles = [METRICS[name].title for name in tables.PUBLISHED]
    lines = [["by sex", *(f"{title} {column}" for title in titles for column in ("f", "m", "difference"))]]
    for system, folds in of_sexes.items():
        values = []
        for name in tables.PUBLISHED:
            f, m = (
                combined([[run[sex] for run in fold] for fold in folds], METRICS[name].of, is_pooled) for sex in "fm"
            )
            values += [one_decimal(f), one_decimal(m), "–" if np.isnan(f - m) else f"{f - m:+.1f}"]
        lines.append([f"**{system}**", *values])
    note = "Over the utterances of all folds together, since not every fold tests each class in both sexes."
    return tables.as_lines(lines) + ["", note] * is_pooled


def read_sex_of() -> dict[str, str]:
    """The sex of the speaker of each utterance, "f" or "m", where results/ has it."""
    sexes = read_sexes()
    return {utt: sexes[speaker] for utt, speaker in read_speakers().items() if speaker in sexes}


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


def by_fold(runs: Iterable[Scores]) -> Folds:
    """The runs of each fold. Runs of a fold with the same posteriors count once, as in `summary.of_folds`."""
    folds: dict[str, dict[bytes, Scores]] = defaultdict(dict)
    for scores in runs:
        folds[scores.about["fold"]][scores.posteriors.tobytes()] = scores
    return [list(of_fold.values()) for of_fold in folds.values()]


def mean_over(folds: Folds, measure: Callable[[Scores], float]) -> float:
    """The mean over folds of the mean over each fold's seeds."""
    return mean_of([[measure(run) for run in fold] for fold in folds])


def combined(folds: Sequence[Sequence[np.ndarray]], measure: Callable[[np.ndarray], float], is_pooled: bool) -> float:
    """A metric of the confusion matrices (C, C) of each fold's seeds: the mean over folds of the mean over seeds; if
    `is_pooled`, that of the sum over folds of the mean over seeds, or NaN if there are no utterances."""
    if not is_pooled:
        return mean_of([[measure(confusion) for confusion in fold] for fold in folds])
    pooled = np.sum([np.mean(fold, 0) for fold in folds], 0)
    return measure(pooled) if pooled.any() else np.nan


def confusion_of_sex(run: Scores, sex: str, sex_of: Mapping[str, str]) -> np.ndarray:
    """Counts (C, C) of a run's utterances by speakers of one sex."""
    chosen = np.array([sex_of[utt] == sex for utt in run.utts])
    return metrics.confusion_matrix(run.true[chosen], run.predicted[chosen], len(run.classes))


def recall_of(number: int) -> Callable[[np.ndarray], float]:
    """The recall of a class, in per cent, as a function of a confusion matrix (C, C); NaN if it has no utterances."""

    def recall(confusion: np.ndarray) -> float:
        tested = confusion[number].sum()
        return 100 * float(confusion[number, number] / tested) if tested else np.nan

    return recall


def one_decimal(value: float) -> str:
    """A number in a table; a dash if there is none."""
    return "–" if np.isnan(value) else f"{value:.1f}"
