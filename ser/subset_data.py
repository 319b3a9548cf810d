"""Copy some utterances of a data directory, with all of its tables. Unlike Kaldi's utils/subset_data_dir.sh, it
keeps utt2emo and the corpus's own tables."""

import argparse
from collections.abc import Collection
from pathlib import Path

from ser import cli
from ser.cli import UserError
from ser.datadir import part_of, read_table, read_tables, write_data


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m ser.subset_data", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--utts", type=Path, metavar="FILE", help="the utterances named by the first word of each line of FILE"
    )
    which.add_argument(
        "--speakers",
        type=Path,
        metavar="FILE",
        help="the utterances of the speakers named by the first word of each line of FILE",
    )
    which.add_argument("--first", type=int, metavar="N", help="the first N utterances")
    parser.add_argument("src", type=Path, metavar="SRC", help="data directory")
    parser.add_argument("dest", type=Path, metavar="DEST", help="new folder")
    args = parser.parse_args(argv)
    if args.first is not None and args.first < 1:
        parser.error(f"--first {args.first}: must be 1 or more")

    tables = read_tables(args.src)
    utt2spk = tables["utt2spk"]
    if args.utts:
        utts = asked(args.utts, utt2spk.keys(), args.src)
    elif args.speakers:
        speakers = asked(args.speakers, set(utt2spk.values()), args.src)
        utts = {utt for utt, spk in utt2spk.items() if spk in speakers}
    else:
        utts = set(sorted(utt2spk, key=str.encode)[: args.first])
        if len(utts) < args.first:
            raise UserError(f"--first {args.first}: {args.src} has {len(utts)} utterances; ask for fewer")
    part = part_of(tables, utts)
    write_data(args.dest, part)
    print(f"{args.dest}: {len(utts)} utterances, {len(part['spk2utt'])} speakers, {len(part)} tables")


def asked(path: Path, known: Collection[str], src: Path) -> set[str]:
    """The keys of a table, all of which must be known. Raises UserError for an unknown key or an empty table."""
    keys = read_table(path).keys()
    unknown = [key for key in keys if key not in known]
    if unknown:
        raise UserError(
            f"{path}: {len(unknown)} not in {src / 'utt2spk'}, first {unknown[0]}; remove them from the list"
        )
    if not keys:
        raise UserError(f"{path}: empty list; write one line for each to keep")
    return set(keys)


if __name__ == "__main__":
    cli.run(main)
