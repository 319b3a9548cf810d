"""Stage 1: split the utterances of a protocol into folds, and count what train and test share.

Writes DEST/classes and DEST/fold<k>/{train,dev,test,overlap}. Where the protocol selects on the test
set or takes the last model there is no development set, and dev is empty.
"""

import argparse
import math
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ser import cli
from ser.cli import UserError
from ser.datadir import read_table, write_table

if TYPE_CHECKING:
    from ser.config import Protocol

Parts = tuple[list[str], list[str], list[str]]  # train, dev, test


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ser.make_folds",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("protocol", metavar="PROTOCOL", help="protocol file (YAML)")
    parser.add_argument("data", type=Path, metavar="DATA", help="data directory")
    parser.add_argument("dest", type=Path, metavar="DEST", help="folder of this protocol's folds")
    args = parser.parse_args(argv)

    from ser.config import read_protocol

    protocol = read_protocol(args.protocol)
    utt2class = choose(protocol, read_table(args.data / "utt2emo"), args.protocol)
    folds = split(protocol, utt2class, args.data)

    args.dest.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.dest.parent) as scratch:
        new = Path(scratch) / "new"
        write_table(new / "classes", {str(number): name for number, name in enumerate(protocol.classes)})
        print(f"{protocol.name}: {protocol.description}")
        for number, parts in enumerate(folds, 1):
            overlap = write_fold(new / f"fold{number}", parts, utt2class, args.data, protocol)
            print(f"fold {number}: " + "\n        ".join(overlap))
        if args.dest.exists():
            shutil.rmtree(args.dest)
        new.rename(args.dest)
    if protocol.select == "test":
        print("NOTE: this protocol picks the model on the test set: its numbers are too good")


def choose(protocol: "Protocol", utt2emo: dict[str, str], path: str) -> dict[str, str]:
    """Class of every utterance that the protocol takes; a label that the corpus lacks is an error."""
    labels = {label: name for name, taken in protocol.classes.items() for label in taken}
    for label in labels.keys() - set(utt2emo.values()):
        raise UserError(
            f"{path}: classes: no utterance is labelled {label}; the corpus has {', '.join(sorted(set(utt2emo.values())))}"
        )
    return {utt: labels[emo] for utt, emo in utt2emo.items() if emo in labels}


def split(protocol: "Protocol", utt2class: dict[str, str], data: Path) -> list[Parts]:
    """The folds, each as sorted lists of train, dev and test utterances."""
    import numpy as np

    from ser.config import RandomFolds

    utts = sorted(utt2class)
    folds = protocol.folds
    result = []
    if isinstance(folds, RandomFolds):
        held_out = math.ceil(folds.test_share * len(utts))
        for number in range(folds.number):
            order = np.random.default_rng([folds.seed, number]).permutation(len(utts))
            shuffled = [utts[place] for place in order]
            n_dev = held_out if protocol.select == "dev" else 0
            test, dev, train = (
                shuffled[:held_out],
                shuffled[held_out : held_out + n_dev],
                shuffled[held_out + n_dev :],
            )
            result.append((train, dev, test))
    else:
        utt2group = read_table(data / f"utt2{folds.by}")
        groups = sorted({utt2group[utt] for utt in utts})
        if folds.number > len(groups):
            raise UserError(
                f"{protocol.name}: {folds.number} folds by {folds.by}, but {data}/utt2{folds.by} has {len(groups)} values; use fewer folds"
            )
        if protocol.select == "dev" and folds.number < 3:
            raise UserError(f"{protocol.name}: train, dev and test need 3 folds or more, not {folds.number}")
        blocks = [set(block) for block in np.array_split(groups, folds.number)]
        for number, test_groups in enumerate(blocks):
            dev_groups = blocks[(number + 1) % len(blocks)] if protocol.select == "dev" else set()
            test = [utt for utt in utts if utt2group[utt] in test_groups]
            dev = [utt for utt in utts if utt2group[utt] in dev_groups]
            train = [utt for utt in utts if utt2group[utt] not in test_groups | dev_groups]
            result.append((train, dev, test))
    return [(sorted(train), sorted(dev), sorted(test)) for train, dev, test in result]


def write_fold(
    folder: Path, parts: Parts, utt2class: dict[str, str], data: Path, protocol: "Protocol"
) -> list[str]:
    """Write one fold; return (and write) its sizes and what its parts share, a line each."""
    names = ("train", "dev", "test")
    for name, utts in zip(names, parts, strict=True):
        write_table(folder / name, {utt: utt2class[utt] for utt in utts})
        absent = set(protocol.classes) - {utt2class[utt] for utt in utts}
        if absent and (utts or name != "dev"):
            raise UserError(
                f"{protocol.name}: {folder.name}: {name} has no utterance of {', '.join(sorted(absent))}; use fewer folds or other classes"
            )
    train, dev, test = parts
    lines = [", ".join(f"{name} {len(utts)}" for name, utts in zip(names, parts, strict=True) if utts)]
    lines.append(f"train and test share {count_shared(train, test, data)}")
    if dev:
        lines.append(f"dev and test share {count_shared(dev, test, data)}")
        lines.append(f"train and dev share {count_shared(train, dev, data)}")
    (folder / "overlap").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return lines


def count_shared(one: list[str], other: list[str], data: Path) -> str:
    """How many of `other`'s speakers and sentences stand in `one` too, and how many of its recordings
    have the very samples of one there."""
    sentence = "utt2sent" if (data / "utt2sent").exists() else "text"
    counts = []
    for noun, name in (("speakers", "utt2spk"), ("sentences", sentence)):
        table = read_table(data / name)
        values = {table[utt] for utt in other}
        counts.append(f"{len(values & {table[utt] for utt in one})} of {len(values)} {noun}")
    samples = read_table(data / "utt2md5")
    twins = {samples[utt] for utt in one}
    counts.append(f"{sum(samples[utt] in twins for utt in other)} of {len(other)} recordings")
    return ", ".join(counts)


if __name__ == "__main__":
    cli.run(main)
