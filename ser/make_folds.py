"""Stage 1: split the utterances of a protocol into folds, and count what train and test share.

Writes DEST/classes, DEST/fold<k>/{train,dev,test,overlap} and a copy of the protocol, DEST/protocol.yaml. If the
protocol selects on the test set or uses the last model, there is no development set and dev is empty. Existing folds
are replaced; a folder that contains anything else is refused.

A protocol with `adapt` also has DEST/fold<k>/adapt, the utterances of each speaker that a system may adapt to; those of
test and dev speakers are not in test and dev. With several draws, first come the folds of the first draw, then those of
the second, and so on.

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
    import numpy as np

    from ser.config import Adapt, GroupFolds, Protocol, RandomFolds

LONGEST_LIST = 20  # values of a table in a message
OWN = re.compile(r"classes|protocol\.yaml|fold[0-9]+(/(train|dev|test|overlap|adapt))?")  # what stage 1 writes to DEST
PARTS = ("train", "dev", "test")
Parts = tuple[list[str], list[str], list[str]]  # train, dev, test
Drawn = dict[str, str]  # the utterances to adapt to, with their speakers


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
    drawn: list[Drawn | None] = [None] * len(folds)
    if protocol.adapt:
        folds, drawn = set_aside(protocol.adapt, folds, utt2class, args.data, args.protocol)
    left_out = Counter(emo for utt, emo in utt2emo.items() if utt not in utt2class)
    compute_missing(args.data, ["utt2md5"], args.allow_pipes, "ser.make_folds")

    with workplace(dest) as place:
        new = place / "new"
        write_table(new / "classes", {str(number): name for number, name in enumerate(protocol.classes)})
        print(f"{protocol.name}: {protocol.description}")
        print(in_words(protocol, folds, args.data))
        if left_out:
            print(f"left out: {', '.join(f'{emo} {count}' for emo, count in sorted(left_out.items()))}")
        for number, (parts, adapt) in enumerate(zip(folds, drawn, strict=True), 1):
            overlap = write_fold(new / f"fold{number}", parts, adapt, utt2class, args.data, protocol, args.protocol)
            print(f"fold {number}: " + "\n        ".join(overlap))
        refuse_one_class(folds, utt2class, args.protocol)
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


def refuse_one_class(folds: list[Parts], utt2class: dict[str, str], path: str) -> None:
    """Raise UserError if all test parts together have a single class, which any system gets right by naming it."""
    tested = {utt2class[utt] for _, _, test in folds for utt in test}
    if len(tested) < 2:
        raise UserError(f"{path}: folds: only {', '.join(tested)} is tested; use fewer folds or other classes")


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
    for number in range(len(blocks)):
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

    total = len(groups) if folds.number == "all" else folds.number
    if total > len(groups):
        raise UserError(
            f"{path}: folds.number: {total} folds by {folds.by}, but {data}/utt2{folds.by} has only "
            f"{len(groups)} values; use fewer folds"
        )
    needed = folds.test_parts + (2 if has_dev and not folds.dev else 1)
    if total < needed:
        names = "train, dev and test" if has_dev else "train and test"
        raise UserError(f"{path}: folds.number: {names} need at least {needed} folds, not {total}")
    if folds.seed is not None:
        groups = np.random.default_rng(folds.seed).permutation(groups).tolist()
    return [set(block) for block in np.array_split(groups, total)]


def set_aside(
    adapt: "Adapt", folds: list[Parts], utt2class: dict[str, str], data: Path, path: str
) -> tuple[list[Parts], list[Drawn | None]]:
    """The folds, repeated for each draw, without the utterances of test and dev speakers that are set aside; and for
    each the utterances to adapt to. path: of the protocol, for errors."""
    import numpy as np

    utt2spk = read_table(data / "utt2spk", utt2class)
    repeated: list[Parts] = []
    drawn: list[Drawn | None] = []
    for turn in range(adapt.draws):
        for number, parts in enumerate(folds):
            random = np.random.default_rng([adapt.seed, number, turn])
            chosen: Drawn = {}
            for spk, utts in of_speakers(parts, utt2spk, f"{path}: adapt: fold {number + 1}").items():
                if adapt.utterances >= len(utts):
                    raise UserError(
                        f"{path}: adapt.utterances: {adapt.utterances}, but fold {number + 1} has only {len(utts)} of "
                        f"{spk}; write {len(utts) - 1} or less"
                    )
                chosen |= dict.fromkeys(draw(adapt, {utt: utt2class[utt] for utt in utts}, random), spk)
            train, dev, test = parts
            kept = [[utt for utt in part if utt not in chosen] for part in (dev, test)]
            repeated.append((train, kept[0], kept[1]))
            drawn.append(chosen)
    return repeated, drawn


def of_speakers(parts: Parts, utt2spk: dict[str, str], place: str) -> dict[str, list[str]]:
    """The utterances of each speaker, in order of the speakers. Raises UserError for a speaker in two parts."""
    found: dict[str, list[str]] = {}
    part_of: dict[str, str] = {}
    for name, part in zip(PARTS, parts, strict=True):
        for utt in part:
            spk = utt2spk[utt]
            if part_of.setdefault(spk, name) != name:
                raise UserError(
                    f"{place}: {spk} is in {part_of[spk]} and in {name}; adapt needs folds that keep speakers apart, "
                    "such as {kind: groups, by: spk}"
                )
            found.setdefault(spk, []).append(utt)
    return dict(sorted(found.items()))


def draw(adapt: "Adapt", utt2class: dict[str, str], random: "np.random.Generator") -> list[str]:
    """Some of a speaker's utterances: one of each class in turn (balanced), or all of a class before the next, with the
    classes and the utterances of each in random order. The first of more utterances are those of fewer."""
    of_class: dict[str, list[str]] = {}
    for utt, name in sorted(utt2class.items()):
        of_class.setdefault(name, []).append(utt)
    names = random.permutation(sorted(of_class)).tolist()
    piles = [random.permutation(of_class[name]).tolist() for name in names]
    order = [utt for pile in piles for utt in pile]
    if adapt.balanced:
        order = [pile[turn] for turn in range(max(map(len, piles))) for pile in piles if turn < len(pile)]
    return order[: adapt.utterances]


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
    if protocol.adapt and protocol.adapt.draws > 1:
        how += f", {protocol.adapt.draws} draws of {len(folds) // protocol.adapt.draws}"
    return "; ".join([f"{len(folds)} fold{'s' * (len(folds) > 1)} {how}", *counts])


def write_fold(
    folder: Path,
    parts: Parts,
    adapt: Drawn | None,
    utt2class: dict[str, str],
    data: Path,
    protocol: "Protocol",
    path: str,
) -> list[str]:
    """Write one fold; return (and write) its sizes and what its parts share, one line each.

    Raises UserError if train lacks a class, or dev has fewer than two: a system that names one class would be the best.
    Otherwise dev and test may lack some, which metrics leave out; test may have a single one, unless utterances are set
    aside (`adapt`), whose folds are never pooled.
    """
    sizes = []
    for name, utts in zip(PARTS, parts, strict=True):
        write_table(folder / name, {utt: utt2class[utt] for utt in utts})
        there = {utt2class[utt] for utt in utts}
        absent = ", ".join(sorted(set(protocol.classes) - there))
        if not utts and name == "dev":
            continue
        fewest = {"train": len(protocol.classes), "dev": 2, "test": 2 if adapt else 1}[name]
        if len(there) < fewest:
            remedy = "a smaller adapt.utterances, fewer" if adapt and name != "train" else "fewer"
            more = ", or `select: last`, which needs no dev" * (name == "dev")
            raise UserError(
                f"{path}: folds: {folder.name}: {name} has no utterance of {absent}; use {remedy} folds or other "
                f"classes{more}"
            )
        sizes.append(f"{name} {len(utts)}" + f" (none of {absent})" * bool(absent))
    train, dev, test = parts
    if adapt is not None:
        aside = [utt for utt in adapt if utt not in {*train}]
        sizes.append(f"set aside {len(aside)}")
        write_table(folder / "adapt", dict(sorted(adapt.items())))
    lines = [", ".join(sizes)]
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
