"""Check a data directory before training: tables, keys, values, and the headers of the recordings.

Checks what Kaldi's utils/validate_data_dir.sh checks, and more. All faults are reported, each with file
and line, and any fault gives a non-zero exit status.
"""

import argparse
import math
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ser import audio, cli, inputs
from ser.cli import UserError
from ser.datadir import BOM, CONTROL, TABLE, is_of_speakers, parted, wrong_form

REQUIRED = ("wav.scp", "text", "utt2spk", "spk2utt", "utt2emo", "utt2dur")  # spk2gender: if known
MOST_OF_A_KIND = 20  # lines
FRAME = 0.01  # seconds by which utt2dur and the recording may differ
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")  # float() accepts more than Kaldi
NOT_WORDS = re.compile(r"(?<!\w)(<s>|</s>|#0)(?!\w)")  # reserved for Kaldi's language models
FOREIGN_SPACE = re.compile(r"[^\S \t\n\r]")  # white space that Kaldi does not split at
BY_FIX = ", as python -m ser.fix_data does"
INVERT = f"make it the inverse of utt2spk{BY_FIX}"


class Fault(NamedTuple):
    """place: file:line; remedy: the same for all faults of a kind."""

    place: str
    what: str
    remedy: str


class Line(NamedTuple):
    """A line of a table: its place (file:line) and what follows its key."""

    place: str
    value: str


def _is_word(text: str) -> bool:
    return len(text.split()) == 1


def _is_number(text: str, above: float, below: float = math.inf) -> bool:
    return bool(NUMBER.fullmatch(text)) and above < float(text) < below


WORDS = (
    lambda value: not NOT_WORDS.search(value),  # may be empty: nothing said or recognised
    "words; <s>, </s> and #0 are reserved by Kaldi",
)
# For each table: a test of the value that follows the key, and what it should be.
VALUES = {
    "wav.scp": (lambda value: value and value[0] != "~", "the path of a file, without ~"),
    "text": WORDS,
    "utt2spk": (_is_word, "one speaker"),
    "utt2emo": (_is_word, "one class"),
    "utt2lang": (_is_word, "one language"),
    "utt2uniq": (_is_word, "one utterance"),
    "utt2dur": (lambda value: _is_number(value, above=0), "seconds, a number above 0"),
    "reco2dur": (lambda value: _is_number(value, above=0), "seconds, a number above 0"),
    "utt2num_frames": (lambda value: re.fullmatch("0*[1-9][0-9]*", value), "a whole number above 0"),
    "utt2warp": (lambda value: _is_number(value, above=0.5, below=1.5), "a number between 0.5 and 1.5"),
    "spk2warp": (lambda value: _is_number(value, above=0.5, below=1.5), "a number between 0.5 and 1.5"),
    "spk2gender": (lambda value: value in ("f", "m"), "f or m"),
    "reco2file_and_channel": (lambda value: re.fullmatch(r"\S+[ \t]+[AB]", value), "a file and A or B"),
}
ANYTHING = (lambda value: value != "", "not empty")


def main(argv: list[str] | None = None) -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(
        prog="python -m ser.validate_data",
        description="Check the data directory DIR: everything that Kaldi's validate_data_dir.sh checks, and "
        "the headers of the recordings. Reports every fault as file:line: what is wrong; what to do.",
    )
    parser.add_argument("dir", type=Path, metavar="DIR", help="data directory, as stage 0 writes it")
    parser.add_argument(
        "--allow-pipes",
        action="store_true",
        help="run the shell commands in wav.scp, and check their output",
    )
    args = parser.parse_args(argv)
    directory = args.dir
    if not directory.is_dir():
        raise UserError(f"{directory}: no such folder; run stage 0 to create it")

    faults: list[Fault] = []
    tables = {name: read(directory / name, faults) for name in _names(directory)}
    for name, table in tables.items():
        faults += wrong_values(name, table)
    if tables.get("utt2spk"):  # without it the right keys are unknown
        faults += wrong_keys(directory, tables)
        faults += wrong_speakers(tables["utt2spk"], tables["spk2utt"])
    for name, table in tables.items():
        if name.endswith(".scp") and name != "wav.scp":
            faults += wrong_archives(name, table)
    faults += wrong_audio(tables["wav.scp"], tables["utt2dur"], args.allow_pipes)
    if faults:
        _print(faults)
        raise UserError(f"{directory}: faults found: {len(faults)}; fix them as said above")

    speakers = len(tables["spk2utt"])
    if speakers == 1:
        print(f"warning: {directory}: only one speaker, so no fold can be speaker-independent", file=sys.stderr)
    hours = sum(float(line.value) for line in tables["utt2dur"].values()) / 3600
    classes = len({line.value for line in tables["utt2emo"].values()})
    print(
        f"{directory}: valid: {len(tables['utt2spk'])} utterances, {hours:.2f} h, {speakers} speakers, "
        f"{classes} classes, {len(tables)} tables"
    )


