"""Stage 0: write the data directory of a corpus, and a report of what it contains and what is missing."""

import argparse
import math
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import NamedTuple

from ser import audio, cli, corpus_table
from ser.cli import UserError
from ser.corpora import corpus_module
from ser.corpus import Found, Utterance
from ser.datadir import TABLE, read_table, write_table
from ser.files import is_same, whole, workplace

LONGEST_LIST = 20  # lines of each list on the screen; report.txt has them all
SHORTEST = 0.025  # seconds: a shorter recording has less than one frame of the usual length
# A sampling rate is tied to a class if its share in the class exceeds its share in the rest by this much, and
# by this many standard errors. One odd recording, or a speaker with all classes, is not enough.
LEAST_DIFFERENCE = 0.2
STANDARD_ERRORS = 4


class Recording(NamedTuple):
    """A decoded recording: seconds, sampling rate in Hz, channels, whether it is clipped, MD5 of the samples."""

    seconds: float
    rate: int
    channels: int
    is_clipped: bool
    md5: str


def main(argv: list[str] | None = None) -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(
        prog="python -m ser.prepare_data",
        description="Write the data directory DEST (Kaldi tables and report.txt) of the corpus in ROOT, the folder "
        "that holds it, or a CSV table of its recordings (columns path,speaker,emotion and, where known, text, sex and "
        f"others). Every recording is decoded; those that cannot be read, or are shorter than {SHORTEST} s, are left "
        "out and listed.",
    )
    parser.add_argument("--strict", action="store_true", help="a missing or unreadable recording is an error")
    parser.add_argument("--nj", type=int, default=2, help="recordings decoded in parallel (default: 2)")
    parser.add_argument(
        "--leave-out", type=Path, metavar="FILE", help="leave out the utterances in this list, one id per line"
    )
    parser.add_argument("corpus", help="name of a module in ser/corpora, such as ravdess; with a table, any")
    parser.add_argument("root", type=Path, help="the folder that holds the corpus, or a table")
    parser.add_argument("dest", type=Path, help="folder for the tables")
    arguments = parser.parse_args(argv)
    if arguments.nj < 1:
        parser.error(f"--nj {arguments.nj}: must be 1 or more")

    refuse_others(arguments.dest)
    is_table = arguments.root.is_file()
    found = (corpus_table if is_table else corpus_module(arguments.corpus)).utterances(arguments.root)
    _refuse_same_ids(found.utterances)
    unwanted = _unwanted(arguments.leave_out, found)
    wanted = [utterance for utterance in found.utterances if utterance.utt not in unwanted]
    recordings, unreadable = decode(wanted, arguments.nj)
    utterances = [utterance for utterance in found.utterances if utterance.utt in recordings]
    known = {utterance.utt for utterance in found.utterances} | unwanted
    missing = sorted(set(found.expected) - known)
    number_missing = max(len(missing), (found.total or 0) - len(known))
    lists = {
        "missing": missing,
        "unreadable": unreadable,
        "with several channels, mixed down when read": [
            utt for utt, recording in recordings.items() if recording.channels > 1
        ],
        "clipped": [utt for utt, recording in recordings.items() if recording.is_clipped],
        "groups of identical recordings": [" = ".join(group) for group in identical(recordings)],
    }
    if found.lacking:
        lists["missing parts"] = list(found.lacking)
    if found.old_texts:
        lists["texts that are not UTF-8, read as cp1252"] = list(map(str, found.old_texts))
    if unwanted:
        lists[f"left out: listed in {arguments.leave_out}"] = sorted(unwanted)
    for reason, files in found.left_out.items():
        lists[f"left out: {reason}"] = [str(file) for file in files]

    summary = f"{arguments.corpus} in {cli.plain(str(arguments.root))}\n"
    if found.total is not None:
        summary += f"the whole corpus has {found.total} utterances, of which {number_missing} are missing\n"
    summary += f"{summarise(utterances, recordings)}\n"
    print(f"{summary}\n{listed(lists, LONGEST_LIST)}")
    if arguments.strict and (number_missing or unreadable):
        raise UserError(
            f"{arguments.root}: {number_missing} recordings missing and {len(unreadable)} unreadable, listed "
            "above, so nothing was written; fetch them again, or do without them: omit --strict, or call run.sh "
            "with --strict false"
        )
    if not utterances:
        raise UserError(f"{arguments.root}: no recording can be read, see above; nothing was written")
    # if dest is a link, perhaps to another disk, the tables are written and moved beside its target
    write_tables(arguments.dest.resolve(), tables(utterances, recordings), f"{summary}\n{listed(lists)}\n")


