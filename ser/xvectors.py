"""X-vectors: one vector an utterance, of a network that was trained to tell speakers (Snyder et al. 2018).

Read from Kaldi's xvector.scp, as sid/nnet3/xvector/extract_xvectors.sh and ser.dump_xvectors write it.
"""

import functools
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ser.archive import read_entry
from ser.cli import UserError
from ser.datadir import read_table

EXTRACT = "extract them with python -m ser.dump_xvectors or with Kaldi"


def archives(scp: Path) -> list[Path]:
    """The archives that an index points into, as far as they are there."""
    return [path for path in _archives(scp, scp.stat().st_mtime_ns) if os.path.isfile(path)]


@functools.cache
def _archives(scp: Path, changed: int) -> list[Path]:
    """All of them; a table that has not changed since is not read again for each of many runs."""
    return sorted({Path(place.rpartition(":")[0]) for place in read_table(scp).values()})


def read(scp: str | Path, utts: Iterable[str]) -> dict[str, np.ndarray]:
    """The x-vector (D,) float32 of each of `utts`, in their order.

    Archives hold vectors of floats or doubles, binary or as text; what else `scp` has is left alone. Raises
    UserError where an utterance has none, or one that is not as long as the first, or has values that are
    infinite or undefined.
    """
    scp, utts = Path(scp), list(utts)
    if not scp.is_file():
        raise UserError(f"{scp}: no such table; {EXTRACT}")
    index = read_table(scp)
    missing = [utt for utt in utts if utt not in index]
    if missing:
        raise UserError(
            f"{scp}: {len(missing)} of {len(utts)} utterances have no x-vector, the first is {missing[0]}; "
            f"{EXTRACT}, which leaves out what it hears no speech in: let its vad.scp have ones there"
        )
    vectors: dict[str, np.ndarray] = {}
    mend = f"mend its archive's path in {scp}, which is seen from here, or extract it again"
    for utt in utts:
        vector = read_entry(scp, utt, index[utt], 1, mend)
        first = next(iter(vectors.values()), vector)
        if len(vector) != len(first):
            raise UserError(
                f"{index[utt]}: the x-vector of {utt} has {len(vector)} values, that of {utts[0]} "
                f"{len(first)}; extract all with one network"
            )
        if not (len(vector) and np.isfinite(vector).all()):
            what = "infinite or undefined values" if len(vector) else "no values"
            raise UserError(f"{index[utt]}: the x-vector of {utt} has {what}; extract it again")
        vectors[utt] = vector
    return vectors
