"""The papers' tables: what is read, how each fault is named, and the files of the recipes."""

from pathlib import Path

import pytest

from ser.cli import UserError
from ser.config import Row, read_protocol
from ser.papers import read_papers

EGS = Path(__file__).resolve().parents[1] / "egs"
PAPER = """\
name: Ours et al.
reference: authors, title
tables:
  - number: III
    title: layers
    protocol: paper
    honest: apart
    rows:
      - {name: 2 layers, wa: 62, ua: 61.5, note: "± 2.0", systems: [small, small_text]}
      - {name: quoted, wa: 70, systems: []}
"""


def read(folder, text=PAPER, systems=("small", "small_text", "other"), protocols=("paper", "apart")):
    (folder / "ours.yaml").write_text(text)
    return read_papers(folder, systems, protocols)


def test_what_is_read(tmp_path):
    (paper,) = read(tmp_path)
    (table,) = paper.tables
    assert (paper.name, table.number, table.protocol, table.honest) == ("Ours et al.", "III", "paper", "apart")
    assert table.rows == [
        Row(name="2 layers", wa=62, ua=61.5, note="± 2.0", systems=["small", "small_text"]),
        Row(name="quoted", wa=70, systems=[]),
    ]


def test_papers_are_sorted_by_file_name_and_may_be_absent(tmp_path):
    for stem in ("b", "c", "a"):
        (tmp_path / f"{stem}.yaml").write_text(PAPER.replace("Ours et al.", stem))
    assert [paper.name for paper in read_papers(tmp_path, ["small", "small_text"], ["paper", "apart"])] == [*"abc"]
    assert read_papers(tmp_path / "none", [], []) == []


FAULTS = {
    "an unknown system, like another": (
        "small_text",
        "small_txt",
        'table III, row "2 layers": systems: there is no system small_txt in this recipe; did you mean small_text?',
    ),
    "an unknown system, like no other": (
        "systems: []",
        "systems: [zzz]",
        'table III, row "quoted": systems: there is no system zzz in this recipe; known: other, small, small_text',
    ),
    "an unknown protocol": (
        "protocol: paper",
        "protocol: papre",
        "table III: protocol: there is no protocol papre in this recipe; did you mean paper?",
    ),
    "an unknown honest protocol": (
        "honest: apart",
        "honest: aparts",
        "table III: honest: there is no protocol aparts in this recipe; did you mean apart?",
    ),
    "no number": ("wa: 70, ", "", 'table III, row "quoted": no number; give wa, ua or note'),
    "a misspelt key": ("title:", "titel:", "tables.0.titel: unknown key; did you mean tables.title?"),
    "no systems": (", systems: []", "", "tables.0.rows.1.systems: missing"),
    "no honest protocol is said so": ("    honest: apart\n", "", "tables.0.honest: missing"),
    "a key in capitals": ("wa: 70", "WA: 70", "tables.0.rows.1.WA: unknown key; did you mean tables.rows.wa?"),
    "a key like no other": ("title:", "zzz:", "tables.0.zzz: unknown key; known: tables.number, tables.title, tables.protocol, tables.honest, tables.rows"),
    "not in per cent": ("wa: 70", "wa: 0.7", "tables.0.rows.1.wa: input should be greater than 1, not 0.7"),
    "a share": ("wa: 70", "wa: 700", "tables.0.rows.1.wa: input should be less than or equal to 100, not 700"),
    "a number as a name": ("number: III", "number: 3", "tables.0.number: input should be a valid string, not 3; put it in quotes"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_names_file_and_key(tmp_path, name):
    before, after, message = FAULTS[name]
    assert before in PAPER
    with pytest.raises(UserError) as caught:
        read(tmp_path, PAPER.replace(before, after))
    assert str(caught.value) == f"{tmp_path}/ours.yaml: {message}"


def test_a_note_stands_for_a_number(tmp_path):
    (paper,) = read(tmp_path, PAPER.replace("wa: 70", "note: 50 to 60"))
    assert paper.tables[0].rows[1].note == "50 to 60"


RECIPES = sorted({path.parents[2].name for path in EGS.glob("*/conf/papers/*.yaml")})


def of_recipe(recipe):
    """The papers of a recipe, and its protocols by name."""
    conf = EGS / recipe / "conf"
    systems = [path.stem for path in conf.glob("*/*.yaml") if path.parent.name not in ("protocols", "papers")]
    protocols = {path.stem: read_protocol(path) for path in conf.glob("protocols/*.yaml")}
    return read_papers(conf / "papers", systems, protocols), protocols


def test_there_are_papers():
    assert {"ravdess", "tess", "iemocap", "atthack"} <= set(RECIPES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_papers_of_a_recipe_can_be_read_and_have_honest_protocols(recipe):
    """Speakers apart, the test set selects nothing, and the same classes of the same utterances as the paper's."""
    papers, protocols = of_recipe(recipe)
    for table in (table for paper in papers for table in paper.tables):
        paper, honest = protocols[table.protocol], table.honest and protocols[table.honest]
        if honest:
            assert honest.folds.kind == "groups" and honest.folds.by in ("spk", "sess")
            assert honest.select != "test"
            assert (honest.classes, honest.where, honest.noise) == (paper.classes, paper.where, paper.noise)


def test_numbers_of_sherman_et_al_on_ravdess():
    """Tables III and IV, read off the paper by hand."""
    (sherman,) = [paper for paper in of_recipe("ravdess")[0] if paper.name == "Sherman et al."]
    printed = {table.protocol + table.number: [row.wa for row in table.rows] for table in sherman.tables}
    assert printed == {
        "paperIII": [62, 68, 80, 74],
        "paperIV": [66, 73, 74, 80, 71, 80],
        "paper_splitsIV (five draws)": [80],
    }
