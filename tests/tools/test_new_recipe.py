"""tools/new_recipe.sh: a recipe for any corpus, from its first command to its table."""

import itertools
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

import ser

ROOT = Path(ser.__file__).parents[1]
EMOTIONS = ("angry", "happy", "neutral", "sad")
SPEAKERS = ("f01", "f02", "m03", "m04", "m05")


@pytest.fixture
def house(tmp_path):
    """The repository without recipes, and a package of which a copy may be changed."""
    for name in ("path.sh", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "ser", tmp_path / "ser", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "egs").mkdir()
    return tmp_path


def call(*command, folder=None):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True)


def new_recipe(house, *arguments):
    return call(house / "tools/new_recipe.sh", *arguments, folder="/")


def run(house, *options):
    result = call(house / "egs/own/run.sh", *options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture
def recordings(tmp_path):
    """Five speakers, four emotions: noise of other loudness and length."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "recordings"
    folder.mkdir()
    for spk, (number, emo) in itertools.product(SPEAKERS, enumerate(EMOTIONS, 1)):
        samples = 0.05 * number * rng.standard_normal(2000 + 400 * number)
        soundfile.write(folder / f"{spk}_{emo}_1.wav", samples, 16000)
    return folder


def test_a_recipe_runs_from_recordings_and_from_a_data_directory(house, recordings):
    result = new_recipe(house, "own")
    assert (result.returncode, result.stderr) == (0, "")
    recipe = house / "egs/own"
    assert "made egs/own and ser/corpora/own.py" in result.stdout

    run(house, "--corpus", recordings, "--stop-stage", "0")
    assert (recipe / "data/all/utt2spk").read_text().splitlines()[0] == "f01-angry-1 f01"
    assert len((recipe / "data/all/spk2gender").read_text().splitlines()) == len(SPEAKERS)

    # as if it were a data directory that someone else made; the module is not needed
    for name in ("report.txt", "utt2md5"):
        (recipe / "data/all" / name).unlink()
    (house / "ser/corpora/own.py").unlink()
    shown = run(house, "--stop-stage", "2", "--nj", "1")
    assert "5 folds by spk; 5 speakers: train 3, dev 1, test 1\n" in shown
    (features,) = recipe.glob("dump/lld-*/feats.scp")
    assert len(features.read_text().splitlines()) == len(SPEAKERS) * len(EMOTIONS)


def test_a_recipe_runs_from_a_table_without_a_module(house, recordings, tmp_path):
    """One speaker is left out in each fold; the sixth has never been heard to be sad or happy."""
    for emo in EMOTIONS[:2]:
        shutil.copy(recordings / f"m05_{emo}_1.wav", recordings / f"x06_{emo}_1.wav")
    lines = [f"recordings/{path.name},{','.join(path.stem.split('_')[:2])}\n" for path in sorted(recordings.iterdir())]
    (tmp_path / "table.csv").write_text("path,speaker,emotion\n" + "".join(lines))
    assert new_recipe(house, "own").returncode == 0
    (house / "ser/corpora/own.py").unlink()
    protocol = house / "egs/own/conf/protocols/honest.yaml"
    protocol.write_text(protocol.read_text().replace("number: 5", "number: all"))
    shown = run(house, "--corpus", tmp_path / "table.csv", "--stop-stage", "6")
    assert "6 folds by spk; 6 speakers: train 4, dev 1, test 1\n" in shown
    assert "fold 6: train 16, dev 4, test 2 (none of neutral, sad)\n" in shown
    results = (house / "egs/own/RESULTS.md").read_text()
    assert "| honest UA | honest WA pooled | honest UA pooled | runs |" in results
    assert not (house / "egs/own/data/all/spk2gender").exists()


def test_nothing_of_the_template_s_is_left(house):
    assert new_recipe(house, "own").returncode == 0
    files = [path for path in [*(house / "egs").rglob("*"), house / "ser/corpora/own.py"] if path.is_file()]
    names = {str(path.relative_to(house)) for path in files}
    assert names == {
        "egs/own/run.sh", "egs/own/cmd.sh", "egs/own/path.sh", "egs/own/README.md", "egs/own/conf/baseline/svm_functionals.yaml",
        "egs/own/conf/protocols/honest.yaml", "ser/corpora/own.py",
    }  # fmt: skip
    for path in files:
        text = path.read_text()
        assert "@" not in text.replace('"$@"', "").replace('"${', ""), path
    shown = call(house / "egs/own/run.sh", "--help").stdout
    assert shown.startswith("own: ") and "--note" not in shown  # a sentence on mini's corpus, for its RESULTS.md


@pytest.mark.parametrize("fault", ["names", "nothing there"])
def test_a_corpus_that_the_module_cannot_read_is_one_line(house, recordings, fault):
    assert new_recipe(house, "own").returncode == 0
    if fault == "names":
        for path in recordings.iterdir():
            path.rename(path.with_name(f"x{path.name}"))
        result = call(house / "egs/own/run.sh", "--corpus", recordings, "--stop-stage", "0")
        told = f"error: {recordings}: no recording has a name like f01_angry_12.wav; change FORM in own.py to the corpus's own names\n"
    else:
        result = call(house / "egs/own/run.sh", "--stop-stage", "0")
        told = "error: downloads/own: not found; put the corpus there, give its folder with --corpus, or put a Kaldi data directory in data/all\n"
    assert (result.returncode, result.stderr) == (1, told)


@pytest.mark.parametrize("name", ["Own", "1own", "_own", "my-own", "my own", "../own", "", "own/", "ówn"])
def test_a_bad_name_is_refused(house, name):
    result = new_recipe(house, name)
    told = f"error: '{name}': a name has lower-case letters, digits and _ only, and begins with a letter\n"
    assert (result.returncode, result.stdout, result.stderr) == (1, "", told)
    assert not any((house / "egs").iterdir())


@pytest.mark.parametrize("arguments", [[], ["a", "b"]])
def test_one_name_is_needed(house, arguments):
    result = new_recipe(house, *arguments)
    assert (result.returncode, result.stderr) == (1, "error: give one name: tools/new_recipe.sh NAME\n")


@pytest.mark.parametrize("there", ["egs/own", "ser/corpora/own.py"])
def test_what_exists_is_left_alone(house, there):
    (house / there).mkdir() if there.startswith("egs") else (house / there).write_text("mine")
    before = sorted(house.rglob("*"))
    result = new_recipe(house, "own")
    assert (result.returncode, result.stderr) == (1, f"error: {there} exists; choose another name, or remove it\n")
    assert sorted(house.rglob("*")) == before
