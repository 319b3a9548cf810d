"""Kaldi's data directory: plain tables, one utterance a line, sorted as `LC_ALL=C sort` does."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ser import audio
from ser.cli import UserError
from ser.files import whole, workplace

if TYPE_CHECKING:
    import numpy as np

# The names of tables; whatever else stands in a data directory is none.
TABLE = re.compile(r"utt2\w+|spk2\w+|\w+\.scp|text(_\w+)?|reco2dur|reco2file_and_channel|segments")
BOM = "\ufeff"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and the end of a line
SOME = 3  # keys in a message
# Tables that follow from the recordings: each value from samples (N,) and their rate in Hz.
COMPUTED: dict[str, "Callable[[np.ndarray, int], str]"] = {
    "utt2dur": lambda samples, rate: f"{len(samples) / rate:.6f}",
    "utt2md5": lambda samples, rate: audio.md5(samples),
}


def wrong_form(line: str, number: int) -> tuple[str, str] | None:
    """What is wrong with the characters of a table's line, and the remedy; None where nothing is."""
    if number == 1 and line.startswith(BOM):
        return "a byte order mark", "save the table as UTF-8 without it"
    if "\r" in line:
        return "a carriage return (DOS line end)", "take it out"
    if odd := CONTROL.search(line):
        return f"a control character, {odd[0]!r}", "take it out"
    return None


def parted(line: str) -> tuple[str, str]:
    """The key of a line and its value, "" where there is none; they are parted by spaces or tabs."""
    key, value = [*re.split(r"[ \t]+", line.strip(" \t"), maxsplit=1), ""][:2]
    return key, value


def read_table(path: str | Path, needed: Iterable[str] = (), mend: bool = False) -> dict[str, str]:
    """Read `key value...` lines; the value is the rest of the line ("" where there is none).

    A line ends at "\\n" alone: the other characters that Unicode counts as line breaks are part of a
    transcript. Raises UserError, naming file and line, for a missing file, a blank line, a key that stands
    twice, bytes that are not UTF-8, a byte order mark, DOS line ends or other control characters; and where
    keys that are needed have no line. The keys are in the order of the lines, so the third is line 3.

    mend: pass over what can be taken out without loss: byte order mark, DOS line ends, blank lines, a second
    line with the same key and value.
    """
    table: dict[str, str] = {}
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such table; run the stage that writes it") from None
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{number}: not UTF-8 text; convert the file") from None
    if mend:
        text = re.sub(r"\r+$", "", text.removeprefix(BOM), flags=re.MULTILINE)
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], 1):
        fault = wrong_form(line, number)
        if fault:
            raise UserError(f"{path}:{number}: {'; '.join(fault)}")
        key, value = parted(line)
        if mend and (not key or table.get(key) == value):
            continue
        if not key:
            raise UserError(f"{path}:{number}: blank line; remove it")
        if key in table:
            raise UserError(f"{path}:{number}: {key} stands twice; remove one of the lines")
        table[key] = value
    missing = [key for key in dict.fromkeys(needed) if key not in table]
    if missing:
        first = ", ".join(missing[:SOME]) + f" and {len(missing) - SOME} more" * (len(missing) > SOME)
        them = "them" if missing[1:] else "it"
        raise UserError(f"{path}: no line for {first}; add {them}, or run the stage that writes the table again")
    return table


def read_column(data: Path, name: str, utts: Iterable[str], place: str) -> dict[str, str]:
    """Read utt2<name>, which a protocol names; each utterance has itself as its `utt`. place: where the protocol
    does, for the error if there is no such table."""
    if name == "utt":
        return {utt: utt for utt in utts}
    table = data / f"utt2{name}"
    if not table.exists():
        known = sorted(path.name.removeprefix("utt2") for path in data.glob("utt2*"))
        raise UserError(f"{place}: there is no {table}; one of {', '.join(known)}")
    return read_table(table, utts)


def read_recordings(path: Path, allow_pipes: bool, reader: str, needed: Iterable[str] = ()) -> dict[str, str]:
    """Read wav.scp. Raises UserError where it is empty, lacks what is needed, or holds a shell command and
    these are not allowed, which `reader` (ser.dump_features) has an option for."""
    wavs = read_table(path, needed)
    if not wavs:
        raise UserError(f"{path}: empty table; add the recordings, or run stage 0 again where that wrote it")
    for number, (utt, place) in enumerate(wavs.items(), 1):
        if not place:
            raise UserError(f"{path}:{number}: {utt} has no recording; add its path")
        if audio.is_pipe(place) and not allow_pipes:
            raise UserError(
                f"{path}:{number}: {utt} is a shell command, {place!r}; put a file in its place, or let it run "
                f"with {reader} --allow-pipes"
            )
    return wavs


