"""Stage 6: the tables, from made-up scores whose numbers are known."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from scipy import stats

from ser import identity, papers, recipe, report, tables
from ser.cli import UserError
from ser.config import read_protocol, read_system
from ser.identity import settings
from ser.runs import row_of
from ser.tables import MARKS

# first letters of the classes of the truth and of the prediction, of four utterances: WA and UA by hand
RUNS = {
    "llhh lllh": (75.0, 75.0),  # recalls 1 and 1/2
    "lllh lhlh": (75.0, 250 / 3),  # 2/3 and 1
    "lllh lllh": (100.0, 100.0),
    "lllh llll": (75.0, 50.0),  # 1 and 0
    "lhhh hlll": (0.0, 0.0),
}
APART = "sizes; train and test share 0 of 2 speakers"
ONE_ROW = [{"name": "x", "wa": 61, "systems": ["alpha"]}]


def text_of(*options):
    """The text of RESULTS.md, without drawing figures."""
    args = report.arguments(["--corpus", "toy", *options])
    lines = report.lines_of(recipe.read(args.corpus, args.systems, args.main), args)
    return "\n".join(lines) + "\n"


def edit(path, old, new):
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new))


def section(heading, *options):
    """The lines below a heading."""
    below = re.split(rf"(?m)^##+ {re.escape(heading)}$", text_of(*options))
    assert len(below) == 2, below[0]
    return re.split(r"(?m)^## |^### ", below[1])[0].strip().splitlines()


def table(heading, *options):
    """The rows of the table below a heading, each {column: cell}; columns of one name are numbered."""
    lines = [line.strip("| ").split(" | ") for line in section(heading, *options) if line.startswith("| ")]
    counts = [lines[0][: place + 1].count(name) for place, name in enumerate(lines[0])]
    head = [f"{name} {count}" if count > 1 else name for name, count in zip(lines[0], counts, strict=True)]
    return [dict(zip(head, line, strict=True)) for line in lines[2:]]


def rows(*options):
    """The table Systems of a recipe without papers, as {system: {column: cell}}."""
    return {row["system"]: row for row in table("Systems", *options)}


# Papers' tables


def test_a_papers_table_that_was_not_run(scored):
    scored.write_paper({})
    nothing = {"difference": "–", "in interval": "–"}
    ours = {"paper† WA": "not run", "paper† UA": "not run", "runs": "0"}
    honest = {"apart WA": "not run", "apart UA": "not run", "runs 2": "0"}
    row = {"as published": "two layers", "published WA": "61.5", **nothing, **ours, **honest}
    other = dict.fromkeys(row, "–") | {"as published": "others' [7]", "published WA": "70 (± 2)"}
    expected = [{"system": "beta", **row}, {"system": "alpha", **row}, {"system": "–", **other}]
    assert table("Table III: layers") == expected
    columns = ["as published", "system", "published WA", "paper† WA", "difference", "in interval", "paper† UA", "runs"]
    assert list(table("Table III: layers")[0]) == [*columns, "apart WA", "apart UA", "runs 2"]
    assert section("Table III: layers")[-1] == "    ./run.sh --paper ours --table III"
    text = text_of()
    assert "\n## Ours et al.\n\nauthors, title.\n\n### Table III: layers\n" in text
    assert [row["system"] for row in table("Other systems on this corpus")] == ["gamma"]


def test_published_and_ours(scored):
    """One run, one utterance of each speaker: the standard error is that of a mean of ten values."""
    scored.write_paper({"rows": [{"name": str(wa), "wa": wa, "systems": ["alpha"]} for wa in (45, 61.5, 20)]})
    scored.write_scores("alpha", "paper", "fold1_seed1", "lllllhhhhh lllllhhlll")
    scored.write_scores("alpha", "apart", "fold1_seed1", "llhh lllh")
    unknown = table("Table III: layers")
    assert [row["difference"] for row in unknown] == ["+25.0", "+8.5", "+50.0"]
    assert {(row["paper† WA"], row["in interval"]) for row in unknown} == {("70.0", "–")}
    scored.write_speakers()
    low, high = stats.t.interval(0.95, 9, 70, stats.sem([100] * 7 + [0] * 3))
    found = table("Table III: layers")
    for row, published in zip(found, (45, 61.5, 20), strict=True):
        mean, half = row["paper† WA"].rstrip("¹").split(" ± ")
        assert (mean, float(half)) == ("70.0", pytest.approx((high - low) / 2, rel=0.05))
        assert row["in interval"] == ("yes" if low < published < high else "no")
        assert (row["apart WA"], row["apart UA"]) == ("75.0", "75.0")  # four speakers
        assert (row["runs"], row["runs 2"]) == ("1 (1 of 3 folds)", "1 (1 of 3 folds)")
    assert [row["in interval"] for row in found] == ["yes", "yes", "no"]


@pytest.mark.parametrize(
    ("numbers", "columns", "cells"),
    [
        ({"ua": 60, "note": "± 2"}, "paper† WA, published UA, paper† UA, difference, in interval", "75.0, 60 (± 2), 83.3, +23.3, –"),
        (
            {"wa": 80, "ua": 60, "note": "± 2"},
            "published WA, paper† WA, difference, in interval, published UA, paper† UA, difference 2, in interval 2",
            "80 (± 2), 75.0, -5.0, –, 60, 83.3, +23.3, –",
        ),
        ({"note": "50 to 60"}, "published WA, paper† WA, difference, in interval, paper† UA", "50 to 60, 75.0, –, –, 83.3"),
    ],
)  # fmt: skip
def test_what_a_paper_reports(scored, numbers, columns, cells):
    """WA, UA or both, or a remark instead."""
    scored.write_paper({"rows": [{"name": "x", "systems": ["alpha"]} | numbers]})
    scored.write_scores("alpha", "paper", "fold1_seed1", "lllh lhlh")  # WA 75, UA 83.3
    (row,) = table("Table III: layers")
    assert list(row)[2:-4] == columns.split(", ")
    assert list(row.values())[2:-4] == cells.split(", ")


def test_a_note_stands_beside_the_number_that_there_is(scored):
    rows = [{"name": "x", "wa": 61, "ua": 62, "systems": []}, {"name": "y", "ua": 63, "note": "± 2", "systems": []}]
    scored.write_paper({"rows": rows})
    _, row = table("Table III: layers")
    assert (row["published WA"], row["published UA"]) == ("–", "63 (± 2)")


@pytest.mark.parametrize("honest", [None, "paper"])
def test_a_table_without_other_honest_numbers(scored, honest):
    scored.write_paper({"honest": honest})
    scored.write_scores("beta", "paper", "fold1_seed1", "llhh lllh")
    row = table("Table III: layers")[0]
    assert list(row)[-2:] == ["paper† UA", "runs"] and row["runs"] == "1 (1 of 3 folds)"


def test_outdated_scores_are_not_called_not_run(scored):
    scored.write_paper({})
    scored.write_scores("beta", "paper", "fold1_seed1", "llhh lllh")
    edit("conf/b/beta.yaml", "cost: [1, 10]", "cost: [3]")
    row = table("Table III: layers")[0]
    assert [row[f"paper† {metric}"] for metric in ("WA", "UA")] == ["outdated"] * 2
    assert (row["runs"], row["apart WA"]) == ("0", "not run")


def test_tables_are_in_the_papers_order_and_the_main_paper_is_first(scored):
    one = [{"name": "x", "wa": 61, "systems": ["gamma"]}]
    scored.write_paper({"number": "own", "title": "a number", "rows": one}, key="a")
    scored.write_paper({"number": "7", "title": "seven"}, {"number": "Fig. 1", "title": "a figure"}, key="b")
    found = re.findall(r"(?m)^##+ (.*)$", text_of())
    assert found[:5] == ["B et al.", "Table 7: seven", "Fig. 1: a figure", "A et al.", "own: a number"]
    assert "    ./run.sh --paper b --table 'Fig. 1'" in section("Fig. 1: a figure")


def test_the_command_makes_as_many_seeds_and_needs_word_vectors(scored):
    scored.write_paper({})
    scored.write_scores("alpha", "apart", "fold1_seed3", "llhh lllh", inputs="words 3a, vectors none, xvectors 78")
    assert section("Table III: layers")[-1] == "    ./run.sh --paper ours --table III --seeds 3"
    scored.write_scores("beta", "apart", "fold1_seed1", "llhh lllh", inputs="words 3a, vectors 77")
    assert section("Table III: layers")[-1] == "    ./run.sh --paper ours --table III --glove FILE --seeds 3"


# Other systems


def test_a_recipe_without_papers(scored):
    """All systems, under all protocols; those with speakers apart that select by other than the test set are first."""
    scored.write_protocol("mixed", select="dev", folds={"kind": "random", "number": 2, "test_share": 0.2, "seed": 1})
    found = rows()
    assert list(found) == ["alpha", "beta", "gamma"]
    assert all(list(row.values())[1:] == ["not run", "not run", "0"] * 4 for row in found.values())
    assert [column for column in found["alpha"] if "WA" in column] == ["apart WA", "plain WA", "mixed WA", "paper† WA"]
    assert '`./run.sh --systems FILE --protocol "apart plain mixed paper"`' in text_of()
    assert "## Other protocols" not in text_of()


def test_the_best_under_the_honest_protocol_is_first(scored):
    for name in ("delta", "epsilon", "zeta"):
        scored.write_system(f"c/{name}")
    scored.write_paper({"rows": ONE_ROW})
    for system, answers in (("beta", "lllh llll"), ("epsilon", "lllh lhlh"), ("zeta", "lhhh hlll")):
        scored.write_scores(system, "apart", "fold1_seed1", answers)  # UA 50, 83.3, 0
    scored.write_scores("gamma", "paper", "fold1_seed1", "lllh lllh")
    found = table("Other systems on this corpus")
    assert [row["system"] for row in found] == ["epsilon", "beta", "zeta", "gamma", "delta"]
    assert [row["apart UA"] for row in found] == ["83.3", "50.0", "0.0", "not run", "not run"]
    assert list(found[0])[:4] == ["system", "apart WA", "apart UA", "runs"] and "paper† WA" in found[0]


def test_systems_that_lack_folds_come_after_those_that_have_all(scored):
    for fold in (1, 2, 3):
        scored.write_scores("gamma", "apart", f"fold{fold}_seed1", "lllh llll")
    scored.write_scores("beta", "apart", "fold1_seed1", "lllh lllh")
    found = table("Systems")
    assert [(row["system"], row["apart UA"]) for row in found] == [
        ("gamma", "50.0"),
        ("beta", "100.0"),
        ("alpha", "not run"),
    ]
    assert "By UA under apart, the best first; systems that lack some of its folds come last." in text_of()


def test_numbers_that_were_published_on_another_corpus(scored):
    scored.write_paper({"rows": ONE_ROW})
    rows = [
        {"name": "x", "wa": 99, "systems": ["alpha", "beta"]},
        {"name": "y", "wa": 98.5, "ua": 97, "systems": ["beta"]},
        {"name": "z", "note": "50 to 60", "systems": ["beta"]},
    ]
    scored.write_paper({"number": "IX", "rows": rows}, recipe="../other")
    scored.write_paper({"number": "Section 5", "rows": rows[:1]}, recipe="../third")
    beta, gamma = table("Other systems on this corpus")
    assert beta["published elsewhere"] == (
        "other, Table IX: WA 99; other, Table IX: WA 98.5, UA 97; other, Table IX: 50 to 60; third, Section 5: WA 99"
    )
    assert (gamma["system"], gamma["published elsewhere"]) == ("gamma", "–")
    shutil.rmtree("../other")
    shutil.rmtree("../third")
    assert "published elsewhere" not in text_of()


def test_systems_of_other_recipes_that_were_run_here_are_rows(scored):
    for name in ("epsilon", "zeta"):
        scored.write_system(f"c/{name}", recipe="../other")
    scored.write_scores("epsilon", "apart", "fold1_seed1", "llhh lllh")
    assert list(rows()) == ["epsilon", "alpha", "beta", "gamma"]
    path = Path("elsewhere/delta.yaml")
    path.parent.mkdir()
    path.write_text(Path("conf/b/beta.yaml").read_text())
    assert "delta" in rows("--systems", str(path), "conf/b/beta.yaml")


def test_protocols_that_no_paper_has_and_those_with_a_section_of_their_own(scored):
    scored.write_protocol("noisy", select="dev", noise="snr10", table="Under noise")
    scored.write_paper({}, {"number": "V", "protocol": "noisy", "honest": None, "rows": scored.TABLE["rows"][:1]})
    for system, protocol in (("gamma", "plain"), ("gamma", "noisy"), ("alpha", "noisy"), ("alpha", "paper")):
        scored.write_scores(system, protocol, "fold1_seed1", "lllh lhlh")
    line = {"WA": "75.0", "UA": "83.3", "runs": "1 (1 of 3 folds)"}
    assert table("Other protocols") == [{"system": "gamma", "protocol": "plain", **line}]
    assert table("Under noise") == [{"system": name, "protocol": "noisy", **line} for name in ("alpha", "gamma")]
    assert not any("noisy" in column or "plain" in column for column in table("Other systems on this corpus")[0])


def test_scores_that_no_table_has_are_not_lost(scored):
    """A paper's system under another paper's protocol."""
    scored.write_paper({"rows": scored.TABLE["rows"][:1], "honest": None}, key="one")
    rows = [{"name": "x", "wa": 61, "systems": ["gamma"]}]
    scored.write_paper({"rows": rows, "protocol": "apart", "honest": None}, key="two")
    for protocol in ("paper", "apart"):
        scored.write_scores("alpha", protocol, "fold1_seed1", "llhh lllh")
    assert [(row["system"], row["protocol"]) for row in table("Other protocols")] == [("alpha", "apart")]


# Marks


def used(*options):
    """The marks that are explained, in short at the top and in full at the end."""
    text = text_of(*options)
    top, end = text.split("\n## ")[0], text.split("\n## How to read the tables\n")[1]
    found = [mark for mark in MARKS if f"\n- {mark} " in end]
    assert found == [mark for mark in MARKS if f"{mark} {MARKS[mark]}" in " ".join(top.split())]
    return "".join(found)


def test_the_legend_has_the_marks_that_are_used(scored):
    Path("conf/protocols/paper.yaml").unlink()
    assert used() == ""
    scored.write_scores("alpha", "apart", "fold1_seed1", "lllhhh lllhhl", overlap=APART)
    assert used() == ""
    scored.write_speakers()
    assert (used(), rows()["alpha"]["apart WA"][-1]) == ("¹", "¹")
    scored.write_protocol("paper", select="test")
    assert used() == "†¹" and "paper† WA" in rows()["alpha"]
    shared = "sizes; train and test share 3 of 10 speakers, 0 of 2 sentences"
    scored.write_scores("alpha", "plain", "fold1_seed1", "llhh lllh", overlap=shared)
    assert used() == "†‡¹" and "plain‡ WA" in rows()["alpha"] and "apart WA" in rows()["alpha"]
    scored.write_system("b/beta", normalisation="speaker")
    assert used() == "†‡¶¹" and "beta¶" in rows()
    scored.write_scores("gamma", "apart", "fold1_seed1", "llhh lllh", row={"code": "older"})
    assert used() == "†‡¶§¹" and rows()["gamma"]["runs"] == "1 (1 of 3 folds) §"


def test_a_system_is_marked_in_every_table(scored):
    scored.write_system("b/beta", normalisation="speaker")
    scored.write_paper({})
    for system in ("beta", "gamma"):
        scored.write_scores(system, "paper", "fold1_seed1", "llhh lllh")
        scored.write_scores(system, "plain", "fold1_seed1", "llhh lllh")
    assert [row["system"] for row in table("Table III: layers")] == ["beta¶", "alpha", "–"]
    assert [row["system"] for row in table("Other protocols")] == ["gamma", "beta¶"]
    assert [row["system"] for row in table("Against gamma", "--main", "gamma")] == ["beta¶"]


def test_what_a_row_was_made_with(scored):
    """Word vectors, or none."""
    for fold in (1, 2):
        scored.write_scores("alpha", "plain", f"fold{fold}_seed1", "llhh lllh", inputs="words 3a, vectors none")
    scored.write_scores("beta", "plain", "fold1_seed1", "llhh lllh", inputs="words 3a, vectors 77, xvectors 78")
    assert rows().keys() == {"alpha (word vectors learned from scratch)", "beta", "gamma"}


# Means and intervals


@pytest.mark.parametrize("answers", RUNS)
def test_one_run(scored, answers):
    scored.write_scores("alpha", "apart", "fold1_seed1", answers)
    row = rows()["alpha"]
    assert (row["apart WA"], row["apart UA"]) == tuple(f"{value:.1f}" for value in RUNS[answers])
    assert (row["runs"], row["paper† WA"], row["runs 2"]) == ("1 (1 of 3 folds)", "not run", "0")


def test_the_mean_is_over_folds_after_averaging_their_seeds(scored):
    for run, answers in (("fold1_seed1", "llhh lllh"), ("fold1_seed2", "llhh llhh"), ("fold3_seed1", "llhh llll")):
        scored.write_scores("beta", "apart", run, answers)
    row = rows()["beta"]
    assert (row["apart WA"], row["runs"]) == ("68.8", "3 (2 of 3 folds, 2 seeds)")  # 75 and 100, and 50
    scored.write_scores("beta", "apart", "fold2_seed1", "llhh llhh")
    assert rows()["beta"]["runs"] == "4 (2 seeds)"  # every fold


def test_seeds_that_say_the_same_count_once(scored):
    """Five seeds of an SVM with fixed settings are one run told five times: another that differs weighs as much."""
    for seed in range(1, 6):
        scored.write_scores("beta", "apart", f"fold1_seed{seed}", "llhh lllh")
    scored.write_scores("beta", "apart", "fold1_seed6", "llhh llhh")
    row = rows()["beta"]
    assert (row["apart WA"], row["runs"]) == ("87.5", "6 (1 of 3 folds, 6 seeds)")


def test_where_a_fold_does_not_test_a_class_pooled_numbers_stand_beside_the_means(scored, capsys):
    """UA over folds: (100 + 50 + 0) / 3. Together 3 of 4 low and 1 of 2 high ones are right."""
    scored.write_scores("beta", "plain", "fold1_seed1", "llhh lllh")
    assert "pooled" not in text_of()
    for fold, answers in ((1, "lll lll"), (2, "hh lh"), (3, "l h")):
        scored.write_scores("beta", "apart", f"fold{fold}_seed1", answers)
    row = rows()["beta"]
    assert [column for column in row if "pooled" in column] == ["apart WA pooled", "apart UA pooled"]
    assert (row["apart UA"], row["apart WA"]) == ("50.0", "50.0")
    assert (row["apart UA pooled"], row["apart WA pooled"]) == ("62.5", "66.7")  # 3/4 and 1/2; 4 of 6
    assert rows()["alpha"]["apart UA pooled"] == "not run"
    assert text_of().count("- **pooled**: ") == 1
    lines = [line.split() for line in tables.summary(recipe.read("toy", [], ""), {"beta"})]
    assert lines[0] == ["system", "protocol", "WA", "UA", "WA", "pooled", "UA", "pooled", "runs"]
    assert ["beta", "apart", "50.0", "50.0", "66.7", "62.5", "3"] in lines
    assert ["beta", "plain", "75.0", "75.0", "–", "–", "1", "(1", "of", "3", "folds)"] in lines
    scored.write_paper({"protocol": "apart", "honest": None, "rows": [{"name": "x", "ua": 60, "systems": ["beta"]}]})
    of_paper = table("Table III: layers")[0]
    assert (of_paper["apart UA"], of_paper["difference"], of_paper["apart UA pooled"]) == ("50.0", "-10.0", "62.5")


def test_an_interval_over_speakers_and_seeds_has_no_mark(scored):
    answers = "llllllhhhhhh"
    scored.write_scores("beta", "apart", "fold1_seed1", f"{answers} llllllhhhlll")
    scored.write_speakers()
    one = rows()["beta"]["apart WA"]
    assert one.startswith("75.0 ± ") and one.endswith("¹")
    scored.write_scores("beta", "apart", "fold1_seed2", f"{answers} llllllhhhhhh")
    two = rows()["beta"]["apart WA"]
    assert two.startswith("87.5 ± ") and not two.endswith("¹")


def test_a_speaker_that_is_not_known_gives_no_interval_and_no_p(scored):
    for system, predicted in (("alpha", "llllhl"), ("beta", "hhhhhh")):
        scored.write_scores(system, "apart", "fold1_seed1", f"llllhh {predicted}")
    scored.write_speakers()
    (row,) = table("Against alpha", "--main", "alpha")
    assert "±" in rows()["alpha"]["apart WA"] and row["apart p"] != "–"
    path = Path("results/utt2spk")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    (row,) = table("Against alpha", "--main", "alpha")
    assert (rows()["alpha"]["apart WA"], row["apart WA"], row["apart p"]) == ("83.3", "-50.0", "–")


# Tests against the main system


def test_systems_are_tested_by_speaker_with_holms_correction(scored):
    """Each of ten speakers has one utterance: the exact test is that of the signs, as in McNemar's."""
    truth = "l" * 5 + "h" * 5
    answers = {"alpha": truth, "beta": "l" * 10, "gamma": "h" * 8 + "ll"}
    for system, predicted in answers.items():
        scored.write_scores(system, "apart", "fold1_seed1", f"{truth} {predicted}")
        scored.write_scores(system, "plain", "fold1_seed1", f"{truth[:4]} {predicted[:4]}")
    scored.write_speakers()
    beta, gamma = table("Against alpha", "--main", "alpha")[::-1]
    assert (beta["system"], gamma["system"]) == ("beta", "gamma")
    assert (beta["apart WA"], gamma["apart WA"]) == ("-50.0", "-70.0")
    p = [stats.binomtest(0, wrong).pvalue for wrong in (5, 7)]
    assert float(gamma["apart p"]) == pytest.approx(2 * p[1], abs=6e-4)  # the smaller of two
    assert float(beta["apart p"]) == pytest.approx(max(p[0], 2 * p[1]), abs=6e-4)
    assert (gamma["plain WA"], gamma["plain p"]) == ("-100.0", "–")  # four speakers
    assert "paper† WA" not in gamma  # nothing was run


