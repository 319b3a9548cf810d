"""Recipes: egs/mini from the first stage to the last on a quarter of its corpus, every run.sh's options, and the
ways in which a run.sh may be called."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import ser
from ser.config import read_protocol

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
    for name in ("mini", "ravdess", "iemocap"):  # mini's systems are based on those of ravdess, and these on iemocap's
        shutil.copytree(REPOSITORY / "egs" / name / "conf", house / "egs" / name / "conf")
    for name in ("svm", "svm_functionals"):
        edit(recipe / f"conf/baseline/{name}.yaml", lambda system: system.update(model={"cost": [3], "gamma": [0.3]}))
    edit(recipe / "conf/baseline/logistic.yaml", lambda system: system.update(model={"cost": [0.1]}))
    edit(recipe / "conf/pretrained/encoder_svm.yaml", lambda system: system.update(model={"cost": [3], "gamma": [0.3]}))
    for name in ("sherman/cnn4_blstm_attention_small", "pretrained/encoder_finetune"):
        edit(recipe / f"conf/{name}.yaml", lambda system: system["training"].update(epochs=1))
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
    assert out.rstrip().endswith(f"{mini}/RESULTS.md\n{mini}/results.html")
    text = (mini / "RESULTS.md").read_text()
    small = [f"cnn4_blstm_attention_small_honest_{name}" for name in ("confusion", "curves", "tsne", "attention")]
    systems = (
        "encoder_finetune", "encoder_svm", "logistic", "svm", "svm_functionals", "cnn4_blstm_attention_small"
    )  # fmt: skip
    assert all((mini / f"figures/others/{system}_honest_confusion.png").exists() for system in systems[:-1])
    for figure in small:
        assert f"](figures/{figure}.png)" in text
        assert (mini / f"figures/{figure}.png").exists()
        assert (mini / f"figures/{figure}.txt").exists()

    assert len((mini / "data/all/wav.scp").read_text().splitlines()) == 6 * 2 * 4 * 2
    section = text.split("\n## Systems\n")[1].split("\n## ")[0]
    lines = {line.split()[1]: line for line in section.splitlines() if line.startswith("| ")}
    assert {name for name in lines if name.endswith("‖")} == {"encoder_finetune‖", "encoder_svm‖"}
    lines = {name.rstrip("‖"): line for name, line in lines.items()}
    assert lines.keys() == {"system", "---", *systems}
    for system in systems:
        line = lines[system]
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
    assert "classical: 4 runs, 4 done, 0 to do\n" in out
    assert "network: 2 runs, 2 done, 0 to do\n" in out


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
    assert lines[-1] == '. "$recipe/../../tools/stages.sh"'
    assert len(lines) < 40
    lines += (REPOSITORY / "tools/stages.sh").read_text().splitlines()
    assert len([line for line in lines if line and not line.startswith("#")]) < 110
    stages = [int(number) for number in re.findall(r"(?m)^if at_stage (-?\d+) ", "\n".join(lines))]
    assert stages == list(range(-1, 7))  # the same number in every recipe


@pytest.fixture
def house(tmp_path):
    """Two recipes, egs/a and "egs/b c", whose python tells in which folder it was called, and with what."""
    link(tmp_path, "tools")
    python = tmp_path / "bin/python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\n[ "$1" != -c ] || exec {sys.executable} "$@"\necho "python in $PWD: $*"\n')
    python.chmod(0o755)
    for name in ("a", "b c"):
        recipe = tmp_path / "egs" / name
        for system in ("baseline/one", "baseline/two", "other/three"):
            (recipe / f"conf/{system}.yaml").parent.mkdir(parents=True, exist_ok=True)
            (recipe / f"conf/{system}.yaml").touch()
        text = (REPOSITORY / "egs/mini/run.sh").read_text()
        text, count = re.subn("(?m)^systems=.*", "systems='conf/baseline/*.yaml'  # system files", text)
        assert count == 1
        (recipe / "run.sh").write_text(text)
        (recipe / "run.sh").chmod(0o755)
        (recipe / "cmd.sh").write_text("feature_cmd=run.py\ntrain_cmd=run.py\n")
        (recipe / "path.sh").write_text(f"PATH='{python.parent}':$PATH\n")
    return tmp_path


def told(*command, folder, **variables):
    """What each stage of a recipe called, as (folder, module, arguments)."""
    result = subprocess.run(command, cwd=folder, env=os.environ | variables, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return re.findall(r"(?m)^python in (.*?): -m ser\.(\w+) (.*)$", result.stdout)


def systems_of(calls):
    (words,) = [arguments.split("--systems ")[1].split(" --")[0] for _, name, arguments in calls if name == "score"]
    return words.split()


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize(
    ("script", "folder"),
    [("run.sh", "egs/a"), ("./run.sh", "egs/a"), ("egs/a/run.sh", "."), ("../a/run.sh", "egs/b c")],
)
def test_a_recipe_is_called_from_anywhere_by_any_shell(house, shell, script, folder):
    elsewhere = house / "elsewhere"
    (elsewhere / "egs/a").mkdir(parents=True)  # where cd would go if CDPATH counted
    calls = told(shell, script, folder=house / folder, CDPATH=str(elsewhere))
    assert {place for place, _, _ in calls} == {str(house / "egs/a")}
    assert [name for _, name, _ in calls][:4] == ["get_corpus", "tiny_encoder", "prepare_data", "validate_data"]
    assert systems_of(calls) == ["conf/baseline/one.yaml", "conf/baseline/two.yaml"]


def test_where_the_environment_is_has_nothing_to_do_with_the_caller_s(tmp_path):
    """CDPATH holds folders of the same names, and a module has set Python's own variables."""
    house, elsewhere = tmp_path / "house", tmp_path / "elsewhere"
    (house / "tools/venv/bin").mkdir(parents=True)
    (elsewhere / "house/tools").mkdir(parents=True)
    for name in ("path.sh", "tools/install.sh", "tools/requirements.txt"):
        shutil.copy(REPOSITORY / name, house / name)
    shutil.copy(house / "tools/requirements.txt", house / "tools/venv/ser-requirements.txt")
    (house / "tools/venv/ser-packages.txt").touch()
    (house / "tools/venv/bin/python").write_text("#!/bin/sh\n")
    (house / "tools/venv/bin/python").chmod(0o755)
    environment = os.environ | {"CDPATH": str(elsewhere), "PYTHONPATH": "/module", "PYTHONHOME": "/module"}

    def said(*command):
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        return result.stdout, result.stderr

    show = 'echo "$SER_ROOT $PYTHONPATH ${PYTHONHOME-none}"'
    assert said("bash", "-c", f". house/path.sh; {show}") == (f"{house} {house} none\n", "")
    assert said("sh", "house/tools/install.sh") == ("tools/venv: everything is installed\n", "")


