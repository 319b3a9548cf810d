"""Stage 6: the table and the figures, from made-up scores whose numbers are known."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from ser import identity, metrics, report
from ser.cli import UserError
from ser.config import read_protocol, read_system
from ser.identity import fingerprint, settings
from ser.runs import code_of, row_of
from ser.summary import interval

FEATURE = "{kind: logmel, sample_rate: 8000, n_fft: 256, win_length: 200, hop_length: 80, n_mels: 6, fmin: 0, fmax: 4000, window: hann}"
MODEL = "{kind: svm, functionals: [mean], cost: [1], gamma: [1], inner_folds: 2}"
CLASSES = ["low", "high"]
# class of the truth and the prediction, of four utterances: WA and UA by hand
RUNS = {
    "llhh lllh": (75.0, 75.0),  # recalls 1 and 1/2
    "lllh lhlh": (75.0, 250 / 3),  # 2/3 and 1
    "lllh lllh": (100.0, 100.0),
    "lllh lllL": (75.0, 50.0),  # 1 and 0
    "lhhh hlll": (0.0, 0.0),
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A recipe with three systems and three protocols, and no scores."""
    monkeypatch.chdir(tmp_path)
    papers = {
        "alpha": "paper:\n  - {corpus: toy, table: II, wa: 61.5}\n  - {corpus: other, table: IX, wa: 99}\n  - {corpus: toy, table: III, wa: 70}\n",
        "beta": "paper:\n  - {corpus: other, table: IX, wa: 99}\n",
        "gamma": "",
    }
    for number, (name, paper) in enumerate(papers.items()):
        path = Path(f"conf/{'ab'[number % 2]}/{name}.yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"description: the {name}\n{paper}feature: {FEATURE}\nnormalisation: none\nmodel: {MODEL}\n")
    Path("conf/protocols").mkdir()
    for name, select in (("apart", "dev"), ("paper", "test"), ("plain", "last")):
        folds = "{kind: groups, by: spk, number: 3}"
        Path(f"conf/protocols/{name}.yaml").write_text(
            f"description: about {name}\nclasses: {{low: [calm], high: [angry]}}\nfolds: {folds}\nselect: {select}\n"
        )
    return tmp_path


def code(system, protocol):
    return fingerprint(dict(code_of(read_system(system))))


def write_scores(system, protocol, run, answers, own=False, **about):
    """Scores as stage 5 writes them: `answers` are the first letters of the true and the predicted classes. What is None in `about`
    is left out."""
    fold = run[4]
    files = {
        "system": [*Path().glob(f"conf/?/{system}.yaml"), *Path("..").glob(f"other/conf/?/{system}.yaml")][0],
        "protocol": Path(f"conf/protocols/{protocol}.yaml"),
    }
    try:
        told = {"system": read_system(files["system"]), "protocol": read_protocol(files["protocol"])}
        row = {"code": code(*files.values()), "folds": "f", "recordings": "r", "speakers": "s"} | about.pop("row", {})
        identity = {f"{part} settings": json.dumps(settings(config)) for part, config in told.items()}
        identity |= {
            "row": " ".join(f"{part} {value}" for part, value in row.items()),
            "modules": "ser.x 1",
            "trainer": "t",
        }
    except UserError:  # a broken system file
        identity = {}
    about = {
        "corpus": "toy", "fold": f"{fold} of 3", "seed": 1, "overlap": f"sizes {fold}; shared {fold}", "train_seconds": 90,
        "date": "2026-01-01 10:00", "commit": "abc", "machine": "m", **identity,
    } | about  # fmt: skip
    about = {key: value for key, value in about.items() if value is not None}
    lines = [f"# {key}: {value}" for key, value in about.items()] + [f"# utt true predicted {' '.join(CLASSES)}"]
    names = {"l": "low", "h": "high", "L": "low"}
    for place, (true, predicted) in enumerate(zip(*answers.split(), strict=True)):
        posteriors = "0.900000 0.100000" if names[predicted] == "low" else "0.400000 0.600000"
        lines.append(f"u-{place} {names[true]} {names[predicted]} {posteriors}")
    path = Path("results", system, protocol, "own" * own, f"{run}.txt")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def rows(*options):
    """Write the report; return the table's rows as {system: {column: cell}}; columns of one name are numbered."""
    report.main(["--corpus", "toy", *options])
    text = Path("RESULTS.md").read_text().split("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    header = []
    for name in lines[0]:
        header.append(name if name not in header else f"{name} {sum(one.startswith(name) for one in header) + 1}")
    assert all(len(line) == len(header) for line in lines)
    assert len({line[0] for line in lines}) == len(lines)  # each system once
    return {re.match(r"\*\*(.*)\*\*", line[0])[1]: dict(zip(header, line, strict=True)) for line in lines[2:]}


def test_nothing_was_run(place, capsys):
    table = rows()
    assert list(table) == ["alpha", "gamma", "beta"]  # by folder of conf/
    assert table["alpha"] == {
        "system": "**alpha**: the alpha",
        "paper's table": "II; III",
        "paper† WA": "not run", "published WA": "61.5; 70", "difference": "–", "paper† UA": "not run", "runs": "0",
        "apart WA": "not run", "apart UA": "not run", "runs 2": "0",
        "plain WA": "not run", "plain UA": "not run", "runs 3": "0",
        "parameters": "–",
        "minutes per run": "–",
        "command": "`./run.sh --systems conf/a/alpha.yaml --protocol paper`",
    }  # fmt: skip
    assert table["beta"]["paper's table"] == "on other: IX, WA 99"  # told, and no more
    assert (table["beta"]["published WA"], table["beta"]["difference"]) == ("–", "–")
    assert (table["gamma"]["paper's table"], table["gamma"]["command"]) == (
        "–",
        "`./run.sh --systems conf/a/gamma.yaml`",
    )
    text = Path("RESULTS.md").read_text()
    assert text.startswith("# Results: toy\n")
    assert text.rstrip().endswith("in a text file beside it.")
    assert not Path("figures").exists()
    out = capsys.readouterr().out
    assert "| not run |" in out
    assert out.endswith(f"{place / 'RESULTS.md'}\n")


@pytest.mark.parametrize("answers", RUNS)
def test_one_run(place, answers):
    write_scores("alpha", "apart", "fold1_seed1", answers)
    wa, ua = RUNS[answers]
    row = rows()["alpha"]
    assert (row["apart WA"], row["apart UA"], row["runs 2"]) == (f"{wa:.1f}", f"{ua:.1f}", "1 (1 of 3 folds)")
    assert (row["paper† WA"], row["runs"]) == ("not run", "0")
    assert row["minutes per run"] == "1.5"


def test_mean_and_interval_over_runs(place):
    answers = list(RUNS)[:3]
    for fold, one in enumerate(answers, 1):
        write_scores("beta", "paper", f"fold{fold}_seed1", one, train_seconds=60 * fold, parameters=1234567)
    row = rows()["beta"]
    # WA 75, 75, 100: mean 83.33, deviation 14.43, Student's t for 2 degrees of freedom 4.3027
    assert row["paper† WA"] == "83.3 ± 35.9"
    # UA 75, 83.33, 100: mean 86.11, deviation 12.73
    assert row["paper† UA"] == "86.1 ± 31.6"
    assert row["runs"] == "3"  # every fold: nothing to add
    assert row["minutes per run"] == "2.0"
    assert row["parameters"] == "1,234,567"


def test_seeds_are_runs_and_missing_folds_are_told(place):
    for run, answers in (("fold1_seed1", "llhh lllh"), ("fold1_seed2", "llhh llhh"), ("fold3_seed1", "llhh llll")):
        write_scores("beta", "apart", run, answers)
    row = rows()["beta"]
    # the seeds of fold 1 are 75 and 100: its mean 87.5, and 50 of fold 3
    low, high = stats.t.interval(0.95, 1, 68.75, stats.sem([87.5, 50]))
    assert (row["apart WA"], row["runs 2"]) == (f"68.8 ± {(high - low) / 2:.1f}", "3 (2 of 3 folds)")


def test_seeds_that_say_the_same_count_once(place):
    """Five seeds of an SVM with fixed settings are one run told five times."""
    for seed in range(1, 6):
        for fold, answers in ((1, "llhh lllh"), (2, "llhh llhh")):
            write_scores("beta", "apart", f"fold{fold}_seed{seed}", answers, seed=seed)
            write_scores("gamma", "paper", f"fold1_seed{seed}", "llhh lllh", seed=seed)
    low, high = stats.t.interval(0.95, 1, 87.5, stats.sem([75, 100]))
    table = rows()
    assert (table["beta"]["apart WA"], table["beta"]["runs 2"]) == (
        f"87.5 ± {(high - low) / 2:.1f}",
        "10 (2 of 3 folds)",
    )
    assert (table["gamma"]["paper† WA"], table["gamma"]["runs"]) == ("75.0", "5 (1 of 3 folds)")


def test_one_fold_has_the_interval_of_its_seeds_and_says_so(place):
    for seed, answers in ((1, "llhh lllh"), (2, "llhh llhh"), (3, "llhh llll")):
        write_scores("beta", "apart", f"fold1_seed{seed}", answers, seed=seed)
    low, high = stats.t.interval(0.95, 2, 75, stats.sem([75, 100, 50]))
    assert rows()["beta"]["apart WA"] == f"75.0 ± {(high - low) / 2:.1f} (seeds)"


def scores_section():
    return Path("RESULTS.md").read_text().split("\n## Scores\n")[1].split("\n## ")[0].strip().splitlines()


REDO = "to replace them, call `./run.sh --systems conf/a/alpha.yaml --protocol apart --replace true --overwrite true`."


def test_a_system_file_that_was_edited_since(place):
    """Five old folds and a new one are not one row, and the old ones do not stand under the new description."""
    for fold in range(2, 4):
        write_scores("alpha", "apart", f"fold{fold}_seed1", "llhh lllh")
    path = Path("conf/a/alpha.yaml")
    path.write_text(path.read_text().replace("cost: [1]", "cost: [3]"))
    row = rows()["alpha"]
    assert (row["apart WA"], row["runs 2"]) == ("not run", "0")
    told = "left out fold2_seed1, fold3_seed1: made with different settings: system model.cost [1.0], not [3.0]; "
    assert f"- **alpha**, apart: {told}{REDO}" in scores_section()
    write_scores("alpha", "apart", "fold1_seed1", "llhh llhh")
    row = rows()["alpha"]
    assert (row["apart WA"], row["runs 2"]) == ("100.0", "1 (1 of 3 folds)")
    assert f"- **alpha**, apart: {told}{REDO}" in scores_section()


def test_a_protocol_that_was_edited_since(place):
    write_scores("alpha", "apart", "fold1_seed1", "llhh lllh")
    path = Path("conf/protocols/apart.yaml")
    path.write_text(path.read_text().replace("number: 3", "number: 4"))
    assert rows()["alpha"]["apart WA"] == "not run"
    told = "left out fold1_seed1: made with different settings: protocol folds.number 3, not 4; "
    assert f"- **alpha**, apart: {told}{REDO}" in scores_section()


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("recordings", "recordings"),
        ("folds", "folds"),
        ("speakers", "speakers"),
        ("code", r"code (ser.x)"),
        ("words", "words"),
    ],
)
def test_what_is_not_of_one_row_is_not_averaged(place, part, told):
    """The larger part stands; of parts of one size that of today's code."""
    for fold, answers in ((1, "llhh lllh"), (2, "llhh llhh")):
        write_scores("alpha", "apart", f"fold{fold}_seed1", answers)
    write_scores("alpha", "apart", "fold3_seed1", "llhh hhll", row={part: "other"}, modules="ser.x 2")
    row = rows()["alpha"]
    assert row["apart WA"].startswith("87.5 ±") and row["runs 2"] == "2 (2 of 3 folds)"
    assert (
        f"- **alpha**, apart: left out fold3_seed1: made with different {told} from those shown; {REDO}"
        in scores_section()
    )


