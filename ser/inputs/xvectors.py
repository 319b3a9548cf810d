"""X-vectors: one vector per utterance, from a network trained for speaker recognition (Snyder et al. 2018).

Read from Kaldi's xvector.scp, which sid/nnet3/xvector/extract_xvectors.sh and ser.dump_xvectors write.
"""

import argparse
import functools
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ser.cli import UserError
from ser.datadir import read_table
from ser.inputs import refuse_missing

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from ser.folds import Fold
    from ser.runs import Run

NOUN, OPTIONS = "x-vectors", "--xvectors"
PARTIAL = ("xvector.scp",)  # Kaldi leaves out utterances in which it finds no speech
EXTRACT = "extract them with python -m ser.dump_xvectors or with Kaldi"


class XVectors:
    """vectors: (D,) float32 for every utterance, all of the same size."""

    def __init__(self, vectors: "Mapping[str, np.ndarray]") -> None:
        self.vectors = vectors
        self.sizes = {"xvector_size": len(next(iter(vectors.values())))}

    def of(self, utts: Sequence[str]) -> "dict[str, Tensor]":
        """xvectors (B, D)."""
        import numpy as np
        import torch

        return {"xvectors": torch.from_numpy(np.stack([self.vectors[utt] for utt in utts]))}


def index_of(run: "Run") -> Path:
    """The index of the x-vectors in the data directory."""
    return run.data / "xvector.scp"


def check(run: "Run") -> None:
    """Raise UserError if there are no x-vectors."""
    path = index_of(run)
    if not path.exists():
        raise UserError(
            f"{path}: no such table; extract x-vectors with Kaldi, or with python -m ser.dump_xvectors {run.data} "
            f"{run.data}; or leave {run.system.name} out"
        )


def checksums(run: "Run") -> dict[str, str | None]:
    """MD5 of the index and of its archives."""
    from ser.identity import md5_of

    path = index_of(run)
    return {"xvectors": md5_of(path, *archives(path))}


def read(run: "Run", fold: "Fold") -> XVectors:
    """The x-vectors of a fold; a noisy copy has that of its source."""
    vectors = read_scp(index_of(run), dict.fromkeys(fold.sources.values()))
    return XVectors({utt: vectors[source] for utt, source in fold.sources.items()})


def start(network: "nn.Module", fold: "Fold", extra: XVectors, run: "Run") -> None:
    """Give a new network the training part's mean and standard deviation of each value, so that the extractor's scale
    does not matter."""
    import torch

    from ser.normalisation import statistics

    of_train = statistics([extra.of(list(fold.train))["xvectors"].numpy()])
    network.xvector_mean.copy_(torch.from_numpy(of_train["mean"]))
    network.xvector_deviation.copy_(torch.from_numpy(of_train["deviation"]))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of ser.predict."""
    parser.add_argument(
        "--xvectors",
        type=Path,
        metavar="SCP",
        help="x-vectors, for a system that reads them: a Kaldi index, keyed by file name without suffix",
    )


def from_options(args: argparse.Namespace, names: Collection[str]) -> "dict[str, np.ndarray]":
    """The x-vector of each recording. Raises UserError if one has none."""
    if not args.xvectors:
        return {}
    refuse_missing(args.xvectors, names)
    return read_scp(args.xvectors, names)


def given(run: "Run", values: "Mapping[str, np.ndarray]", sizes: Mapping[str, int]) -> XVectors:
    """X-vectors of recordings. Raises UserError if their size is not that of the network's training data."""
    import numpy as np

    try:
        vectors = {name: np.asarray(vector, np.float32) for name, vector in values.items()}
    except (TypeError, ValueError):
        raise UserError("xvectors: not numbers; give one vector per recording") from None
    if any(vector.ndim != 1 or not np.isfinite(vector).all() for vector in vectors.values()):
        raise UserError("xvectors: not vectors of finite numbers; give one vector per recording")
    wanted = sizes["xvector_size"]
    size = next((len(vector) for vector in vectors.values() if len(vector) != wanted), wanted)
    if size != wanted:
        raise UserError(
            f"{run.folder}: its network was trained on x-vectors of {wanted} values, but these have {size}; use the "
            "same extractor"
        )
    return XVectors(vectors)


def archives(scp: Path) -> list[Path]:
    """The archives that an index points to, except missing ones."""
    return [path for path in _archives(scp, scp.stat().st_mtime_ns) if os.path.isfile(path)]


@functools.cache
def _archives(scp: Path, changed: int) -> list[Path]:
    """All archives of an index; cached, since many runs share one that has not changed."""
    return sorted({Path(place.rpartition(":")[0]) for place in read_table(scp).values()})


def read_scp(scp: str | Path, utts: Iterable[str]) -> "dict[str, np.ndarray]":
    """The x-vector (D,) float32 of each of `utts`, in their order.

    Archives hold vectors of floats or doubles, binary or text; other entries of `scp` are not read. Raises UserError
    if an utterance has no x-vector, or one of another size than the first, or with infinite or undefined values.
    """
    import numpy as np

    from ser.archive import read_entry

    scp, utts = Path(scp), list(utts)
    if not scp.is_file():
        raise UserError(f"{scp}: no such table; {EXTRACT}")
    index = read_table(scp)
    missing = [utt for utt in utts if utt not in index]
    if missing:
        raise UserError(
            f"{scp}: {len(missing)} of {len(utts)} utterances have no x-vector, the first is {missing[0]}; "
            f"{EXTRACT}, which skips utterances without speech: set their frames to 1 in its vad.scp"
        )
    vectors: dict[str, np.ndarray] = {}
    remedy = f"correct its path in {scp}, which is relative to this folder, or extract it again"
    for utt in utts:
        vector = read_entry(scp, utt, index[utt], 1, remedy)
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
