"""Scores of a run on its test utterances: a small text file, kept in git.

Lines `# key: value` say what made them; the line `# utt true predicted <classes>` names the columns;
then one line per utterance, with the posterior of each class.

`checksum` is the SHA-256 of all other lines of the file: a file that was changed by hand is refused.

These keys identify the scores: `run`, the run's identity; `model`, the MD5 of its weights; `row`, fingerprints of what
must be the same for all runs that a table averages; and the settings of system and protocol.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ser.cli import UserError
from ser.config import read_yaml
from ser.files import read_text, whole
from ser.identity import current_code, fingerprint, settings
from ser.runs import learner_sources

if TYPE_CHECKING:
    from ser.runs import Run

CHECKSUM = "checksum"  # the key of the header line


@dataclass(frozen=True)
class Scores:
    """about: what made them. true and predicted (N,): class numbers; posteriors (N, C)."""

    about: dict[str, str]
    classes: list[str]
    utts: list[str]
    true: np.ndarray
    predicted: np.ndarray
    posteriors: np.ndarray

    @property
    def has_identity(self) -> bool:
        """Whether the file records what the scores depend on."""
        return "row" in self.about

    @property
    def row(self) -> dict[str, str]:
        """Fingerprints of what all runs of a row share, besides the settings; {} if that is not known."""
        words = self.about.get("row", "").split()
        return dict(zip(words[::2], words[1::2], strict=False))

    @property
    def current_row(self) -> dict[str, str]:
        """The same with the newest code that was shown to give the same bytes."""
        row = self.row
        return row | {"code": current_code(row["code"], self.settings("system"))} if row else row

    def settings(self, part: str) -> Any:
        """Settings of the "system" or the "protocol", as ser.identity.settings returns them."""
        return json.loads(self.about[f"{part} settings"])


def identity_lines(run: "Run") -> dict[str, str]:
    """The header lines of a run's scores that say what they depend on."""
    stored = read_yaml(run.folder / "run.yaml")  # as it was trained
    return {
        "run": fingerprint(stored["parts"]),
        "model": run.model,
        "row": " ".join(f"{part} {value or 'none'}" for part, value in run.row.items()),
        "trainer": stored["parts"]["trainer"],
        "scorer": fingerprint(dict(learner_sources(run.system))),
        "modules": ", ".join(f"{module} {of_module[:8]}" for module, of_module in run.code.items()),
        **{
            f"{part} settings": json.dumps(settings(config), separators=(",", ":"))
            for part, config in (("system", run.system), ("protocol", run.protocol))
        },
    }


def write_scores(path: Path, scores: Scores) -> None:
    """Write one run's scores, sorted by utterance."""
    about = {key: " ".join(str(value).split()) for key, value in scores.about.items() if key != CHECKSUM}
    head = [f"# {key}: {value}" for key, value in about.items()]
    body = [f"# utt true predicted {' '.join(scores.classes)}"]
    for row in sorted(range(len(scores.utts)), key=scores.utts.__getitem__):
        names = scores.classes[scores.true[row]], scores.classes[scores.predicted[row]]
        values = " ".join(f"{value:.6f}" for value in scores.posteriors[row])
        body.append(f"{scores.utts[row]} {' '.join(names)} {values}")
    with whole(path) as stream:
        stream.writelines(f"{line}\n" for line in [*head, f"# {CHECKSUM}: {checksum([*head, *body])}", *body])


def checksum(lines: Sequence[str]) -> str:
    """SHA-256 of the lines of a file of scores, each with its line end, without the line that holds the checksum."""
    others = (f"{line}\n" for line in lines if not line.startswith(f"# {CHECKSUM}: "))
    return hashlib.sha256("".join(others).encode()).hexdigest()


def read_scores(path: Path) -> Scores:
    """Read what write_scores wrote. Raises UserError naming the first invalid line, or if the file does not match its
    checksum. Files of older versions have none."""
    about: dict[str, str] = {}
    numbers: dict[str, int] = {}  # of the classes
    utts, true, predicted, values = [], [], [], []
    places = []
    lines = read_text(path).removesuffix("\n").split("\n")
    for place, line in enumerate(lines, 1):
        try:
            if line.startswith("# utt true predicted "):
                numbers = {name: number for number, name in enumerate(line.split()[4:])}
            elif line.startswith("# "):
                key, value = line[2:].split(": ", 1)
                about[key] = value
            else:
                utt, true_name, predicted_name, *posteriors = line.split()
                if len(posteriors) != len(numbers):
                    raise ValueError
                utts.append(utt)
                true.append(numbers[true_name])
                predicted.append(numbers[predicted_name])
                values.append(posteriors)
                places.append(place)
        except (ValueError, KeyError):
            raise _no_scores(path, place) from None
    if not utts:
        raise UserError(f"{path}: contains no scores; run stage 5 again")
    if about.get("utterances", str(len(utts))) != str(len(utts)):
        raise UserError(f"{path}: {len(utts)} utterances instead of {about['utterances']}; run stage 5 again")
    try:
        shares = np.array(values, float)
    except ValueError:
        raise _no_scores(
            path, next(p for p, row in zip(places, values, strict=True) if not _are_numbers(row))
        ) from None
    wrong = ~((shares >= 0) & (shares <= 1)).all(1)
    if wrong.any():
        raise _no_scores(path, places[int(wrong.argmax())])
    if len(set(utts)) < len(utts):
        twice = next(utt for utt in utts if utts.count(utt) > 1)
        raise UserError(f"{path}: {twice} appears twice; run stage 5 again")
    if about.get(CHECKSUM) not in (None, checksum(lines)):
        raise UserError(
            f"{path}: changed since stage 5 wrote it; restore it with git, or remove it and run stage 5 again"
        )
    return Scores(about, list(numbers), utts, np.array(true), np.array(predicted), shares)


def _no_scores(path: Path, line: int) -> UserError:
    return UserError(f"{path}:{line}: not a line of scores; run stage 5 again")


def _are_numbers(words: list[str]) -> bool:
    try:
        return bool([float(word) for word in words])
    except ValueError:
        return False
