"""Share of padding frames in random batches and in ours, for lengths like IEMOCAP's.

python tests/benchmarks/padding.py [--lengths TSV]
"""

import argparse

import numpy as np
from blstm import read_lengths

from ser.batches import padding_share, random_batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--lengths", help="table with the columns utt and samples_16k (default: log-normal, like IEMOCAP's)"
    )
    lengths = read_lengths(parser.parse_args().lengths)
    for size in (16, 32, 64):
        rng = np.random.default_rng(1)
        shuffled = rng.permutation(sorted(lengths))
        random = [list(shuffled[i : i + size]) for i in range(0, len(shuffled), size)]
        ours = random_batches(lengths, size, rng)
        print(
            f"batches of {size}: random {padding_share(random, lengths):.1%}, ours {padding_share(ours, lengths):.1%}"
        )


if __name__ == "__main__":
    main()