def write_table(path: str | Path, table: Mapping[str, str]) -> None:
    """Write `key value` lines sorted by the bytes of the key (the order of `LC_ALL=C sort`).

    Raises UserError for what a table cannot hold: white space in a key, a line break or another control
    character, or characters that are not UTF-8 (as in file names of older systems).
    """
    name = Path(path).name
    for key, value in table.items():
        line = f"{key} {value}"
        try:
            line.encode()
        except UnicodeEncodeError:
            raise UserError(f"{name} cannot hold {line!r}, which is not UTF-8; rename the file") from None
        if key.split() != [key] or "\n" in value or wrong_form(line, 1):
            raise UserError(f"{name} cannot hold {line!r}; take out the line break, space or control character")
    with whole(path) as stream:
        for key in sorted(table, key=str.encode):
            stream.write(f"{key} {table[key]}".rstrip(" ") + "\n")


def is_of_speakers(name: str) -> bool:
    """Whether the keys of the table called `name` are speakers, not utterances."""
    return name.startswith("spk2") or name == "cmvn.scp"


def read_tables(data: Path, mend: bool = False) -> dict[str, dict[str, str]]:
    """Every table of a data directory but spk2utt, which follows from utt2spk, by its name.

    mend: as `read_table` has it. Raises UserError where there is no utt2spk, or segments cut recordings.
    """
    if not data.is_dir():
        raise UserError(f"{data}: no such folder; give a data directory")
    names = {path.name for path in data.iterdir() if path.is_file() and TABLE.fullmatch(path.name)}
    if "segments" in names:
        raise UserError(
            f"{data / 'segments'}: parts of recordings; cut them into one file an utterance; no stage reads segments"
        )
    return {name: read_table(data / name, mend=mend) for name in sorted({*names, "utt2spk"} - {"spk2utt"})}


def part_of(tables: Mapping[str, Mapping[str, str]], utts: Collection[str]) -> dict[str, dict[str, str]]:
    """What the tables have of some utterances and of their speakers, and spk2utt. Tables that have nothing
    of them are left out."""
    utt2spk = {utt: spk for utt, spk in tables["utt2spk"].items() if utt in utts}
    speakers = set(utt2spk.values())
    part = {}
    for name, table in tables.items():
        keys = speakers if is_of_speakers(name) else utt2spk
        part[name] = {key: value for key, value in table.items() if key in keys}
    utts_of: dict[str, list[str]] = {}
    for utt in sorted(utt2spk, key=str.encode):
        utts_of.setdefault(utt2spk[utt], []).append(utt)
    part["spk2utt"] = {spk: " ".join(own) for spk, own in utts_of.items()}
    return {name: table for name, table in part.items() if table}


def write_data(dest: Path, tables: Mapping[str, Mapping[str, str]]) -> None:
    """Write a new data directory, which appears whole. Raises UserError where something is there."""
    if dest.exists() and not (dest.is_dir() and not any(dest.iterdir())):
        raise UserError(f"{dest}: is there already; remove it, or give another folder")
    dest = dest.resolve()  # a link to another disk: the folder is made there
    with workplace(dest) as new:
        for name, table in tables.items():
            write_table(new / name, table)
        new.rename(dest)


def compute_missing(data: Path, names: Iterable[str], allow_pipes: bool, reader: str) -> None:
    """Compute what the tables `names`, of COMPUTED, lack of the utterances of utt2spk; write it, and say so.

    Nothing is read where nothing is missing. Raises UserError as `read_recordings` and `audio.read` do.
    """
    utts = read_table(data / "utt2spk")
    tables = {name: read_table(data / name) if (data / name).exists() else {} for name in names}
    lacking = {name: utts.keys() - table.keys() for name, table in tables.items()}
    missing = [utt for utt in utts if any(utt in lacks for lacks in lacking.values())]
    if not missing:
        return
    from tqdm import tqdm

    scp = data / "wav.scp"
    wavs = read_recordings(scp, allow_pipes, reader, missing)
    for utt in tqdm(missing, "reading recordings", disable=None):
        samples, rate = audio.read(audio.recording(wavs[utt], f"{scp}: {utt}"))
        for name, lacks in lacking.items():
            if utt in lacks:
                tables[name][utt] = COMPUTED[name](samples, rate)
    for name, lacks in lacking.items():
        if lacks:
            write_table(data / name, tables[name])
            print(f"{data / name}: computed from the recordings, {len(lacks)} of {len(utts)} lines")
