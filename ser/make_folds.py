"""Stage 1: split the utterances of a protocol into folds, and count what train and test share.

Writes DEST/classes, DEST/fold<k>/{train,dev,test,overlap} and a copy of the protocol, DEST/protocol.yaml. If the
protocol selects on the test set or uses the last model, there is no development set and dev is empty. Existing folds
are replaced; a folder that contains anything else is refused.

Identical recordings are counted with utt2md5, which is computed if DATA lacks it.
"""

import argparse
import difflib
import math
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ser import cli
from ser.cli import UserError
from ser.datadir import compute_missing, read_column, read_table, write_table
from ser.files import is_same, whole, workplace
from ser.folds import span
from ser.text import tokens

if TYPE_CHECKING:
    from ser.config import GroupFolds, Protocol, RandomFolds

LONGEST_LIST = 20  # values of a table in a message
OWN = re.compile(r"classes|protocol\.yaml|fold[0-9]+(/(train|dev|test|overlap))?")  # what stage 1 writes to DEST
PARTS = ("train", "dev", "test")
Parts = tuple[list[str], list[str], list[str]]  # train, dev, test


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ser.make_folds",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cli.add_allow_pipes(parser)
    parser.add_argument("protocol", metavar="PROTOCOL", help="protocol file (YAML)")
    parser.add_argument("data", type=Path, metavar="DATA", help="data directory")
    parser.add_argument("dest", type=Path, metavar="DEST", help="folder for the protocol's folds")
    args = parser.parse_args(argv)

    import yaml

    from ser.config import Dumper, as_dict, read_protocol

    refuse_others(args.dest)
    dest = args.dest.resolve()  # if it is a link, as to another disk, replace its target
    protocol = read_protocol(args.protocol)
    utt2emo = read_table(args.data / "utt2emo", read_table(args.data / "utt2spk"))
    for number, (utt, emo) in enumerate(utt2emo.items(), 1):
        if not emo:
            raise UserError(f"{args.data / 'utt2emo'}:{number}: {utt} has no label; add it")
    utt2class = choose(protocol, utt2emo, args.data, args.protocol)
    folds = split(protocol, utt2class, args.data, args.protocol)
    left_out = Counter(emo for utt, emo in utt2emo.items() if utt not in utt2class)
    compute_missing(args.data, ["utt2md5"], args.allow_pipes, "ser.make_folds")

    with workplace(dest) as place:
        new = place / "new"
        write_table(new / "classes", {str(number): name for number, name in enumerate(protocol.classes)})
        print(f"{protocol.name}: {protocol.description}")
        print(in_words(protocol, folds, args.data))
        if left_out:
            print(f"left out: {', '.join(f'{emo} {count}' for emo, count in sorted(left_out.items()))}")
        for number, parts in enumerate(folds, 1):
            overlap = write_fold(new / f"fold{number}", parts, utt2class, args.data, protocol, args.protocol)
            print(f"fold {number}: " + "\n        ".join(overlap))
        with whole(new / "protocol.yaml") as stream:
            yaml.dump(as_dict(protocol), stream, Dumper, sort_keys=False, allow_unicode=True)
        refuse_others(args.dest)  # something may have been written meanwhile
        if not is_same(new, dest):  # otherwise processes reading them would find none for a moment
            if dest.exists():
                dest.rename(place / "old")  # removed with the workplace, so that no half of it is ever left
            new.rename(dest)
    if protocol.select == "test":
        print("NOTE: this protocol selects the model on the test set, so its numbers are optimistic")
    if protocol.labels == "shuffled":
        print("NOTE: this protocol shuffles the labels, so its numbers show chance level")


def refuse_others(dest: Path) -> None:
    """Raise UserError unless `dest` is missing, empty, or contains only what stage 1 wrote."""
    if not dest.exists():
        return
    remedy = "give another folder, or move it away"
    if not dest.is_dir():
        raise UserError(f"{dest}: not a folder; {remedy}")
    for path in dest.rglob("*"):
        if not OWN.fullmatch(path.relative_to(dest).as_posix()):
            raise UserError(f"{path}: not written by stage 1, which would replace the whole folder {dest}; {remedy}")
    if any(dest.iterdir()) and not ((dest / "classes").is_file() and (dest / "fold1").is_dir()):
        raise UserError(f"{dest}: not the folds of stage 1, which would replace the whole folder; {remedy}")


