"""Scores of a run on its test utterances: a small text file, kept in git.

Lines `# key: value` say what made them; the line `# utt true predicted <classes>` heads the columns;
then a line an utterance, with the posterior of each class.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ser.cli import UserError
from ser.files import whole


@dataclass(frozen=True)
class Scores:
    """about: what made them. true and predicted (N,): class numbers; posteriors (N, C)."""

    about: dict[str, str]
    classes: list[str]
    utts: list[str]
    true: np.ndarray
    predicted: np.ndarray
    posteriors: np.ndarray


def write_scores(path: Path, scores: Scores) -> None:
    """Write one run's scores, sorted by utterance."""
    with whole(path) as stream:
        stream.writelines(f"# {key}: {' '.join(str(value).split())}\n" for key, value in scores.about.items())
        stream.write(f"# utt true predicted {' '.join(scores.classes)}\n")
        for row in sorted(range(len(scores.utts)), key=scores.utts.__getitem__):
            names = scores.classes[scores.true[row]], scores.classes[scores.predicted[row]]
            values = " ".join(f"{value:.6f}" for value in scores.posteriors[row])
            stream.write(f"{scores.utts[row]} {' '.join(names)} {values}\n")


def read_scores(path: Path) -> Scores:
    """Read what write_scores wrote. Raises UserError naming the line that is not as it should be."""
    about: dict[str, str] = {}
    classes: list[str] = []
    utts, true, predicted, posteriors = [], [], [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"), 1):
        try:
            if line.startswith("# utt true predicted "):
                classes = line.split()[4:]
            elif line.startswith("# "):
                key, value = line[2:].split(": ", 1)
                about[key] = value
            else:
                utt, true_name, predicted_name, *values = line.split()
                utts.append(utt)
                true.append(classes.index(true_name))
                predicted.append(classes.index(predicted_name))
                posteriors.append(np.array(values, float).reshape(len(classes)))
        except ValueError:
            raise UserError(f"{path}:{number}: not a line of scores; run stage 5 again") from None
    if not utts:
        raise UserError(f"{path}: holds no scores; run stage 5 again")
    return Scores(about, classes, utts, np.array(true), np.array(predicted), np.array(posteriors))
