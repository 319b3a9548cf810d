"""The table of all papers in README.md, from scores whose accuracy is known."""

import json
from pathlib import Path

import pytest

from ser import overview
from ser.cli import UserError
from ser.config import read_protocol, read_system
from ser.identity import settings

SYSTEM = """\
description: d
feature: {kind: logmel, sample_rate: 8000, n_fft: 256, win_length: 200, hop_length: 80, n_mels: 6, fmin: 0, fmax: 4000, window: hann}
normalisation: none
model: {kind: svm, functionals: [mean], cost: [1], gamma: [1], inner_folds: 2}
"""
PROTOCOL = "description: d\nclasses: {a: [a], b: [b]}\nfolds: {kind: groups, by: spk, number: 2}\nselect: dev\n"
PAPER = """\
name: Ours et al.
reference: r
tables:
  - number: III
    title: layers
    protocol: paper
    honest: apart
    rows:
      - {name: two, wa: 60, systems: [two, two_text]}
      - {name: three, wa: 90, systems: [three_text, three]}
      - {name: four, wa: 90, systems: [four]}
      - {name: quoted, wa: 10, systems: []}
  - number: IV
    title: blocks
    protocol: paper
    honest: null
    rows:
      - {name: four, ua: 90, systems: [four]}
      - {name: all, note: 50 to 60, systems: [four]}
  - number: V
    title: sizes
    protocol: paper
    honest: apart
    rows:
      - {name: four, ua: 90, systems: [four]}
  - number: VI
    title: recall
    protocol: apart
    honest: null
    rows:
      - {name: two, ua: 90, systems: [two]}
"""


def write(path, text):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def write_scores(recipe, system, protocol, answers, own=False, run="fold1_seed1", overlap="o"):
    """answers: the true and the predicted class of each utterance, such as `aa ab`."""
    conf = Path("egs", recipe, "conf")
    parts = {
        "system": settings(read_system(conf / f"x/{system}.yaml")),
        "protocol": settings(read_protocol(conf / f"protocols/{protocol}.yaml")),
    }
    about = {
        "corpus": recipe, "fold": f"{run[4]} of 2", "seed": 1, "overlap": overlap, "train_seconds": 1, "date": "d", "commit": "c",
        "row": "code c folds f recordings r speakers s", "modules": "ser.x 1", "trainer": "t",
        **{f"{part} settings": json.dumps(values) for part, values in parts.items()},
    }  # fmt: skip
    lines = [f"# {key}: {value}\n" for key, value in about.items()] + ["# utt true predicted a b\n"]
    lines += [
        f"u{run[4]}-{number} {true} {predicted} 0.5 0.5\n" for number, (true, predicted) in enumerate(answers.split())
    ]
    write(Path("egs", recipe, "results", system, protocol, "own" * own, f"{run}.txt"), "".join(lines))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A repository of three recipes, of which one has no papers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(overview, "README", tmp_path / "README.md")
    for recipe in ("first", "second", "third"):
        for name in ("two", "two_text", "three", "three_text", "four"):
            write(f"egs/{recipe}/conf/x/{name}.yaml", SYSTEM)
        for name in ("paper", "apart"):
            write(f"egs/{recipe}/conf/protocols/{name}.yaml", PROTOCOL)
    write("egs/first/conf/papers/ours.yaml", PAPER)
    write("egs/second/conf/papers/ours.yaml", PAPER)
    write("README.md", "# Title\n\n<!-- overview -->\nold\n<!-- /overview -->\n\n## More\n")
    return tmp_path


def rows():
    overview.main([])
    text = Path("README.md").read_text()
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]


FIRST, SECOND = ("[first](egs/first/RESULTS.md)", "[second](egs/second/RESULTS.md)")
NOTHING = [
    ["Ours et al.", "III, IV, V, VI", where, "0 of 7", "not run: needs the corpus", "–"] for where in (FIRST, SECOND)
]


def test_nothing_was_run(place, capsys):
    write_scores("third", "two", "paper", "aa")  # no paper
    write_scores("first", "two", "paper", "aa", own=True)  # not of the repository
    assert rows() == NOTHING
    text = Path("README.md").read_text()
    assert text.startswith("# Title\n\n<!-- overview -->\n\n| paper | table |")
    assert text.endswith("`results/`.\n\n<!-- /overview -->\n\n## More\n")
    assert capsys.readouterr().out == f"{place}/README.md\n"
    assert Path.cwd() == place
    rows()
    assert Path("README.md").read_text() == text