def test_of_equally_many_those_of_todays_code_are_shown(place):
    write_scores("alpha", "apart", "fold1_seed1", "llhh lllh", row={"code": "older"}, date="2027-01-01 10:00")
    row = rows()["alpha"]
    assert (row["apart WA"], row["runs 2"]) == ("75.0", "1 (1 of 3 folds) §")
    assert "§ the code of the feature or the model has changed since" in Path("RESULTS.md").read_text()
    write_scores("alpha", "apart", "fold2_seed1", "llhh llhh")
    row = rows()["alpha"]
    assert (row["apart WA"], row["runs 2"]) == ("100.0", "1 (1 of 3 folds)")
    assert "§" not in Path("RESULTS.md").read_text()


def test_code_that_was_shown_to_give_the_same_bytes_is_the_same(place, monkeypatch):
    """Runs from before and after a change that moves code are one row, without a mark."""
    write_scores("alpha", "apart", "fold1_seed1", "llhh lllh", row={"code": "older"})
    write_scores("alpha", "apart", "fold2_seed1", "llhh llhh")
    today = code("conf/a/alpha.yaml", "")
    key = identity.compared_settings(settings(read_system("conf/a/alpha.yaml")))
    Path("same_code.txt").write_text(f"older {today} {key} alpha c0 c1 2026-01-01\n")
    assert rows()["alpha"]["runs 2"] == "1 (1 of 3 folds)"
    monkeypatch.setattr(identity, "SAME_CODE", place / "same_code.txt")
    row = rows()["alpha"]
    assert row["apart WA"].startswith("87.5 ±") and row["runs 2"] == "2 (2 of 3 folds)"
    assert "§" not in Path("RESULTS.md").read_text() and "left out" not in "".join(scores_section())


