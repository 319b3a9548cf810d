"""Kaldi's data directory: plain-text tables, one utterance per line, in the order of `LC_ALL=C sort`."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ser import audio
from ser.cli import UserError
from ser.files import whole, workplace

if TYPE_CHECKING:
    import numpy as np

# The names of tables; other files in a data directory are ignored.
TABLE = re.compile(r"utt2\w+|spk2\w+|\w+\.scp|text(_\w+)?|reco2dur|reco2file_and_channel|segments")
BOM = "\ufeff"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and newline
SOME = 3  # number of keys named in a message
# Tables that are computed from the recordings: each value from samples (N,) and their rate in Hz.
COMPUTED: dict[str, "Callable[[np.ndarray, int], str]"] = {
    "utt2dur": lambda samples, rate: f"{len(samples) / rate:.6f}",
    "utt2md5": lambda samples, rate: audio.md5(samples),
}


def wrong_form(line: str, number: int) -> tuple[str, str] | None:
    """What is wrong with the characters in a line of a table, and the remedy; None if nothing is."""
    if number == 1 and line.startswith(BOM):
        return "a byte order mark", "save the table as UTF-8 without it"
    if "\r" in line:
        return "a carriage return (DOS line ending)", "remove it"
    if odd := CONTROL.search(line):
        return f"a control character, {odd[0]!r}", "remove it"
    return None


def parted(line: str) -> tuple[str, str]:
    """The key and the value ("" for none) of a line, which are separated by spaces or tabs."""
    key, value = [*re.split(r"[ \t]+", line.strip(" \t"), maxsplit=1), ""][:2]
    return key, value


def read_table(path: str | Path, needed: Iterable[str] = (), fix: bool = False) -> dict[str, str]:
    """Read `key value...` lines; the value is the rest of the line ("" if there is none).

    Lines end only at "\\n": other characters that Unicode counts as line breaks are part of a transcript.
    Raises UserError, naming file and line, for a missing file, a blank line, a duplicate key, bytes that are not
    UTF-8, a byte order mark, DOS line endings or other control characters; and if a needed key has no line. Keys are
    in the order of the lines, so the third key is on line 3.

    fix: ignore faults that can be removed without loss: byte order mark, DOS line endings, blank lines, repeated
    lines.
    """
    table: dict[str, str] = {}
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such table; run the stage that writes it") from None
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{number}: not UTF-8 text; convert the file") from None
    if fix:
        text = re.sub(r"\r+$", "", text.removeprefix(BOM), flags=re.MULTILINE)
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], 1):
        fault = wrong_form(line, number)
        if fault:
            raise UserError(f"{path}:{number}: {'; '.join(fault)}")
        key, value = parted(line)
        if fix and (not key or table.get(key) == value):
            continue
        if not key:
            raise UserError(f"{path}:{number}: blank line; remove it")
        if key in table:
            raise UserError(f"{path}:{number}: {key} occurs twice; remove one of the lines")
        table[key] = value
    missing = [key for key in dict.fromkeys(needed) if key not in table]
    if missing:
        first = ", ".join(missing[:SOME]) + f" and {len(missing) - SOME} more" * (len(missing) > SOME)
        them = "them" if missing[1:] else "it"
        raise UserError(f"{path}: no line for {first}; add {them}, or run the stage that writes the table again")
    return table


def read_column(data: Path, name: str, utts: Iterable[str], place: str) -> dict[str, str]:
    """Read utt2<name>, a column that a protocol refers to; the column `utt` is the id itself. place: the place in the
    protocol, for the error message if there is no such table."""
    if name == "utt":
        return {utt: utt for utt in utts}
    table = data / f"utt2{name}"
    if not table.exists():
        known = sorted(path.name.removeprefix("utt2") for path in data.glob("utt2*"))
        raise UserError(f"{place}: there is no {table}; use one of {', '.join(known)}")
    return read_table(table, utts)


def read_recordings(path: Path, allow_pipes: bool, reader: str, needed: Iterable[str] = ()) -> dict[str, str]:
    """Read wav.scp. Raises UserError if it is empty, lacks a needed key, or contains a shell command although
    these are not allowed. reader: the module whose option allows them, such as ser.dump_features."""
    wavs = read_table(path, needed)
    if not wavs:
        raise UserError(f"{path}: empty table; add the recordings, or run stage 0 again if it wrote the table")
    for number, (utt, place) in enumerate(wavs.items(), 1):
        if not place:
            raise UserError(f"{path}:{number}: {utt} has no recording; add its path")
        if audio.is_pipe(place) and not allow_pipes:
            raise UserError(
                f"{path}:{number}: {utt} is a shell command, {place!r}; replace it by a file, or allow it "
                f"with {reader} --allow-pipes"
            )
    return wavs


def write_table(path: str | Path, table: Mapping[str, str]) -> None:
    """Write `key value` lines sorted by the bytes of the key (the order of `LC_ALL=C sort`).

    Raises UserError for anything that a table cannot store: white space in a key, a line break or another control
    character, or characters that are not UTF-8 (as in file names of old systems).
    """
    name = Path(path).name
    for key, value in table.items():
        line = f"{key} {value}"
        try:
            line.encode()
        except UnicodeEncodeError:
            raise UserError(f"{name} cannot store {line!r}, which is not UTF-8; rename the file") from None
        if key.split() != [key] or "\n" in value or wrong_form(line, 1):
            raise UserError(f"{name} cannot store {line!r}; remove the line break, space or control character")
    with whole(path) as stream:
        for key in sorted(table, key=str.encode):
            stream.write(f"{key} {table[key]}".rstrip(" ") + "\n")


def is_of_speakers(name: str) -> bool:
    """Whether the keys of the table called `name` are speakers, not utterances."""
    return name.startswith("spk2") or name == "cmvn.scp"


def read_tables(data: Path, fix: bool = False) -> dict[str, dict[str, str]]:
    """All tables of a data directory by name, except spk2utt, which is derived from utt2spk.

    fix: see `read_table`. Raises UserError if there is no utt2spk, or if there is a table segments.
    """
    if not data.is_dir():
        raise UserError(f"{data}: no such folder; give a data directory")
    names = {path.name for path in data.iterdir() if path.is_file() and TABLE.fullmatch(path.name)}
    if "segments" in names:
        raise UserError(
            f"{data / 'segments'}: not supported; cut the recordings into one file per utterance, and remove this table"
        )
    return {name: read_table(data / name, fix=fix) for name in sorted({*names, "utt2spk"} - {"spk2utt"})}


def part_of(tables: Mapping[str, Mapping[str, str]], utts: Collection[str]) -> dict[str, dict[str, str]]:
    """The lines of the tables for some utterances and their speakers, and spk2utt. Tables that become empty are
    left out."""
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
    """Write a new data directory, all or nothing. Raises UserError if it exists already."""
    if dest.exists() and not (dest.is_dir() and not any(dest.iterdir())):
        raise UserError(f"{dest}: exists already; remove it, or use another folder")
    dest = dest.resolve()  # if it is a link to another disk, write there
    with workplace(dest) as new:
        for name, table in tables.items():
            write_table(new / name, table)
        new.rename(dest)


def compute_missing(data: Path, names: Iterable[str], allow_pipes: bool, reader: str) -> None:
    """Compute and write the lines that the tables `names`, of COMPUTED, lack for utterances of utt2spk; print how many.

    No recording is read if nothing is missing. Raises UserError as `read_recordings` and `audio.read` do.
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
