"""What is committed proves itself: each fault is found, and the repository has none."""

import json
import re
import shlex
import shutil
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ser import check_scores, identity, overview, provenance, report, rerun, score, train, verify
from ser.cli import UserError
from ser.config import Adapt, read_protocol, read_system
from ser.datadir import read_table
from ser.identity import fingerprint, settings
from ser.runs import code_of
from ser.scores import Scores, read_scores, write_scores

FEATURE = "{kind: logmel, sample_rate: 8000, n_fft: 256, win_length: 200, hop_length: 80, n_mels: 6, fmin: 0, fmax: 4000, window: hann}"
MODEL = "{kind: svm, functionals: [mean], cost: [1], gamma: [1], inner_folds: 2}"
CLASSES = ["low", "high"]
SPEAKERS = "abc"  # one for each fold of the protocol `apart`
ALPHA = "results/alpha/apart/fold1_seed1.txt"


def answers(path):
    """Utterance, true and predicted class of each line of scores, read without the code that is tested."""
    lines = [line.split() for line in path.read_text().splitlines() if line[0] != "#"]
    return [line[:3] for line in lines]


def render(arguments, only_committed=True):
    """RESULTS.md of the toy recipe: the share of correct answers of each run."""
    lines = ["# Results", "", f"<!-- python -m ser.report {shlex.join(arguments)} -->", ""]
    for path in sorted(Path().glob("results/*/*/*.txt")):
        right = np.mean([true == predicted for _, true, predicted in answers(path)])
        lines.append(
            f"| {path.stem} of {path.parts[1]} under {path.parts[2]} | {100 * right:.1f} | with a long line's rest |"
        )
    own = [] if only_committed else [f"made here: {path}" for path in Path().glob("results/*/*/own/*.txt")]
    return "\n".join(lines + own) + "\n"


