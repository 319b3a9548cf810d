"""Stage 6: the figures, from made-up scores whose numbers are known."""

import json
import re
from pathlib import Path

import pytest

from ser import report

LOG = [
    {"epoch": 1, "train_loss": 2.0, "train_wa": 30.0, "dev_loss": 2.5, "dev_wa": 25.0, "dev_ua": 20.0, "seconds": 1.25},
    {"epoch": 2, "train_loss": 1.0, "train_wa": 60.0, "dev_loss": 1.5, "dev_wa": 50.0, "dev_ua": 45.0, "seconds": 1.0},
]


def write_log(scores, log=LOG):
    scores.with_suffix(".epochs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))


def draw(*options):
    """Write the report with its figures; return its text."""
    report.main(["--corpus", "toy", *options])
    return Path("RESULTS.md").read_text()


def test_the_confusion_matrix_sums_the_runs(scored):
    scored.write_scores("alpha", "apart", "fold1_seed1", "llhh lllh")
    scored.write_scores("alpha", "apart", "fold2_seed1", "lllh llll")
    text = draw()
    picture = Path("figures/alpha_apart_confusion.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.with_suffix(".txt").read_text() == (
        "# alpha, protocol apart, 2 runs: utterances, row true, column predicted\ntrue low high\nlow 5 0\nhigh 2 1\n"
    )
    assert sorted(path.name for path in Path("figures").glob("*confusion*")) == [picture.name, picture.stem + ".txt"]
    assert f"- **alpha**, apart: [confusion]({picture}) ([text]({picture.with_suffix('.txt')}))" in text


@pytest.mark.parametrize(
    ("protocol", "log"),
    [("apart", LOG), ("plain", [{key: line[key] for key in line if "dev" not in key} for line in LOG])],
)
def test_learning_curves(scored, protocol, log):
    for run in ("fold1_seed1", "fold2_seed1"):
        write_log(scored.write_scores("alpha", protocol, run, "llhh lllh"), log)
    draw()
    picture = Path(f"figures/alpha_{protocol}_curves.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    title, header, *lines = picture.with_suffix(".txt").read_text().splitlines()
    assert title == f"# alpha, protocol {protocol}, 2 runs"
    assert header.split() == ["run", *log[0]]
    expected = [[run, *map(float, line.values())] for run in ("fold1_seed1", "fold2_seed1") for line in log]
    assert [[run, *map(float, values)] for run, *values in map(str.split, lines)] == expected


def test_figures_of_scores_made_here_lie_apart(scored):
    write_log(scored.write_scores("alpha", "apart", "fold1_seed1", "llhh lllh", own=True))
    draw()
    assert Path("figures/own/alpha_apart_curves.png").exists()


def test_the_main_systems_figures_are_shown_and_those_of_others_drawn_aside(scored):
    for system, protocol in (("alpha", "plain"), ("alpha", "apart"), ("gamma", "apart")):
        write_log(scored.write_scores(system, protocol, "fold1_seed1", "lllh lhlh"))
    text = draw("--main", "alpha")
    kinds = ["confusion", "curves", "reliability"]
    shown = re.findall(r"(?m)^!\[(.*)\]", text)
    assert sorted(shown) == [f"alpha_apart_{kind}" for kind in kinds]  # of its first protocol
    drawn = [path.stem for path in Path("figures/others").glob("*.png")]
    assert sorted(drawn) == [f"gamma_apart_{kind}" for kind in kinds]
    assert "gamma_apart" not in text and "`figures/others/`, which git ignores" in text
    Path("figures/gamma_apart_tsne.png").touch()  # drawn from its network, which the scores cannot give again
    Path("figures/gamma_apart_tsne.txt").write_text("# gamma, protocol apart, fold 1, seed 1: t-SNE\n")
    assert "- **gamma**, apart: [tsne](figures/gamma_apart_tsne.png)" in draw("--main", "alpha")


@pytest.mark.parametrize(
    ("drawn", "model", "is_shown"),
    [("", None, True), (", model 0123abcd", "0123abcd9", True), (", model 0123abcd", "9", False)],
)
def test_figures_of_another_runs_network_are_not_shown(scored, drawn, model, is_shown):
    scored.write_scores("alpha", "apart", "fold1_seed1", "llhh lllh", model=model)
    Path("figures").mkdir()
    for kind in ("tsne", "words"):
        Path(f"figures/alpha_apart_{kind}.png").touch()
        Path(f"figures/alpha_apart_{kind}.txt").write_text(f"# alpha, protocol apart, fold 1, seed 1{drawn}\n")
    text = draw()
    assert ("alpha_apart_tsne.png" in text) is is_shown
    assert "alpha_apart_words" not in text  # git ignores it


def test_a_figure_is_drawn_again_only_where_its_numbers_changed(scored):
    scored.write_scores("alpha", "apart", "fold1_seed1", "lllh lhlh")
    draw()
    picture = Path("figures/alpha_apart_confusion.png")
    first = picture.read_bytes()
    picture.write_bytes(b"mine")
    draw()
    assert picture.read_bytes() == b"mine"
    scored.write_scores("alpha", "apart", "fold1_seed1", "lllh lllh")
    draw()
    second = picture.read_bytes()
    assert second.startswith(b"\x89PNG") and second != first
    picture.unlink()
    draw()
    assert picture.read_bytes() == second


def test_the_same_scores_give_the_same_bytes(scored):
    write_log(scored.write_scores("alpha", "apart", "fold1_seed1", "llhh lllh"))

    def content():
        draw()
        return {path: path.read_bytes() for path in [Path("RESULTS.md"), *Path("figures").iterdir()]}

    assert content() == content()
