"""Fix a data directory in place: sort its tables, drop utterances that are not in every table, make spk2utt
from utt2spk, and compute missing lines of utt2dur and utt2md5 from the recordings. Byte order marks, DOS line
ends and blank lines are removed. The originals of changed tables are kept in DIR/.backup."""

import argparse
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from ser import cli
from ser.cli import UserError
from ser.datadir import (
    COMPUTED,
    SOME,
    compute_missing,
    is_of_speakers,
    part_of,
    read_tables,
    write_table,
)
from ser.files import workplace
from ser.inputs import partial_tables


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m ser.fix_data", description=__doc__)
    cli.add_allow_pipes(parser)
    parser.add_argument("dir", type=Path, metavar="DIR", help="data directory")
    args = parser.parse_args(argv)

    data = args.dir
    tables = read_tables(data, fix=True)
    lacking = lacks(tables)
    kept = tables["utt2spk"].keys() - {utt for utts in lacking.values() for utt in utts}
    reasons = [
        f"{name} lacks {len(utts)} ({', '.join(sorted(utts)[:SOME])}{', ...' * (len(utts) > SOME)})"
        for name, utts in lacking.items()
    ]
    if not kept:
        lost = f"{', '.join(reasons) or 'utt2spk is empty'}; add what is missing, or remove the table"
        raise UserError(f"{data}: no utterance is in every table: {lost}")
    changed = replace(data, tables.keys(), part_of(tables, kept))
    left_out = len(tables["utt2spk"]) - len(kept)
    if left_out:
        print(f"dropped: {left_out} utterances; {', '.join(reasons)}")
    if changed:
        print(f"fixed: {' '.join(changed)}; originals: {data / '.backup'}")
    compute_missing(data, COMPUTED, args.allow_pipes, "ser.fix_data")
    print(f"{data}: {len(kept)} utterances; check it with python -m ser.validate_data {data}")


def lacks(tables: Mapping[str, Mapping[str, str]]) -> dict[str, set[str]]:
    """The utterances of utt2spk missing from each table, except tables that are computed or may be partial."""
    utts = tables["utt2spk"].keys()
    whole = [name for name in tables if not is_of_speakers(name) and name not in {*COMPUTED, *partial_tables()}]
    lacking = {name: utts - tables[name].keys() for name in whole}
    return {name: absent for name, absent in lacking.items() if absent}


def replace(data: Path, names: Iterable[str], tables: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Replace the tables called `names` by `tables`; return the names of those that changed or are gone.
    The originals are kept in data/.backup."""
    changed = []
    with workplace(data.resolve()) as new:  # if data is a link, beside its target: it may be on another disk
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
