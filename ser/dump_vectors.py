"""Extract the word vectors of the words of a corpus from a large file.

Writes OUT/vectors.txt, in the same format, sorted, and OUT/unknown, the words without a vector and their number of
occurrences in the transcripts, most frequent first. Words are tokens of ser.text.tokens, in lower case, so vectors of
capitalised words are not used.
"""

import argparse
from collections import Counter
from pathlib import Path

from ser import cli
from ser.cli import UserError
from ser.datadir import read_table
from ser.files import whole
from ser.text import tokens
from ser.vectors import select_vectors


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ser.dump_vectors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--glove",
        type=Path,
        required=True,
        metavar="FILE",
        help="word vectors: glove.6B.300d.txt, which ser.get_vectors fetches, or any file in its format",
    )
    parser.add_argument("data", type=Path, metavar="DATA", help="data directory with text and, optionally, text_asr")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    args = parser.parse_args(argv)

    refuse_others(args.glove, args.out)
    counts = count_words(args.data)
    vectors = select_vectors(args.glove, counts)
    if not vectors:
        raise UserError(
            f"{args.glove}: has none of the {len(counts)} words of {args.data}; use vectors for the corpus's language"
        )
    unknown = {word: count for word, count in counts.most_common() if word not in vectors}
    with whole(args.out / "unknown") as stream:
        stream.writelines(f"{word} {count}\n" for word, count in unknown.items())
    with whole(args.out / "vectors.txt") as stream:
        stream.writelines(f"{word} {vectors[word]}\n" for word in sorted(vectors))
    share = 100 * sum(unknown.values()) / counts.total()
    print(
        f"{len(counts)} words, {len(vectors)} with a vector; {share:.1f} % of {counts.total()} tokens have "
        f"none ({args.out / 'unknown'})"
    )


def refuse_others(glove: Path, out: Path) -> None:
    """Raise UserError if vectors.txt in `out` is the input, or was not written by this command, which also writes
    `unknown`: GloVe's own programs use that name, too."""
    there = out / "vectors.txt"
    if there.exists() and (not (out / "unknown").exists() or (glove.exists() and there.samefile(glove))):
        raise UserError(f"{there}: is the input, or was not written by this command; use another folder")


def count_words(data: Path) -> "Counter[str]":
    """Count each word in the transcripts of a data directory, reference and recognised ones together.

    Raises UserError if the table of reference transcripts is missing, or there are no words.
    """
    tables = [read_table(data / "text")]
    if (data / "text_asr").exists():
        tables.append(read_table(data / "text_asr"))
    words = [word for table in tables for transcript in table.values() for word in tokens(transcript)]
    if not words:
        raise UserError(f"{data / 'text'}: contains no words; a corpus without transcripts needs no word vectors")
    return Counter(sorted(words))  # sorted, so that equally frequent words are in alphabetical order


if __name__ == "__main__":
    cli.run(main)