def test_what_was_run(place):
    """The first reading that was run counts; means are over folds, of WA where a table has it."""
    write_scores("first", "two_text", "paper", "aa aa ab bb")  # 75 in the first fold
    write_scores("first", "two_text", "paper", "ab bb", run="fold2_seed1")  # 50 in the other: 62.5
    write_scores("first", "three", "paper", "aa ab")  # 50
    write_scores("first", "three_text", "apart", "aa")  # is not compared with another reading
    write_scores("first", "two_text", "apart", "aa ab ab ab")  # 25
    write_scores("first", "two", "apart", "aa aa aa ab ba ba")  # UA: (75 + 0) / 2
    assert rows() == [
        ["Ours et al.", "III: layers", FIRST, "2 of 3", "-40.0 WA (three)", "-37.5 WA (1 row)"],
        ["Ours et al.", "VI: recall", FIRST, "1 of 1", "-52.5 UA (two)", "–"],
        ["Ours et al.", "IV, V", FIRST, "0 of 3", "not run", "–"],
        NOTHING[1],
    ]
    write_scores("first", "three", "apart", "aa aa aa ab")  # 75
    write_scores("first", "two", "paper", "aa")  # the main reading: 100 for 60
    write_scores("second", "four", "paper", "aa bb ab")
    assert rows() == [
        ["Ours et al.", "III: layers", FIRST, "2 of 3", "+40.0 WA (two)", "-12.5 WA (2 rows)"],
        ["Ours et al.", "VI: recall", FIRST, "1 of 1", "-52.5 UA (two)", "–"],
        ["Ours et al.", "III: layers", SECOND, "1 of 3", "-23.3 WA (four)", "–"],
        ["Ours et al.", "IV: blocks", SECOND, "2 of 2", "-15.0 UA (four)", "–"],
        ["Ours et al.", "V: sizes", SECOND, "1 of 1", "-15.0 UA (four)", "–"],
        ["Ours et al.", "IV, V", FIRST, "0 of 3", "not run", "–"],
        ["Ours et al.", "VI: recall", SECOND, "0 of 1", "not run", "–"],
    ]


@pytest.mark.parametrize(
    ("select", "overlap", "marks"),
    [
        ("test", "train and test share 1 of 2 speakers", "†‡"),
        ("test", "train and test share 0 of 2 speakers", "†"),
        ("last", "train and test share 1 of 2 speakers", "‡"),
    ],
)
def test_what_leaks_is_marked(place, select, overlap, marks):
    write("egs/first/conf/protocols/paper.yaml", PROTOCOL.replace("dev", select))
    write_scores("first", "two", "paper", "aa bb ab ab ab", overlap=overlap)
    assert rows()[0] == ["Ours et al.", "III: layers", FIRST, "1 of 3", f"-20.0 WA{marks} (two)", "–"]


def test_scores_with_other_settings_do_not_count(place):
    write_scores("first", "two", "paper", "aa")
    write("egs/first/conf/x/two.yaml", SYSTEM.replace("cost: [1]", "cost: [2]"))
    assert rows() == NOTHING


def test_an_error_names_the_file_as_seen_from_here(place, monkeypatch):
    monkeypatch.chdir("egs/second")
    Path("conf/papers/ours.yaml").write_text(PAPER.replace("wa: 60", "wa: x"))
    with pytest.raises(UserError, match=r"^\./conf/papers/ours\.yaml: tables\.0\.rows\.0\.wa: "):
        overview.render()
    monkeypatch.chdir("../first")
    with pytest.raises(UserError, match=r"^\.\./second/conf/papers/ours\.yaml: tables\.0\.rows\.0\.wa: "):
        overview.render()


@pytest.mark.parametrize("text", ["# Title\n", "<!-- overview -->\n", "<!-- /overview --> <!-- overview -->\n", None])
def test_a_readme_without_the_place_stays_as_it_is(place, capsys, text):
    Path("README.md").unlink() if text is None else write("README.md", text)
    overview.main([])
    assert capsys.readouterr().err == (
        f"{place}/README.md: not changed: it has no lines <!-- overview --> and <!-- /overview --> to write between\n"
    )
    assert (Path("README.md").read_text() if Path("README.md").exists() else None) == text


def test_the_readme_of_the_repository_has_what_the_scores_say():
    """If not: python -m ser.overview."""
    shown, _, _ = overview.README.read_text().partition(overview.END)
    assert len(shown.splitlines()) < 40  # the first screen
    _, _, own = shown.partition(overview.START)
    assert own.split("\n\n")[1].splitlines() == overview.as_table(overview.read(overview.README.parent))
