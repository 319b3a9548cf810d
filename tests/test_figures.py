"""Figures of a trained network: the numbers beside them, and what they show in grey."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image

from ser import figures
from ser.calibration import reliability
from ser.figures import Example, Plane


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """The figure that was kept last, still open."""
    kept = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(figures, "keep", lambda figure, path: kept.append(figure))
    yield kept
    plt.close("all")


UTTS = ["a-1", "a-2", "b-1", "b-2", "c-1"]
TRUE = np.array([0, 2, 0, 2, 2])
PLANES = [
    Plane("before", np.arange(10.0).reshape(5, 2), 0.25),
    Plane("behind", np.arange(10.0).reshape(5, 2) / -3, 1.0),
]


def grey(colour):
    """Lightness of a colour in print (ITU-R BT.601)."""
    return np.dot(colour[:3], (0.299, 0.587, 0.114))


def test_planes(drawn):
    figures.planes(UTTS, TRUE, ["x", "y", "z"], PLANES, "title", Path("p.png"))
    panels = drawn[0].axes
    assert [axes.get_title() for axes in panels] == [
        "before\nnearest neighbour of the same class: 25.0 % (by chance: 40.0 %)",  # 2 of 20 pairs of x, 6 of z
        "behind\nnearest neighbour of the same class: 100.0 % (by chance: 40.0 %)",
    ]
    for axes, plane in zip(panels, PLANES, strict=True):
        shown = [np.array(part.get_offsets()) for part in axes.collections]
        for number, part in enumerate(shown):
            assert np.array_equal(part, plane.points[TRUE == number])
        assert "t-SNE" in axes.get_xlabel() and "t-SNE" in axes.get_ylabel()
        assert len(axes.get_xticks()) == len(axes.get_yticks()) == 0
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["x", "y", "z"]
    assert Path("p.txt").read_text() == (
        "# title: t-SNE of 5 test utterances\n# share with a nearest neighbour of the same class, in per cent:\n"
        "# before: 25.0\n# behind: 100.0\n# by chance: 40.0\nutt class x_features y_features x_output y_output\n"
        "a-1 x 0.000 1.000 -0.000 -0.333\na-2 z 2.000 3.000 -0.667 -1.000\nb-1 x 4.000 5.000 -1.333 -1.667\n"
        "b-2 z 6.000 7.000 -2.000 -2.333\nc-1 z 8.000 9.000 -2.667 -3.000\n"
    )


@pytest.mark.parametrize("number", [2, 4, 7, 8, 12])
def test_classes_are_told_apart_in_grey_and_alike_in_both_panels(drawn, number):
    true = np.arange(2 * number) % number
    points = np.random.default_rng(0).standard_normal((2 * number, 2))
    planes = [Plane("before", points, 0.5), Plane("behind", -points, 0.5)]
    figures.planes(
        [str(place) for place in true], true, [f"class{n}" for n in range(number)], planes, "title", Path("p.png")
    )
    looks = []
    for axes in drawn[0].axes:
        colours = [part.get_facecolor()[0] for part in axes.collections]
        shapes = [part.get_paths()[0].vertices.round(6).tobytes() for part in axes.collections]
        assert len(set(shapes)) == number
        assert min(np.diff([grey(colour) for colour in colours])) > 0.4 / number
        looks.append((np.array(colours).tobytes(), shapes))
    assert looks[0] == looks[1]


def test_reliability(drawn):
    posteriors = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.35, 0.65]])
    figures.reliability(reliability(posteriors, np.array([0, 1, 1, 1]), 4), "title", Path("r.png"))
    above, below = drawn[0].axes
    bars = {axes: [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in axes.patches] for axes in (above, below)}
    assert bars[above] == [(0, 0.25, 0), (0.25, 0.25, 0), (0.5, 0.25, 1), (0.75, 0.25, 0.5)]
    assert bars[below] == [(0, 0.25, 0), (0.25, 0.25, 0), (0.5, 0.25, 0.5), (0.75, 0.25, 0.5)]
    points, diagonal = above.lines
    np.testing.assert_allclose(points.get_xydata()[2:], [[0.675, 1], [0.85, 0.5]])
    assert np.isnan(points.get_xydata()[:2]).all()
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    assert "confidence" in below.get_xlabel() and above.get_ylabel() == "accuracy"
    assert Path("r.txt").read_text() == (
        "# title: confidence, the posterior of the predicted class, and accuracy; - without utterances\n"
        "from to utterances confidence accuracy\n"
        "0.0000 0.2500 0 - -\n0.2500 0.5000 0 - -\n0.5000 0.7500 2 0.6750 1.0000\n0.7500 1.0000 2 0.8500 0.5000\n"
    )


EXAMPLES = [
    Example(
        "a-1",
        "x",
        "x",
        np.array([0.0, 0.1, -0.2, 0.1], np.float32),
        {"attention": np.array([0.5, 0.5, 2.0], np.float32)},
    ),
    Example("b-1", "y", "x", np.zeros(6, np.float32), {"attention": np.array([1.0, 1.00001, 1.0, 1.0], np.float32)}),
]


def test_attention(drawn):
    figures.attention(EXAMPLES, 8, 2, "title: attention in two", ["words", "0.1 0.2"], Path("p.png"))
    assert Path("p.txt").read_text() == (
        "# title: attention in two\n# words\n# 0.1 0.2\n# a-1: x, predicted x\n# b-1: y, predicted x\n"
        "# a weight is 1 if spread evenly over the frames, and holds until the utterance's next line\n"
        "utt seconds attention\na-1 0.000 0.5000\na-1 0.500 2.0000\nb-1 0.000 1.0000\n"
    )
    waves, weights = drawn[0].axes[:2], drawn[0].axes[2:]
    assert [axes.get_title() for axes in waves] == ["x, predicted x (a-1)", "y, predicted x (b-1)"]
    assert [axes.get_ylabel() for axes in (*waves, *weights)] == ["waveform"] * 2 + ["attention"] * 2
    assert waves[-1].get_xlabel() == "time (seconds)"
    np.testing.assert_allclose(waves[0].lines[0].get_xydata(), [(0, 0), (0.125, 0.5), (0.25, -1), (0.375, 0.5)])
    np.testing.assert_allclose(weights[0].lines[0].get_xydata(), [(0, 0.5), (0.25, 0.5), (0.5, 2)])
    assert all(axes.get_xlim() == (0, 6 / 8) and axes.get_ylim() == weights[0].get_ylim() for axes in weights)


@pytest.mark.parametrize("number", [1, 2, 7, 8, 15])
def test_nothing_is_clipped_or_overlaps(drawn, number):
    examples = [EXAMPLES[0]._replace(utt=f"actor01-03-01-0{n}-01-01-02-01", true="surprised") for n in range(number)]
    figures.attention(
        examples,
        8,
        2,
        "cnn4_blstm_attention, protocol paper, fold 1, seed 1: attention in an example of each class",
        [],
        Path("p.png"),
    )
    check_layout(drawn[0])
    classes = [f"surprised{n}" for n in range(number)]
    figures.planes(
        UTTS, TRUE % number, classes, PLANES, "cnn4_blstm_attention, protocol paper, fold 1, seed 1", Path("p.png")
    )
    check_layout(drawn[1])


def check_layout(figure):
    figure.draw_without_rendering()
    page = figure.bbox
    titles = [axes.title for axes in figure.axes] + [figure._suptitle]
    boxes = [text.get_window_extent() for text in titles if text.get_text()] + [figure.legends[0].get_window_extent()]
    boxes += [box for axes in figure.axes for box in (axes.xaxis.get_tightbbox(), axes.yaxis.get_tightbbox()) if box]
    for box in boxes:
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
    texts = boxes[: len([text for text in titles if text.get_text()]) + 1]
    assert not any(one.overlaps(other) for place, one in enumerate(texts) for other in texts[:place])


def test_pictures_have_a_palette_and_look_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    classes = [f"class{number}" for number in range(12)]
    true = np.arange(48) % 12
    points = np.random.default_rng(0).standard_normal((48, 2))
    both = [Plane("before", points, 0.5), Plane("behind", -points, 0.5)]
    with monkeypatch.context() as patch:  # as matplotlib has them
        patch.setattr(figures, "with_palette", lambda picture: picture)
        figures.confusion(np.arange(9).reshape(3, 3), classes[:3], "title", Path("grey.png"))
        figures.planes([str(place) for place in range(48)], true, classes, both, "title", Path("coloured.png"))
    for name, error in (("grey", 0), ("coloured", 2)):  # of 255, the root of the mean square
        before = Path(f"{name}.png").rename("before.png")
        Path(f"{name}.txt").unlink()
        if name == "grey":
            figures.confusion(np.arange(9).reshape(3, 3), classes[:3], "title", Path("grey.png"))
        else:
            figures.planes([str(place) for place in range(48)], true, classes, both, "title", Path("coloured.png"))
        with Image.open(f"{name}.png") as picture, Image.open(before) as full:
            assert (picture.mode, picture.size) == ("P", full.size)
            difference = np.asarray(picture.convert("RGB"), float) - np.asarray(full.convert("RGB"))
        assert (difference**2).mean() ** 0.5 <= error
        assert Path(f"{name}.png").stat().st_size < 0.6 * before.stat().st_size


def labels_of(figure):
    return [
        [label.get_text() for label in axis.get_ticklabels()]
        for axes in figure.axes[:1]
        for axis in (axes.xaxis, axes.yaxis)
    ]


def confusion_of(classes, monkeypatch):
    """The confusion matrix of two classes, as it was written; matplotlib warns, an error here, where it draws a box for a character."""
    kept = []
    with monkeypatch.context() as patch:
        patch.setattr(figures.plt, "close", kept.append)
        figures.confusion(np.array([[3, 1], [0, 4]]), classes, f"of {classes[0]}", Path("p.png"))
    plt.close(kept[0])
    return kept[0]


def test_a_name_that_no_font_has_is_written_as_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fonts = [font for font in font_manager.fontManager.ttflist if "DejaVu" in font.name]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", fonts)  # those that come with matplotlib
    figure = confusion_of(["喜び", "грусть"], monkeypatch)
    assert labels_of(figure) == [["\\u559c\\u3073", "грусть"]] * 2
    assert figure.axes[0].get_title() == "of \\u559c\\u3073"
    told = "p.png: no font here has び 喜: written as escapes; install one, such as Noto Sans CJK, remove the picture and draw it again\n"
    assert capsys.readouterr().out == told
    assert Path("p.txt").read_text("utf-8").splitlines()[1] == "true 喜び грусть"


def test_a_name_that_another_font_has(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    other = font_manager.findfont("STIXGeneral")
    own = font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap()
    character = next(
        chr(code)
        for code in sorted(font_manager.get_font(other).get_charmap())
        if code not in own and chr(code).isalpha()
    )
    figure = confusion_of([character, "b"], monkeypatch)
    assert labels_of(figure) == [[character, "b"]] * 2
    assert capsys.readouterr().out == ""
    assert figure.axes[0].title.get_fontfamily()[0] == plt.rcParams["font.family"][0]  # all else is as it was


def test_a_name_with_dollars_is_no_formula(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert labels_of(confusion_of(["$x^$", "b"], monkeypatch)) == [["$x^$", "b"]] * 2
    assert capsys.readouterr().out == ""
