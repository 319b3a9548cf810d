"""Kill anything at any time, and the same command finishes the work: the outcome is that of an
undisturbed run, byte for byte.

A helper process imports what the commands need and forks for each, so that a kill costs no import.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import skops.io
import soundfile
import yaml

ROOT = Path(__file__).parents[1]
HELPER = """
import json, os, sys
import numpy, sklearn.svm, skops.io, soundfile, torch
from ser import cli, draw_run, dump_features, figures, make_folds, prepare_data, report, score, train
from ser.models import sherman, svm
commands = {module.__name__: module for module in (draw_run, dump_features, make_folds, prepare_data, report, score, train)}
torch.set_num_threads(1)
print("ready", flush=True)
for line in sys.stdin:
    folder, log, name, *arguments = json.loads(line)
    if not (child := os.fork()):
        os.chdir(folder)
        stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(stream, 1), os.dup2(stream, 2)
        try:
            cli.run(lambda: commands[name].main(arguments))
        except SystemExit as end:
            print(end, flush=True)
            os._exit(1)
        sys.stdout.flush()
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Helper:
    def __init__(self, log):
        self.log = log
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", HELPER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "ready\n"

    def run(self, folder, command, kill_after=None):
        """Run a command in a folder; return whether it was killed. It must not fail otherwise."""
        self.process.stdin.write(json.dumps([str(folder), str(self.log), *command]) + "\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        if kill_after is not None:
            time.sleep(kill_after)
            with suppress(ProcessLookupError):  # it has ended
                os.kill(child, signal.SIGKILL)
        status = int(self.process.stdout.readline())
        assert status in (0, signal.SIGKILL), self.log.read_text()[-600:]
        return status == signal.SIGKILL


@pytest.fixture(scope="module")
def helper(tmp_path_factory):
    helper = Helper(tmp_path_factory.mktemp("helper") / "log")
    yield helper
    helper.process.communicate()


@pytest.fixture
def chance():
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed of the moments: {seed}")
    return random.Random(seed)


def contents(folder):
    """{path: bytes} of all files, hidden ones too; without what tells times."""
    files = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and path.name != "run.yaml":
            content = path.read_bytes()
            if path.name.endswith("epochs.jsonl"):
                lines = [json.loads(line) | {"seconds": None} for line in content.splitlines()]
                content = json.dumps(lines).encode()
            if path.name == "model.skops":  # a zip, which has times in it, and addresses
                machine = skops.io.load(path)
                content = b"".join(
                    machine["svc"].__dict__[name].tobytes() for name in ("_dual_coef_", "support_", "_intercept_")
                )
                content += machine["standardscaler"].mean_.tobytes()
            if path.name == "chosen.json":
                content = json.dumps(json.loads(content) | {"seconds": None}).encode()
            if path.parts[-4] == "results":
                content = b"\n".join(
                    line for line in content.splitlines() if not line.startswith((b"# date", b"# train_seconds"))
                )
            if path.name.endswith(".scp"):  # it has absolute paths
                content = content.replace(os.fsencode(folder), b"")
            files[name] = content
    return files


def compare(helper, chance, tmp_path, kills, command, outcome):
    """Kill `command` at random moments, let it end, and compare what it wrote with an undisturbed call."""
    undisturbed, folder, fresh = (tmp_path / name for name in ("undisturbed", "killed", "fresh"))
    shutil.copytree(folder, fresh)
    began = time.monotonic()
    helper.run(undisturbed, command)
    duration = time.monotonic() - began
    count = 0
    for _ in range(20 * kills):
        if count == kills:
            break
        if helper.run(folder, command, chance.uniform(0, duration)):
            count += 1
        else:  # it has ended: begin anew
            shutil.rmtree(folder)
            shutil.copytree(fresh, folder)
    assert count == kills
    helper.run(folder, command)
    wanted = contents(undisturbed / outcome)
    assert wanted
    assert contents(folder / outcome) == wanted
    print(f"{command[0]}: {count} kills, {len(wanted)} files alike")


@pytest.fixture
def twice(recipe, tmp_path):
    """The toy recipe in a folder `undisturbed`, where `recipe` lays out runs from now on."""
    shutil.copytree(tmp_path, tmp_path / "undisturbed", ignore=shutil.ignore_patterns("undisturbed"))
    recipe.folder = tmp_path / "undisturbed"
    os.chdir(recipe.folder)
    return tmp_path


def copy(place):
    shutil.copytree(place / "undisturbed", place / "killed")


@pytest.fixture
def corpus(tmp_path):
    """48 recordings in RAVDESS' layout."""
    rng = np.random.default_rng(1)
    for actor in (1, 2):
        for emotion in range(1, 9):
            for take in (1, 2, 3):
                path = (
                    tmp_path
                    / f"corpus/Actor_{actor:02}/03-01-{emotion:02}-01-0{1 + take % 2}-0{1 + take // 3}-{actor:02}.wav"
                )
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, rng.uniform(-0.5, 0.5, 8000 + 100 * emotion), 8000)
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_data_preparation(helper, chance, corpus):
    compare(helper, chance, corpus, 25, ["ser.prepare_data", "ravdess", str(corpus / "corpus"), "data/all"], "data")