def refuse_others(dest: Path) -> None:
    """Raise UserError if `dest` has tables that stage 0 did not write, since it would replace or remove them."""
    names = {path.name for path in dest.iterdir()} if dest.is_dir() else set()
    if any(map(TABLE.fullmatch, names)) and "report.txt" not in names:
        raise UserError(
            f"{dest}: a data directory that stage 0 did not write (it has no report.txt); use another "
            "folder, or move it away"
        )


def decode(utterances: Sequence[Utterance], nj: int) -> tuple[dict[str, Recording], list[str]]:
    """Decode each recording to its end, `nj` at a time, with a progress bar on a terminal.

    Returns the recordings by utterance, sorted, and one line for each that cannot be read.
    """
    from tqdm import tqdm

    utterances = sorted(utterances, key=lambda utterance: utterance.utt.encode())
    recordings, unreadable = {}, []
    # Threads are enough: decoding and hashing release the GIL.
    with ThreadPoolExecutor(nj) as pool:
        results = pool.map(_decode, [utterance.path for utterance in utterances])
        for utterance, result in zip(utterances, tqdm(results, "decoding", len(utterances), disable=None), strict=True):
            if isinstance(result, Recording):
                recordings[utterance.utt] = result
            else:
                unreadable.append(f"{utterance.utt}: {result}")
    return recordings, unreadable


def _decode(path: Path) -> Recording | UserError:
    try:
        channels = audio.header(path).channels
        samples, rate = audio.read(path)
    except UserError as error:
        return error
    if len(samples) < SHORTEST * rate:
        seconds = len(samples) / rate
        return UserError(f"{path}: {seconds:.4f} s long, shorter than a frame of {SHORTEST} s; fetch it again")
    return Recording(len(samples) / rate, rate, channels, audio.is_clipped(samples), audio.md5(samples))


def identical(recordings: Mapping[str, Recording]) -> list[list[str]]:
    """Return the groups of two or more utterances with identical samples."""
    groups = defaultdict(list)
    for utt, recording in recordings.items():
        groups[recording.md5].append(utt)
    return [group for group in groups.values() if len(group) > 1]


def summarise(utterances: Sequence[Utterance], recordings: Mapping[str, Recording]) -> str:
    """Return a few lines on durations and sampling rates, and a table of counts per speaker and class."""
    if not utterances:
        return "0 utterances"
    seconds = [recordings[utterance.utt].seconds for utterance in utterances]
    rates = [recordings[utterance.utt].rate for utterance in utterances]
    of_rate = sorted(Counter(rates).items())
    channels = [recordings[utterance.utt].channels for utterance in utterances]
    emotions = [utterance.emo for utterance in utterances]
    warnings = "".join(
        f"warning: the {name} depends on the class: {tie}; a system may learn it instead of the emotion\n"
        for name, tie in (
            ("sampling rate", tied(rates, emotions, "Hz")),
            ("number of channels", tied(channels, emotions, "channels")),
        )
        if tie
    )
    genders = Counter({utterance.spk: utterance.gender for utterance in utterances}.values())
    unknown = f", {genders['']} unknown: no spk2gender" if genders[""] else ""
    return (
        f"{len(utterances)} utterances, {genders.total()} speakers ({genders['f']} f, {genders['m']} m{unknown}), "
        f"{len(set(emotions))} classes\n"
        f"{sum(seconds) / 3600:.2f} h, {min(seconds):.2f} to {max(seconds):.2f} s, "
        f"mean {sum(seconds) / len(seconds):.2f} s\n"
        f"sampling rates: {', '.join(f'{rate} Hz {count}' for rate, count in of_rate)}\n"
        f"{warnings}"
        f"\n{_counts(utterances)}"
    )


def tied(values: Sequence[int], classes: Sequence[str], unit: str) -> str | None:
    """Describe the value that is most tied to a class; `values` and `classes` have one entry per utterance.

    None if none is (LEAST_DIFFERENCE, STANDARD_ERRORS: pooled, of two proportions).
    """
    both, of_value, of_class = Counter(zip(values, classes, strict=True)), Counter(values), Counter(classes)
    largest, said = LEAST_DIFFERENCE, None
    for value, one in product(of_value, of_class):
        inside, outside = of_class[one], len(classes) - of_class[one]
        if not outside:
            continue
        share, other = both[value, one] / inside, (of_value[value] - both[value, one]) / outside
        pooled = of_value[value] / len(values)
        error = math.sqrt(pooled * (1 - pooled) * (1 / inside + 1 / outside))
        if share - other > max(largest, STANDARD_ERRORS * error):
            largest = share - other
            said = f"{share:.0%} of {one} and {other:.0%} of the others have {value} {unit}"
    return said