def _names(directory: Path) -> list[str]:
    present = {path.name for path in directory.iterdir() if path.is_file() and TABLE.fullmatch(path.name)}
    return [*REQUIRED, *sorted(present - set(REQUIRED))]


def read(path: Path, faults: list[Fault]) -> dict[str, Line]:
    """Read as much of a table as possible; append to `faults` what is wrong with its format."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        faults.append(Fault(f"{path}", "no such table", _remedy(path)))
        return {}
    if not content:
        faults.append(Fault(f"{path}", "empty table", _remedy(path)))
        return {}
    lines = content.split(b"\n")
    if lines.pop():
        faults.append(Fault(f"{path}:{len(lines) + 1}", "the last line has no newline at its end", "add it"))
        lines = content.split(b"\n")
    table: dict[str, Line] = {}
    previous = b""
    for number, raw in enumerate(lines, 1):
        place = f"{path}:{number}"
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            faults.append(Fault(place, "not UTF-8", "convert the table to UTF-8"))
            text = raw.decode(errors="replace")
        fixed = (text.removeprefix(BOM) if number == 1 else text).rstrip("\r")
        if fault := wrong_form(text, number):
            what, remedy = fault
            faults.append(Fault(place, what, remedy + BY_FIX * (wrong_form(fixed, number) is None)))
        elif path.suffix != ".scp" and FOREIGN_SPACE.search(text):  # file names may contain it
            faults.append(Fault(place, "white space other than space and tab", "replace it by a space"))
        key, value = parted(fixed)
        if not key:
            faults.append(Fault(place, "blank line", f"remove it{BY_FIX}"))
            continue
        if key in table:
            faults.append(Fault(place, f"duplicate key {key}, first at {table[key].place}", "remove one of the lines"))
            continue
        if key.encode() < previous:
            remedy = f"sort the table with LC_ALL=C sort{BY_FIX}"
            faults.append(Fault(place, f"{key} is out of order", remedy))
        previous = key.encode()
        table[key] = Line(place, value)
    return table


def _by_stage_0(data: Path) -> bool:
    return (data / "report.txt").is_file()


def _remedy(path: Path) -> str:
    """How to get a missing table. Stage 0 only helps if it wrote the data directory: it would replace all of
    another one."""
    data, name = path.parent, path.name
    if _by_stage_0(data) and (name in REQUIRED or name.startswith(("utt2", "spk2"))):
        return "run stage 0 again"
    if name not in REQUIRED:
        return "make it again, or remove it"
    if name in ("spk2utt", "utt2dur"):
        return f"run python -m ser.fix_data {data}, which makes it"
    return "add it (python -m ser.subset_data copies a part of a data directory with all of its tables)"


def wrong_values(name: str, table: Mapping[str, Line]) -> Iterator[Fault]:
    """Check what follows the keys of the table called `name`."""
    if name == "segments":
        first = next(iter(table.values()), Line(name, ""))
        yield Fault(
            first.place, "segments of recordings", "cut them into one file per utterance; no stage reads segments"
        )
    is_right, wanted = VALUES.get("text" if name.startswith("text_") else name, ANYTHING)
    for key, line in table.items():
        if not is_right(line.value):
            yield Fault(line.place, f"{key} has {line.value!r}", f"it should be {wanted}")


def wrong_keys(directory: Path, tables: Mapping[str, Mapping[str, Line]]) -> Iterator[Fault]:
    """Compare the keys of each table with the utterances, or the speakers, of utt2spk."""
    utterances, partial = tables["utt2spk"], inputs.partial_tables()
    speakers: dict[str, Line] = {}
    for line in utterances.values():
        speakers.setdefault(line.value, line)
    for name, table in tables.items():
        wanted = speakers if is_of_speakers(name) else utterances
        for key, line in wanted.items():
            # an empty table has been reported; a partial one is checked by training
            if table and key not in table and name not in partial:
                yield Fault(f"{directory / name}", f"no line for {key} (see {line.place})", "add it")
        for key, line in table.items():
            if key not in wanted:
                yield Fault(line.place, f"{key} is not in utt2spk", "remove the line, or add it there")


def wrong_speakers(utt2spk: Mapping[str, Line], spk2utt: Mapping[str, Line]) -> Iterator[Fault]:
    """Check that utterances are also sorted by speaker, and that spk2utt is the inverse of utt2spk."""
    utts_of = defaultdict(list)
    previous = ""
    for utt, line in utt2spk.items():
        utts_of[line.value].append(utt)
        if not utt.startswith(line.value):
            yield Fault(
                line.place, f"{utt} does not start with {line.value}", "prefix utterance ids with the speaker's id"
            )
        if line.value.encode() < previous.encode():
            yield Fault(line.place, f"{line.value} comes after {previous}", "choose ids that sort by speaker too")
        previous = line.value
    for spk, line in spk2utt.items():
        utts, wanted = line.value.split(), utts_of.get(spk, [])
        there, own = set(utts), set(wanted)
        for utt in wanted:
            if utt not in there:
                yield Fault(line.place, f"{spk} lacks {utt}", INVERT)
        for utt in utts:
            if utt not in own:
                yield Fault(line.place, f"{spk} has {utt}, unlike in utt2spk", INVERT)
        if len(there) < len(utts):
            yield Fault(line.place, f"{spk} has an utterance twice", INVERT)
        elif utts != sorted(utts, key=str.encode):
            yield Fault(line.place, f"utterances of {spk} are out of order", INVERT)


def wrong_archives(name: str, table: Mapping[str, Line]) -> Iterator[Fault]:
    """Check that the archives exist that feats.scp and similar tables refer to."""
    for key, line in table.items():
        archive = re.sub(r":\d+(\[.*\])?$", "", line.value)  # path:offset[rows]
        if archive and not CONTROL.search(archive) and not os.path.isfile(archive):
            what = f"{key}: no such archive {archive}{_seen_from(archive)}"
            yield Fault(line.place, what, f"run the stage that writes {name}")


def _seen_from(path: str) -> str:
    """The folder that a relative path is relative to; "" for an absolute one."""
    return "" if Path(path).is_absolute() else f" (relative to {Path.cwd()})"


def wrong_audio(wav_scp: Mapping[str, Line], utt2dur: Mapping[str, Line], allow_pipes: bool) -> Iterator[Fault]:
    """Open each recording, and compare its length with utt2dur."""
    from tqdm import tqdm

    is_path, _ = VALUES["wav.scp"]
    is_duration, _ = VALUES["utt2dur"]
    for utt, line in tqdm(wav_scp.items(), "audio headers", disable=None):
        if not is_path(line.value) or CONTROL.search(line.value):  # reported already
            continue
        is_pipe = audio.is_pipe(line.value)
        if is_pipe and not allow_pipes:
            remedy = "replace it by a file, or allow commands with --allow-pipes"
            yield Fault(line.place, f"{utt} is a shell command, {line.value!r}", remedy)
            continue
        try:
            header = audio.header(audio.run(line.value) if is_pipe else line.value)
        except UserError as error:
            what, _, remedy = str(error).rpartition("; ")
            gone = not is_pipe and not os.path.exists(line.value)
            yield Fault(line.place, f"{utt}: {what}{_seen_from(line.value) if gone else ''}", remedy)
            continue
        seconds = header.frames / header.rate
        said = utt2dur.get(utt)
        if said and is_duration(said.value) and abs(float(said.value) - seconds) > FRAME:
            what = f"{utt} has {said.value} s, its recording {seconds:.3f} s ({line.value})"
            data = Path(said.place).parent
            by_fix = f"remove the line and run python -m ser.fix_data {data}, which computes it"
            yield Fault(said.place, what, "run stage 0 again" if _by_stage_0(data) else by_fix)


def _print(faults: Iterable[Fault]) -> None:
    kinds = defaultdict(list)
    for fault in faults:
        kinds[_file(fault.place), fault.remedy].append(fault)
    for kind in kinds.values():
        for place, what, remedy in kind[:MOST_OF_A_KIND]:
            print(cli.plain(f"{place}: {what}; {remedy}"), file=sys.stderr)
        if len(kind) > MOST_OF_A_KIND:
            print(f"{_file(place)}: ... and {len(kind) - MOST_OF_A_KIND} more; {remedy}", file=sys.stderr)


def _file(place: str) -> str:
    return re.sub(r":\d+$", "", place)


if __name__ == "__main__":
    cli.run(main)
