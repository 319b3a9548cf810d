"""RESULTS.md's section on adaptation and its figure, from made-up scores whose numbers are known."""

from pathlib import Path

import pytest

from ser import recipe, report, tables
from ser.config import read_protocol, read_system

HEADING = "Adaptation to the test speaker"
RIGHT, HALF = "lllh lllh", "lllh llll"  # UA 100 and 50


def text_of():
    args = report.arguments(["--corpus", "toy"])
    return "\n".join(report.lines_of(recipe.read(args.corpus, args.systems, args.main), args)) + "\n"


def rows_of(text, heading=HEADING):
    """The rows of the table below a heading, each {column: cell}."""
    _, found, below = text.partition(f"\n## {heading}\n")
    assert found
    lines = [line.strip("| ").split(" | ") for line in below.split("\n## ")[0].splitlines() if line.startswith("| ")]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


@pytest.fixture
def adapting(scored):
    """Protocols for 0, 2 and 10 recordings beside `plain`, which sets no limit; alpha normalises by speaker."""
    scored.write_system("a/alpha", normalisation="speaker")
    for name, adapt in {
        "none": {"utterances": 0},
        "two_even": {"utterances": 2},
        "ten_even": {"utterances": 10, "draws": 2},
        "two_odd": {"utterances": 2, "balanced": False},
        "two_far": {"utterances": 2, "relevance": 2.5},
    }.items():
        scored.write_protocol(name, select="last", adapt=adapt)
    return scored


def test_without_scores_there_is_no_section(adapting):
    adapting.write_scores("alpha", "plain", "fold1_seed1", RIGHT)
    text = text_of()
    assert HEADING not in text
    assert not any(name in text for name in ("two_even", "Protocol **none**"))


def test_a_line_for_each_kind_of_draw(adapting):
    answers = {"none": HALF, "two_even": RIGHT, "ten_even": RIGHT, "two_odd": HALF, "plain": RIGHT}
    for protocol, answer in answers.items():
        adapting.write_scores("alpha", protocol, "fold1_seed1", answer)
        adapting.write_scores("alpha", protocol, "fold2_seed1", answer)
    adapting.write_scores("beta", "two_even", "fold1_seed1", HALF)
    adapting.write_scores("gamma", "plain", "fold1_seed1", HALF)  # adapts to nobody, and has no place here
    text = text_of()
    rest = {"0": "50.0; 2 (2 of 3 folds)", "all": "100.0¶; 2 (2 of 3 folds)"}
    assert rows_of(text) == [
        {
            "system": "alpha",
            "protocol": "plain",
            "recordings": "balanced",
            **rest,
            "2": "100.0¶; 2 (2 of 3 folds)",
            "10": "100.0¶; 2 (2 of 3 folds)",
        },
        {
            "system": "alpha",
            "protocol": "plain",
            "recordings": "skewed",
            **rest,
            "2": "50.0¶; 2 (2 of 3 folds)",
            "10": "–",
        },
        {
            "system": "beta",
            "protocol": "plain",
            "recordings": "balanced",
            "0": "–",
            "2": "50.0; 1 (1 of 3 folds)",
            "10": "–",
            "all": "–",
        },
    ]
    assert list(rows_of(text)[0]) == ["system", "protocol", "recordings", "0", "2", "10", "all"]
    assert "\n- Protocol **two_even**: about two_even.\n" in text and "two_far**" not in text


def test_no_other_table_has_them(adapting):
    for protocol in ("none", "two_even"):
        adapting.write_scores("alpha", protocol, "fold1_seed1", RIGHT)
    text = text_of()
    (line,) = [line for line in text.splitlines() if line.startswith("| system | apart WA")]
    assert not any(name in line for name in ("none", "two_even"))
    before, _, after = text.partition(f"\n## {HEADING}\n")
    own, _, rest = after.partition("\n## ")
    assert "two_even" in own
    assert "two_even" not in before and "### two_even" not in rest
    assert rows_of(text, "Systems")[0]["system"].startswith("alpha¶")