def test_scores_of_unknown_origin_are_left_out_and_counted(place):
    write_scores("alpha", "apart", "fold1_seed1", "llhh lllh", row={"recordings": "unknown"})
    write_scores("beta", "apart", "fold1_seed1", "llhh lllh")
    write_scores("beta", "plain", "fold1_seed1", "llhh lllh")
    path = write_scores("alpha", "apart", "fold2_seed1", "llhh llhh", commit="abc-dirty")
    path.write_text(re.sub("# (row|system settings|protocol settings|modules|trainer): .*\n", "", path.read_text()))
    row = rows()["alpha"]
    assert (row["apart WA"], row["runs 2"]) == ("75.0", "1 (1 of 3 folds) §")
    section = scores_section()
    assert section[0] == (
        "4 scores: 2 with a complete identity (settings, code, folds, recordings), 1 without the recordings' checksums, 1 of unknown origin."
    )
    assert f"- **alpha**, apart: left out fold2_seed1: of unknown origin (commit abc-dirty); {REDO}" in section


def test_scores_made_here_stand_beside_the_published_ones(place):
    write_scores("alpha", "apart", "fold1_seed1", "llhh lllh")
    write_scores("alpha", "apart", "fold1_seed1", "llhh llhh", own=True)
    row = rows()["alpha"]
    assert (row["apart WA"], row["runs 2"]) == ("75.0", "1 (1 of 3 folds)")
    assert (
        "- **alpha**, apart: the scores that came with the repository are shown; made here: fold1_seed1 WA 100.0."
        in scores_section()
    )
    path = Path("conf/a/alpha.yaml")  # now the published ones are of other settings
    path.write_text(path.read_text().replace("cost: [1]", "cost: [3]"))
    write_scores("alpha", "apart", "fold1_seed1", "llhh llll", own=True)
    row = rows()["alpha"]
    assert (row["apart WA"], row["runs 2"]) == ("50.0", "1 (1 of 3 folds) own")
    assert "- **alpha**, apart: the scores shown were made here (own)." in scores_section()


