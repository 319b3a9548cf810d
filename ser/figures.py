"""Figures, each with its numbers in a text file beside it (same name, .txt).

A figure whose text file exists and would stay the same is not drawn again; remove it to have it drawn. Figures are PNG
files with a palette, two to three times smaller than in true colour.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from ser.calibration import Bins
from ser.files import whole

plt.rcParams["text.parse_math"] = False  # names may contain dollar signs

Log = Sequence[Mapping[str, float]]  # the lines of epochs.jsonl

COLOURS = "plasma"  # from dark to light: readable in grey and for colour-blind readers
STYLES = ({"color": "black", "linewidth": 1.5}, {"color": "tab:red", "linewidth": 1.2, "linestyle": "--"})
MARKERS = "o^sPDv*X<p>h"  # neighbours in this order are easy to distinguish


def confusion(counts: np.ndarray, classes: Sequence[str], title: str, path: Path) -> None:
    """Draw a confusion matrix (C, C) of counts: per cent of each true class, with the counts."""
    text = f"# {title}: utterances, row true, column predicted\ntrue {' '.join(classes)}\n" + "".join(
        f"{name} {' '.join(map(str, row))}\n" for name, row in zip(classes, counts, strict=True)
    )
    if is_drawn(path, text):
        return
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
    write(path, text)


def reliability(bins: Bins, title: str, path: Path) -> None:
    """Draw a reliability diagram (Guo et al., 2017, section 2): the accuracy of each bin of confidence, and below it
    the share of utterances in the bin."""
    lines = [f"# {title}: confidence, the posterior of the predicted class, and accuracy; - without utterances"]
    lines.append("from to utterances confidence accuracy")
    for low, high, *values in zip(bins.edges, bins.edges[1:], *bins[1:], strict=False):
        count, *means = values
        shown = [f"{mean:.4f}" if count else "-" for mean in means]
        lines.append(f"{low:.4f} {high:.4f} {count} {' '.join(shown)}")
    text = "\n".join(lines) + "\n"
    if is_drawn(path, text):
        return
    figure, (above, below) = plt.subplots(2, figsize=(5, 6), sharex=True, height_ratios=(3, 1), layout="constrained")
    place = {"x": bins.edges[:-1], "width": np.diff(bins.edges), "align": "edge", "edgecolor": "black"}
    above.bar(height=np.nan_to_num(bins.accuracy), color="0.8", linewidth=0.6, label="accuracy of the bin", **place)
    above.plot(
        bins.confidence, bins.accuracy, "o", color="black", markersize=4, clip_on=False, label="at its mean confidence"
    )
    above.plot((0, 1), (0, 1), color="black", linewidth=0.8, linestyle=":", label="calibrated: the two are equal")
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    below.bar(height=bins.counts / bins.counts.sum(), color="0.5", linewidth=0.6, **place)
    below.set(xlabel="confidence (posterior of the predicted class)", ylabel="share of utterances")
    figure.legend(*above.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    figure.suptitle(title, fontsize=10)
    keep(figure, path)
    write(path, text)


def learning_curves(logs: Mapping[str, Log], part: str, title: str, path: Path) -> None:
    """Draw loss and WA over the epochs: for each run a curve for the training set and one for the set that selects the
    epoch, named by `part`."""
    keys = [key for key in next(iter(logs.values()))[0] if all(key in log[0] for log in logs.values())]
    text = f"# {title}\nrun {' '.join(keys)}\n" + "".join(
        f"{run} {' '.join(f'{line[key]:.6g}' for key in keys)}\n" for run, log in logs.items() for line in log
    )
    if is_drawn(path, text):
        return
    figure, both = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axes, key, label in zip(both, ("loss", "wa"), ("loss", "WA (per cent)"), strict=True):
        for log in logs.values():
            epochs = [line["epoch"] for line in log]
            axes.plot(epochs, [line[f"train_{key}"] for line in log], color="0.6", linestyle="--")
            if f"dev_{key}" in log[0]:
                axes.plot(epochs, [line[f"dev_{key}"] for line in log], color="black")
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    both[0].plot([], [], color="0.6", linestyle="--", label="training set")
    both[0].plot([], [], color="black", label=f"{part} set")
    both[0].legend()
    figure.suptitle(title, fontsize=10)
    keep(figure, path)
    write(path, text)


def adaptation(
    curves: Mapping[tuple[str, str, str], Mapping[str, tuple[float, float | None]]],
    columns: Sequence[str],
    title: str,
    path: Path,
) -> None:
    """Draw UA, with its 95 % interval, against the number of a speaker's recordings that a system may adapt to.

    curves: for each system, protocol and kind of draw the mean and half the width of its interval (None: there is none)
    by column. columns: the numbers, then perhaps "all", which no line joins to the others.
    """
    lines = [f"# {title}: UA by the number of recordings, in per cent, and half its 95 % interval; - without"]
    lines.append("system protocol draw recordings ua half")
    for key, points in curves.items():
        head = " ".join(name.replace(" ", "_") for name in key)
        for column in columns:
            if column in points:
                mean, half = points[column]
                lines.append(f"{head} {column} {mean:.4f} {'-' if half is None else f'{half:.4f}'}")
    text = "\n".join(lines) + "\n"
    if is_drawn(path, text):
        return
    figure, axes = plt.subplots(figsize=(8, 4.5 + 0.2 * len(curves)), layout="constrained")
    systems = list(dict.fromkeys((system, protocol) for system, protocol, _ in curves))
    kinds = list(dict.fromkeys(kind for *_, kind in curves))
    for number, ((system, protocol, kind), points) in enumerate(curves.items()):
        place = systems.index((system, protocol))
        style = {"color": plt.get_cmap(COLOURS)(0.85 * place / max(len(systems) - 1, 1)), "capsize": 2}
        style |= {"marker": MARKERS[place % len(MARKERS)], "markersize": 5, "elinewidth": 0.7}
        shift = 0.3 * ((number + 0.5) / len(curves) - 0.5)  # so that the intervals do not cover each other
        label = f"{system}, {protocol}, {kind}"
        for names, joined in (([name for name in columns if name.isdecimal()], True), (["all"], False)):
            there = [name for name in names if name in points]
            if there:
                axes.errorbar(
                    [columns.index(name) + shift for name in there],
                    [points[name][0] for name in there],
                    [np.nan if (half := points[name][1]) is None else half for name in there],  # nan: no bar
                    linestyle=("-", "--", ":", "-.")[kinds.index(kind) % 4] if joined else "none",
                    label=label,
                    **style,
                )
                label = "_nolegend_"
    axes.set_xticks(range(len(columns)), columns)
    axes.set(xlabel="unlabelled recordings of each speaker that a system may adapt to", ylabel="UA (per cent)")
    axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    figure.suptitle(title, fontsize=10)
    keep(figure, path)
    write(path, text)


class Plane(NamedTuple):
    """Points (N, 2) that represent points of a space called `name`, and the share of those whose nearest neighbour in
    that space has the same class."""

    name: str
    points: np.ndarray
    neighbours: float


def planes(
    utts: Sequence[str],
    true: np.ndarray,
    classes: Sequence[str],
    both: Sequence[Plane],
    title: str,
    path: Path,
    kind: str = "class",
) -> None:
    """Draw the same utterances in two planes of t-SNE, input and output. true: (N,) class numbers. kind: what the
    classes are, "class" or "speaker"."""
    n_of_class = np.bincount(true, minlength=len(classes))
    chance = (n_of_class * (n_of_class - 1)).sum() / (len(true) * (len(true) - 1))
    title = f"{title}: t-SNE of {len(true)} test utterances"
    lines = [f"# {title}", f"# share with a nearest neighbour of the same {kind}, in per cent:"]
    lines += [f"# {plane.name}: {100 * plane.neighbours:.1f}" for plane in both]
    lines += [f"# by chance: {100 * chance:.1f}", f"utt {kind} x_features y_features x_output y_output"]
    for utt, number, *points in zip(utts, true, *(plane.points for plane in both), strict=True):
        lines.append(f"{utt} {classes[number]} {' '.join(f'{x:.3f}' for x in np.concatenate(points))}")
    text = "\n".join(lines) + "\n"
    if is_drawn(path, text):
        return
    figure, panels = plt.subplots(1, 2, figsize=(10, 5.3), layout="constrained")
    for axes, plane in zip(panels, both, strict=True):
        for number, name in enumerate(classes):
            axes.scatter(
                *plane.points[true == number].T,
                s=30,
                color=plt.get_cmap(COLOURS)(0.93 * number / max(len(classes) - 1, 1)),
                marker=MARKERS[number % len(MARKERS)],
                edgecolor="black",
                linewidth=0.4,
                label=name,
            )
        share = f"{100 * plane.neighbours:.1f} % (by chance: {100 * chance:.1f} %)"
        axes.set_title(f"{plane.name}\nnearest neighbour of the same {kind}: {share}", fontsize=9)
        axes.set(xlabel="first dimension of t-SNE (no unit)", ylabel="second dimension of t-SNE (no unit)")
        axes.set(xticks=[], yticks=[])
    names = panels[0].get_legend_handles_labels()
    n_columns = -(-len(classes) // -(-len(classes) // 7))  # rows of equal length
    figure.legend(*names, loc="outside lower center", ncols=n_columns, handletextpad=0.2)
    figure.suptitle(title, fontsize=10)
    keep(figure, path)
    write(path, text)


class Example(NamedTuple):
    """An utterance, its true and predicted class, its samples (N,), and for each attention, by name, the weights (T,)
    of its frames; 1 is an equal share."""

    utt: str
    true: str
    predicted: str
    samples: np.ndarray
    weights: Mapping[str, np.ndarray]


def attention(
    examples: Sequence[Example],
    sample_rate: int,
    hop_length: int,
    title: str,
    silence: Sequence[str],
    path: Path,
) -> None:
    """Draw waveforms and, over each, the weight of its frames. silence: lines about all utterances."""
    shown = [f"{example.utt}: {example.true}, predicted {example.predicted}" for example in examples]
    unit = "a weight is 1 if spread evenly over the frames, and holds until the utterance's next line"
    lines = [*(f"# {line}" for line in (title, *silence, *shown, unit)), f"utt seconds {' '.join(examples[0].weights)}"]
    for example in examples:
        written = ""
        for number, weights in enumerate(zip(*example.weights.values(), strict=True)):
            line = " ".join(f"{weight:.4f}" for weight in weights)
            if line != written:
                written = line
                lines.append(f"{example.utt} {number * hop_length / sample_rate:.3f} {written}")
    text = "\n".join(lines) + "\n"
    if is_drawn(path, text):
        return
    figure, panels = plt.subplots(
        len(examples),
        figsize=(8, 1.2 + 1.15 * len(examples)),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    longest = max(len(example.samples) for example in examples) / sample_rate
    highest = max(weights.max() for example in examples for weights in example.weights.values())
    for axes, example in zip(panels[:, 0], examples, strict=True):
        samples = example.samples / max(np.abs(example.samples).max(), 1e-10)
        axes.plot(np.arange(len(samples)) / sample_rate, samples, color="0.7", linewidth=0.5)
        axes.set(xlim=(0, longest), ylim=(-1.05, 1.05), yticks=(-1, 0, 1), ylabel="waveform")
        axes.set_title(f"{example.true}, predicted {example.predicted} ({example.utt})", fontsize=9)
        over = axes.twinx()
        for style, curve in zip(STYLES, example.weights.values(), strict=False):
            seconds = np.arange(len(curve)) * hop_length / sample_rate
            over.step(seconds, curve, where="mid", **style)
        over.axhline(1, color="black", linewidth=0.8, linestyle=":")
        over.set(ylim=(0, 1.1 * highest), ylabel="attention")
    axes.set_xlabel("time (seconds)")
    axes.plot([], [], color="0.7", linewidth=4, label="waveform, its peak at 1")
    for style, name in zip(STYLES, examples[0].weights, strict=False):
        axes.plot([], [], **style, label=f"{name.replace('_', ' ')} weight of the frame")
    axes.plot([], [], color="black", linewidth=0.8, linestyle=":", label="the same if spread evenly: 1")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    figure.suptitle(title, fontsize=10)
    keep(figure, path)
    write(path, text)


class Sentence(NamedTuple):
    """An utterance, its true and predicted class, its words, and for each attention, by name, the weights (M,) of the
    words, which sum to 1."""

    utt: str
    true: str
    predicted: str
    words: Sequence[str]
    weights: Mapping[str, np.ndarray]


def sentences(examples: Sequence[Sentence], title: str, path: Path) -> None:
    """Draw the words of utterances, with a row of word weights for each attention."""
    shown = [f"{example.utt}: {example.true}, predicted {example.predicted}" for example in examples]
    lines = [*(f"# {line}" for line in (title, *shown)), f"utt {' '.join(examples[0].weights)} word"]
    for example in examples:
        for word, *weights in zip(example.words, *example.weights.values(), strict=True):
            lines.append(f"{example.utt} {' '.join(f'{weight:.4f}' for weight in weights)} {word}")
    text = "\n".join(lines) + "\n"
    if is_drawn(path, text):
        return
    longest = max(len(example.words) for example in examples)
    figure, panels = plt.subplots(
        len(examples),
        figsize=(min(4 + 0.35 * longest, 40), 1.2 + 2.1 * len(examples)),
        squeeze=False,
        layout="constrained",
    )
    highest = max(weights.max() for example in examples for weights in example.weights.values())
    for axes, example in zip(panels[:, 0], examples, strict=True):
        rows = np.stack(list(example.weights.values()))
        picture = axes.imshow(rows, cmap="Greys", vmin=0, vmax=highest, aspect="auto")
        axes.set_xlim(-0.5, longest - 0.5)
        axes.set_xticks(range(len(example.words)), example.words, rotation=50, ha="right", fontsize=9)
        axes.set_yticks(range(len(rows)), list(example.weights))
        axes.set_title(f"{example.true}, predicted {example.predicted} ({example.utt})", fontsize=9)
    figure.colorbar(picture, ax=panels, label="weight of the word", shrink=min(1.0, 2 / len(examples)))
    figure.supylabel("statistic of the audio that attends", fontsize=10)
    figure.suptitle(title, fontsize=10)
    keep(figure, path)
    write(path, text)


def spell(figure: Figure) -> list[str]:
    """Use fonts of this machine for characters that matplotlib's own font lacks; return, sorted, those that no font
    has. These are written as escapes, \\u559c, instead of empty boxes."""
    texts = figure.findobj(Text)
    own = font_manager.findfont(font_manager.FontProperties())
    lacking = {character for text in texts for character in text.get_text()} - {"\n"}
    lacking -= written_by(own, lacking)
    if not lacking:
        return []
    families = list(plt.rcParams["font.family"])
    for font in sorted(font_manager.fontManager.ttflist, key=lambda font: (font.name, font.fname)):
        is_of_boxes = "last resort" in font.name.lower()
        if lacking and not is_of_boxes and Path(font.fname).is_file():  # matplotlib caches fonts that may be gone
            found = written_by(font.fname, lacking)
            lacking -= found
            families += [font.name] * bool(found)
    numbers = str.maketrans({character: character.encode("unicode_escape").decode() for character in lacking})
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):  # their labels are set again when the axis is drawn
            labels = [label.get_text() for label in axis.get_ticklabels()]
            if lacking & set("".join(labels)):
                axis.set_ticklabels([label.translate(numbers) for label in labels])
    for text in texts:
        text.set_fontfamily(families)
        text.set_text(text.get_text().translate(numbers))
    return sorted(lacking)


def written_by(font: str, characters: set[str]) -> set[str]:
    """Which of some characters the font in a file has."""
    glyphs = font_manager.get_font(font)
    return {character for character in characters if glyphs.get_char_index(ord(character))}


def is_drawn(path: Path, text: str) -> bool:
    """Whether a figure exists that was drawn from the numbers in `text`."""
    beside = path.with_suffix(".txt")
    return path.exists() and beside.exists() and beside.read_bytes() == text.encode()


def keep(figure: Figure, path: Path) -> None:
    """Write a figure as PNG with a palette, and close it."""
    lacking = spell(figure)
    if lacking:
        print(
            f"{path}: no font here has {' '.join(lacking[:10])}{' ...' * (len(lacking) > 10)}: written as escapes; "
            "install one, such as Noto Sans CJK, remove the picture and draw it again",
            flush=True,
        )
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=130)
    plt.close(figure)
    with Image.open(drawn) as picture, whole(path, "wb") as stream:
        with_palette(picture).save(stream, format="PNG", optimize=True)


def with_palette(picture: Image.Image) -> Image.Image:
    """The same picture in at most 256 colours; lossless if it has no more, as in black, grey and white."""
    return picture.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def write(path: Path, text: str) -> None:
    """Write the numbers of a figure, after the figure itself: if interrupted, it is drawn again."""
    with whole(path.with_suffix(".txt")) as stream:
        stream.write(text)
