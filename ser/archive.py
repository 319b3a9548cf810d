"""Feature matrices and vectors in Kaldi's ark/scp."""

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from io import BufferedReader
from pathlib import Path
from typing import Literal

import numpy as np
from kaldiio.matio import read_matrix_or_vector, write_array

from ser.cli import UserError
from ser.datadir import read_table, write_table
from ser.files import whole
from ser.normalisation import Statistics, normalise, statistics


def write_archive(ark: Path, matrices: Iterable[tuple[str, np.ndarray]]) -> dict[str, int]:
    """Write pairs (utt, matrix of frames (T, D) or vector (D,), float32) to `ark` and an index with absolute paths to
    the .scp beside it, as Kaldi does.

    Both are written atomically, the index last. Returns the number of frames, or the vector's size, of each utterance.
    """
    index, frames = {}, {}
    with whole(ark, "wb") as stream:
        for utt, matrix in matrices:
            if utt in index:
                raise UserError(f"{ark}: utterance {utt} occurs twice; make its id unique")
            stream.write(f"{utt} ".encode())
            index[utt] = f"{os.path.abspath(ark)}:{stream.tell()}"
            write_array(stream, matrix)
            frames[utt] = len(matrix)
    write_table(ark.with_suffix(".scp"), index)
    return frames


class Features:
    """The feature matrices in a folder that stage 2 wrote, each read when it is needed.

    columns: indices of the values to use of each frame; None: all, in order.
    """

    def __init__(self, folder: str | Path, columns: np.ndarray | None = None) -> None:
        self.columns = columns
        self.scp = Path(folder) / "feats.scp"
        self.index = read_table(self.scp)
        self.frames = read_table(Path(folder) / "utt2num_frames")
        self.utt2spk: Mapping[str, str] = {}
        self.of_speakers: dict[str, Statistics] = {}
        self.remedy = f"remove {folder} and run stage 2 again"  # which does not replace complete folders
        if not self.index:
            raise UserError(f"{self.scp}: empty table; {self.remedy}")

    def take(self, other: "Features", names: Mapping[str, str]) -> None:
        """Add some utterances of `other`; names: {id here: id there}."""
        lengths = other.lengths_of(names.values())
        self.frames |= {here: str(lengths[there]) for here, there in names.items()}
        self.index |= {here: other.index[there] for here, there in names.items()}

    def normalise_speakers(
        self, utt2spk: Mapping[str, str], of_speakers: Mapping[str, Statistics] | None = None
    ) -> None:
        """From now on, normalise the frames of each speaker to mean 0 and deviation 1, over all of the speaker's
        utterances in utt2spk; no other utterances can then be read. of_speakers: the mean and deviation of every
        speaker, instead of those."""
        self.utt2spk = utt2spk
        self.of_speakers = dict(of_speakers or {})

    @cached_property
    def dimension(self) -> int:
        """Values per frame."""
        return self._read(next(iter(self.index))).shape[1]

    def lengths_of(self, utts: Iterable[str]) -> dict[str, int]:
        """Number of frames of each of `utts`."""
        lengths = {}
        for utt in utts:
            self._place(utt)
            if not self.frames.get(utt, "").isdecimal():
                raise UserError(f"{self.scp.with_name('utt2num_frames')}: no valid length for {utt}; {self.remedy}")
            lengths[utt] = int(self.frames[utt])
        return lengths

    def __getitem__(self, utt: str) -> np.ndarray:
        """(T, D) float32. Raises UserError if the index or the archive lacks the utterance, or if D differs from that
        of the first utterance."""
        if not self.utt2spk:
            return self._checked(utt)
        spk = self.utt2spk[utt]
        if spk not in self.of_speakers:
            own = [other for other, of_other in self.utt2spk.items() if of_other == spk]
            self.of_speakers[spk] = statistics(map(self._checked, own))
        return normalise(self._checked(utt), self.of_speakers[spk])

    def _checked(self, utt: str) -> np.ndarray:
        matrix = self._read(utt)
        if matrix.shape[1] != self.dimension:
            raise UserError(
                f"{self.index[utt]}: {utt} has {matrix.shape[1]} values per frame, {next(iter(self.index))} has "
                f"{self.dimension}; {self.remedy}"
            )
        return matrix

    def _read(self, utt: str) -> np.ndarray:
        place = self._place(utt)
        matrix = read_entry(self.scp, utt, place, 2, self.remedy)
        if self.columns is None:
            return matrix
        if matrix.shape[1] <= self.columns.max():
            raise UserError(f"{place}: {utt} has only {matrix.shape[1]} values per frame; {self.remedy}")
        return matrix[:, self.columns]

    def _place(self, utt: str) -> str:
        if utt not in self.index:
            raise UserError(f"{self.scp}: no features for {utt}; run stage 2 again")
        return self.index[utt]


def read_entry(scp: Path, utt: str, place: str, dimensions: Literal[1, 2], remedy: str) -> np.ndarray:
    """The features (T, D), or for 1 dimension the vector (D,) float32, of `utt` at `place`, archive:byte.

    Only Kaldi's matrices and vectors are read: kaldiio.load_mat would also unpickle, and run shell commands. Raises
    UserError, ending in `remedy`, if `place` from the index `scp` is malformed or holds something else.
    """
    ark, colon, offset = place.rpartition(":")
    if not (colon and offset.isdecimal()):
        raise UserError(f"{scp}: {utt} has {place!r} instead of archive:byte; {remedy}")
    try:
        with open(ark, "rb") as stream:
            stream.seek(int(offset))
            if dimensions == 1:
                return read_vector(stream)
            matrix = read_matrix_or_vector(stream)
        if matrix.ndim != 2:
            raise ValueError("a vector")
        if not np.isfinite(matrix).all():
            raise ValueError("infinite or undefined values")
        return matrix
    except Exception as error:  # kaldiio reports a damaged archive in many ways
        what = "vector" if dimensions == 1 else "features"
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{place}: cannot read the {what} of {utt} ({reason}); {remedy}") from None


def read_vector(stream: BufferedReader) -> np.ndarray:
    """Read a vector (D,) float32 at the current position: Kaldi's binary floats or doubles, or text, ` [ 1 2.5 ]`.

    Raises ValueError, or an error of kaldiio's, for anything else.
    """
    if stream.peek(1)[:1] != b"\0":
        words = stream.readline().split()
        if words[:1] != [b"["] or words[-1] != b"]":
            raise ValueError("not a vector")
        return np.array([float(word) for word in words[1:-1]], np.float32)
    start = stream.tell()
    vector, size = read_matrix_or_vector(stream, return_size=True)
    if vector.ndim != 1:
        raise ValueError("a matrix")
    if stream.tell() - start < size:  # kaldiio silently returns a shorter vector
        raise ValueError("cut short")
    return vector.astype(np.float32)
