"""The section of RESULTS.md beside WA and UA, from made-up scores, against scikit-learn and by hand."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import f1_score, recall_score

from ser import details, metrics
from ser.recipe import Report
from ser.results import Results
from ser.scores import Scores

CLASSES = ["calm", "angry", "sad"]
ABOUT = {"fold": "1 of 1", "seed": "1", "overlap": "o"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def made_up(fold, seed=1, number=60, speakers="ab", true=None):
    """A run of random answers. The id of an utterance starts with its speaker."""
    rng = np.random.default_rng([fold, seed])
    posteriors = rng.dirichlet(np.ones(3), number)
    utts = [f"{speakers[place % len(speakers)]}{fold}-{place:03}" for place in range(number)]
    true = np.arange(number) // len(speakers) % 3 if true is None else np.array(true)
    about = {"fold": f"{fold} of 2", "seed": str(seed), "overlap": "o"}
    return Scores(about, CLASSES, utts, true, posteriors.argmax(1), posteriors)


def report(**rows):
    """What stage 6 has read, of one protocol: the runs of some systems. Speakers a are female, others male."""
    found = {(name, "apart"): shown(dict(enumerate(runs))) for name, runs in rows.items()}
    speakers = {utt: utt[:2] for runs in rows.values() for run in runs for utt in run.utts}
    Path("results").mkdir(exist_ok=True)
    lines = [f"{one} {'f' if one[0] == 'a' else 'm'}\n" for one in sorted(set(speakers.values()))]
    Path("results/spk2gender").write_text("".join(lines))
    protocol = SimpleNamespace(name="apart", classes=dict.fromkeys(CLASSES), select="dev", adapt=None)
    systems = [
        (Path(f"{name}.yaml"), SimpleNamespace(name=name, normalisation="none", feature=None, model=None))
        for name in rows
    ]
    return Report("toy", "", systems, [protocol], [], {}, found, speakers, set())


def shown(runs):
    return Results(runs, beside={}, left_out={}, is_own=False, is_older=False, changed=[])


def tables(lines):
    """The tables of a section by their first cell: {system: {column: cell}}."""
    found = {}
    for block in "\n".join(lines).split("\n\n"):
        if block.startswith("| "):
            head, _, *rows = [line.strip("| ").split(" | ") for line in block.splitlines()]
            found[head[0]] = {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}
    return found


def mean(runs, measure):
    """The mean over two folds, the first with two seeds, of a measure of the true and the predicted classes."""
    one, other, second = (measure(run.true, run.predicted) for run in runs)
    return f"{100 * ((one + other) / 2 + second) / 2:.1f}"


def recall(number):
    return lambda true, predicted: recall_score(true, predicted, labels=[number], average="macro")


def test_mean_over_folds_of_the_mean_over_seeds():
    runs = [made_up(1, 1), made_up(1, 2), made_up(2)]
    found = tables(details.section(report(alpha=runs, beta=[])))
    assert list(found) == ["system", "recall", "by sex"]
    assert all(list(table) == ["alpha"] for table in found.values())
    first = found["system"]["alpha"]
    assert list(first) == ["runs", "macro-F1", "ECE", "Brier"] and first["runs"] == "3 (2 seeds)"
    assert first["macro-F1"] == mean(runs, lambda true, predicted: f1_score(true, predicted, average="macro"))
    squares = [((run.posteriors - np.eye(3)[run.true]) ** 2).sum(1).mean() for run in runs]
    assert first["Brier"] == f"{((squares[0] + squares[1]) / 2 + squares[2]) / 2:.3f}"
    assert found["recall"]["alpha"] == {name: mean(runs, recall(number)) for number, name in enumerate(CLASSES)}
    for sex, speaker in ("f", "a"), ("m", "b"):
        own = np.array([place % 2 == "ab".index(speaker) for place in range(60)])
        wa = mean(runs, lambda true, predicted, own=own: (true == predicted)[own].mean())
        ua = mean(runs, lambda true, predicted, own=own: recall_score(true[own], predicted[own], average="macro"))
        assert (found["by sex"]["alpha"][f"WA {sex}"], found["by sex"]["alpha"][f"UA {sex}"]) == (wa, ua)


def test_calibration_error_of_a_run():
    """Sure of the first class and half right: 50 points."""
    posteriors = np.tile([1.0, 0, 0], (4, 1))
    utts = ["a1-1", "a1-2", "b1-1", "b1-2"]
    run = Scores(ABOUT, CLASSES, utts, np.array([0, 0, 1, 2]), np.zeros(4, int), posteriors)
    row = tables(details.section(report(alpha=[run])))["system"]["alpha"]
    assert (row["ECE"], row["Brier"]) == ("50.0", "1.000")


def test_the_difference_is_female_minus_male():
    """Women are always right; of men, who say more, one in four."""
    true = np.array([0, 1, 2, 0, 0, 1, 2])
    utts = ["a1-1", "a1-2", "a1-3", "b1-1", "b1-2", "b1-3", "b1-4"]
    predicted = np.array([0, 1, 2, 0, 1, 2, 0])
    run = Scores(ABOUT, CLASSES, utts, true, predicted, np.eye(3)[predicted])
    assert tables(details.section(report(alpha=[run])))["by sex"]["alpha"] == {
        "WA f": "100.0", "WA m": "25.0", "WA difference": "+75.0",
        "UA f": "100.0", "UA m": "16.7", "UA difference": "+83.3",  # 1/2, 0 and 0
    }  # fmt: skip


def test_equal_posteriors_count_once():
    """Otherwise the first seed would weigh twice as much as the second."""
    first, second = made_up(1, 1), made_up(1, 2)
    three = tables(details.section(report(alpha=[first, made_up(1, 1), second])))
    two = tables(details.section(report(alpha=[first, second])))
    for name in ("recall", "by sex"):
        assert three[name] == two[name]
    assert three["system"]["alpha"] | {"runs": ""} == two["system"]["alpha"] | {"runs": ""}


def test_a_class_that_a_fold_lacks_is_pooled():
    """Fold 1 has two seeds and no one sad, fold 2 has one seed and tests all; other classes are means over folds."""
    runs = [made_up(1, seed, 6, true=[0, 0, 1, 1, 0, 1]) for seed in (1, 2)] + [made_up(2, 1, 60)]
    lines = details.section(report(alpha=runs))
    row = tables(lines)["recall"]["alpha"]
    assert row["sad"] == f"{100 * recall(2)(runs[2].true, runs[2].predicted):.1f}"
    assert row["calm"] == mean(runs, recall(0))
    assert "Over the utterances of all folds together, since not every fold tests the class: sad." in lines


def test_a_pooled_class_weighs_utterances_not_folds():
    """Of calm utterances, 1 of 1 is right in fold 1, 1 of 3 in fold 2, none is in fold 3."""

    def run(fold, true, predicted):
        utts = [f"a{fold}-{place}" for place in range(len(true))]
        about = ABOUT | {"fold": f"{fold} of 3"}
        return Scores(about, CLASSES, utts, np.array(true), np.array(predicted), np.eye(3)[predicted])

    runs = [run(1, [0, 1, 2], [0, 1, 2]), run(2, [0, 0, 0, 1, 2], [0, 1, 1, 1, 2]), run(3, [1, 2], [1, 0])]
    row = tables(details.section(report(alpha=runs)))["recall"]["alpha"]
    assert row == {"calm": "50.0", "angry": "100.0", "sad": "66.7"}


def test_folds_with_speakers_of_one_sex_are_pooled():
    """As with one test speaker in each fold: a man's two seeds count as one run."""
    runs = [made_up(1, 1, 30, "b"), made_up(1, 2, 30, "b"), made_up(2, 1, 60, "a"), made_up(3, 1, 9, "a")]
    lines = details.section(report(alpha=runs))
    row = tables(lines)["by sex"]["alpha"]
    right = [run.true == run.predicted for run in runs]
    assert row["WA m"] == f"{100 * (right[0].mean() + right[1].mean()) / 2:.1f}"
    assert row["WA f"] == f"{100 * np.concatenate(right[2:]).mean():.1f}"
    true, predicted = (np.concatenate([getattr(run, name) for run in runs[2:]]) for name in ("true", "predicted"))
    assert row["UA f"] == f"{100 * recall_score(true, predicted, average='macro'):.1f}"
    note = "Over the utterances of all folds together, since not every fold tests each class in both sexes."
    assert lines.count(note) == 1


