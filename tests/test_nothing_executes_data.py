"""Nothing that is read may run: no pickle, no YAML with types, no shell, no eval, no archive without a filter."""

import ast
import re
from pathlib import Path

import pytest

import ser

ROOT = Path(ser.__file__).parents[1]
OWN = [
    *ROOT.glob("ser/**/*.py"),
    *(path for path in ROOT.glob("tools/**/*.py") if "venv" not in path.relative_to(ROOT).parts),
]
PYTHON = [*OWN, *ROOT.glob("tests/**/*.py")]
SHELL = [path for path in ROOT.rglob("*.sh") if not {"venv", "downloads", "exp"} & set(path.relative_to(ROOT).parts)]

# Never, not even by name. A module stands for all that is in it.
FORBIDDEN = re.compile(
    r"""(pickle|_pickle|cPickle|dill|cloudpickle|jsonpickle|joblib|shelve|marshal)(\..*)?
    |yaml\.(full_|unsafe_)?load(_all)? | yaml\.(c?yaml\.)?(C?Loader|C?FullLoader|C?UnsafeLoader) | ruamel(\..*)?
    |(builtins\.)?(eval|exec|compile)
    |os\.(system|popen) | subprocess\.(getoutput|getstatusoutput) | asyncio(\.subprocess)?\.create_subprocess_shell
    |pandas\.read_pickle | numpy\.lib\.format\.read_array""",
    re.VERBOSE,
)
# kaldiio unpickles an archive that says it is a pickle, and runs an index that says it is a command.
# Tests read with it what they have just written.
FORBIDDEN_IN_OWN = re.compile(
    r"kaldiio\.(matio\.)?(load_(mat|ark|scp|scp_sequential|wav_scp)|read_kaldi)|kaldiio\.(utils\.)?(ReadHelper|open_like_kaldi)"
)
# Only so: calls, by name, that need an argument of this value, or may not have one of any other.
NEEDED = {"torch.load": ("weights_only", True), "shutil.unpack_archive": ("filter", "data")}
REFUSED = {
    "numpy.load": ("allow_pickle", False),
    "skops.io.load": ("trusted", None),
    "skops.io.loads": ("trusted", None),
}
# In tests these stand in texts that are to be found or refused, or make the bad input.
ALLOWED = {(f"tests/test_{name}.py", what) for name in ("archive", "xvectors") for what in ("pickle", "pickle.dumps")}
ALLOWED |= {  # trusted: types that the source of the model's module lists
    ("ser/learners/classical.py", "skops.io.load"), ("tests/models/test_encoder_svm.py", "skops.io.loads")
}  # fmt: skip


