"""Combine data directories into one (or copy one), keeping every table that all of them have. Unlike Kaldi's
utils/combine_data.sh and utils/copy_data_dir.sh, it keeps utt2emo and the corpus's own tables."""

import argparse
from collections import Counter
from pathlib import Path

from ser import cli
from ser.cli import UserError
from ser.datadir import part_of, read_tables, write_data


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m ser.combine_data", description=__doc__)
    parser.add_argument("dest", type=Path, metavar="DEST", help="new folder")
    parser.add_argument("src", type=Path, nargs="+", metavar="SRC", help="data directories")
    args = parser.parse_args(argv)

    sources = {src: read_tables(src) for src in args.src}
    all_of = Counter(name for tables in sources.values() for name in tables)
    shared = [name for name in all_of if all_of[name] == len(sources)]
    tables = part_of({name: united(name, sources) for name in shared}, united("utt2spk", sources))
    write_data(args.dest, tables)
    for name in sorted(all_of.keys() - set(shared)):
        lacking = [str(src) for src in sources if name not in sources[src]]
        print(f"left out: {name}, which is not in {', '.join(lacking)}")
    of_sources = Counter(spk for own in sources.values() for spk in set(own["utt2spk"].values()))
    twice = sorted(spk for spk, count in of_sources.items() if count > 1)
    if twice:
        print(f"NOTE: speakers with the same id are treated as one person: {', '.join(twice)}")
    n_utts = len(tables["utt2spk"])
    print(f"{args.dest}: {n_utts} utterances, {len(of_sources)} speakers, {len(tables)} tables")


def united(name: str, sources: dict[Path, dict[str, dict[str, str]]]) -> dict[str, str]:
    """The lines of one table from all data directories. Raises UserError if two differ in a key's value."""
    lines: dict[str, str] = {}
    place: dict[str, Path] = {}
    for src, tables in sources.items():
        for key, value in tables[name].items():
            if lines.setdefault(key, value) != value:
                other = f"{lines[key]!r} in {place[key] / name}"
                raise UserError(f"{src / name}: {key} has {value!r}, but {other}; rename one of them")
            place.setdefault(key, src)
    return lines


if __name__ == "__main__":
    cli.run(main)