def test_a_system_that_was_tested_on_one_sex_only():
    """Beside one that was tested on both."""
    row = tables(details.section(report(alpha=[made_up(1)], beta=[made_up(2, speakers="a")])))["by sex"]["beta"]
    assert (row["WA m"], row["WA difference"], row["UA m"], row["UA difference"]) == ("–",) * 4
    assert float(row["WA f"]) > 0


@pytest.mark.parametrize(("speakers", "word"), [("a", "female"), ("bc", "male")])
def test_no_table_where_all_speakers_are_of_one_sex(speakers, word):
    lines = details.section(report(alpha=[made_up(1, speakers=speakers)]))
    assert list(tables(lines)) == ["system", "recall"]
    assert f"- There are no tables by sex: all test speakers are {word}." in lines


def test_no_table_where_a_speaker_is_unknown():
    read = report(alpha=[made_up(1), made_up(2)])
    Path("results/spk2gender").write_text("a1 f\nb1 m\nb2 m\n")
    lines = details.section(read)
    assert list(tables(lines)) == ["system", "recall"]
    told = "- There are no tables by sex: results/utt2spk and results/spk2gender, which stage 5 writes, lack the sex of the speakers of 30 of 120 test utterances."
    assert told in lines
    read.speakers.clear()
    assert told.replace("30 of", "120 of") in details.section(read)


def test_rows_and_tables_are_in_order():
    read = report(beta=[made_up(1)], gamma=[], alpha=[made_up(1, 2)])
    read.protocols.insert(0, SimpleNamespace(name="not_run", classes={}, select="dev", adapt=None))
    read.protocols.append(SimpleNamespace(name="paper", classes=dict.fromkeys(CLASSES), select="test", adapt=None))
    for _, system in read.systems:
        read.found[system.name, "not_run"] = shown({})
        read.found[system.name, "paper"] = shown({"a": made_up(1, 3)} if system.name == "beta" else {})
    lines = details.section(read)
    assert lines[:3] == ["", "## Other metrics", ""]
    assert [line for line in lines if line.startswith("###")] == ["### apart", "### paper†"]
    apart = lines[lines.index("### apart") : lines.index("### paper†")]
    systems = [match[1] for line in apart if (match := re.match(r"\| (alpha|beta|gamma) ", line))]
    assert systems == ["beta", "alpha"] * 3


def test_a_new_metric_is_a_column(monkeypatch):
    errors = metrics.Metric("errors", lambda counts: float(counts.sum() - np.trace(counts)))
    monkeypatch.setitem(metrics.METRICS, "errors", errors)
    run = made_up(1)
    row = tables(details.section(report(alpha=[run])))["system"]["alpha"]
    assert list(row) == ["runs", "macro-F1", "errors", "ECE", "Brier"]
    assert row["errors"] == f"{(run.true != run.predicted).sum():.1f}"


def test_nothing_was_run():
    assert details.section(report(alpha=[])) == []
