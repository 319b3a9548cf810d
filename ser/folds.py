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


def read_fold(folder: str | Path, data: str | Path) -> Fold:
    """Read FOLDS/fold<k>, as stage 1 wrote it or a hand did.

    Raises UserError, naming file and line, for a class that the protocol lacks, an utterance in two
    parts or not in the data directory `data`; and where there is nothing to train a class on, or to test.
    """
    folder = Path(folder)
    numbered = read_table(folder.parent / "classes")
    classes = [numbered[number] for number in sorted(numbered, key=int)]  # a table has 10 before 2
    train, dev, test = (read_table(folder / part) for part in ("train", "dev", "test"))
    known = read_table(Path(data) / "utt2spk")
    part_of: dict[str, str] = {}
    for part, utts in (("train", train), ("dev", dev), ("test", test)):
        for number, (utt, name) in enumerate(utts.items(), 1):
            place = f"{folder / part}:{number}"
            if name not in classes:
                raise UserError(f"{place}: {utt} has the class {name!r}; one of {', '.join(classes)}")
            if part_of.setdefault(utt, part) != part:
                raise UserError(f"{place}: {utt} stands in {part_of[utt]} too; take one of the lines out")
            if utt not in known:
                raise UserError(f"{place}: {utt} is not in {data}; take the line out or run stage 1 again")
    for name in classes:
        if name not in train.values():
            raise UserError(f"{folder / 'train'}: no utterance of {name}; add some or run stage 1 again")
    if not test:
        raise UserError(f"{folder / 'test'}: no utterance; add some or run stage 1 again")
    overlap = "; ".join((folder / "overlap").read_text(encoding="utf-8").splitlines()[:2])
    return Fold(classes, train, dev, test, overlap)


def fold_numbers(folder: str | Path) -> list[int]:
    """Numbers of the folds of a protocol, in order."""
    numbers = sorted(int(path.name.removeprefix("fold")) for path in Path(folder).glob("fold[0-9]*"))
    if not numbers:
        raise UserError(f"{folder}: no folds here; run stage 1")
    return numbers