def faults(path, own=False):
    """`line: what` for each place in a Python file where data could run."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names, zips, found, fit = {}, [], [], set()

    def full_name(node):
        """numpy.load for np.load after `import numpy as np`; None for what has no such name."""
        if isinstance(node, ast.Name):
            return names.get(node.id, node.id)
        base = full_name(node.value) if isinstance(node, ast.Attribute) else None
        return base and f"{base}.{node.attr}"

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for item in node.names:
                names[item.asname or item.name.partition(".")[0]] = (
                    item.name if item.asname else item.name.partition(".")[0]
                )
                found += [(node, item.name)] if is_forbidden(item.name, own) else []
        elif isinstance(node, ast.ImportFrom):
            for item in node.names:
                name = f"{node.module}.{item.name}"
                names[item.asname or item.name] = name
                found += [(node, name)] if is_forbidden(name, own) else []
    for node in ast.walk(tree):
        for item in node.items if isinstance(node, ast.With) else []:
            if isinstance(item.context_expr, ast.Call) and full_name(item.context_expr.func) == "zipfile.ZipFile":
                zips += [
                    (name.id, node.lineno, node.end_lineno)
                    for name in [item.optional_vars]
                    if isinstance(name, ast.Name)
                ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            keywords = {
                item.arg: item.value.value if isinstance(item.value, ast.Constant) else ... for item in node.keywords
            }
            name = full_name(node.func)
            if keywords.get("shell", False) is not False:
                found.append((node, "shell=True"))
            if name in NEEDED and keywords.get(NEEDED[name][0]) == NEEDED[name][1]:
                fit.add(id(node.func))
            if (
                name in REFUSED
                and keywords.get(REFUSED[name][0], REFUSED[name][1]) is REFUSED[name][1]
                and None not in keywords
            ):
                fit.add(id(node.func))
            if isinstance(node.func, ast.Attribute) and not keywords.get("filter"):
                receiver = getattr(node.func.value, "id", None)
                is_zip = any(receiver == zipped and first <= node.lineno <= last for zipped, first, last in zips)
                # ZipFile.extract cleans the member's name; the features' modules have an `extract` too
                if node.func.attr == "extractall" or (
                    node.func.attr == "extract" and "tarfile" in names and not is_zip
                ):
                    found.append((node, f"{node.func.attr} without filter"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and id(node) not in fit:
            name = full_name(node)
            if name and (is_forbidden(name, own) or name in NEEDED or name in REFUSED):
                found.append((node, name))
    return [
        f"{node.lineno}: {what}"
        for node, what in found
        if (path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else "", what) not in ALLOWED
    ]


def is_forbidden(name, own):
    return bool(FORBIDDEN.fullmatch(name) or (own and FORBIDDEN_IN_OWN.fullmatch(name)))


SHELL_FORBIDDEN = re.compile(
    r"(^|[;&|({`!]|\b(?:then|do|else|if|while))\s*eval\b|\bpickle\b|yaml\.load|yaml\.unsafe_load|torch\.load|shell=True"
    r"|\b(curl|wget)\b[^#\n]*\|\s*(sudo\s+)?(ba|z|da)?sh\b|(\bsource|(^|\s)\.)\s+<\(|\b(ba)?sh\s+(-c\s+[\"']?\$\(|<\()"
)


def shell_faults(path):
    """The same for a shell script, line by line; comments are left out."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [
        f"{number}: {line.strip()}"
        for number, line in enumerate(lines, 1)
        if SHELL_FORBIDDEN.search(re.sub(r"(^|\s)#.*", "", line))
    ]


def of(path):
    return path.relative_to(ROOT).as_posix()


def test_the_files_are_found():
    assert {"ser/config.py", "ser/features/logmel.py", "tools/run.py", "tests/conftest.py"} <= {
        of(path) for path in PYTHON
    }
    assert {"path.sh", "tools/install.sh", "egs/ravdess/run.sh", "tests/run.sh"} <= {of(path) for path in SHELL}
    assert len(PYTHON) < 300  # no environment's


@pytest.mark.parametrize("path", PYTHON, ids=of)
def test_no_python_of_ours_executes_data(path):
    assert faults(path, own=path in OWN) == []


@pytest.mark.parametrize("path", SHELL, ids=of)
def test_no_script_of_ours_executes_data(path):
    assert shell_faults(path) == []