def test_slurm_runs_a_copy(house):
    copy = house / "var/spool/job00042/slurm_script"
    copy.parent.mkdir(parents=True)
    shutil.copy(house / "egs/a/run.sh", copy)
    for variables in ({"SLURM_SUBMIT_DIR": str(house / "egs/a")}, {}):
        calls = told("bash", copy, "--stage", "5", folder=house / "egs/a", **variables)
        assert [(place, name) for place, name, _ in calls] == [
            (str(house / "egs/a"), name) for name in ("score", "report")
        ]
    result = subprocess.run(["bash", copy], cwd=house, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (1, f"error: {copy}: call sbatch in the recipe's folder\n")


def test_windows_line_ends_are_kept_out(tmp_path):
    if not shutil.which("git"):
        pytest.skip("no git here")
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(REPOSITORY / ".gitattributes", source)
    (source / "run.sh").write_text("#!/usr/bin/env bash\necho here\n")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@y", "-C", source]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *command], check=True)
    subprocess.run(["git", "clone", "-q", "-c", "core.autocrlf=true", source, tmp_path / "clone"], check=True)
    assert (tmp_path / "clone/run.sh").read_bytes() == (source / "run.sh").read_bytes()


@pytest.mark.parametrize(
    ("folder", "given", "found"),
    [
        ("egs/a", "conf/baseline/two.yaml", ["conf/baseline/two.yaml"]),
        (
            "egs/a",
            "conf/*/t*.yaml conf/baseline/one.yaml",
            ["conf/baseline/two.yaml", "conf/other/three.yaml", "conf/baseline/one.yaml"],
        ),
        ("egs/a", "../a/conf/other/*.yaml", ["../a/conf/other/three.yaml"]),
        (".", "conf/other/*.yaml", ["conf/other/three.yaml"]),  # seen from the recipe
        (".", "egs/a/conf/other/*.yaml", ["../../egs/a/conf/other/three.yaml"]),  # from the user
        ("mine", "*.yaml", ["../../mine/x.yaml", "../../mine/y.yaml"]),
        ("mine", "conf/baseline/one.yaml", ["../../mine/conf/baseline/one.yaml"]),  # from both
        ("mine", "x.yaml conf/baseline/two.yaml", ["../../mine/x.yaml", "conf/baseline/two.yaml"]),
        ("mine", "{house}/mine/[y].yaml", ["{house}/mine/y.yaml"]),
        ("mine", None, ["conf/baseline/one.yaml", "conf/baseline/two.yaml"]),  # the default is the recipe's
    ],
)
def test_where_systems_are_seen_from(house, folder, given, found):
    (house / "mine/conf/baseline").mkdir(parents=True)
    for name in ("x", "y", "conf/baseline/one"):
        (house / f"mine/{name}.yaml").touch()
    options = [] if given is None else ["--systems", given.format(house=house)]
    calls = told(house / "egs/a/run.sh", *options, folder=house / folder)
    assert systems_of(calls) == [path.format(house=house) for path in found]


def test_systems_are_seen_from_a_folder_with_a_space(house):
    calls = told(house / "egs/a/run.sh", "--stage", "5", "--systems", "conf/other/*.yaml", folder=house / "egs/b c")
    assert "--systems ../b c/conf/other/three.yaml --protocols" in calls[0][2]


@pytest.mark.parametrize("pattern", ["conf/none.yaml", "conf/none/*.yaml"])
def test_systems_that_are_nowhere(house, pattern):
    result = call(house / "egs/a/run.sh", "--systems", f"conf/baseline/one.yaml {pattern}", folder=house)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"error: --systems {pattern}: no such file in {house}, nor in {house}/egs/a\n"
    result = call("./run.sh", "--systems", pattern, folder=house / "egs/a")
    assert result.stderr == f"error: --systems {pattern}: no such file in {house}/egs/a\n"


def test_settings_to_try_make_system_files_that_all_stages_take(house):
    calls = told(house / "egs/a/run.sh", "--systems", "conf/*/t*.yaml", "--set", "a.b=[1,2] c=x", folder=house)
    derive = "-m ser.derive_systems --set a.b=[1,2] c=x --systems conf/baseline/two.yaml conf/other/three.yaml"
    derived = f"--systems python in {house}/egs/a: {derive}"  # what this python prints stands for the files' paths
    taken = [name for _, name, arguments in calls if derived in arguments]
    assert taken == ["dump_features", "launch", "launch", "score", "report"]
    assert not any("derive_systems" in arguments for _, _, arguments in told(house / "egs/a/run.sh", folder=house))


PAPER = """\
name: Ours et al.
reference: authors, title
tables:
  - {number: III, title: one, protocol: paper, honest: apart, rows: [{name: x, wa: 61, systems: [three, one]}]}
  - {number: Fig. 1, title: two, protocol: noisy, honest: null, rows: [{name: x, wa: 61, systems: [two]}]}
"""


@pytest.fixture
def with_paper(house):
    """The recipe egs/a with a paper; its python answers ser.papers."""
    (house / "egs/a/conf/papers").mkdir()
    (house / "egs/a/conf/papers/ours.yaml").write_text(PAPER)
    python = house / "bin/python"
    head, rest = python.read_text().split("\n", 1)
    papers = f'[ "$2" != ser.papers ] || PYTHONPATH={REPOSITORY} exec {sys.executable} "$@"'
    python.write_text(f"{head}\n{papers}\n{rest}")
    return house


@pytest.mark.parametrize("folder", ["egs/a", "."])
@pytest.mark.parametrize(
    ("options", "systems", "protocols"),
    [
        ("--paper ours", "other/three baseline/one baseline/two", "paper apart noisy"),
        ("--paper ours --table III", "other/three baseline/one", "paper apart"),
        ("--paper ours --protocol mine --table III", "other/three baseline/one", "mine"),
        (["--paper", "ours", "--table", "Fig. 1"], "baseline/two", "noisy"),
        ("--paper ours --table III --systems conf/*/one.yaml", "baseline/one", "paper apart"),  # one of its systems
    ],
)
def test_a_papers_tables_choose_systems_and_protocols(with_paper, folder, options, systems, protocols):
    options = options.split() if isinstance(options, str) else options
    calls = told(with_paper / "egs/a/run.sh", *options, folder=with_paper / folder)
    assert systems_of(calls) == [f"conf/{name}.yaml" for name in systems.split()]
    (asked,) = [arguments.split("--protocols ")[1] for _, name, arguments in calls if name == "score"]
    assert asked.split() == [f"conf/protocols/{name}.yaml" for name in protocols.split()]
    folds = [arguments.split()[0] for _, name, arguments in calls if name == "make_folds"]
    assert folds == asked.split()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--table III", "--table III: give its paper too, with --paper"),
        ("--paper our", "--paper our: no conf/papers/our.yaml; known: ours"),
        ("--paper ours --table VI", "--table VI: not in conf/papers/ours.yaml; known: III, Fig. 1"),
    ],
)
def test_a_papers_table_that_cannot_be_run(with_paper, options, message):
    result = call(with_paper / "egs/a/run.sh", *options.split())
    assert (result.returncode, result.stdout, result.stderr) == (1, "", f"error: {message}\n")


