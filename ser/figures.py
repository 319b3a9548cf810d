"""Pictures, each with the numbers behind it as text beside it (same name, .txt)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ser.files import whole

Log = Sequence[Mapping[str, float]]  # the lines of epochs.jsonl


def confusion(counts: np.ndarray, classes: Sequence[str], title: str, path: Path) -> None:
    """Draw a confusion matrix (C, C) of counts: per cent of each true class, with the counts."""
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = 2.6 + 0.75 * len(classes)
    figure, axes = plt.subplots(figsize=(size + 0.8, size), layout="constrained")
    picture = axes.imshow(shares, cmap="Greys", vmin=0, vmax=100)
    for row, column in np.ndindex(counts.shape):
        colour = "white" if shares[row, column] > 55 else "black"
        axes.text(
            column,
            row,
            f"{shares[row, column]:.0f}\n({counts[row, column]})",
            ha="center",
            va="center",
            color=colour,
            fontsize=9,
        )
    axes.set_xticks(range(len(classes)), classes, rotation=40, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(title, fontsize=10)
    figure.colorbar(picture, label="per cent of the true class (number of utterances)", shrink=0.8)
    keep(figure, path)
    with whole(path.with_suffix(".txt")) as stream:
        stream.write(f"# {title}: utterances, row true, column predicted\ntrue {' '.join(classes)}\n")
        stream.writelines(
            f"{name} {' '.join(map(str, row))}\n" for name, row in zip(classes, counts, strict=True)
        )


def learning_curves(logs: Mapping[str, Log], heard: str, title: str, path: Path) -> None:
    """Draw loss and WA over the epochs, a line a run for the training set and one for the set `heard`."""
    figure, both = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axes, key, label in zip(both, ("loss", "wa"), ("loss", "WA (per cent)"), strict=True):
        for log in logs.values():
            epochs = [line["epoch"] for line in log]
            axes.plot(epochs, [line[f"train_{key}"] for line in log], color="0.6", linestyle="--")
            if f"dev_{key}" in log[0]:
                axes.plot(epochs, [line[f"dev_{key}"] for line in log], color="black")
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    both[0].plot([], [], color="0.6", linestyle="--", label="training set")
    both[0].plot([], [], color="black", label=f"{heard} set")
    both[0].legend()
    figure.suptitle(title, fontsize=10)
    keep(figure, path)
    with whole(path.with_suffix(".txt")) as stream:
        keys = [key for key in next(iter(logs.values()))[0]]
        stream.write(f"# {title}\nrun {' '.join(keys)}\n")
        for run, log in logs.items():
            stream.writelines(f"{run} {' '.join(f'{line[key]:.6g}' for key in keys)}\n" for line in log)


def keep(figure: Figure, path: Path) -> None:
    """Write a figure as PNG and close it."""
    with whole(path, "wb") as stream:
        figure.savefig(stream, format="png", dpi=130)
    plt.close(figure)