@pytest.fixture
def data(helper, corpus):
    """The data directory of the corpus, in both folders, and a recipe's system files."""
    helper.run(corpus / "undisturbed", ["ser.prepare_data", "ravdess", str(corpus / "corpus"), "data/all"])
    shutil.copytree(corpus / "undisturbed", corpus / "killed", dirs_exist_ok=True)
    return corpus


def test_folds(helper, chance, data):
    protocol = yaml.safe_load((ROOT / "egs/ravdess/conf/protocols/paper.yaml").read_text())
    protocol["classes"] = {
        "low": ["neutral", "calm", "sad", "disgust"],
        "high": ["angry", "happy", "fearful", "surprised"],
    }
    protocol["folds"] = {"kind": "random", "number": 30, "test_share": 0.4, "seed": 2}
    (data / "many.yaml").write_text(yaml.safe_dump(protocol))
    compare(
        helper, chance, data, 25, ["ser.make_folds", str(data / "many.yaml"), "data/all", "data/folds/many"], "data"
    )


def test_features(helper, chance, data, monkeypatch):
    """The command, its runner and its jobs: one of them, or all."""
    command = [
        sys.executable, "-m", "ser.dump_features", "--systems", f"{ROOT}/egs/ravdess/conf/baseline/svm.yaml", "--nj", "2",
        "--cmd", f"{sys.executable} {ROOT}/tools/run.py", "data/all", "dump",
    ]  # fmt: skip
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def start(name):
        return subprocess.Popen(command, cwd=data / name, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    began = time.monotonic()
    assert start("undisturbed").wait() == 0
    duration = time.monotonic() - began
    folder = data / "killed"
    count = 0
    while count < 6:
        process = start("killed")
        time.sleep(chance.uniform(0, duration))
        family = processes_in(folder)  # jobs of an earlier call that outlived it, too
        for victim in chance.choice([family, family[:1], family[-1:]]):
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        if process.wait():
            count += 1
        else:
            shutil.rmtree(folder / "dump")
    assert start("killed").wait() == 0
    while processes_in(folder):
        time.sleep(0.1)
    own, wanted = (
        {path: content for path, content in contents(data / name / "dump").items() if "/log/" not in path}
        for name in ("killed", "undisturbed")
    )
    assert own == wanted and len(wanted) > 5
    print(f"ser.dump_features: {count} kills, {len(wanted)} files alike")


def processes_in(folder):
    """The processes whose current folder it is, oldest first."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.readlink(process / "cwd") == str(folder):
                found.append(int(process.name))
    return sorted(found)


def test_training_of_a_network(helper, chance, twice, recipe):
    recipe.lay_out("run", epochs=6)
    copy(twice)
    compare(helper, chance, twice, 15, ["ser.train", "--device", "cpu", "--checkpoint-seconds", "0", "exp/run"], "exp")


def test_training_of_an_svm(helper, chance, twice, recipe):
    recipe.lay_out("run", system="svm")
    copy(twice)
    compare(helper, chance, twice, 15, ["ser.train", "exp/run"], "exp")


@pytest.mark.parametrize("system", ["tiny", "svm"])
def test_scoring(helper, chance, twice, recipe, system):
    for seed in range(1, 5):
        run = recipe.lay_out(f"{system}/selects_on_dev/fold1_seed{seed}", system=system, seed=seed)
        helper.run(recipe.folder, ["ser.train", str(run)])
    copy(twice)
    command = ["ser.score", "--systems", f"conf/toy/{system}.yaml", "--protocols", "conf/protocols/selects_on_dev.yaml"]
    compare(helper, chance, twice, 8, command, "results")


@pytest.mark.parametrize("command", ["ser.report", "ser.draw_run"])
def test_table_and_figures(helper, chance, twice, recipe, command):
    for seed in range(1, 4):
        run = recipe.lay_out(f"tiny/selects_on_dev/fold1_seed{seed}", seed=seed)
        helper.run(recipe.folder, ["ser.train", str(run)])
    helper.run(
        recipe.folder,
        ["ser.score", "--systems", "conf/toy/tiny.yaml", "--protocols", "conf/protocols/selects_on_dev.yaml"],
    )
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 2000)
    wavs = []
    for utt in recipe.part("test"):
        soundfile.write(f"{utt}.wav", samples[: 80 * (len(recipe.matrices[utt]) - 1) + 40], 8000)
        wavs.append(f"{utt} {utt}.wav\n")
    Path("data/all/wav.scp").write_text("".join(wavs))
    copy(twice)
    options = ["--corpus", "toy"] if command == "ser.report" else ["exp/tiny/selects_on_dev/fold1_seed1"]
    compare(helper, chance, twice, 5, [command, *options], ".")