def test_other_settings_of_a_draw_are_lines_of_their_own(adapting):
    for protocol in ("two_even", "two_far"):
        adapting.write_scores("alpha", protocol, "fold1_seed1", RIGHT)
    assert [row["recordings"] for row in rows_of(text_of())] == ["balanced", "balanced, relevance 2.5"]


def test_systems_that_hear_all_stand_alone(adapting):
    """Under each honest protocol, and only beside systems that adapt to some."""
    adapting.write_system("b/beta", normalisation="speaker")
    for protocol in ("apart", "paper"):  # which selects on the test set
        adapting.write_scores("beta", protocol, "fold1_seed1", HALF)
    assert HEADING not in text_of()
    adapting.write_scores("alpha", "none", "fold1_seed1", RIGHT)
    alone = {"system": "beta", "protocol": "apart", "recordings": "–", "0": "–", "all": "50.0¶; 1 (1 of 3 folds)"}
    first, second = rows_of(text_of())
    assert second == alone
    assert first == {
        "system": "alpha",
        "protocol": "plain",
        "recordings": "–",
        "0": "100.0; 1 (1 of 3 folds)",
        "all": "–",
    }


def test_protocols_of_other_folds_are_another_family(adapting):
    folds = {"kind": "groups", "by": "spk", "number": 4}
    adapting.write_protocol("other", select="last", folds=folds, adapt={"utterances": 2})
    for protocol in ("two_even", "other"):
        adapting.write_scores("alpha", protocol, "fold1_seed1", RIGHT)
    assert {(row["protocol"], row["2"]) for row in rows_of(text_of())} == {
        ("plain", "100.0¶; 1 (1 of 3 folds)"),
        ("–", "100.0¶; 1 (1 of 3 folds)"),
    }


def test_who_has_heard_its_test_speakers(adapting):
    speaker, other = (read_system(Path(f"conf/{name}.yaml")) for name in ("a/alpha", "b/beta"))
    protocols = {name: read_protocol(f"conf/protocols/{name}.yaml") for name in ("plain", "none", "two_even")}
    assert {name: tables.hears(speaker, one) for name, one in protocols.items()} == {
        "plain": True,
        "none": False,
        "two_even": True,
    }
    assert not any(tables.hears(other, one) for one in protocols.values())


def test_the_figure_and_the_page(adapting):
    for protocol, answer in {"none": HALF, "two_even": RIGHT, "two_odd": HALF, "plain": RIGHT}.items():
        for fold in (1, 2, 3):
            adapting.write_scores("alpha", protocol, f"fold{fold}_seed1", answer)
    adapting.write_speakers(lambda fold, number: 4 * fold + number)
    report.main(["--corpus", "toy", "--html"])
    picture = Path("figures/adaptation.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    title, head, *lines = picture.with_suffix(".txt").read_text().splitlines()
    assert title.startswith(f"# {HEADING}") and head == "system protocol draw recordings ua half"
    points = [line.split()[:5] for line in lines]
    assert points == [
        ["alpha", "plain", draw, column, value]
        for draw, two in (("balanced", "100.0000"), ("skewed", "50.0000"))
        for column, value in (("0", "50.0000"), ("2", two), ("all", "100.0000"))
    ]
    text = Path("RESULTS.md").read_text()
    assert f"![adaptation]({picture})" in text and "¶ has heard unlabelled speech" in " ".join(text.split())
    page = Path("results.html").read_text()
    assert HEADING in page and "data:image/png;base64," in page
    before = picture.stat().st_mtime_ns
    report.main(["--corpus", "toy"])
    assert picture.stat().st_mtime_ns == before


def test_a_figure_of_scores_that_were_made_here_is_apart(adapting):
    adapting.write_scores("alpha", "none", "fold1_seed1", RIGHT, own=True)
    report.main(["--corpus", "toy"])
    assert Path("figures/own/adaptation.png").exists() and "(figures/own/adaptation.png)" in text_of()