def make_scores(system, protocol, fold, seed=1):
    """Scores of a run as stage 5 writes them: each of the speakers has six utterances."""
    configs = {
        "system": read_system(Path(f"conf/toy/{system}.yaml")),
        "protocol": read_protocol(Path(f"conf/protocols/{protocol}.yaml")),
    }
    speakers = SPEAKERS[fold - 1] if protocol == "apart" else "ab"
    utts = [f"{speaker}-{number}" for speaker in speakers for number in range(6)]
    table = fingerprint([(f"{speaker}-{number}", speaker) for speaker in SPEAKERS for number in range(6)])
    row = {
        "code": fingerprint(dict(code_of(configs["system"], configs["protocol"]))),
        "folds": f"f{protocol}",
        "recordings": "r",
        "speakers": table,
    }
    about = {
        "system": system, "corpus": "toy", "protocol": protocol, "fold": f"{fold} of {3 if protocol == 'apart' else 1}", "seed": seed,
        "run": fingerprint(system, protocol, fold, seed), "row": " ".join(f"{key} {value}" for key, value in row.items()),
        "modules": "ser.x 1", "trainer": "t", "overlap": "sizes; shared", "train_seconds": 90, "date": "2026-01-01 10:00", "commit": "0123456789ab",
        **{f"{part} settings": json.dumps(settings(config)) for part, config in configs.items()},
    }  # fmt: skip
    rng = np.random.default_rng([fold, seed])
    posteriors = rng.dirichlet([1, 1], len(utts))
    true = np.arange(len(utts)) % 2
    path = Path(f"results/{system}/{protocol}/fold{fold}_seed{seed}.txt")
    write_scores(path, Scores(about, CLASSES, utts, true, posteriors.argmax(1), posteriors))
    return path


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A recipe with scores of two systems under two protocols, in whose folder the test stands."""
    folder = tmp_path / "egs" / "toy"
    (folder / "conf/protocols").mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(report, "render", render)
    for name in ("alpha", "beta"):
        path = Path(f"conf/toy/{name}.yaml")
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"description: the {name}\nfeature: {FEATURE}\nnormalisation: none\nmodel: {MODEL}\n")
    folds = {
        "apart": "{kind: groups, by: spk, number: 3}",
        "chance": "{kind: random, number: 1, test_share: 0.5, seed: 1}",
    }
    for name, split in folds.items():
        Path(f"conf/protocols/{name}.yaml").write_text(
            f"description: about {name}\nclasses: {{low: [calm], high: [angry]}}\nfolds: {split}\nselect: last\n"
        )
    for fold in (1, 2, 3):
        for seed in (1, 2):
            make_scores("alpha", "apart", fold, seed)
    make_scores("beta", "chance", 1)
    Path("results/utt2spk").write_text("".join(f"{spk}-{number} {spk}\n" for spk in SPEAKERS for number in range(6)))
    Path("RESULTS.md").write_text(render(["--corpus", "toy", "--note", "a 'word'"]))
    return folder


def faults(capsys, *options):
    """The lines of the faults that are found, without `error: `."""
    capsys.readouterr()
    try:
        verify.main(["." if not options else options[0], *options[1:]])
    except UserError as error:
        lines = capsys.readouterr().err.splitlines()
        assert re.fullmatch(r"\d+ faults? \(see above\)", str(error))
        assert all(line.startswith("error: ") for line in lines)
        return [line.removeprefix("error: ") for line in lines]
    assert capsys.readouterr().err == ""
    return []


def edit(name, old, new, count=1):
    text, found = re.subn(old, new, Path(name).read_text())
    assert found == count
    Path(name).write_text(text)


def forge(name, **about):
    """Change scores, and give them a checksum that fits."""
    path = Path(name)
    scores = read_scores(path)
    parts = {key: about.pop(key) for key in ("utts", "true", "predicted", "posteriors", "classes") if key in about}
    write_scores(path, replace(scores, **parts, about={**scores.about, **about}))


def changed(name, what, value, at=0):
    """An array of scores with another value at one place."""
    array = getattr(read_scores(Path(name)), what).copy()
    array[at] = value
    return {what: array}


def test_a_recipe_without_faults(place, capsys):
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    verify.main(["."])
    assert capsys.readouterr().out == "./: 7 scores of 2 systems, 11 lines of RESULTS.md, no faults\n"
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


def test_it_may_be_called_anywhere_and_names_files_from_there(place, capsys, monkeypatch):
    edit(ALPHA, "# date: 2026", "# date: 2027")
    monkeypatch.chdir(place.parent)
    told = "changed since stage 5 wrote it; restore it with git, or remove it and run stage 5 again"
    assert faults(capsys, "toy")[0] == f"toy/{ALPHA}: {told}"
    monkeypatch.chdir(place / "results")
    assert faults(capsys, "..")[0] == f"../{ALPHA}: {told}"


def copy_of_another_corpus():
    """A file of the recipe beside it, as it is there."""
    forge(ALPHA, corpus="other")


def copy_in_another_system():
    Path("results/beta/apart").mkdir()
    shutil.copy(ALPHA, "results/beta/apart")


def drop(*keys):
    scores = read_scores(Path(ALPHA))
    write_scores(
        Path(ALPHA), replace(scores, about={key: value for key, value in scores.about.items() if key not in keys})
    )


def swap_answer():
    """Its posteriors stay."""
    predicted = read_scores(Path(ALPHA)).predicted
    forge(ALPHA, **changed(ALPHA, "predicted", 1 - predicted[0]))


def other_utterances():
    """Seed 2 of fold 1, with one utterance of fold 2."""
    utts = read_scores(Path(ALPHA)).utts
    forge("results/alpha/apart/fold1_seed2.txt", utts=[*utts[:-1], "b-5"])


def twice_tested():
    """Both seeds of fold 1 test an utterance of fold 2, of the same class."""
    for seed in (1, 2):
        path = f"results/alpha/apart/fold1_seed{seed}.txt"
        forge(path, utts=[*read_scores(Path(path)).utts[:-1], "b-5"])


def copied_seed():
    """Seed 2 is seed 1 under another name."""
    path = Path("results/alpha/apart/fold1_seed2.txt")
    shutil.copy(ALPHA, path)
    forge(path, seed="2")


AGAIN = "restore it with git, or remove it and run stage 5 again"
SETTINGS = r"restore the file in conf/, or run the stages again with --replace true"
CASES = {  # what is done; the beginnings of the lines that are told
    "a posterior changed by hand": (
        lambda: edit(ALPHA, r"(?m)^(a-0 .*)\d$", r"\g<1>9"),
        [f"{ALPHA}: changed since stage 5 wrote it; {AGAIN}"],
    ),
    "no checksum": (lambda: edit(ALPHA, "# checksum: .*\n", ""), [f"{ALPHA}: has no checksum; {AGAIN}"]),
    "cut short": (lambda: edit(ALPHA, r"(?m)^(a-5 \S+ \S+) .*", r"\1"), [f"{ALPHA}:"]),
    "a lost line of the head": (lambda: drop("date"), [f"{ALPHA}: date: missing or damaged; "]),
    "a tree that was changed": (
        lambda: forge(ALPHA, commit="0123456789ab-dirty"),
        [f"{ALPHA}: made at commit 0123456789ab-dirty, so by code that is not in git; commit the code, and train again"],
    ),
    "no repository": (
        lambda: forge(ALPHA, commit="unknown: not a git checkout (ser 0.1.0)"),
        [f"{ALPHA}: made at commit unknown: not a git checkout (ser 0.1.0), so by code that is not in git; "],
    ),
    "unknown origin": (
        lambda: drop("row", "modules", "system settings", "protocol settings", "run"),
        [f"{ALPHA}: of unknown origin: records no settings and no code; "],
    ),
    "another corpus": (copy_of_another_corpus, [f"{ALPHA}: scores of another run (corpus other, not toy); remove the copy"]),
    "another system": (
        copy_in_another_system,
        [
            "results/beta/apart/fold1_seed1.txt: scores of another run (system alpha, not beta); remove the copy",
            "RESULTS.md:11: the scores also give",
        ],
    ),
    "another protocol": (
        lambda: forge(ALPHA, protocol="chance"),
        [f"{ALPHA}: scores of another run (protocol chance, not apart); remove the copy"],
    ),
    "another fold": (
        lambda: forge(ALPHA, fold="2 of 3"),
        [f"{ALPHA}: scores of another run (fold 2 of 3, seed 1, not fold1_seed1); remove the copy"],
    ),
    "another seed": (lambda: forge(ALPHA, seed="3"), [f"{ALPHA}: scores of another run (fold 1 of 3, seed 3, not fold1_seed1); remove the copy"]),
    "a fold that is none": (lambda: forge(ALPHA, fold="1 of 0"), [f"{ALPHA}: scores of another run (fold 1 of 0, seed 1, not fold1_seed1); remove the copy"]),
    "another answer": (
        swap_answer,
        [f"{ALPHA}: the predicted class of a-0 has not the largest posterior; {AGAIN}", "RESULTS.md:5: says "],
    ),
    "posteriors that are none": (
        lambda: forge(ALPHA, **changed(ALPHA, "posteriors", [0.51, 0.51], at=3)),
        [f"{ALPHA}: the posteriors of a-3 do not sum to 1; {AGAIN}"],
    ),
    "classes in another order": (
        lambda: forge(ALPHA, classes=CLASSES[::-1]),
        [f"{ALPHA}: has other classes than the protocol; {AGAIN}"],
    ),
    "a label of one run alone": (
        lambda: forge("results/alpha/apart/fold1_seed2.txt", **changed(ALPHA, "true", 1, at=2)),
        [f"results/alpha/apart/fold1_seed2.txt: a-2 is high, but low in {ALPHA}; {AGAIN}", "RESULTS.md:6: says "],
    ),
    "other utterances": (
        other_utterances,
        [f"results/alpha/apart/fold1_seed2.txt: has other utterances than {ALPHA}, of the same fold; {AGAIN}"],
    ),
    "tested twice": (
        twice_tested,
        [
            f"{ALPHA}: tests b-5, as do other folds that are apart: results/alpha/apart/fold2_seed1.txt",
            f"results/utt2spk: has other speakers than those that {ALPHA} was made with; restore it with git",
        ],
    ),
    "a copied seed": (
        copied_seed,
        [
            f"results/alpha/apart/fold1_seed2.txt: has the identity (run) of {ALPHA}, which is another run; remove the copy",
            "RESULTS.md:6: says ",
        ],
    ),
    "an edited system": (
        lambda: edit("conf/toy/alpha.yaml", r"cost: \[1\]", "cost: [3]"),
        [f"{ALPHA} and 5 more: made with different settings: system model.cost [1.0], not [3.0]; {SETTINGS}"],
    ),
    "an edited protocol": (
        lambda: edit("conf/protocols/apart.yaml", "number: 3", "number: 4"),
        [f"{ALPHA} and 5 more: made with different settings: protocol folds.number 3, not 4; {SETTINGS}"],
    ),
    "a lost system": (
        lambda: Path("conf/toy/beta.yaml").unlink(),
        ["results/beta: no recipe has the system file conf/*/beta.yaml; restore it, or remove these scores"],
    ),
    "a broken system": (lambda: edit("conf/toy/beta.yaml", "model: ", "modell: "), ["conf/toy/beta.yaml: "]),
    "a lost protocol": (
        lambda: Path("conf/protocols/chance.yaml").unlink(),
        ["conf/protocols/chance.yaml: no such protocol file, but there are scores in results/*/; "],
    ),
    "a broken protocol": (lambda: edit("conf/protocols/chance.yaml", "folds: ", "fold: "), ["conf/protocols/chance.yaml: "]),
    "another speaker": (
        lambda: edit("results/utt2spk", "b-1 b", "b-1 a"),
        [f"results/utt2spk: has other speakers than those that {ALPHA} was made with; restore it with git"],
    ),
    "a lost speaker": (
        lambda: edit("results/utt2spk", "b-1 b\n", ""),
        [f"results/utt2spk: has no speaker of b-1, of {ALPHA}; restore it with git"],
    ),
    "a broken table of speakers": (lambda: edit("results/utt2spk", "b-1 b\n", "b-1 b\n" * 2), ["results/utt2spk:"]),
    "a lost line": (
        lambda: edit("RESULTS.md", r"(?m)^\| fold2_seed1.*\n", ""),
        ['RESULTS.md:7: the scores also give "| fold2_seed1 of alpha under apart | '],
    ),
    "a line too many": (
        lambda: edit("RESULTS.md", r"(?m)^\| fold2_seed1", "| fold9_seed1 of gamma |\n| fold2_seed1"),
        ['RESULTS.md:7: says "| fold9_seed1 of gamma |", which the scores do not give; run stage 6'],
    ),
    "no line end": (lambda: edit("RESULTS.md", r"\n\Z", ""), ['RESULTS.md:12: the scores also give ""']),
    "no command": (
        lambda: edit("RESULTS.md", "<!-- .*", ""),
        ["RESULTS.md: no line `<!-- python -m ser.report ... -->` says how to write it; run stage 6"],
    ),
    "a damaged command": (
        lambda: edit("RESULTS.md", "'a .*--", "'a -- --"),
        ["RESULTS.md: its command is damaged: <!-- python -m ser.report --corpus toy --note 'a -- -->; run stage 6"],
    ),
    "a system of --set": (
        lambda: edit("RESULTS.md", "--corpus toy", "--corpus toy --systems exp/systems/alpha+x=1.yaml"),
        ["RESULTS.md: shows systems of run.sh --set, which are not in git; run stage 6 without --set"],
    ),
    "results that are no text": (
        lambda: Path("RESULTS.md").write_bytes(b"\xff\xfe"),
        ["RESULTS.md:1: not UTF-8 text; "],
    ),
    "no results": (lambda: Path("RESULTS.md").unlink(), ["RESULTS.md: no such file; run stage 6"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_fault(place, capsys, name):
    change, told = CASES[name]
    change()
    found = faults(capsys)
    assert len(found) == len(told), found
    for line, start in zip(found, told, strict=True):
        assert line.startswith(start), line


def test_scores_that_differ_from_those_in_git(place, capsys):
    """Two utterances of one class exchange their posteriors: no number changes, and the checksum fits."""

    def git(*arguments):
        user = ("-c", "user.name=n", "-c", "user.email=e")
        subprocess.run(["git", *user, *arguments], cwd=place, check=True, capture_output=True)

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "scores")
    assert faults(capsys) == []
    scores = read_scores(Path(ALPHA))
    order = np.array([2, 1, 0, 3, 4, 5])
    forge(ALPHA, posteriors=scores.posteriors[order], predicted=scores.predicted[order])
    Path("RESULTS.md").write_text(render(["--corpus", "toy", "--note", "a 'word'"]))
    assert faults(capsys) == [f"{ALPHA}: differs from the file in git; restore it, or commit it if stage 5 wrote it"]
    git("commit", "-q", "-a", "-m", "other scores")
    assert faults(capsys) == []
    make_scores("beta", "chance", 1, seed=2)  # is new
    Path(ALPHA).unlink()
    Path("RESULTS.md").write_text(render(["--corpus", "toy", "--note", "a 'word'"]))
    assert faults(capsys) == [f"{ALPHA}: is in git, but not here; restore it with git, or commit its removal"]


def test_a_digit_of_the_results(place, capsys):
    """Both texts are told, from shortly before the digit."""
    line = Path("RESULTS.md").read_text().splitlines()[6]
    number = re.search(r"\d+\.\d", line)[0]
    edit("RESULTS.md", re.escape(line), line.replace(number, "99.9"))
    rest = "... alpha under apart | {} | with a long line's rest |"
    assert faults(capsys) == [
        f'RESULTS.md:7: says "{rest.format("99.9")}", but the scores give "{rest.format(number)}"; run stage 6'
    ]


def test_results_with_scores_that_were_made_here_are_no_fault(place, capsys):
    own = Path(ALPHA).parent / "own" / Path(ALPHA).name
    own.parent.mkdir()
    shutil.copy(ALPHA, own)
    arguments = shlex.split(re.search(r"ser\.report (.*) -->", Path("RESULTS.md").read_text())[1])
    Path("RESULTS.md").write_text(render(arguments, only_committed=False))
    assert f"made here: {own}" in Path("RESULTS.md").read_text()
    assert faults(capsys) == []
    edit("RESULTS.md", "made here: ", "made there: ")
    assert len(faults(capsys)) == 1


def test_many_lines_that_differ_are_counted(place, capsys):
    text = Path("RESULTS.md").read_text()
    Path("RESULTS.md").write_text(text + "".join(f"more {number}\n" for number in range(13)))
    found = faults(capsys)
    assert len(found) == 11
    assert found[-1] == "RESULTS.md: 3 more lines differ; run stage 6"


def test_results_that_cannot_be_written_again(place, capsys, monkeypatch):
    def fails(arguments):
        assert arguments == ["--corpus", "toy", "--note", "a 'word'"]
        raise UserError("conf/x.yaml: bad; mend it")

    monkeypatch.setattr(report, "render", fails)
    assert faults(capsys) == ["RESULTS.md: cannot be written again: conf/x.yaml: bad; mend it"]


def test_what_is_no_fault(place, capsys):
    """Posteriors that are equal; scores made here, or tried with --set; other code, which is counted."""
    forge(ALPHA, posteriors=np.full((6, 2), 0.5))
    shutil.copytree("results/alpha/apart", "results/alpha/apart/own")
    shutil.copytree("results/alpha", "results/alpha+model.cost=[3]")
    scores = read_scores(Path(ALPHA))
    row = scores.about["row"].replace(scores.row["code"], "older")
    forge("results/beta/chance/fold1_seed1.txt", row=row.replace("fapart", "fchance"))
    forge("results/alpha/apart/fold3_seed2.txt", row=row)
    Path("RESULTS.md").write_text(render(["--corpus", "toy"]))
    verify.main(["."])
    assert capsys.readouterr().out.endswith(
        "no faults (2 scores made by other code of the feature or model than this tree's; 1 of other code, folds or "
        "recordings than those shown are left out of the tables)\n"
    )


def test_folds_of_chance_may_share_utterances(place, capsys):
    edit("conf/protocols/chance.yaml", "number: 1", "number: 2")
    for fold in (1, 2):
        make_scores("beta", "chance", fold)
        forge(f"results/beta/chance/fold{fold}_seed1.txt", fold=f"{fold} of 2")
    Path("RESULTS.md").write_text(render(["--corpus", "toy"]))
    assert faults(capsys) == []


def draws_of(n_draws, aside):
    """The scores of alpha, seed 1, repeated for some draws of recordings that are set aside. aside: how many of each
    fold; the first in every draw."""
    found = {}
    for draw in range(n_draws):
        for fold in (1, 2, 3):
            path = Path(f"results/alpha/apart/fold{fold}_seed1.txt")
            one = read_scores(path)
            parts = {key: getattr(one, key)[aside:] for key in ("utts", "true", "predicted", "posteriors")}
            number = 3 * draw + fold
            about = {**one.about, "fold": f"{number} of {3 * n_draws}"}
            found[path.with_name(f"fold{number}_seed1.txt")] = replace(one, **parts, about=about)
    return found


def test_draws_test_an_utterance_once_each(place):
    protocol = read_protocol(Path("conf/protocols/apart.yaml"))
    twice = draws_of(2, 0)
    assert check_scores.check_protocol(twice, replace(protocol, adapt=Adapt(utterances=1, draws=2))) == []
    ((_, told), *_) = check_scores.check_protocol(twice, replace(protocol, adapt=Adapt(utterances=1)))
    assert told.startswith("tests a-0, as do other folds that are apart")


def test_utterances_that_are_always_set_aside_are_no_other_speakers(place):
    protocol = read_protocol(Path("conf/protocols/apart.yaml"))
    some = draws_of(2, 1)
    assert check_scores.check_protocol(some, replace(protocol, adapt=Adapt(utterances=1, draws=2))) == []
    (fault,) = check_scores.check_protocol(draws_of(1, 1), replace(protocol, adapt=Adapt(utterances=0)))
    assert fault[0] == "results/utt2spk" and "other speakers" in fault[1]


def test_a_folder_that_is_no_recipe(place):
    with pytest.raises(UserError, match=r"^results: not the folder of a recipe \(it has no conf/\)$"):
        verify.main(["results"])


def test_the_overview(place, capsys, monkeypatch, tmp_path):
    """The default is every committed recipe, and README.md."""
    monkeypatch.setattr(identity, "ROOT", tmp_path)
    monkeypatch.setattr(provenance, "is_committed", lambda path: path == place / "RESULTS.md")
    monkeypatch.setattr(overview, "README", tmp_path / "README.md")
    monkeypatch.setattr(overview, "render", lambda: "\n| a | 1 |\n| b | 2 |\n")
    Path("../none/conf").mkdir(parents=True)  # nothing was run
    text = "# Title\n\n<!-- overview -->\n\n| a | 1 |\n| b | 2 |\n\n<!-- /overview -->\n\nMore.\n"

    def check(text):
        (tmp_path / "README.md").write_text(text)
        capsys.readouterr()
        with suppress(UserError):
            verify.main([])
        printed = capsys.readouterr()
        assert printed.out.count("\n") == 1  # one recipe
        return printed.err.splitlines()

    assert check(text) == []
    told = 'error: ../../README.md:6: says "| b | 3 |", but the scores give "| b | 2 |"; call `python -m ser.overview`'
    assert check(text.replace("2", "3")) == [told]
    lost = "error: ../../README.md: has no lines <!-- overview --> and <!-- /overview -->; restore them with git"
    assert check(text.replace("/overview", "over")) == [lost]


def test_the_committed_results_have_no_faults(capsys):
    """Continuous integration runs this test: what is in the repository can be recomputed."""
    verify.main([])
    printed = capsys.readouterr()
    assert printed.err == ""
    assert len(re.findall(r", no faults\b", printed.out)) == printed.out.count("\n") >= 4


@pytest.fixture
def trained(recipe, monkeypatch):
    """The toy recipe of all tests, with committed scores of an SVM and a network."""
    monkeypatch.setattr(report, "render", lambda arguments: Path("RESULTS.md").read_text())
    Path("RESULTS.md").write_text("<!-- python -m ser.report --corpus toy -->\n")
    for system in ("svm", "tiny"):
        folder = recipe.lay_out(f"{system}/selects_on_dev/fold1_seed1", system=system)
        train.train(folder, "cpu")
        result = Path(f"results/{system}/selects_on_dev/fold1_seed1.txt")
        score.score(folder, result, "cpu")
        forge(result, commit="0123456789ab")
    for path in Path("results").rglob("*.txt"):
        forge(path, corpus=recipe.folder.name)
    return recipe


def test_runs_that_are_trained_again_give_the_same_bytes(trained, capsys):
    Path("data/all/wav.scp").touch()
    before = {path: path.read_bytes() for path in trained.folder.rglob("*") if path.is_file()}
    verify.main([".", "--rerun", "3"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "./: 2 of 2 runs can be trained again"
    assert sorted(re.sub(r"\(.* minutes\)", "(M)", line) for line in lines[2:4]) == [
        f"results/{system}/selects_on_dev/fold1_seed1.txt: the same bytes (M)" for system in ("svm", "tiny")
    ]
    assert lines[4].startswith("2 of 3 runs trained again: 2 gave the same bytes, 0 agree within the tolerance, 0 do ")
    assert {path: path.read_bytes() for path in trained.folder.rglob("*") if path.is_file()} == before


def test_scores_that_another_training_gives(trained, capsys):
    """A posterior of 0.01 more and one of 0.01 less: more than another machine makes of an SVM."""
    Path("data/all/wav.scp").touch()
    path = "results/svm/selects_on_dev/fold1_seed1.txt"
    posteriors = read_scores(Path(path)).posteriors
    forge(path, posteriors=posteriors + np.where(posteriors == posteriors.max(1)[:, None], -0.01, 0.01))
    Path("results/tiny/selects_on_dev/fold1_seed1.txt").unlink()
    found = faults(capsys, ".", "--rerun", "1")
    assert len(found) == 1
    assert re.match(
        rf"{path}: WA .* then, .*, posteriors differ by up to 0\.0100\d\d: outside the tolerance: posteriors 0.001",
        found[0],
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda: forge_all(row="code older folds f recordings r speakers s"), "; 2 were made by other code of the feature or model"),
        (lambda: forge_all(train_seconds="601"), "; 2 took more than 10 minutes"),
        (lambda: edit("data/all/utt2md5", "md5-of-d-00", "other"), "; 2 were made with other recordings than those in data/"),
    ],
)  # fmt: skip
def test_runs_that_are_not_trained_again(trained, capsys, change, told):
    Path("data/all/wav.scp").touch()
    change()
    with pytest.raises(UserError, match=r"--rerun: no committed run can be trained again here \(see above\)"):
        verify.main([".", "--rerun", "1"])
    assert capsys.readouterr().out.splitlines()[1] == f"./: 0 of 2 runs can be trained again{told}"


def forge_all(**about):
    for path in Path("results").rglob("*.txt"):
        forge(path, **about)


def test_without_the_corpus_nothing_is_trained(trained, capsys):
    with pytest.raises(UserError, match="no committed run can be trained again here"):
        verify.main([".", "--rerun", "1"])
    told = "./: no run can be trained again: data/all is missing; `./run.sh --stop-stage 0` makes it"
    assert capsys.readouterr().out.splitlines()[1] == told


def test_a_training_that_fails_is_a_fault(trained, capsys, monkeypatch):
    Path("data/all/wav.scp").touch()
    monkeypatch.setattr(rerun, "call", lambda module, *rest: (_ for _ in ()).throw(UserError(f"{module}: no memory")))
    found = faults(capsys, ".", "--rerun", "1")
    assert re.match(r"results/.*: could not be trained again: ser.train: no memory \(", found[0])


def network(right, seed, n=100):
    """Scores of a network: the first `right` of n utterances are correct."""
    true = np.arange(n) % 2
    predicted = np.where(np.arange(n) < right, true, 1 - true)
    posteriors = np.where(np.arange(2) == predicted[:, None], 0.9, 0.1) + np.array([seed, -seed]) / 1000
    about = {
        "epochs": "1",
        "row": "code c",
        "system settings": "{}",
        "fold": "1 of 1",
        "versions": f"torch {seed}.0, numpy 1",
    }
    return Scores(about, CLASSES, [f"u{place}" for place in range(n)], true, predicted, posteriors)


def test_the_tolerance_of_a_network_is_the_spread_of_seeds():
    """Of five seeds there are ten pairs; the differences of 60, 62, 64, 66, 70 by hand: 2 2 2 4 4 4 6 6 8 10."""
    runs = {
        Path(f"results/n/p/fold1_seed{seed}.txt"): network(right, seed)
        for seed, right in enumerate((60, 62, 64, 66, 70), 1)
    }
    path = Path("results/n/p/fold1_seed1.txt")
    limits, n_pairs, what = rerun.spread(runs, path)
    assert (n_pairs, what) == (10, "the protocol p")
    assert limits == pytest.approx({"WA": 9.1, "UA": 9.1})  # the 9.55th of them in order: 8 + 0.55 * (10 - 8)
    for right, verdict in ((69, "within"), (70, "outside"), (51, "within"), (50, "outside")):
        found, words = rerun.judge(runs[path], network(right, 9), True, runs, path)
        assert found == verdict
        assert f"WA 60.0 then, {right}.0 now, UA 60.0 then, {right}.0 now" in words
        assert "WA 9.1, UA 9.1 (95 % of 10 pairs of seeds of the protocol p)" in words
        assert words.endswith("torch 1.0 then, 9.0 now")


def test_few_seeds_of_a_protocol_borrow_those_of_the_recipe():
    runs = {
        Path(f"results/n/{name}/fold1_seed{seed}.txt"): network(60 + 2 * seed, seed) for name in "pq" for seed in (1, 2)
    }
    limits, n_pairs, what = rerun.spread(runs, Path("results/n/p/fold1_seed1.txt"))
    assert (limits, n_pairs, what) == ({"WA": 2.0, "UA": 2.0}, 2, "the recipe")
    assert rerun.spread({}, Path("results/n/p/fold1_seed1.txt"))[0] == {"WA": 0, "UA": 0}


def test_the_speakers_of_the_toy_are_those_of_its_table(place):
    """What the cases of speakers start from."""
    assert fingerprint(sorted(read_table(Path("results/utt2spk")).items())) == read_scores(Path(ALPHA)).row["speakers"]
