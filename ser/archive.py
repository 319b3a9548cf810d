"""Feature matrices in Kaldi's ark/scp."""

from collections.abc import Iterable
from pathlib import Path

import kaldiio
import numpy as np
from kaldiio.matio import write_array

from ser.cli import UserError
from ser.datadir import read_table, write_table
from ser.files import whole


def write_archive(ark: Path, matrices: Iterable[tuple[str, np.ndarray]]) -> dict[str, int]:
    """Write (utt, matrix of frames (T, D) float32) pairs to `ark` and its index to the .scp beside it.

    Both appear whole, the index last. Returns each utterance's number of frames.
    """
    index, frames = {}, {}
    with whole(ark, "wb") as stream:
        for utt, matrix in matrices:
            if utt in index:
                raise UserError(f"{ark}: utterance {utt} comes twice; make its id unique")
            stream.write(f"{utt} ".encode())
            index[utt] = f"{ark}:{stream.tell()}"
            write_array(stream, matrix)
            frames[utt] = len(matrix)
    write_table(ark.with_suffix(".scp"), index)
    return frames


class Features:
    """The feature matrices of a folder that stage 2 wrote, read one by one when asked for."""

    def __init__(self, folder: str | Path) -> None:
        self.scp = Path(folder) / "feats.scp"
        self.index = read_table(self.scp)
        self.frames = read_table(Path(folder) / "utt2num_frames")

    @property
    def dimension(self) -> int:
        """Values a frame."""
        return self[next(iter(self.index))].shape[1]

    def lengths_of(self, utts: Iterable[str]) -> dict[str, int]:
        """Number of frames of each of `utts`."""
        try:
            return {utt: int(self.frames[utt]) for utt in utts}
        except KeyError as error:
            raise UserError(f"{self.scp}: no features of {error.args[0]}; run stage 2 again") from None

    def __getitem__(self, utt: str) -> np.ndarray:
        """(T, D) float32. Raises UserError where the index or the archive lacks the utterance."""
        try:
            place = self.index[utt]
        except KeyError:
            raise UserError(f"{self.scp}: no features of {utt}; run stage 2 again") from None
        try:
            return kaldiio.load_mat(place)
        except Exception as error:  # kaldiio tells a broken archive by many kinds
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"{place}: cannot read the features of {utt} ({reason}); run stage 2 again"
            ) from None
