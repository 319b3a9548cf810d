"""The epochs of a network's training: sums over an epoch, its line in epochs.jsonl, and the best epoch."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ser import metrics
from ser.cli import UserError
from ser.config import Training
from ser.files import read_text

if TYPE_CHECKING:
    from torch import Tensor

    from ser.batches import Batch


@dataclass
class Sums:
    """Sums over the batches of an epoch so far; checkpoints include them.

    loss, and the penalty in it: summed over utterances; confusion: counts, one row per true class; seconds: time
    spent.
    """

    batches: int
    utterances: int
    loss: float
    penalty: float
    confusion: np.ndarray
    seconds: float

    @classmethod
    def empty(cls, n_classes: int) -> "Sums":
        return cls.of(
            {
                "batches": 0,
                "utterances": 0,
                "loss": 0.0,
                "penalty": 0.0,
                "confusion": [[0] * n_classes] * n_classes,
                "seconds": 0.0,
            }
        )

    @classmethod
    def of(cls, content: dict[str, Any]) -> "Sums":
        """What `as_dict` wrote."""
        return cls(**content | {"confusion": np.array(content["confusion"])})

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"confusion": self.confusion.tolist()}

    def add(self, batch: "Batch", loss: "Tensor", penalty: "Tensor", logs: "Tensor") -> None:
        """Add a batch. loss and penalty: means over the batch; logs (B, classes): log-posteriors."""
        true, predicted = batch.targets.numpy(), logs.argmax(1).cpu().numpy()
        self.batches += 1
        self.utterances += len(true)
        self.loss += loss.item() * len(true)
        self.penalty += penalty.item() * len(true)
        self.confusion += metrics.confusion_matrix(true, predicted, len(self.confusion))

    def means(self, part: str) -> dict[str, float]:
        """Mean loss and penalty, and WA, under the names that the log uses for a part."""
        return {
            f"{part}_loss": self.loss / self.utterances,
            f"{part}_penalty": self.penalty / self.utterances,
            f"{part}_wa": float(metrics.wa(self.confusion)),
        }


def line_of(epoch: int, train: Sums, dev: Sums, classes: list[str]) -> dict[str, float]:
    """An epoch's line of epochs.jsonl. dev_share_<class>: per cent of dev utterances predicted as the class."""
    line = {"epoch": epoch, **train.means("train"), **dev.means("dev")}
    line |= {f"dev_{name}": float(metric.of(dev.confusion)) for name, metric in metrics.METRICS.items()}
    line["seconds"] = train.seconds + dev.seconds
    predicted = 100 * dev.confusion.sum(0) / dev.confusion.sum()
    return line | {f"dev_share_{name}": share for name, share in zip(classes, predicted, strict=True)}


def read_log(path: Path, needed: Iterable[str] = ()) -> list[dict[str, float]]:
    """The lines of epochs.jsonl, one per epoch. Raises UserError naming the first invalid line.

    needed: keys that each line must have, beside the number of its epoch.
    """
    log = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        try:
            content = json.loads(line)
            log.append({key: float(value) for key, value in content.items()})
        except (ValueError, TypeError, AttributeError, RecursionError):
            log = []
        if not log or log[-1].get("epoch") != number or not {*needed} <= log[-1].keys():
            raise UserError(
                f"{path}:{number}: not a valid line of an epoch; remove the run's folder and run stage 4 again"
            )
    if not log:
        raise UserError(f"{path}: contains no epochs; remove the run's folder and run stage 4 again")
    return log


def best_line(log: list[dict[str, float]], monitor: str) -> dict[str, float]:
    """The first of the best epochs, by "dev_loss" (lowest) or a metric, such as "dev_ua" (highest)."""
    return min(log, key=lambda line: line[monitor] if monitor == "dev_loss" else -line[monitor])


def is_over(log: list[dict[str, float]], settings: Training) -> bool:
    """Whether patience has run out since the best epoch."""
    if not log or not settings.patience:
        return False
    return len(log) - best_line(log, settings.monitor)["epoch"] >= settings.patience