BAD = """
import pickle
import cPickle as p
from pickle import loads
import dill
import shelve
import marshal
import joblib
from joblib import load
import torch; torch.load("x")
import torch; torch.load("x", weights_only=False)
import torch; torch.load("x", weights_only=some)
import torch as t; t.load("x", "cpu")
from torch import load; load("x")
import torch; reader = torch.load
import torch; torch.load("x", **options)
import numpy as np; np.load("x", allow_pickle=True)
import numpy; numpy.load("x", None, allow_pickle=some)
import numpy; numpy.load("x", **options)
from numpy import load as l; l("x", allow_pickle=1)
import yaml; yaml.load("x", yaml.SafeLoader)
import yaml; yaml.load(stream, Loader=yaml.CSafeLoader)
import yaml; yaml.full_load("x")
import yaml; yaml.unsafe_load("x")
import yaml; yaml.load_all("x", yaml.SafeLoader)
from yaml import unsafe_load
import yaml; yaml.Loader("x").get_single_data()
from yaml import CLoader
eval("1")
exec("1")
exec(compile("1", "x", "exec"))
import builtins; builtins.eval("1")
run = eval
import os; os.system("ls")
from os import popen
import subprocess; subprocess.run("ls", shell=True)
import subprocess; subprocess.Popen("ls", shell=some)
import subprocess as s; s.getoutput("ls")
import tarfile; tarfile.open("x").extractall("y")
import tarfile; tarfile.open("x").extract("z", "y")
import tarfile; t = tarfile.open("x"); t.extract("z", filter=None)
import zipfile; zipfile.ZipFile("x").extractall("y")
import zipfile, tarfile; z = tarfile.open("x"); z.extract("z", "y")
import shutil; shutil.unpack_archive("x.tar", "y")
import shutil; shutil.unpack_archive("x.tar", "y", filter="fully_trusted")
import skops.io; skops.io.load("x", trusted=["a"])
import skops.io as sio; sio.load("x", trusted=sio.get_untrusted_types(file="x"))
from skops.io import loads; loads(b"x", trusted=some)
import pandas; pandas.read_pickle("x")
import kaldiio; kaldiio.load_mat("x")
from kaldiio import ReadHelper
import kaldiio.matio; kaldiio.matio.read_kaldi(stream)
""".strip().splitlines()
GOOD = r"""
model.eval()
self.eval().exec()
import re; re.compile("x")
from re import compile as pattern; pattern("x")
import json; json.load(stream); json.loads("1")
import numpy as np; np.load("x"); np.load("x", allow_pickle=False)
import torch; torch.load("x", weights_only=True); torch.compile(model)
import yaml; yaml.safe_load("x"); yaml.SafeLoader("x").get_single_data()
class Loader(SafeLoader): pass
import safetensors.torch; safetensors.torch.load(b"x")
import skops.io; skops.io.load("x"); skops.io.dump(machine, stream)
import subprocess; subprocess.run(["bash", "-c", "ls"]); subprocess.run(["ls"], shell=False)
import tarfile; tarfile.open("x").extractall("y", filter="data"); tarfile.open("x").extract("z", "y", filter="data")
import tarfile, zipfile\nwith zipfile.ZipFile("x") as z:\n    z.extract("z", "y")
from ser.features import logmel; logmel.extract(samples, config)
text = "pickle.load, eval('1') and shell=True"
from kaldiio.matio import read_matrix_or_vector, write_array
import os; os.path.join("a"); os.replace("a", "b")
networks.load("x"); audio.run("x"); config.load_kind("x")
""".strip().splitlines()
BAD_SHELL = """
eval "$x"
  if eval $x; then
x=1; eval "x$y"
curl -s https://x | bash
wget -O - https://x | sudo sh -s
bash -c "$(curl https://x)"
source <(python x)
. <(python x)
python -c 'import pickle'
python -c 'import yaml; yaml.load(open("x"))'
""".strip().splitlines()
GOOD_SHELL = """
echo ok  # never eval "$x", nor curl x | bash
python -m ser.evaluate --evaluation 1
curl -o x.zip https://x && unzip x.zip
bash -c "echo 1"
. ./path.sh
source tools/venv/bin/activate
medieval=1
""".strip().splitlines()


@pytest.mark.parametrize("line", BAD)
def test_a_line_that_executes_data_is_found(tmp_path, line):
    path = tmp_path / "x.py"
    path.write_text(f"import math\n\n{line}\n")
    assert faults(path, own=True)
    assert all(fault.startswith("3: ") for fault in faults(path, own=True))


@pytest.mark.parametrize("line", GOOD)
def test_a_line_that_looks_like_it_is_not(tmp_path, line):
    path = tmp_path / "x.py"
    path.write_text(line.replace("\\n", "\n"))
    assert faults(path, own=True) == []


@pytest.mark.parametrize(("lines", "is_found"), [(BAD_SHELL, True), (GOOD_SHELL, False)])
def test_lines_of_scripts(tmp_path, lines, is_found):
    for line in lines:
        (tmp_path / "x.sh").write_text(f"set -e\n{line}\n")
        assert bool(shell_faults(tmp_path / "x.sh")) == is_found, line
