"""Folds on disk: FOLDS/fold<k>/{train,dev,test}, each a table of lines `utt class`; and for a protocol with `adapt`
FOLDS/fold<k>/adapt, a table of lines `utt spk`."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ser.cli import UserError
from ser.datadir import read_table

if TYPE_CHECKING:
    from ser.config import Protocol


SHARED_SPEAKERS = re.compile(r"train and test share (\d+) of (\d+) speakers")  # in an overlap


@dataclass(frozen=True)
class Fold:
    """One split: each part maps utterances to classes; `classes` in the protocol's order.

    dev is empty if the protocol selects on the test set or uses the last model. overlap says what train and test share,
    in words. adapt: maps the utterances that a system may adapt to, without their labels, to their speakers; those of
    training speakers are in train too, the others in no part. sources: maps a noisy copy of a training utterance to the
    original, and every other utterance to itself.
    """

    classes: list[str]
    train: dict[str, str]
    dev: dict[str, str]
    test: dict[str, str]
    overlap: str
    adapt: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        every = (self.train, self.dev, self.test, self.adapt)
        object.__setattr__(self, "sources", {utt: utt for part in every for utt in part})

    def with_copies(self, noises: Iterable[str]) -> "Fold":
        """The fold with a noisy copy of every training utterance, for each noise."""
        sources = {copy_id(utt, noise): utt for noise in noises for utt in self.train}
        train = self.train | {copy: self.train[utt] for copy, utt in sources.items()}
        fold = Fold(self.classes, train, self.dev, self.test, self.overlap, self.adapt)
        fold.sources.update(sources)
        return fold

    def targets(self) -> dict[str, int]:
        """Class number of every utterance of the fold."""
        numbers = {name: number for number, name in enumerate(self.classes)}
        return {utt: numbers[name] for part in (self.train, self.dev, self.test) for utt, name in part.items()}


def copy_id(utt: str, noise: str) -> str:
    """Id of the noisy copy of an utterance."""
    return f"{utt}-{noise}"


def read_fold(folder: str | Path, data: str | Path, protocol: "Protocol | None" = None) -> Fold:
    """Read FOLDS/fold<k>, written by stage 1 or by hand.

    protocol: what the fold is used for. Raises UserError, naming file and line, for an unknown class, classes that are
    not the protocol's, an utterance in two parts or not in the data directory `data`; and if a class has no training
    utterance, or the test set, or a development set that the protocol needs, is empty.
    """
    from ser.identity import table_of

    folder = Path(folder)
    classes = read_classes(folder.parent / "classes")
    if protocol and classes != list(protocol.classes):
        others = f"{', '.join(classes)}, but the protocol {protocol.name} has {', '.join(protocol.classes)}"
        raise UserError(f"{folder.parent / 'classes'}: has the classes {others}; run stage 1 again")
    train, dev, test = (dict(table_of(folder / part)) for part in ("train", "dev", "test"))
    known = table_of(Path(data) / "utt2spk")
    part_of: dict[str, str] = {}
    for part, utts in (("train", train), ("dev", dev), ("test", test)):
        for number, (utt, name) in enumerate(utts.items(), 1):
            place = f"{folder / part}:{number}"
            if name not in classes:
                raise UserError(f"{place}: {utt} has the class {name!r}; one of {', '.join(classes)}")
            if part_of.setdefault(utt, part) != part:
                raise UserError(f"{place}: {utt} is also in {part_of[utt]}; remove one of the lines")
            if utt not in known:
                raise UserError(f"{place}: {utt} is not in {data}; remove the line or run stage 1 again")
    there = set(train.values())
    for name in classes:
        if name not in there:
            raise UserError(f"{folder / 'train'}: no utterance of {name}; add some or run stage 1 again")
    needed = {"test": test, "dev": dev} if protocol and protocol.select == "dev" else {"test": test}
    for part, utts in needed.items():
        if not utts:
            raise UserError(f"{folder / part}: no utterance; add some or run stage 1 again")
    adapt = read_adapt(folder / "adapt", part_of, known) if protocol and protocol.adapt else {}
    if protocol and protocol.adapt:
        refuse_other_number(folder / "adapt", adapt, {known[utt] for utt in part_of}, protocol.adapt.utterances)
    return Fold(classes, train, dev, test, read_overlap(folder / "overlap"), adapt)


def read_adapt(path: Path, part_of: Mapping[str, str], utt2spk: Mapping[str, str]) -> dict[str, str]:
    """The utterances to adapt to, with their speakers. part_of: train, dev or test, by utterance. Raises UserError for
    an utterance that is scored, an unknown one, or another speaker than in the data directory."""
    from ser.identity import table_of

    if not path.exists():
        raise UserError(f"{path}: no such table, but the protocol has `adapt`; run stage 1 again")
    adapt = dict(table_of(path))
    for number, (utt, spk) in enumerate(adapt.items(), 1):
        if utt2spk.get(utt) != spk:
            raise UserError(f"{path}:{number}: {utt} is not by {spk} in the data directory; run stage 1 again")
        if part_of.get(utt, "train") != "train":
            raise UserError(f"{path}:{number}: {utt} is also in {part_of[utt]}; remove one of the lines")
    return adapt


def refuse_other_number(path: Path, adapt: Mapping[str, str], speakers: Iterable[str], wanted: int) -> None:
    """Raise UserError unless there are as many utterances to adapt to of each speaker as the protocol wants."""
    counts = Counter(adapt.values())
    for spk in sorted({*speakers, *counts}):
        if counts[spk] != wanted:
            raise UserError(f"{path}: {counts[spk]} utterances of {spk}, not {wanted}; run stage 1 again")


def read_classes(path: Path) -> list[str]:
    """The classes in order of their numbers. Raises UserError unless these are 0, 1, 2, ..., with a different class
    each."""
    numbered = read_table(path)
    classes = [numbered.get(str(number), "") for number in range(len(numbered))]
    if not all(classes) or len(set(classes)) < len(classes) or not classes:
        raise UserError(f"{path}: should have the lines `0 class`, `1 class`, ..., each class once; run stage 1 again")
    return classes


def read_overlap(path: Path) -> str:
    """The sizes of the parts, and what train and test share, in words."""
    try:
        lines = path.read_bytes().decode("utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; run stage 1 again") from None
    if len(lines) < 2:
        raise UserError(f"{path}: the second line should say what train and test share; run stage 1 again")
    return "; ".join(lines[:2])


def fold_numbers(folder: str | Path) -> list[int]:
    """Numbers of the folds of a protocol, in order."""
    names = [path.name for path in Path(folder).glob("fold*") if path.is_dir()]
    numbers = sorted(int(name[len("fold") :]) for name in names if re.fullmatch("fold[1-9][0-9]*", name))
    if not numbers:
        raise UserError(f"{folder}: contains no folds; run stage 1")
    return numbers


def in_words(number: int, overlaps: Iterable[str]) -> str:
    """The numbers of folds and of test speakers, as counted by stage 1: "6 folds, each with 4 test speakers, of whom 0
    are in the training part". overlaps: those of some or all folds, as in Fold and in scores."""
    found = [match for match in map(SHARED_SPEAKERS.search, overlaps) if match]
    words = f"{number} fold{'s' * (number > 1)}"
    if not found:
        return words
    shared, tested = (span(int(match[group]) for match in found) for group in (1, 2))
    noun = "speaker" if tested == "1" else "speakers"
    known = "none" if shared == "0" else shared
    return f"{words}; {tested} test {noun}{' each' * (number > 1)}, {known} of them in the training part"


def shares_speakers(overlap: str) -> bool:
    """Whether a speaker of the test part is in the training part too."""
    match = SHARED_SPEAKERS.search(overlap)
    return match is not None and int(match[1]) > 0


def span(counts: Iterable[int]) -> str:
    """The smallest and the largest of some numbers: "15 to 16", or "16" if all are the same."""
    least, *_, greatest = sorted(counts) * 2
    return f"{least}" if least == greatest else f"{least} to {greatest}"
