"""Mean and variance normalisation, with statistics of a fold's training part alone.

kind "global": one mean and deviation a feature dimension, over all training frames. "neutral": the same over
those of the class neutral (Mirsamadi et al. 2017, section 3). "cell": one for each dimension of each frame
position, over the training utterances, which must be of one length (Sherman et al.'s code). "none": features
as they are.
"""

from collections.abc import Mapping

import numpy as np

from ser.archive import Features
from ser.cli import UserError

Statistics = dict[str, np.ndarray]


def train_statistics(kind: str, features: Features, train: Mapping[str, str]) -> Statistics:
    """Mean and deviation, each (D,) or, for "cell", (T, D); {} for "none". float32. train: {utt: class}.

    A dimension that never changes gets a deviation of 1, so that it becomes 0 and not infinite.
    """
    if kind == "none":
        return {}
    utts = [utt for utt, name in train.items() if kind != "neutral" or name == "neutral"]
    if not utts:
        raise UserError("normalisation: neutral: no training utterance is of the class neutral; take global")
    count, total, squares = 0, 0.0, 0.0
    length = None
    for utt in utts:
        matrix = features[utt].astype(np.float64)
        if kind == "cell":
            length = length or len(matrix)
            if len(matrix) != length:
                raise UserError(
                    f"{features.scp}: {utt} has {len(matrix)} frames, others {length}; normalisation: cell needs a feature with a `duration`"
                )
            count, total, squares = count + 1, total + matrix, squares + matrix**2
        else:
            count, total, squares = count + len(matrix), total + matrix.sum(0), squares + (matrix**2).sum(0)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    deviation[deviation < 1e-5] = 1
    return {"mean": mean.astype(np.float32), "deviation": deviation.astype(np.float32)}


def normalise(matrix: np.ndarray, statistics: Mapping[str, np.ndarray]) -> np.ndarray:
    """(T, D) features minus the mean, over the deviation."""
    if not statistics:
        return matrix
    return (matrix - statistics["mean"]) / statistics["deviation"]