def _counts(utterances: Sequence[Utterance]) -> str:
    """Return a table of counts: a row per speaker, a column per class."""
    counts = Counter((utterance.spk, utterance.emo) for utterance in utterances)
    of_speaker = Counter(utterance.spk for utterance in utterances)
    of_class = Counter(utterance.emo for utterance in utterances)
    classes = sorted(of_class)
    rows: list[list[object]] = [["", *classes, "all"]]
    rows += [[spk, *(counts[spk, emo] for emo in classes), of_speaker[spk]] for spk in sorted(of_speaker)]
    rows += [["all", *(of_class[emo] for emo in classes), len(utterances)]]
    widths = [max(len(str(cell)) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for spk, *cells in rows:
        aligned = [str(cell).rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([str(spk).ljust(widths[0]), *aligned]))
    return "\n".join(lines)


def listed(lists: Mapping[str, Sequence[str]], longest: int | None = None) -> str:
    """Return `title: count` and the items, indented, at most `longest` of each list (None: all)."""
    lines = []
    for title, items in lists.items():
        lines.append(f"{cli.plain(title)}: {len(items)}")
        lines += [f"  {cli.plain(item)}" for item in items[:longest]]
        if longest is not None and len(items) > longest:
            lines.append(f"  ... and {len(items) - longest} more")
    return "\n".join(lines)


def tables(utterances: Sequence[Utterance], recordings: Mapping[str, Recording]) -> dict[str, dict[str, str]]:
    """Return the tables of the data directory: {"utt2emo": {utterance: emotion}}, and so on. There is no spk2gender if
    the sex of a speaker is not known, since Kaldi refuses one that lacks a speaker."""
    utterances = sorted(utterances, key=lambda utterance: utterance.utt.encode())
    table: dict[str, dict[str, str]] = defaultdict(dict)
    utts_of = defaultdict(list)
    for utterance in utterances:
        utt, recording = utterance.utt, recordings[utterance.utt]
        table["wav.scp"][utt] = os.path.abspath(utterance.path)
        table["text"][utt] = utterance.text
        table["utt2spk"][utt] = utterance.spk
        table["utt2emo"][utt] = utterance.emo
        table["utt2dur"][utt] = f"{recording.seconds:.6f}"
        table["utt2md5"][utt] = recording.md5
        table["spk2gender"][utterance.spk] = utterance.gender
        utts_of[utterance.spk].append(utt)
        for column, value in utterance.more.items():
            table[f"utt2{column}"][utt] = value
    table["spk2utt"] = {spk: " ".join(utts) for spk, utts in utts_of.items()}
    if not all(table["spk2gender"].values()):
        del table["spk2gender"]
    return dict(table)


def write_tables(dest: Path, tables: Mapping[str, Mapping[str, str]], report: str) -> None:
    """Write the tables and report.txt into `dest`, all or nothing.

    Other files in `dest` are kept, so the folder cannot be replaced as a whole. wav.scp marks it as complete
    instead: it is removed before the first table changes and put back after the last, and without it `dest`
    does not count as a data directory. If `dest` already holds the same content, nothing is touched, since
    another process may be reading it.
    """
    if os.path.ismount(dest):
        raise UserError(f"{dest}: a mount point; use a folder in it")
    with workplace(dest) as new:
        for name, table in tables.items():
            write_table(new / name, table)
        with whole(new / "report.txt") as stream:
            stream.write(report)
        dest.mkdir(exist_ok=True)
        stale = [  # from another corpus or an earlier call
            path for path in [*dest.glob("utt2*"), *dest.glob("spk2*")] if path.name not in tables
        ]
        if not stale and all(is_same(path, dest / path.name) for path in new.iterdir()):
            return
        (dest / "wav.scp").unlink(missing_ok=True)
        for path in stale:
            path.unlink()
        # report.txt first: it shows that stage 0 wrote the tables
        for name in ["report.txt", *sorted(tables, key=lambda name: name == "wav.scp")]:
            os.replace(new / name, dest / name)


def _unwanted(path: Path | None, found: Found) -> set[str]:
    """The utterances in the list. Raises UserError for one that is not in the corpus."""
    if path is None:
        return set()
    unwanted = set(read_table(path, fix=True))
    unknown = sorted(unwanted - {utterance.utt for utterance in found.utterances} - set(found.expected))
    if unknown:
        raise UserError(f"{path}: {unknown[0]} is not an utterance of the corpus; remove it from the list")
    return unwanted


def _refuse_same_ids(utterances: Sequence[Utterance]) -> None:
    paths: dict[str, Path] = {}
    for utterance in utterances:
        other = paths.setdefault(utterance.utt, utterance.path)
        if other != utterance.path:
            raise UserError(
                f"{utterance.path}: has the same utterance id, {utterance.utt}, as {other}; remove one of them"
            )


if __name__ == "__main__":
    cli.run(main)
