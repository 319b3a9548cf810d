"""Folds on disk: FOLDS/fold<k>/{train,dev,test}, each a table `utt class`."""

from dataclasses import dataclass
from pathlib import Path

from ser.cli import UserError
from ser.datadir import read_table


@dataclass(frozen=True)
class Fold:
    """One split: each part maps utterances to classes; `classes` in the protocol's order.

    dev is empty where the protocol selects on the test set or takes the last model. overlap says
    what train and test share, in words.
    """

    classes: list[str]
    train: dict[str, str]
    dev: dict[str, str]
    test: dict[str, str]
    overlap: str

    def targets(self) -> dict[str, int]:
        """Class number of every utterance of the fold."""
        numbers = {name: number for number, name in enumerate(self.classes)}
        return {
            utt: numbers[name] for part in (self.train, self.dev, self.test) for utt, name in part.items()
        }


def read_fold(folder: str | Path) -> Fold:
    """Read FOLDS/fold<k>, as stage 1 wrote it."""
    folder = Path(folder)
    classes = list(read_table(folder.parent / "classes").values())
    train, dev, test = (read_table(folder / part) for part in ("train", "dev", "test"))
    overlap = "; ".join((folder / "overlap").read_text(encoding="utf-8").splitlines()[:2])
    return Fold(classes, train, dev, test, overlap)


def fold_numbers(folder: str | Path) -> list[int]:
    """Numbers of the folds of a protocol, in order."""
    numbers = sorted(int(path.name.removeprefix("fold")) for path in Path(folder).glob("fold[0-9]*"))
    if not numbers:
        raise UserError(f"{folder}: no folds here; run stage 1")
    return numbers
