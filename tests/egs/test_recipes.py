"""Recipes: egs/mini from the first stage to the last on a quarter of its corpus, and every run.sh's options."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import ser

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = Path(ser.__file__).parent
RECIPES = sorted(path.parent.name for path in REPOSITORY.glob("egs/*/run.sh"))


def call(script, *options, folder=None):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([script, *options], cwd=folder, env=environment, capture_output=True, text=True)


def run(script, *options):
    result = call(script, *options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def edit(path, change):
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))


def link(house, *names):
    for name in names:
        (house / name).symlink_to(REPOSITORY / name)


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    """A house with the recipe mini: two sentences instead of eight, one epoch, one choice for the SVM."""
    house = tmp_path_factory.mktemp("house")
    link(house, "path.sh", "tools")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, house / "ser", ignore=ignored)
    corpus = house / "ser/corpora/mini.py"
    text, lines = re.subn(r'(?m)^    "s[3-8]": ".*",\n', "", corpus.read_text())
    assert lines == 6
    corpus.write_text(text)

    recipe = house / "egs/mini"
    recipe.mkdir(parents=True)
    for name in ("run.sh", "cmd.sh", "path.sh"):
        shutil.copy(REPOSITORY / "egs/mini" / name, recipe)
    for name in ("mini", "ravdess"):  # mini's systems are based on those of ravdess
        shutil.copytree(REPOSITORY / "egs" / name / "conf", house / "egs" / name / "conf")
    edit(recipe / "conf/baseline/svm.yaml", lambda system: system.update(model={"cost": [3], "gamma": [0.3]}))
    edit(recipe / "conf/sherman/cnn4_blstm_attention_small.yaml", lambda system: system["training"].update(epochs=1))
    return recipe


def content(recipe):
    """The time of each file that stages 3 to 5 write."""
    folders = [recipe / name for name in ("exp", "results")]
    return {path: path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*") if path.is_file()}


def test_every_stage_of_mini(mini):
    options = ["--protocol", "honest", "--folds", "1", "--nj", "1"]
    out = run(mini / "run.sh", *options)
    stages = [line for line in out.splitlines() if line.startswith("== ")]
    assert [line.split(":")[0] for line in stages] == [f"== Stage {number}" for number in range(-1, 7)]
    assert out.rstrip().endswith(f"{mini}/RESULTS.md")
    text = (mini / "RESULTS.md").read_text()
    small = [f"cnn4_blstm_attention_small_honest_{name}" for name in ("confusion", "curves", "tsne", "attention")]
    for figure in ("svm_honest_confusion", *small):
        assert f"](figures/{figure}.png)" in text
        assert (mini / f"figures/{figure}.png").exists()
        assert (mini / f"figures/{figure}.txt").exists()

    assert len((mini / "data/all/wav.scp").read_text().splitlines()) == 6 * 2 * 4 * 2
    table = [line for line in text.split("\n## ")[0].splitlines() if line.startswith("| ")]
    assert len(table) == 4  # two systems under a heading
    for system, line in zip(("svm", "cnn4_blstm_attention_small"), table[2:], strict=True):
        assert line.startswith(f"| **{system}**")
        assert line.count("not run") == 2  # WA and UA of the protocol that was not asked for
        assert "| 1 (1 of 6 folds) |" in line
        scores = (mini / f"results/{system}/honest/fold1_seed1.txt").read_text().splitlines()
        answers = [line.split()[1:3] for line in scores if not line.startswith("#")]
        assert len(answers) == 16  # one voice's
        right = 100 * sum(true == predicted for true, predicted in answers) / 16
        assert f"| {right:.1f} |" in line

    before = content(mini)
    out = run(mini / "run.sh", *options, "--stage", "3", "--stop-stage", "5")
    stages = [line for line in out.splitlines() if line.startswith("== ")]
    assert [line.split(":")[0] for line in stages] == [f"== Stage {number}" for number in (3, 4, 5)]
    assert content(mini) == before  # nothing is made again
    assert "svm: 1 runs, 1 done, 0 to do\n" in out
    assert "network: 1 runs, 1 done, 0 to do\n" in out


@pytest.mark.parametrize("recipe", RECIPES)
def test_help(recipe):
    script = REPOSITORY / "egs" / recipe / "run.sh"
    out = run(script, "--help")
    assert out.partition(": ")[0].lower().replace("-", "") == recipe  # Att-HACK is atthack
    options = dict(re.findall(r"(?m)^  --([a-z-]+) +(.*)$", out))
    assert options.keys() >= {"stage", "stop-stage", "systems", "protocol", "folds", "seeds", "nj", "num-threads"}
    assert all(options.values())  # each has its comment
    assert "(default: -1)" in options["stage"]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("options", [["--stagee", "3"], ["--stage", "three"], ["--stage"], ["3"]])
def test_a_wrong_option_starts_nothing(recipe, options):
    result = call(REPOSITORY / "egs" / recipe / "run.sh", *options)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_reads_in_one_sitting(recipe):
    lines = (REPOSITORY / "egs" / recipe / "run.sh").read_text().splitlines()
    assert lines[-1] == '. "$(dirname "$0")/../../tools/stages.sh"'
    lines += (REPOSITORY / "tools/stages.sh").read_text().splitlines()
    assert len(lines) < 120
    stages = [int(number) for number in re.findall(r"(?m)^if at_stage (-?\d+) ", "\n".join(lines))]
    assert stages == list(range(-1, 7))  # the same number in every recipe
