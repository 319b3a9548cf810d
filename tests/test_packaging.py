"""The lists of packages, versions and checks, which stand in several files, agree."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import ser

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # which pytest brings there

ROOT = Path(ser.__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
IMPORTED_AS = {"markdown-it-py": "markdown_it", "scikit-learn": "sklearn", "PyYAML": "yaml"}
# imported only where a message says how to install them, or brought by scikit-learn and matplotlib
OTHERS = {"ser", "speechbrain", "espeakng_loader", "threadpoolctl", "PIL", "transformers", "huggingface_hub", "peft"}


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_package_needs_what_is_pinned():
    """Beside what pretrained encoders, tests and the synthetic corpus need, which the extras have."""
    extras = PROJECT["optional-dependencies"]
    needed, extra = set(PROJECT["dependencies"]), {*extras["dev"], *extras["pretrained"]}
    pinned = re.findall(r"^([\w-]+)==", read("tools/requirements.txt"), re.MULTILINE)
    assert not needed & extra
    assert needed | extra == set(pinned)


def test_ser_imports_only_what_it_needs():
    known = {IMPORTED_AS.get(name, name) for name in PROJECT["dependencies"]} | OTHERS | sys.stdlib_module_names
    found = {}
    for path in (ROOT / "ser").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            names = [item.name for item in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            found |= {name.partition(".")[0]: path.name for name in names}
    assert {"torch", "yaml", "sklearn"} <= found.keys()
    assert {name: file for name, file in found.items() if name not in known} == {}


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["version"] == ser.__version__
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # what the format demands
    headings = re.findall(r"^## \[(.+?)\]", read("CHANGELOG.md"), re.MULTILINE)
    assert headings[:2] == ["Unreleased", ser.__version__]


def test_every_way_of_checking_calls_the_same_commands():
    (job,) = yaml.safe_load(read(".github/workflows/tests.yml"))["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["tools/install.sh", "tests/run.sh"]
    assert read(".ci/run").splitlines()[-1].endswith('/../tests/run.sh" "$@"')
    (hooks,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert [hook["entry"] for hook in hooks["hooks"]] == ["tests/rules.sh"]
    assert "\n$rules && tests/rules.sh\n" in read("tests/run.sh")


def test_oldest_and_newest_python():
    """The workflow's matrix begins with what the package asks for."""
    (job,) = yaml.safe_load(read(".github/workflows/tests.yml"))["jobs"].values()
    assert PROJECT["requires-python"] == f">={job['strategy']['matrix']['python'][0]}"


@pytest.mark.parametrize(
    ("arguments", "status", "called"),
    [
        ([], 0, ["rules", "-m pytest"]),
        (["-q", "-x"], 0, ["rules", "-m pytest -q -x"]),
        ([], 1, ["rules"]),
        (["-q", "tests/test_a.py::test_b"], 0, ["-m pytest -q tests/test_a.py::test_b"]),
        (["-k", "word"], 0, ["-m pytest -k word"]),
    ],
)
def test_the_rules_come_before_all_tests_and_not_before_some(tmp_path, arguments, status, called):
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests/run.sh", tmp_path / "tests")
    (tmp_path / "path.sh").write_text('python() { echo "$@"; }\nexec() { "$@"; }\n')
    (tmp_path / "tests/test_a.py").touch()
    (tmp_path / "tests/rules.sh").write_text(f"#!/bin/sh\necho rules\nexit {status}\n")
    (tmp_path / "tests/rules.sh").chmod(0o755)
    done = subprocess.run([tmp_path / "tests/run.sh", *arguments], capture_output=True, text=True)
    assert (done.stdout.splitlines(), done.returncode, done.stderr) == (called, status, "")
