"""tools/parse_options.sh, sourced by a recipe as egs/*/run.sh source it."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

RECIPE = r"""#!/usr/bin/env bash
# Mini: a corpus made on the spot.
#
# usage: ./run.sh [options]
set -eu
cd "$(dirname "$0")"

stage=-1                  # first stage to run
stop_stage=6              # last stage to run
cmd="run.py --mem 4G"     # where jobs run
corpus=                   # folder of the corpus
strict=false              # missing files are an error
here=$(dirname "$0")
PRIVATE=1
. "{root}/tools/parse_options.sh"
late=1
printf '%s\0' "$stage" "$stop_stage" "$cmd" "$corpus" "$strict" "$@"
printf '%s\n' "$options_given" >given
"""

DEFAULTS = ["-1", "6", "run.py --mem 4G", "", "false"]


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "egs/mini/run.sh"
    path.parent.mkdir(parents=True)
    path.write_text(RECIPE.replace("{root}", str(ROOT)))
    path.chmod(0o755)
    return path


def call(recipe, *arguments):
    return subprocess.run([recipe, *arguments], capture_output=True, text=True)


def given(recipe):
    return (recipe.parent / "given").read_text()


def values(recipe, *arguments):
    result = call(recipe, *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.split("\0")[:-1]


def error_line(result):
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def test_defaults_stay_where_nothing_is_given(recipe):
    assert values(recipe) == DEFAULTS
    assert given(recipe) == " \n"


def test_options_are_set_in_both_spellings(recipe):
    assert values(recipe, "--stage", "2", "--stop-stage=4", "--strict", "true") == [
        "2", "4", "run.py --mem 4G", "", "true",
    ]  # fmt: skip
    assert given(recipe) == " stage stop_stage strict \n"


QUOTED = ["a b  c", 'it\'s "quoted"', "$HOME `id` $(id) \\n", "été ∂", "two\nlines\n", "*"]


@pytest.mark.parametrize("value", [*QUOTED, "a=b", "--mem 4G", ""])
def test_values_arrive_unchanged(recipe, value):
    assert values(recipe, "--cmd", value)[2] == value
    assert values(recipe, f"--cmd={value}")[2] == value


def test_what_is_no_option_is_an_error(recipe):
    result = call(recipe, "--stage", "2", "a b", "--stop-stage", "3")
    assert "takes only options, not 'a b'" in error_line(result)


@pytest.mark.parametrize("typed", ["--stagee", "-stage", "--late", "--here", "--PRIVATE", "--path", "--home", "--"])
def test_an_unknown_option_is_an_error_that_names_the_known_ones(recipe, typed):
    line = error_line(call(recipe, typed, "1"))
    assert f"unknown option {typed};" in line
    assert "--stage --stop-stage --cmd --corpus --strict" in line


@pytest.mark.parametrize("value", ["one", "", "1.5", "07", "1 2", "--stop-stage"])
def test_a_whole_number_is_needed_where_the_default_is_one(recipe, value):
    assert "--stage needs a whole number" in error_line(call(recipe, f"--stage={value}"))


@pytest.mark.parametrize("value", ["yes", "1", "True", ""])
def test_true_or_false_is_needed_where_the_default_is_one(recipe, value):
    assert "--strict needs true or false" in error_line(call(recipe, "--strict", value))


@pytest.mark.parametrize("arguments", [["--corpus"], ["--corpus", "--stage", "3"], ["--stage"]])
def test_a_forgotten_value_is_an_error(recipe, arguments):
    assert f"{arguments[0]} needs a value" in error_line(call(recipe, *arguments))


def test_help_shows_the_comment_and_the_options(recipe):
    result = call(recipe, "--stage", "2", "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "Mini: a corpus made on the spot.",
        "",
        "usage: ./run.sh [options]",
        "",
        "options:",
        "  --stage              first stage to run (default: -1)",
        "  --stop-stage         last stage to run (default: 6)",
        "  --cmd                where jobs run (default: run.py --mem 4G)",
        "  --corpus             folder of the corpus",
        "  --strict             missing files are an error (default: false)",
    ]


@pytest.mark.parametrize("typed, folder", [("egs/mini/run.sh", "."), ("mini/run.sh", "egs"), ("run.sh", "egs/mini")])
def test_the_recipe_is_found_from_any_folder(recipe, typed, folder):
    command = ["bash", typed, "--stage", "3"]
    result = subprocess.run(command, cwd=recipe.parents[2] / folder, capture_output=True, text=True)
    assert result.stdout.split("\0")[0] == "3", result.stderr
