"""Stage -1: download a corpus; the last line printed is its folder."""

import argparse
from pathlib import Path

from ser import cli
from ser.corpora import corpus_module


def main(argv: list[str] | None = None) -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(
        prog="python -m ser.get_corpus",
        description="Download and unpack a corpus, or say where to request it. Nothing is downloaded "
        "twice. The last line printed is the corpus's folder.",
    )
    parser.add_argument("corpus", help="name of a module in ser/corpora, such as ravdess")
    parser.add_argument("downloads", type=Path, help="folder to put it in")
    arguments = parser.parse_args(argv)
    print(corpus_module(arguments.corpus).get(arguments.downloads))


if __name__ == "__main__":
    cli.run(main)
