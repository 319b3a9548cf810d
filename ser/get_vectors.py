"""Download GloVe word vectors; the last line printed is the file with 300 dimensions."""

import argparse
from pathlib import Path

from ser import cli
from ser.download import fetch, unpack

# Pennington et al. 2014, https://nlp.stanford.edu/projects/glove/: trained on Wikipedia 2014 and Gigaword 5,
# 400,000 lower-case words (public domain, PDDL). The authors publish no checksum; many public scripts use
# this one.
URL = "https://nlp.stanford.edu/data/glove.6B.zip"
SIZE = 862182613  # bytes
MD5 = "056ea991adb4740ac6bf1b6d9b50408b"
FILE = "glove.6B.300d.txt"


def main(argv: list[str] | None = None) -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(
        prog="python -m ser.get_vectors",
        description="Download and unpack GloVe word vectors (glove.6B: 0.9 GB, 2.2 GB unpacked). Nothing is "
        "downloaded twice. The last line printed is the file for --glove.",
    )
    parser.add_argument("downloads", type=Path, metavar="DOWNLOADS", help="folder to put them in")
    arguments = parser.parse_args(argv)
    folder = arguments.downloads / "glove.6B"
    if not folder.exists():
        archive = arguments.downloads / "glove.6B.zip"
        fetch(URL, archive, SIZE, MD5)
        unpack(archive, folder)
    print(folder / FILE)


if __name__ == "__main__":
    cli.run(main)