@pytest.mark.parametrize("value", ["true", "false", None])
def test_runs_are_overwritten_by_an_option(house, value):
    options = [] if value is None else ["--overwrite", value]
    calls = told(house / "egs/a/run.sh", *options, folder=house)
    given = [name for _, name, arguments in calls if "--overwrite" in arguments.split()]
    assert given == (["launch", "launch"] if value == "true" else [])


@pytest.mark.parametrize("allowed", ["true", "false", None])
def test_pipes_are_allowed_by_an_option(house, allowed):
    options = [] if allowed is None else ["--allow-pipes", allowed]
    calls = told(house / "egs/a/run.sh", *options, folder=house)
    given = {name for _, name, arguments in calls if "--allow-pipes" in arguments.split()}
    assert given == ({"validate_data", "make_folds", "dump_features"} if allowed == "true" else set())


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_begin_alike(recipe):
    """From the options on, but for what a recipe says of itself."""
    own = (REPOSITORY / "egs" / recipe / "run.sh").read_text()
    mini = (REPOSITORY / "egs/mini/run.sh").read_text()
    begin, end = '[ -n "${BASH_VERSION-}"', "parse_options.sh"
    assert own[own.index(begin) : own.index(end)] == mini[mini.index(begin) : mini.index(end)]


def test_ravdess_has_one_draw_in_three_protocols():
    """The split follows from the labels that are taken and from the draw's seed; paper_splits' first fold, and
    paper_eight's, are paper's."""
    paper, splits, eight = (
        read_protocol(REPOSITORY / f"egs/ravdess/conf/protocols/{name}.yaml")
        for name in ("paper", "paper_splits", "paper_eight")
    )
    assert replace(splits.folds, number=1) == replace(eight.folds, number=1) == paper.folds
    assert splits.classes == paper.classes
    assert splits.select == eight.select == paper.select == "test"
    taken = [sorted(label for labels in protocol.classes.values() for label in labels) for protocol in (paper, eight)]
    assert taken[0] == taken[1]
    assert [len(labels) for labels in eight.classes.values()] == [1] * 8
