"""Mend a data directory in place: sort its tables, leave out utterances that some table lacks, make spk2utt
of utt2spk, and compute what utt2dur and utt2md5 lack from the recordings. Byte order marks, DOS line ends and
blank lines are taken out. Tables that change are kept in DIR/.backup as they were."""

import argparse
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from ser import cli
from ser.cli import UserError
from ser.datadir import (
    COMPUTED,
    PARTIAL,
    SOME,
    compute_missing,
    is_of_speakers,
    part_of,
    read_tables,
    write_table,
)
from ser.files import workplace


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m ser.fix_data", description=__doc__)
    cli.add_allow_pipes(parser)
    parser.add_argument("dir", type=Path, metavar="DIR", help="data directory")
    args = parser.parse_args(argv)

    data = args.dir
    tables = read_tables(data, mend=True)
    lacking = lacks(tables)
    kept = tables["utt2spk"].keys() - {utt for utts in lacking.values() for utt in utts}
    told = [
        f"{name} lacks {len(utts)} ({', '.join(sorted(utts)[:SOME])}{', ...' * (len(utts) > SOME)})"
        for name, utts in lacking.items()
    ]
    if not kept:
        lost = f"{', '.join(told) or 'utt2spk is empty'}; add what is missing, or remove the table"
        raise UserError(f"{data}: no utterance is in every table: {lost}")
    changed = replace(data, tables.keys(), part_of(tables, kept))
    left_out = len(tables["utt2spk"]) - len(kept)
    if left_out:
        print(f"left out: {left_out} utterances; {', '.join(told)}")
    if changed:
        print(f"mended: {' '.join(changed)}; what they were: {data / '.backup'}")
    compute_missing(data, COMPUTED, args.allow_pipes, "ser.fix_data")
    print(f"{data}: {len(kept)} utterances; python -m ser.validate_data {data} tells what is left to mend")


def lacks(tables: Mapping[str, Mapping[str, str]]) -> dict[str, set[str]]:
    """The utterances of utt2spk that each table lacks, but for tables that are computed or may be partial."""
    utts = tables["utt2spk"].keys()
    whole = [name for name in tables if not is_of_speakers(name) and name not in {*COMPUTED, *PARTIAL}]
    lacking = {name: utts - tables[name].keys() for name in whole}
    return {name: absent for name, absent in lacking.items() if absent}


def replace(data: Path, names: Iterable[str], tables: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Put tables in the place of those called `names`; return the names of those that differ, or of which
    nothing is left. The old ones are kept in data/.backup."""
    changed = []
    with workplace(data.resolve()) as new:  # beside the target of a link, which may be on another disk
        for name, table in tables.items():
            write_table(new / name, table)
        for name in sorted({*names, *tables}):
            old = data / name
            if name in tables and old.exists() and old.read_bytes() == (new / name).read_bytes():
                continue
            (data / ".backup").mkdir(exist_ok=True)
            if old.exists():
                shutil.copy2(old, data / ".backup" / name)
            if name in tables:
                os.replace(new / name, old)
            else:
                old.unlink()
            changed.append(name)
    return changed


if __name__ == "__main__":
    cli.run(main)