def choose(protocol: "Protocol", utt2emo: dict[str, str], data: Path, path: str) -> dict[str, str]:
    """Class of every utterance that the protocol uses. Raises UserError for a label, or a value of `where`, that is not
    in the corpus. path: the protocol's, for errors."""
    import numpy as np

    labels = {label: name for name, taken in protocol.classes.items() for label in taken}
    refuse_unknown(labels, utt2emo.values(), f"{path}: classes: no utterance is labelled")
    utt2class = {utt: labels[emo] for utt, emo in utt2emo.items() if emo in labels}
    for name, taken in protocol.where.items():
        values = read_column(data, name, utt2emo, f"{path}: where")
        refuse_unknown(taken, values.values(), f"{path}: where.{name}: no utterance has")
        utt2class = {utt: label for utt, label in utt2class.items() if values[utt] in taken}
    if protocol.labels == "shuffled":
        dealt = np.random.default_rng(0).permutation(list(utt2class.values()))
        utt2class = dict(zip(utt2class, dealt.tolist(), strict=True))
    return utt2class


def refuse_unknown(asked: Iterable[str], values: Iterable[str], fault: str) -> None:
    """Raise UserError for the first wanted value that is unknown, with a similar one or all known ones."""
    there = set(values)
    for value in asked:
        if value not in there:
            known = sorted(there)
            near = difflib.get_close_matches(value, known, 1, 0.5)
            some = ", ".join(known[:LONGEST_LIST]) + ", ..." * (len(known) > LONGEST_LIST)
            remedy = f"did you mean {near[0]}?" if near else f"the corpus has {some}"
            raise UserError(f"{fault} {value}; {remedy}")


def split(protocol: "Protocol", utt2class: dict[str, str], data: Path, path: str) -> list[Parts]:
    """The folds, each as sorted lists of train, dev and test utterances. path: of the protocol, for errors."""
    from ser.config import RandomFolds

    utts = sorted(utt2class)
    has_dev = protocol.select == "dev"
    if isinstance(protocol.folds, RandomFolds):
        folds = split_at_random(protocol.folds, utts, has_dev)
    else:
        folds = split_by_group(protocol.folds, utts, has_dev, data, path)
    return [(sorted(train), sorted(dev), sorted(test)) for train, dev, test in folds]


def split_at_random(folds: "RandomFolds", utts: list[str], has_dev: bool) -> list[Parts]:
    """Folds of utterances drawn at random; the development set is as large as the test set."""
    import numpy as np

    n_test = math.ceil(folds.test_share * len(utts))
    n_dev = n_test if has_dev else 0
    result = []
    for number in range(folds.number):
        order = np.random.default_rng([folds.seed, number]).permutation(len(utts))
        drawn = [utts[place] for place in order]
        result.append((drawn[n_test + n_dev :], drawn[n_test : n_test + n_dev], drawn[:n_test]))
    return result


def split_by_group(folds: "GroupFolds", utts: list[str], has_dev: bool, data: Path, path: str) -> list[Parts]:
    """Folds of whole groups; see ser.config.GroupFolds."""
    utt2group = read_column(data, folds.by, utts, f"{path}: folds.by")
    utt2dev = read_column(data, folds.dev, utts, f"{path}: folds.dev") if folds.dev else utt2group
    blocks = cut(folds, sorted({utt2group[utt] for utt in utts}), has_dev, data, path)
    result = []
    for number in range(folds.number):
        ring = blocks[number:] + blocks[:number]
        test_groups = set().union(*ring[: folds.test_parts])
        next_groups = ring[folds.test_parts] if has_dev else set()
        dev_values = sorted({utt2dev[utt] for utt in utts if utt2group[utt] in next_groups})
        if folds.dev:  # one of them, a different one in each fold
            dev_values = [dev_values[number % len(dev_values)]]
        test = [utt for utt in utts if utt2group[utt] in test_groups]
        others = [utt for utt in utts if utt2group[utt] not in test_groups]
        dev = [utt for utt in others if utt2dev[utt] in dev_values]
        train = [utt for utt in others if utt2dev[utt] not in dev_values]
        result.append((train, dev, test))
    return result