def test_utterances_of_a_speaker_are_no_evidence_of_their_own(scored):
    """Of five speakers, 32 choices of signs: p is at least 1/16 however many utterances there are."""
    many = "lh" * 100
    scored.write_scores("alpha", "apart", "fold1_seed1", f"{many} {many}")
    scored.write_scores("beta", "apart", "fold1_seed1", f"{many} {'h' * 200}")
    scored.write_speakers(lambda fold, number: number // 40)
    (row,) = table("Against alpha", "--main", "alpha")
    assert (row["apart WA"], row["apart p"]) == ("-50.0", f"{2 / 32:.3f}")  # 0.0625
    scored.write_speakers()
    (row,) = table("Against alpha", "--main", "alpha")
    assert row["apart p"] == "< 0.001"


def test_runs_are_averaged_and_only_common_utterances_count(scored):
    for seed, answers in ((1, "llll llll"), (2, "llll hlll")):
        scored.write_scores("alpha", "apart", f"fold1_seed{seed}", answers)
    scored.write_scores("beta", "apart", "fold1_seed1", "ll hh")  # has tested two of the four
    # on the first alpha was right in half its runs, on the second in both; beta in none
    (row,) = table("Against beta", "--main", "beta")
    assert row == {"system": "alpha", "apart WA": "+75.0", "apart p": "–"}


def test_nothing_to_test_the_main_system_against(scored):
    scored.write_scores("alpha", "apart", "fold1_seed1", "llhh lllh")
    expected = ["No other system was run on the same utterances as beta."]
    assert section("Against beta", "--main", "beta") == expected
    assert "## Against" not in text_of()


@pytest.mark.parametrize("part", ["folds", "speakers", "recordings"])
def test_systems_of_other_folds_are_not_tested_against_each_other(scored, part):
    for system, row in (("alpha", {}), ("beta", {}), ("gamma", {part: "other"})):
        scored.write_scores(system, "apart", "fold1_seed1", "llhh lllh" if system == "alpha" else "llhh llll", row=row)
    assert [row["system"] for row in table("Against alpha", "--main", "alpha")] == ["beta"]
    told = "- **gamma**, apart: has other folds, speakers or recordings than most rows here, so it is not tested against them."
    assert told in section("Scores")


# Systems, protocols


def test_costs(scored):
    """How many parameters, where a vocabulary makes them differ, and the mean time of all runs that are shown."""
    for fold, seconds, parameters in ((1, 60, 5000), (2, 120, 4000), (3, 180.5, 4500)):
        about = {"train_seconds": seconds, "parameters": parameters}
        scored.write_scores("beta", "plain", f"fold{fold}_seed1", "llhh lllh", **about)
    scored.write_scores("alpha", "apart", "fold1_seed1", "llhh lllh", parameters=1234567)
    alpha, gamma, beta = table("Systems and times")
    assert alpha == {
        "system": "alpha",
        "what it is": "the alpha",
        "file": "[alpha.yaml](conf/a/alpha.yaml)",
        "parameters": "1,234,567",
        "minutes per run": "1.5",
    }
    assert (beta["parameters"], beta["minutes per run"]) == ("4,000 to 5,000", "2.0")
    assert (gamma["parameters"], gamma["minutes per run"]) == ("–", "–")


def test_protocols_are_described(scored):
    scored.write_paper({})
    scored.write_scores("alpha", "paper", "fold1_seed1", "llhh lllh")
    for fold in (2, 10):
        scored.write_scores("alpha", "apart", f"fold{fold}_seed1", "llhh lllh", overlap=APART, fold=f"{fold} of 12")
    assert section("Protocols") == [
        "- Protocol **paper**: about paper. **The test set selects the networks' epoch, so their numbers are optimistic.**",
        "  - 3 folds",
        "  - fold 1: sizes 1; shared 1",
        "- Protocol **apart**: about apart.",
        "  - 12 folds; 2 test speakers each, none of them in the training part",
        "  - fold 2, 10: sizes; train and test share 0 of 2 speakers",
        "- Protocol **plain**: about plain.",
    ]


def test_two_protocols_of_one_name_are_refused(scored):
    Path("conf/protocols/own").mkdir()
    shutil.copy("conf/protocols/apart.yaml", "conf/protocols/own/mine.yaml")
    assert "mine WA" in rows()["alpha"]
    shutil.copy("conf/protocols/apart.yaml", "conf/protocols/own/apart.yaml")
    told = r"conf/protocols/own/apart.yaml: conf/protocols/apart.yaml has the same name; rename one"
    with pytest.raises(UserError, match=told):
        text_of()


# Which scores are shown

REDO = "to replace them, call `./run.sh --systems conf/a/alpha.yaml --protocol apart --replace true --overwrite true`."


def shown(system="alpha"):
    """WA and the number of runs under the protocol apart."""
    return rows()[system]["apart WA"], rows()[system]["runs"]


@pytest.mark.parametrize(
    ("path", "old", "new", "told"),
    [
        ("conf/a/alpha.yaml", "cost: [1, 10]", "cost: [3]", "system model.cost [1.0, 10.0], not [3.0]"),
        ("conf/protocols/apart.yaml", "number: 3", "number: 4", "protocol folds.number 3, not 4"),
    ],
)
def test_a_file_that_was_edited_since(scored, path, old, new, told):
    """Old folds and a new one are not one row, and the old ones do not stand under the new description."""
    for fold in (2, 3):
        scored.write_scores("alpha", "apart", f"fold{fold}_seed1", "llhh lllh")
    edit(path, old, new)
    line = f"- **alpha**, apart: left out fold2_seed1, fold3_seed1: made with different settings: {told}; {REDO}"
    assert shown() == ("outdated", "0") and line in section("Scores")
    scored.write_scores("alpha", "apart", "fold1_seed1", "llhh llhh")
    assert shown() == ("100.0", "1 (1 of 3 folds)") and line in section("Scores")


@pytest.mark.parametrize("part", ["recordings", "folds", "speakers", "code", "words"])
def test_what_is_not_of_one_row_is_not_averaged(scored, part):
    """The larger part stands."""
    for fold, answers in ((1, "llhh lllh"), (2, "llhh llhh")):
        scored.write_scores("alpha", "apart", f"fold{fold}_seed1", answers)
    scored.write_scores("alpha", "apart", "fold3_seed1", "llhh hhll", row={part: "other"}, modules="ser.x 2")
    assert shown() == ("87.5", "2 (2 of 3 folds)")
    told = "code (ser.x)" if part == "code" else part
    line = f"- **alpha**, apart: left out fold3_seed1: made with different {told} from those shown; {REDO}"
    assert line in section("Scores")


def test_of_equally_many_those_of_todays_code_are_shown(scored):
    scored.write_scores("alpha", "apart", "fold1_seed1", "llhh lllh", row={"code": "older"}, date="2027-01-01 10:00")
    assert shown() == ("75.0", "1 (1 of 3 folds) §")
    scored.write_scores("alpha", "apart", "fold2_seed1", "llhh llhh")
    assert shown() == ("100.0", "1 (1 of 3 folds)")


def test_code_that_was_shown_to_give_the_same_bytes_is_the_same(scored, monkeypatch):
    """Runs from before and after a change that moves code are one row, without a mark."""
    scored.write_scores("alpha", "apart", "fold1_seed1", "llhh lllh", row={"code": "older"})
    scored.write_scores("alpha", "apart", "fold2_seed1", "llhh llhh")
    key = identity.compared_settings(settings(read_system("conf/a/alpha.yaml")))
    Path("same_code.txt").write_text(
        f"older {scored.code('conf/a/alpha.yaml', 'apart')} {key} alpha c0 c1 2026-01-01\n"
    )
    assert shown() == ("100.0", "1 (1 of 3 folds)")
    monkeypatch.setattr(identity, "SAME_CODE", Path.cwd() / "same_code.txt")
    assert shown() == ("87.5", "2 (2 of 3 folds)")
    assert "left out" not in "".join(section("Scores"))


def test_scores_of_unknown_origin_are_left_out_and_counted(scored):
    assert section("Scores") == ["None yet."]
    scored.write_scores("alpha", "apart", "fold1_seed1", "llhh lllh", row={"recordings": "unknown"})
    scored.write_scores("beta", "apart", "fold1_seed1", "llhh lllh")
    path = scored.write_scores("alpha", "apart", "fold2_seed1", "llhh llhh", commit="abc-dirty")
    path.write_text(re.sub("# (row|system settings|protocol settings|modules|trainer): .*\n", "", path.read_text()))
    assert shown() == ("75.0", "1 (1 of 3 folds) §")
    assert section("Scores") == [
        "3 scores: 1 with a complete identity (settings, code, folds, recordings), 1 without the recordings' checksums, 1 of unknown origin.",
        "",
        f"- **alpha**, apart: left out fold2_seed1: of unknown origin (commit abc-dirty); {REDO}",
    ]


def test_scores_made_here_stand_beside_the_published_ones(scored):
    scored.write_scores("alpha", "apart", "fold1_seed1", "llhh lllh")
    scored.write_scores("alpha", "apart", "fold1_seed1", "llhh llhh", own=True)
    assert shown() == ("75.0", "1 (1 of 3 folds)")
    told = "the scores that came with the repository are shown; made here: fold1_seed1 WA 100.0."
    assert f"- **alpha**, apart: {told}" in section("Scores")
    edit("conf/a/alpha.yaml", "cost: [1, 10]", "cost: [3]")  # now the published ones are of other settings
    scored.write_scores("alpha", "apart", "fold1_seed1", "llhh llll", own=True)
    assert shown() == ("50.0", "1 (1 of 3 folds) own")
    assert "- **alpha**, apart: the scores shown were made here (own)." in section("Scores")


def test_training_code_that_changed_between_the_runs_is_told(scored):
    for fold, trainer in ((1, "one"), (2, "two")):
        scored.write_scores("alpha", "apart", f"fold{fold}_seed1", "llhh lllh", trainer=trainer, commit=f"c{fold}")
    assert shown() == ("75.0", "2 (2 of 3 folds)")
    assert "- **alpha**, apart: trained and scored by 2 versions of the training code (c1, c2)." in section("Scores")


def test_data_that_changed_since_is_reported(scored):
    """Another release of the corpus, or other folds: what stands in the table is not of them."""
    Path("data/all").mkdir(parents=True)
    for name, value in (("utt2md5", "m"), ("utt2spk", "s")):
        Path("data/all", name).write_text(f"a {value}\nb {value}\n")
    for part, utts in (("train", "a low\n"), ("dev", ""), ("test", "b high\n")):
        Path("data/folds/apart/fold1").mkdir(parents=True, exist_ok=True)
        Path("data/folds/apart/fold1", part).write_text(utts)
    Path("data/folds/apart/classes").write_text("0 low\n1 high\n")
    row = row_of(Path("data/all"), Path("data/folds/apart"), read_protocol("conf/protocols/apart.yaml"))
    scored.write_scores("alpha", "apart", "fold1_seed1", "llhh lllh", row=row)
    assert shown() == ("75.0", "1 (1 of 3 folds)")
    Path("data/all/utt2md5").write_text("a m\nb other\n")
    assert shown() == ("75.0", "1 (1 of 3 folds) §")
    told = "in data/ have changed since these scores were made."
    assert f"- **alpha**, apart: recordings {told}" in section("Scores")
    Path("data/folds/apart/fold1/test").write_text("b low\n")
    assert f"- **alpha**, apart: folds and recordings {told}" in section("Scores")
    shutil.rmtree("data")  # as in a fresh clone
    assert shown() == ("75.0", "1 (1 of 3 folds)")


DAMAGES = [
    (f"# {key}: .*\n", "", key)
    for key in ("corpus", "fold", "seed", "overlap", "train_seconds", "date", "commit", "modules", "trainer", "system settings", "protocol settings")
] + [
    ("# fold: .*", "# fold: 1", "fold"), ("# fold: .*", "# fold: 1 of x", "fold"), ("# seed: .*", "# seed: x", "seed"),
    ("# train_seconds: .*", "# train_seconds: x", "train_seconds"), ("# train_seconds: .*", "# train_seconds: 1.2.3", "train_seconds"),
    ("# seed: .*", "# seed: 1\n# parameters: 5x", "parameters"),
    ("# row: code .* folds", "# row: folds", "code"), ("# row: .*", "# row: x", "code, folds, recordings, speakers"),
    ("# system settings: .*", "# system settings: {", "system settings"),
    ("# system settings: .*", f"# system settings: {'[' * 5000}", "system settings"), ("# protocol settings: .*", "# protocol settings: 3", "protocol settings"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "told"), DAMAGES)
def test_damaged_scores_are_told_in_a_line(scored, old, new, told):
    path = scored.write_scores("alpha", "apart", "fold1_seed1", "llhh lllh")
    text, count = re.subn(old, new, path.read_text())
    assert count == 1
    path.write_text(text)
    remedy = "missing or damaged; run stage 5 again, or fetch the file again"
    with pytest.raises(UserError, match=f"^{path}: {told}: {remedy}$"):
        text_of()


def test_results_of_another_corpus_are_refused(scored):
    scored.write_scores("alpha", "paper", "fold1_seed1", "llhh lllh", corpus="other")
    with pytest.raises(UserError, match=r"fold1_seed1\.txt: scores of other, not toy; remove results/"):
        text_of()


# Odd input


def test_a_system_file_that_cannot_be_read(scored, capsys):
    """It is left out where nothing needs it, and told where something does."""
    broken = Path("conf/b/broken.yaml")
    broken.write_text("description: d\nnormalisation: nun\n")
    assert list(rows()) == ["alpha", "beta", "gamma"]
    assert "left out, as it has no scores: conf/b/broken.yaml: " in capsys.readouterr().err
    with pytest.raises(UserError, match=r"conf/b/broken\.yaml: "):
        text_of("--systems", str(broken))
    scored.write_paper({"rows": [{"name": "x", "wa": 61, "systems": ["broken"]}]})
    with pytest.raises(UserError, match=r"conf/b/broken\.yaml: "):
        text_of()
    shutil.rmtree("conf/papers")
    scored.write_scores("alpha", "apart", "fold1_seed1", "llhh lllh")
    shutil.move("results/alpha", "results/broken")
    with pytest.raises(UserError, match=r"conf/b/broken\.yaml: "):
        text_of()


def test_a_papers_file_that_names_what_is_not_there(scored):
    rows = [{"name": "x", "wa": 61, "systems": ["bet"]}]
    for change, told in (({"protocol": "papre"}, "protocol papre"), ({"rows": rows}, "system bet")):
        scored.write_paper(change)
        with pytest.raises(UserError, match=rf"^conf/papers/ours\.yaml: table III.*: there is no {told} in this"):
            text_of()


def test_a_recipe_without_systems_or_protocols(scored):
    shutil.rmtree("conf/a")
    shutil.rmtree("conf/b")
    assert "## Systems\n" not in text_of()
    assert table("Systems and times") == []
    scored.write_system("a/alpha")
    shutil.rmtree("conf/protocols")
    assert rows() == {"alpha": {"system": "alpha"}}


def test_bars_and_line_ends_in_a_cell(scored):
    """YAML's folded text ends in a line end."""
    scored.write_paper({"rows": [{"name": "a | b\n", "wa": 61, "note": "± 2\n3", "systems": []}]})
    assert any(line.startswith(r"| a \| b | – | 61 (± 2 3) | – |") for line in section("Table III: layers"))


def test_an_unknown_main_system(scored):
    with pytest.raises(UserError, match="--main beto: no such system"):
        text_of("--main", "beto")


# The text and its command


def test_the_text_that_is_written_and_the_lines_that_are_printed(scored, capsys):
    report.main(["--corpus", "toy", "--note", "It is synthetic."])
    text = Path("RESULTS.md").read_text()
    comment = "<!-- python -m ser.report --corpus toy --note 'It is synthetic.' -->"
    assert text.splitlines()[:6] == ["# Results: toy", "", comment, "", "It is synthetic.", ""]
    assert text == text_of("--note", "It is synthetic.")
    assert capsys.readouterr().out == f"{Path.cwd() / 'RESULTS.md'}\n"
    assert "\n\n## Figures\n\nThe numbers behind each picture are in a text file beside it.\n" in text
    assert not Path("figures").exists()
    for system in ("alpha", "gamma"):
        scored.write_scores(system, "plain", "fold1_seed1", "llhh lllh")
    scored.write_scores("gamma", "plain", "fold1_seed1", "llhh llhh", own=True)
    report.main(["--corpus", "toy", "--systems", "conf/b/gamma.yaml"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:-1]] == [
        ["system", "protocol", "WA", "UA", "runs"],
        ["gamma", "plain", "75.0", "75.0", "1", "(1", "of", "3", "folds)"],
        ["gamma", "plain,", "made", "here", "100.0", "100.0", "1", "(1", "of", "3", "folds)"],
    ]
    assert {path.stem for path in Path("figures").glob("*.png")} == {"gamma_plain_confusion", "gamma_plain_reliability"}


def test_the_lines_of_the_introduction_are_short(scored):
    scored.write_scores("alpha", "plain", "fold1_seed1", "llhh lllh", overlap="train and test share 3 of 10 speakers")
    top, *_, end = (part.splitlines() for part in text_of().split("\n## "))
    assert max(map(len, top + end)) <= 120
    assert "‡" in "".join(top) and all(line.startswith(("- ", "  ")) for line in end[2:])


def test_the_comment_gives_the_same_text_from_any_state_of_data_and_own_scores(scored):
    scored.write_paper({"rows": scored.TABLE["rows"][:1]})
    path = Path("some where/delta.yaml")
    path.parent.mkdir()
    path.write_text(Path("conf/b/beta.yaml").read_text())
    for fold in (1, 2):
        scored.write_scores("alpha", "apart", f"fold{fold}_seed1", "lllhhh lllhhl")
        scored.write_scores("beta", "apart", f"fold{fold}_seed1", "lllhhh hhhlll")
    scored.write_speakers(lambda fold, number: f"{fold}-{number}")
    systems = ["--systems", "conf/b/beta.yaml", str(path)]
    report.main(["--corpus", "toy", *systems, "--main", "alpha", "--note", 'It\'s "new"; a < b.'])
    text = Path("RESULTS.md").read_text()
    words = shlex.split(re.search(r"<!-- (.*) -->", text)[1])
    assert words[:3] == ["python", "-m", "ser.report"] and "conf/b/beta.yaml" not in words
    assert report.render(words[3:]) == text
    scored.write_scores("alpha", "apart", "fold3_seed1", "llhh llhh", own=True)
    scored.write_scores("gamma", "apart", "fold1_seed1", "llhh llhh", own=True)
    scored.write_system("c/epsilon", recipe="../other")
    scored.write_scores("epsilon", "apart", "fold1_seed1", "llhh llhh", own=True)
    Path("data/all").mkdir(parents=True)
    Path("data/all/utt2md5").write_text("a other\n")
    Path("data/all/utt2spk").write_text("a other\n")
    Path("data/folds/apart/fold1").mkdir(parents=True)
    for part in ("train", "dev", "test"):
        Path("data/folds/apart/fold1", part).write_text("a low\n" * (part == "test"))
    Path("data/folds/apart/classes").write_text("0 low\n1 high\n")
    assert text_of(*words[5:]) != text
    assert report.render(words[3:]) == text


# A paper's table as a command


def test_the_systems_and_protocols_of_a_papers_table(scored, capsys):
    """Those that the report reads, though a paper or a protocol has the name of a system."""
    scored.write_system("protocols/gamma")
    scored.write_system("z/beta")  # the report reads that of conf/b
    rows = [{"name": "x", "wa": 61, "systems": ["gamma"]}]
    scored.write_paper({}, {"number": "IV", "protocol": "plain", "honest": None, "rows": rows}, key="alpha")
    papers.main(["--paper", "alpha"])
    assert capsys.readouterr().out == "conf/b/beta.yaml conf/a/alpha.yaml conf/a/gamma.yaml\npaper apart plain\n"
    papers.main(["--paper", "alpha", "--table", "IV"])
    assert capsys.readouterr().out == "conf/a/gamma.yaml\nplain\n"


@pytest.mark.parametrize(
    ("paper", "number", "told"),
    [
        ("our", "", "--paper our: no conf/papers/our.yaml; known: ours"),
        ("ours", "VI", "--table VI: not in conf/papers/ours.yaml; known: III, IV"),
        ("ours", "IV", "conf/papers/ours.yaml: the table has no systems of this recipe; add some"),
    ],
)
def test_a_papers_table_that_is_not_there(scored, paper, number, told):
    scored.write_paper({}, {"number": "IV", "rows": scored.TABLE["rows"][1:]})
    with pytest.raises(UserError, match=f"^{re.escape(told)}$"):
        papers.main(["--paper", paper, "--table", number])