def test_scores_made_here_alone_are_told_and_drawn(place):
    path = write_scores("alpha", "apart", "fold1_seed1", "llhh lllh", own=True)
    path.with_suffix(".epochs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG))
    assert rows()["alpha"]["runs 2"] == "1 (1 of 3 folds) own"
    assert Path("figures/own/alpha_apart_curves.png").exists()


DAMAGES = [
    (f"# {key}: .*\n", "", key)
    for key in ("corpus", "fold", "seed", "overlap", "train_seconds", "date", "commit", "modules", "trainer", "system settings", "protocol settings")
] + [
    ("# fold: .*", "# fold: 1", "fold"), ("# fold: .*", "# fold: 1 of x", "fold"), ("# seed: .*", "# seed: x", "seed"),
    ("# train_seconds: .*", "# train_seconds: x", "train_seconds"), ("# row: code .* folds", "# row: folds", "code"),
    ("# row: .*", "# row: x", "code, folds, recordings, speakers"), ("# system settings: .*", "# system settings: {", "system settings"),
    ("# system settings: .*", f"# system settings: {'[' * 5000}", "system settings"), ("# protocol settings: .*", "# protocol settings: 3", "protocol settings"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "told"), DAMAGES)
def test_damaged_scores_are_told_in_a_line(place, old, new, told):
    path = write_scores("alpha", "apart", "fold1_seed1", "llhh lllh")
    text, count = re.subn(old, new, path.read_text())
    assert count == 1
    path.write_text(text)
    with pytest.raises(
        UserError, match=f"^{path}: {told}: missing or damaged; run stage 5 again, or fetch the file again$"
    ):
        rows()


def test_training_code_that_changed_between_the_runs_is_told(place):
    for fold, trainer in ((1, "one"), (2, "two")):
        write_scores("alpha", "apart", f"fold{fold}_seed1", "llhh lllh", trainer=trainer, commit=f"c{fold}")
    assert rows()["alpha"]["runs 2"] == "2 (2 of 3 folds)"
    assert "- **alpha**, apart: trained and scored by 2 versions of the training code (c1, c2)." in scores_section()


@pytest.mark.parametrize("part", ["folds", "speakers", "recordings"])
def test_systems_of_other_folds_are_not_tested_against_each_other(place, part):
    for system, row in (("alpha", {}), ("beta", {}), ("gamma", {part: "other"})):
        write_scores(system, "apart", "fold1_seed1", "llhh lllh" if system == "alpha" else "llhh llll", row=row)
    assert against("alpha").keys() == {"beta"}
    told = "- **gamma**, apart: has other folds, speakers or recordings than most rows here, so it is not tested against them."
    assert told in scores_section()


@pytest.mark.parametrize(
    ("drawn", "model", "is_shown"),
    [("", None, True), (", model 0123abcd", "0123abcd9", True), (", model 0123abcd", "9", False)],
)
def test_figures_of_another_runs_network_are_not_shown(place, drawn, model, is_shown):
    write_scores("alpha", "apart", "fold1_seed1", "llhh lllh", model=model)
    Path("figures").mkdir()
    Path("figures/alpha_apart_tsne.png").touch()
    Path("figures/alpha_apart_tsne.txt").write_text(f"# alpha, protocol apart, fold 1, seed 1{drawn}\n")
    rows()
    assert ("alpha_apart_tsne.png" in Path("RESULTS.md").read_text()) is is_shown


def test_data_that_changed_since_is_reported(place):
    """Another release of the corpus, or other folds: what stands in the table is not of them."""
    Path("data/all").mkdir(parents=True)
    for table, value in (("utt2md5", "m"), ("utt2spk", "s")):
        Path("data/all", table).write_text(f"a {value}\nb {value}\n")
    for part, utts in (("train", "a low\n"), ("dev", ""), ("test", "b high\n")):
        Path("data/folds/apart/fold1").mkdir(parents=True, exist_ok=True)
        Path("data/folds/apart/fold1", part).write_text(utts)
    Path("data/folds/apart/classes").write_text("0 low\n1 high\n")
    row = row_of(Path("data/all"), Path("data/folds/apart"), read_protocol("conf/protocols/apart.yaml"))
    write_scores("alpha", "apart", "fold1_seed1", "llhh lllh", row=row)
    assert rows()["alpha"]["runs 2"] == "1 (1 of 3 folds)"
    Path("data/all/utt2md5").write_text("a m\nb other\n")
    assert rows()["alpha"]["runs 2"] == "1 (1 of 3 folds) §"
    assert "- **alpha**, apart: recordings in data/ have changed since these scores were made." in scores_section()
    Path("data/folds/apart/fold1/test").write_text("b low\n")
    rows()
    assert (
        "- **alpha**, apart: folds and recordings in data/ have changed since these scores were made."
        in scores_section()
    )
    shutil.rmtree("data")  # as in a fresh clone
    assert rows()["alpha"]["runs 2"] == "1 (1 of 3 folds)"


def test_two_protocols_of_one_name_are_refused(place):
    Path("conf/protocols/own").mkdir()
    shutil.copy("conf/protocols/apart.yaml", "conf/protocols/own/mine.yaml")
    assert "mine WA" in rows()["alpha"]
    shutil.copy("conf/protocols/apart.yaml", "conf/protocols/own/apart.yaml")
    with pytest.raises(
        UserError, match=r"conf/protocols/own/apart.yaml: conf/protocols/apart.yaml has the same name; rename one"
    ):
        rows()


@pytest.mark.parametrize("number", [2, 3, 10])
def test_the_interval_is_scipys(number):
    values = list(np.random.default_rng(number).uniform(40, 90, number))
    low, high = stats.t.interval(0.95, number - 1, np.mean(values), stats.sem(values))
    mean, half = map(float, interval([[value] for value in values]).split(" ± "))
    assert mean == pytest.approx((low + high) / 2, abs=0.051)
    assert half == pytest.approx((high - low) / 2, abs=0.051)
    assert interval([values]) == f"{interval([[value] for value in values])} (seeds)"
    assert interval([values[:1]]) == f"{values[0]:.1f}"


def test_the_command_makes_as_many_seeds(place):
    answers = next(iter(RUNS))
    for seed in (1, 3):
        write_scores("alpha", "apart", f"fold1_seed{seed}", answers, seed=seed)
    assert rows()["alpha"]["command"] == '`./run.sh --systems conf/a/alpha.yaml --protocol "paper apart" --seeds 3`'


def test_difference_from_each_published_number(place):
    for run, answers in (("fold1_seed1", "llhh lllh"), ("fold2_seed1", "lllh lllh")):
        write_scores("alpha", "paper", run, answers)
        write_scores("beta", "paper", run, answers)
    table = rows()
    assert table["alpha"]["difference"] == "+26.0; +17.5"  # 87.5 less 61.5 and 70
    assert table["beta"]["difference"] == "–"  # published on another corpus


def test_a_paper_may_have_a_protocol_of_another_name_and_numbers_of_both_kinds(place):
    for name, own in (
        ("alpha", "table: V, protocol: plain, wa: 50, ua: 40"),
        ("gamma", "table: VI, protocol: plain, ua: 60"),
    ):
        path = Path(f"conf/a/{name}.yaml")
        text = re.sub(r"paper:\n(  - .*\n)+", "", path.read_text())
        path.write_text(f"paper:\n  - {{corpus: toy, {own}}}\n  - {{corpus: other, table: I, wa: 1, ua: 2}}\n{text}")
        write_scores(name, "plain", "fold1_seed1", "lllh lhlh")  # WA 75, UA 83.3
    table = rows()
    columns = list(table["alpha"])
    both = ["plain WA", "published WA", "difference", "plain UA", "published UA", "difference 2", "runs"]
    assert columns[2:9] == both  # first of all
    assert "published WA 2" not in columns
    assert list(table["alpha"].values())[1:8] == ["V", "75.0", "50", "+25.0", "83.3", "40", "+43.3"]
    assert list(table["gamma"].values())[1:8] == ["VI", "75.0", "–", "–", "83.3", "60", "+23.3"]
    assert table["gamma"]["command"] == "`./run.sh --systems conf/a/gamma.yaml --protocol plain`"


def test_the_main_systems_first_figures_are_shown(place):
    write_scores("alpha", "plain", "fold1_seed1", "lllh lhlh")
    write_scores("alpha", "apart", "fold1_seed1", "lllh lhlh")
    write_scores("gamma", "paper", "fold1_seed1", "lllh lhlh")
    report.main(["--corpus", "toy", "--main", "alpha"])
    shown = [line for line in Path("RESULTS.md").read_text().splitlines() if line.startswith("![")]
    assert shown == ["![alpha_apart_confusion](figures/alpha_apart_confusion.png)"]


def test_figures_of_other_systems_are_drawn_aside_and_not_linked(place):
    for system in ("alpha", "gamma"):
        path = write_scores(system, "apart", "fold1_seed1", "lllh lhlh")
        path.with_suffix(".epochs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG))
    report.main(["--corpus", "toy", "--main", "alpha"])
    names = [f"apart_{kind}.{ending}" for kind in ("confusion", "curves") for ending in ("png", "txt")]
    assert sorted(path.name for path in Path("figures").glob("*.*")) == [f"alpha_{name}" for name in names]
    assert sorted(path.name for path in Path("figures/others").iterdir()) == [f"gamma_{name}" for name in names]
    text = Path("RESULTS.md").read_text()
    assert "figures/alpha_apart_confusion.png" in text and "gamma_apart" not in text
    assert "`figures/others/`, which git ignores" in text
    Path("figures/gamma_apart_tsne.png").touch()  # drawn from its network, which the scores cannot give again
    Path("figures/gamma_apart_tsne.txt").write_text("# gamma\n")
    report.main(["--corpus", "toy", "--main", "alpha"])
    assert "- **gamma**, apart: [tsne](figures/gamma_apart_tsne.png)" in Path("RESULTS.md").read_text()


def test_a_figure_is_drawn_again_only_where_its_numbers_changed(place):
    write_scores("alpha", "apart", "fold1_seed1", "lllh lhlh")
    rows()
    picture = Path("figures/alpha_apart_confusion.png")
    first = picture.read_bytes()
    picture.write_bytes(b"mine")
    rows()
    assert picture.read_bytes() == b"mine"
    write_scores("alpha", "apart", "fold1_seed1", "lllh lllh")
    rows()
    second = picture.read_bytes()
    assert second.startswith(b"\x89PNG") and second != first
    picture.unlink()
    rows()
    assert picture.read_bytes() == second


@pytest.mark.parametrize("answers", RUNS)
def test_other_metrics(place, answers):
    """Every metric of METRICS that the main table has not; macro-F1 is the mean of the classes' F1."""
    write_scores("alpha", "apart", "fold1_seed1", answers)
    report.main(["--corpus", "toy"])
    _, section = Path("RESULTS.md").read_text().split("## Other metrics\n")
    head, _, row, *_ = (line.strip("| ").split(" | ") for line in section.strip().splitlines())
    assert head == ["system", "apart macro-F1"]
    true, predicted = ([letter.lower() for letter in part] for part in answers.split())
    assert row == ["**alpha**", f"{100 * f1_score(true, predicted, average='macro'):.1f}"]


def test_a_new_metric_is_a_column(place, monkeypatch):
    monkeypatch.setitem(
        metrics.METRICS, "errors", metrics.Metric("errors", lambda counts: float(counts.sum() - np.trace(counts)))
    )
    for fold, answers in ((1, "llhh lllh"), (2, "llhh hhhh")):
        write_scores("alpha", "apart", f"fold{fold}_seed1", answers)
    report.main(["--corpus", "toy"])
    _, section = Path("RESULTS.md").read_text().split("## Other metrics\n")
    assert section.strip().startswith("| system | apart macro-F1 | apart errors |\n")
    assert re.search(r"\| \*\*alpha\*\* \| .* \| 1\.5 ± ", section)


def against(main):
    """The table of tests against `main`, as {system: {column: cell}}."""
    report.main(["--corpus", "toy", "--main", main])
    text = Path("RESULTS.md").read_text().split(f"## Against {main}\n")[1].split("\n## ")[0]
    header, _, *lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {line[0].strip("*"): dict(zip(header, line, strict=True)) for line in lines}


def test_a_single_run_is_tested_as_mcnemar_does(place):
    truth = "l" * 9 + "h" * 9
    write_scores("alpha", "apart", "fold1_seed1", f"{truth} {truth}")
    write_scores("gamma", "apart", "fold1_seed1", f"{truth} {'l' * 7 + 'hh' + 'llll' + 'h' * 5}")
    write_scores("beta", "apart", "fold1_seed1", f"{truth} {'h' + truth[1:]}")
    table = against("beta")
    assert list(table) == ["alpha", "gamma"]
    assert table["alpha"]["apart WA"] == "+5.6"
    assert table["alpha"]["apart p"] == "1.000"  # one utterance differs
    # alpha and gamma differ in 6 utterances, all of them gamma's mistakes
    assert against("alpha")["gamma"]["apart WA"] == "-33.3"
    assert float(against("alpha")["gamma"]["apart p"]) == pytest.approx(stats.binomtest(0, 6).pvalue, abs=6e-4)
    # beta's one mistake is not gamma's: 1 against 6
    assert float(table["gamma"]["apart p"]) == pytest.approx(stats.binomtest(1, 7).pvalue, abs=6e-4)


def test_runs_are_averaged_and_only_common_utterances_count(place):
    for seed, answers in ((1, "llll llll"), (2, "llll hlll")):
        write_scores("alpha", "apart", f"fold1_seed{seed}", answers)
    write_scores("beta", "apart", "fold1_seed1", "ll hh")  # has tested two of the four
    # on u-0 alpha was right in half its runs, on u-1 in both; beta in none
    row = against("beta")["alpha"]
    assert (row["apart WA"], row["apart p"]) == ("+75.0", "0.500")
    assert (row["paper† WA"], row["plain p"]) == ("–", "–")


def test_a_p_too_small_to_tell_is_not_told(place):
    many = "lh" * 800
    write_scores("alpha", "apart", "fold1_seed1", f"{many} {many}")
    write_scores("beta", "apart", "fold1_seed1", f"{many} {'h' * 1600}")
    assert against("beta")["alpha"]["apart p"] == "< 0.001"


def test_nothing_to_test_the_main_system_against(place):
    write_scores("alpha", "apart", "fold1_seed1", "llhh lllh")
    report.main(["--corpus", "toy", "--main", "beta"])
    text = Path("RESULTS.md").read_text()
    assert "No other system was run on the same utterances as beta." in text and "## Against" not in text


def test_a_broken_system_file_that_nothing_was_run_of_is_left_out(place, capsys):
    write_scores("alpha", "apart", "fold1_seed1", "llhh lllh")
    broken = Path("conf/b/broken.yaml")
    broken.write_text("description: d\nnormalisation: nun\n")
    assert list(rows()) == ["alpha", "gamma", "beta"]
    assert "left out, as it has no scores: conf/b/broken.yaml: " in capsys.readouterr().err
    with pytest.raises(UserError, match="broken.yaml"):
        rows("--systems", str(broken))
    broken.rename("kept")
    broken.write_text(Path("conf/b/beta.yaml").read_text())
    write_scores("broken", "apart", "fold1_seed1", "llhh lllh")
    Path("kept").rename(broken)
    with pytest.raises(UserError, match="broken.yaml"):
        rows()


def test_an_unknown_main_system(place):
    with pytest.raises(UserError, match="--main beto: no such system"):
        report.main(["--corpus", "toy", "--main", "beto"])


def test_a_table_aside(place):
    write_protocol = Path("conf/protocols/noisy.yaml").write_text
    alpha = Path("conf/a/alpha.yaml")
    alpha.write_text(
        alpha.read_text().replace("paper:\n", "paper:\n  - {corpus: toy, table: IV, protocol: noisy, wa: 15}\n")
    )
    write_protocol("description: with noise\nbase: apart.yaml\nnoise: snr10\ntable: Under noise\n")
    write_scores("alpha", "apart", "fold1_seed1", "lllh lllh")
    table = rows()
    assert not any("noisy" in name for name in table["alpha"])
    assert table["alpha"]["published WA"] == "61.5; 70"  # what is published of another protocol stands there
    assert table["alpha"]["paper's table"] == "II; III"
    section = Path("RESULTS.md").read_text().split("## Under noise\n")[1].split("\n## ")[0]
    header, _, row = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    assert header[5:8] == ["noisy WA", "published WA", "difference"]
    assert row[5:8] == ["not run", "15", "–"]
    assert row[1] == "IV"
    for run in ("fold1_seed1", "fold2_seed1"):
        write_scores("alpha", "noisy", run, "llhh lllh", seed=2)
    report.main(["--corpus", "toy"])
    section = Path("RESULTS.md").read_text().split("## Under noise\n")[1].split("\n## ")[0].splitlines()
    assert "- Protocol **noisy**: with noise." in section
    header, _, row = [line.strip("| ").split(" | ") for line in section if line.startswith("| ")]
    assert header[2:8] == ["apart WA", "apart UA", "runs", "noisy WA", "published WA", "difference"]
    assert row[0] == "**alpha**: the alpha"
    assert row[2:10] == [
        "100.0",
        "100.0",
        "1 (1 of 3 folds)",
        "75.0 ± 0.0",
        "15",
        "+60.0",
        "75.0 ± 0.0",
        "2 (2 of 3 folds)",
    ]
    assert row[-1] == '`./run.sh --systems conf/a/alpha.yaml --protocol "apart noisy" --seeds 2`'


def test_a_system_whose_paper_speaks_of_a_table_aside_alone_stands_there(place):
    """And nothing beside it of other utterances."""
    gamma = Path("conf/a/gamma.yaml")
    gamma.write_text(f"paper:\n  - {{corpus: toy, table: IV, protocol: some, ua: 15}}\n{gamma.read_text()}")
    Path("conf/protocols/some.yaml").write_text(
        "description: some\nbase: apart.yaml\nwhere: {cond: [loud]}\ntable: Aside\n"
    )
    assert rows().keys() == {"alpha", "beta"}
    section = Path("RESULTS.md").read_text().split("## Aside\n")[1].split("\n## ")[0]
    header, _, row = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    assert header[2:7] == ["some WA", "some UA", "published UA", "difference", "runs"]
    assert row[:7] == ["**gamma**: the gamma", "IV", "not run", "not run", "15", "–", "0"]
    assert row[-1] == "`./run.sh --systems conf/a/gamma.yaml --protocol some`"
    write_scores("gamma", "apart", "fold1_seed1", "lllh lllh")
    assert rows().keys() == {"alpha", "beta", "gamma"}


def test_systems_of_other_recipes_that_were_run_here_are_rows(place, monkeypatch):
    other = Path("recipes/other/conf/c")
    other.mkdir(parents=True)
    (other / "epsilon.yaml").write_text(Path("conf/b/beta.yaml").read_text())
    (other / "zeta.yaml").write_text(Path("conf/b/beta.yaml").read_text())
    Path("recipes/toy").mkdir()
    shutil.move("conf", "recipes/toy/conf")
    monkeypatch.chdir("recipes/toy")
    write_scores("epsilon", "apart", "fold1_seed1", "llhh lllh")
    table = rows()
    assert list(table) == ["alpha", "gamma", "beta", "epsilon"]
    assert table["epsilon"]["command"] == "`./run.sh --systems ../other/conf/c/epsilon.yaml --protocol apart`"


def test_protocols_are_described_and_marked(place):
    write_scores("alpha", "paper", "fold1_seed1", "llhh lllh")
    for run in ("fold1_seed1", "fold2_seed1"):
        write_scores("alpha", "apart", run, "llhh lllh", overlap="sizes; train and test share 0 of 2 speakers")
    rows()
    lines = Path("RESULTS.md").read_text().splitlines()
    paper = lines.index(
        "- Protocol **paper**: about paper. **The test set selects the networks' epoch, so their numbers are optimistic.**"
    )
    assert lines[paper + 1 : paper + 3] == ["  - 3 folds", "  - fold 1: sizes 1; shared 1"]
    apart = lines.index("- Protocol **apart**: about apart.")
    assert apart > paper
    assert lines[apart + 1 : apart + 3] == [
        "  - 3 folds; 2 test speakers each, none of them in the training part",
        "  - fold 1, 2: sizes; train and test share 0 of 2 speakers",
    ]
    assert "- Protocol **plain**: about plain." in lines
    assert [line for line in lines if line.startswith("†")] == [
        "† the test set selected the networks' epoch; a classical model's settings are chosen within the training part."
    ]
    assert Path("RESULTS.md").read_text().count("†") == 1 + 3  # the note; WA, UA, macro-F1


def test_no_mark_where_no_test_set_selects(place):
    Path("conf/protocols/paper.yaml").unlink()
    rows()
    assert "†" not in Path("RESULTS.md").read_text()


def test_systems_of_a_table_aside_are_tested_too(place):
    edit = Path("conf/protocols/plain.yaml")
    edit.write_text(edit.read_text() + "table: Aside\n")
    for system, answers in (("alpha", "llhh lllh"), ("beta", "llhh llhh")):
        write_scores(system, "plain", "fold1_seed1", answers)
    report.main(["--corpus", "toy", "--main", "alpha"])
    before, aside = Path("RESULTS.md").read_text().split("\n## Aside\n")
    assert "No other system was run" not in before
    assert aside.count("### Against alpha") == 1 and "| **beta** | +25.0 | 1.000 |" in aside
    Path("results/beta/plain/fold1_seed1.txt").unlink()
    report.main(["--corpus", "toy", "--main", "alpha"])
    assert "### Against" not in Path("RESULTS.md").read_text()


def test_what_a_row_was_made_with(place):
    """Word vectors, or none; and how many parameters, where a vocabulary makes them differ."""
    for fold, vectors, parameters in ((1, "none", 5000), (2, "none", 4000), (3, "none", 4500)):
        inputs = f"words 3a, vectors {vectors}"
        write_scores("alpha", "plain", f"fold{fold}_seed1", "llhh lllh", inputs=inputs, parameters=parameters)
    write_scores("beta", "plain", "fold1_seed1", "llhh lllh", inputs="words 3a, vectors 77, xvectors 78", parameters=7)
    rows()
    alpha, beta = (
        line for line in Path("RESULTS.md").read_text().splitlines() if line.startswith(("| **alpha**:", "| **beta**:"))
    )
    assert (
        alpha.startswith("| **alpha**: the alpha (**word vectors learned from scratch**) | ")
        and "| 4,000 to 5,000 |" in alpha
    )
    assert beta.startswith("| **beta**: the beta | ") and "| 7 |" in beta
    assert beta.endswith("--protocol plain --glove FILE` |") and "--glove" not in alpha


def test_a_protocol_whose_test_speakers_train_is_marked(place):
    write_scores(
        "alpha",
        "plain",
        "fold1_seed1",
        "llhh lllh",
        overlap="sizes; train and test share 0 of 4 speakers, 2 of 2 sentences",
    )
    report.main(["--corpus", "toy"])
    assert "‡" not in Path("RESULTS.md").read_text()
    write_scores(
        "alpha",
        "plain",
        "fold2_seed1",
        "llhh lllh",
        overlap="sizes; train and test share 3 of 10 speakers, 0 of 2 sentences",
    )
    report.main(["--corpus", "toy", "--main", "alpha"])
    text = Path("RESULTS.md").read_text()
    assert "| plain‡ WA |" in text and "| plain‡ UA |" in text and "| paper† WA |" in text
    told = "‡ not speaker-independent: speakers of the test set are also in the training set, so this does not measure unseen speakers."
    assert text.count(told) == 1 and text.count("‡") == 4


def test_a_note_comes_first(place):
    rows("--note", "It is synthetic.")
    assert Path("RESULTS.md").read_text().splitlines()[2] == "It is synthetic."


def test_the_confusion_matrix_sums_the_runs(place):
    write_scores("alpha", "apart", "fold1_seed1", "llhh lllh")
    write_scores("alpha", "apart", "fold2_seed1", "lllh lllL")
    rows()
    picture = Path("figures/alpha_apart_confusion.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.with_suffix(".txt").read_text() == (
        "# alpha, protocol apart, 2 runs: utterances, row true, column predicted\ntrue low high\nlow 5 0\nhigh 2 1\n"
    )
    assert sorted(path.name for path in Path("figures").iterdir()) == [picture.name, picture.with_suffix(".txt").name]
    link = f"- **alpha**, apart: [confusion]({picture}) ([text]({picture.with_suffix('.txt')}))"
    assert link in Path("RESULTS.md").read_text().splitlines()


LOG = [
    {"epoch": 1, "train_loss": 2.0, "train_wa": 30.0, "dev_loss": 2.5, "dev_wa": 25.0, "dev_ua": 20.0, "seconds": 1.25},
    {"epoch": 2, "train_loss": 1.0, "train_wa": 60.0, "dev_loss": 1.5, "dev_wa": 50.0, "dev_ua": 45.0, "seconds": 1.0},
]


@pytest.mark.parametrize(
    ("protocol", "log"),
    [("apart", LOG), ("plain", [{key: line[key] for key in line if "dev" not in key} for line in LOG])],
)
def test_learning_curves(place, protocol, log):
    for run in ("fold1_seed1", "fold2_seed1"):
        path = write_scores("alpha", protocol, run, "llhh lllh")
        path.with_suffix(".epochs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    rows()
    picture = Path(f"figures/alpha_{protocol}_curves.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    title, header, *lines = picture.with_suffix(".txt").read_text().splitlines()
    assert title == f"# alpha, protocol {protocol}, 2 runs"
    assert header.split() == ["run", *log[0]]
    expected = [[run, *map(float, line.values())] for run in ("fold1_seed1", "fold2_seed1") for line in log]
    assert [[run, *map(float, values)] for run, *values in map(str.split, lines)] == expected


def test_rows_of_other_recipes(place):
    Path("elsewhere").mkdir()
    text = Path("conf/b/beta.yaml").read_text()
    Path("elsewhere/delta.yaml").write_text(text)
    table = rows("--systems", "elsewhere/delta.yaml", "conf/b/beta.yaml")
    assert list(table) == ["alpha", "gamma", "beta", "delta"]
    assert table["delta"]["command"] == "`./run.sh --systems elsewhere/delta.yaml`"


def test_the_same_scores_give_the_same_bytes(place):
    path = write_scores("alpha", "apart", "fold1_seed1", "llhh lllh")
    path.with_suffix(".epochs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG))

    def content():
        rows()
        return {path: path.read_bytes() for path in [Path("RESULTS.md"), *Path("figures").iterdir()]}

    assert content() == content()


def test_results_of_another_corpus_are_refused(place):
    write_scores("alpha", "paper", "fold1_seed1", "llhh lllh", corpus="other")
    with pytest.raises(UserError, match=r"fold1_seed1\.txt: scores of other, not toy; remove results/"):
        report.main(["--corpus", "toy"])