def cut(folds: "GroupFolds", groups: list[str], has_dev: bool, data: Path, path: str) -> list[set[str]]:
    """Divide the groups into as many parts as there are folds. Raises UserError if there are too few."""
    import numpy as np

    if folds.number > len(groups):
        raise UserError(
            f"{path}: folds.number: {folds.number} folds by {folds.by}, but {data}/utt2{folds.by} has only "
            f"{len(groups)} values; use fewer folds"
        )
    needed = folds.test_parts + (2 if has_dev and not folds.dev else 1)
    if folds.number < needed:
        names = "train, dev and test" if has_dev else "train and test"
        raise UserError(f"{path}: folds.number: {names} need at least {needed} folds, not {folds.number}")
    if folds.seed is not None:
        groups = np.random.default_rng(folds.seed).permutation(groups).tolist()
    return [set(block) for block in np.array_split(groups, folds.number)]


def in_words(protocol: "Protocol", folds: list[Parts], data: Path) -> str:
    """How the folds are split, and the numbers of speakers and groups in each part:
    "6 folds by spk; 24 speakers: train 16, dev 4, test 4"."""
    by = getattr(protocol.folds, "by", "")
    columns = {"speakers": read_table(data / "utt2spk")}
    if by not in ("", "spk", "utt"):
        columns[f"values of {by}"] = read_table(data / f"utt2{by}")
    counts = []
    for noun, column in columns.items():
        values = [[{column[utt] for utt in part} for part in parts] for parts in folds]
        total = len(set().union(*(part for parts in values for part in parts)))
        of_parts = (
            f"{name} {span(map(len, part))}"
            for name, part in zip(PARTS, zip(*values, strict=True), strict=True)
            if any(part)
        )
        counts.append(f"{total} {noun}: {', '.join(of_parts)}")
    how = f"by {by}" if by else "drawn at random"
    return "; ".join([f"{len(folds)} fold{'s' * (len(folds) > 1)} {how}", *counts])


def write_fold(
    folder: Path, parts: Parts, utt2class: dict[str, str], data: Path, protocol: "Protocol", path: str
) -> list[str]:
    """Write one fold; return (and write) its sizes and what its parts share, one line each."""
    for name, utts in zip(PARTS, parts, strict=True):
        write_table(folder / name, {utt: utt2class[utt] for utt in utts})
        absent = set(protocol.classes) - {utt2class[utt] for utt in utts}
        if absent and (utts or name != "dev"):
            raise UserError(
                f"{path}: folds: {folder.name}: {name} has no utterance of {', '.join(sorted(absent))}; use fewer "
                "folds or other classes"
            )
    train, dev, test = parts
    lines = [", ".join(f"{name} {len(utts)}" for name, utts in zip(PARTS, parts, strict=True) if utts)]
    lines.append(f"train and test share {count_shared(train, test, data)}")
    if dev:
        lines.append(f"dev and test share {count_shared(dev, test, data)}")
        lines.append(f"train and dev share {count_shared(train, dev, data)}")
    with whole(folder / "overlap") as stream:
        stream.write("\n".join(lines) + "\n")
    return lines


def count_shared(one: list[str], other: list[str], data: Path) -> str:
    """How many speakers and sentences (and dialogs and scenarios, if there are tables for them) of `other` are also in
    `one`, and how many of its recordings have exactly the samples of one in `one`. Without a table utt2sent, texts with
    the same words are one sentence."""
    utts, counts = one + other, []
    columns = {"speakers": read_table(data / "utt2spk", utts)}
    if (data / "utt2sent").exists():
        columns["sentences"] = read_table(data / "utt2sent", utts)
    else:
        texts = read_table(data / "text", utts)
        columns["sentences"] = {utt: " ".join(tokens(text)) for utt, text in texts.items()}
    for name in ("dialog", "scenario"):
        if (data / f"utt2{name}").exists():
            columns[f"{name}s"] = read_table(data / f"utt2{name}", utts)
    for noun, column in columns.items():
        values = {column[utt] for utt in other}
        counts.append(f"{len(values & {column[utt] for utt in one})} of {len(values)} {noun}")
    samples = read_table(data / "utt2md5", one + other)
    twins = {samples[utt] for utt in one}
    counts.append(f"{sum(samples[utt] in twins for utt in other)} of {len(other)} recordings")
    return ", ".join(counts)


if __name__ == "__main__":
    cli.run(main)
