"""Bad input, case by case: one line that names file, place and remedy, a non-zero exit, nothing half-written.

`python -m pytest tests/test_bad_input.py -rP` prints the line of each case.
"""

import glob
import hashlib
import http.server
import importlib
import itertools
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile

import ser
from ser import cli, dump_features, prepare_data, train
from ser.corpora import ravdess

ROOT = Path(ser.__file__).parents[1]
RATE = 8000
ACTORS = ("01", "02", "03")
NAMES = [
    f"03-01-{emotion}-01-{sentence}-01-{actor}"
    for actor, emotion, sentence in itertools.product(ACTORS, ("02", "05"), ("01", "02"))
]
BAD = NAMES[0]  # the recording that is broken
WAV = Path(f"corpus/Actor_01/{BAD}.wav")
UTT = f"actor01-{BAD}"
PIPE = f"sox {BAD}.mp3 -t wav - |"
RUN = "exp/{}/selects_on_dev/fold1_seed1"
TABLES, FOLD = Path("data/small"), Path("data/folds/selects_on_dev/fold1")

SCORES = "results/tiny/selects_on_dev/fold1_seed1.txt"

# The commands; * is for the feature's fingerprint
PREPARE = "prepare_data --strict ravdess corpus data/small"
VALIDATE = "validate_data data/small"
FOLDS = "make_folds conf/protocols/small.yaml data/small data/folds/small"
DUMP = f"dump_features --systems conf/toy/tiny.yaml --cmd {sys.executable}@{ROOT}/tools/run.py data/small dump_new"
JOB = "dump_features --job 1 data/small dump_small/*/split1"
LAUNCH = "launch --learner network --corpus toy --cmd false --systems conf/toy/tiny.yaml --protocols conf/protocols/selects_on_dev.yaml"
TRAIN = f"train --device cpu {RUN.format('tiny')}"
TRAIN_SVM = f"train {RUN.format('svm')}"
SCORE = "score --device cpu --systems conf/toy/tiny.yaml --protocols conf/protocols/selects_on_dev.yaml"
SCORE_SVM = SCORE.replace("tiny", "svm")
REPORT = "report --corpus toy"
GET = "get_corpus ravdess downloads"
VECTORS = "dump_vectors --glove glove.txt data/small vectors"
HEAR = "transcribe --device cpu --weights weights.pt data/small"


class Case(NamedTuple):
    """what is bad, the command that meets it, what breaks it, and words of the line that is wanted."""

    what: str
    command: str
    breaks: Callable
    words: tuple[str, ...]


@pytest.fixture
def place(recipe, monkeypatch):
    """The toy recipe and, in corpus, data/small and dump_small, one that begins with recordings."""
    monkeypatch.setattr(ravdess, "EXPECTED", frozenset(f"actor{name[-2:]}-{name}" for name in NAMES))
    rng = np.random.default_rng(0)
    for name in NAMES:
        path = Path(f"corpus/Actor_{name[-2:]}/{name}.wav")
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal(RATE // 10), RATE)
    prepare_data.main(PREPARE.split()[1:])
    groups = {"kind": "groups", "by": "spk", "number": 3}
    recipe.write_yaml(
        "conf/protocols/small.yaml",
        description="d",
        classes={"low": ["calm"], "high": ["angry"]},
        folds=groups,
        select="dev",
    )
    lay_out_dump()
    return recipe


def lay_out_dump(*options):
    with pytest.raises(cli.UserError):
        dump_features.main(["--systems", "conf/toy/tiny.yaml", "--cmd", "false", *options, "data/small", "dump_small"])


def edit(path, old, new, count=1):
    content = Path(path).read_text()
    assert content.count(old) == count, f"{old!r} stands {content.count(old)} times in {path}"
    Path(path).write_text(content.replace(old, new))


def edits(path, old, new, count=1):
    return lambda recipe: edit(path, old, new, count)


def lay_out(recipe, system="tiny"):
    return recipe.lay_out(f"{system}/selects_on_dev/fold1_seed1", system=system)


def trained(recipe, system="tiny"):
    folder = lay_out(recipe, system)
    train.train(folder)
    return folder


def then_laid_out(breaks):
    """Break something and lay out the runs after that, as somebody who changes a fold must."""

    def both(recipe):
        breaks(recipe)
        lay_out(recipe)

    return both


def change(turned):
    """Change the recording's bytes."""
    return lambda recipe: WAV.write_bytes(turned(WAV.read_bytes()))


def record(samples, **options):
    return lambda recipe: soundfile.write(WAV, samples, RATE, **options)


def record_and_note(samples):
    """A recording that stage 0 has seen."""

    def both(recipe):
        soundfile.write(WAV, samples, RATE)
        heard = soundfile.read(WAV, dtype="float32")[0]
        (table,) = Path("dump_small").glob("*/split1/utt2md5.1")
        table.write_text(re.sub(rf"{UTT} .*", f"{UTT} {hashlib.md5(heard.tobytes()).hexdigest()}", table.read_text()))

    return both


def cut_archive(recipe):
    (ark,) = Path("dump").glob("*/feats.ark")
    ark.write_bytes(ark.read_bytes()[: ark.stat().st_size // 3])  # in the midst of the training part


def write_features(matrices):
    """Write the toy recipe's features again, as a stage 2 with different settings would have."""
    import kaldiio

    (folder,) = Path("dump").iterdir()
    with kaldiio.WriteHelper(f"ark,scp:{folder}/feats.ark,{folder}/feats.scp") as writer:
        for utt, matrix in matrices.items():
            writer(utt, matrix)


def wide(matrix, more=1):
    return np.concatenate([matrix, matrix[:, :more]], 1)


def one_wide(recipe):
    write_features({utt: wide(matrix) if utt == "a-03" else matrix for utt, matrix in recipe.matrices.items()})
    lay_out(recipe)


def all_wide(system, more):
    def both(recipe):
        trained(recipe, system)
        write_features({utt: wide(matrix, more) for utt, matrix in recipe.matrices.items()})

    return both


def other_checkpoint(recipe):
    """A training that was killed, and the checkpoint of a larger network in its folder."""
    import torch

    from ser import networks
    from ser.runs import read_run

    folder = trained(recipe)
    (folder / "done").unlink()
    other = recipe.lay_out("other", model={"hidden_size": 5})
    network = networks.build(read_run(other).system, {"n_features": 6, "n_classes": 2})
    networks.save_checkpoint(
        folder / "checkpoint.safetensors", network, torch.optim.Adam(network.parameters()), {"log": []}
    )


def cut(system, name):
    def both(recipe):
        path = trained(recipe, system) / name
        path.write_bytes(path.read_bytes()[:-10])

    return both


def unknown_type(recipe):
    """A machine with a part of a type that skops does not know: to load it would run its code."""
    import skops.io

    skops.io.dump(Path, trained(recipe, "svm") / "model.skops")


def no_high_but_actor01s(recipe):
    lines = (TABLES / "utt2emo").read_text().splitlines(keepends=True)
    (TABLES / "utt2emo").write_text(
        "".join(line if "actor01" in line else line.replace("angry", "happy") for line in lines)
    )


def no_high(recipe):
    lines = (FOLD / "train").read_text().splitlines(keepends=True)
    (FOLD / "train").write_text("".join(line for line in lines if "high" not in line))


def piped(recipe, command=PIPE):
    edit(TABLES / "wav.scp", str(WAV.absolute()), command)


def failing_pipe(recipe):
    piped(recipe, "echo no such file >&2; false |")
    lay_out_dump("--allow-pipes")


def vectors(content):
    return lambda recipe: Path("glove.txt").write_text(content)


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<html>please log in</html>")

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def page():
    """The address of a server that answers with a web page."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/corpus.zip"
        server.shutdown()
        thread.join()


AGAIN = "; fetch it again"
NOISE = 0.1 * np.random.default_rng(1).standard_normal(RATE)
RECORDINGS = {
    "an empty recording": (change(lambda content: b""), ("empty file", AGAIN)),
    "a recording cut short": (change(lambda content: content[:-100]), ("cut short: 100 bytes are missing", AGAIN)),
    "a recording cut short in its header": (
        change(lambda content: content[:30]),
        ("cannot be read as a recording", AGAIN),
    ),
    "a flac cut short": (
        lambda recipe: (
            record(NOISE, format="FLAC")(recipe),
            change(lambda content: content[: len(content) // 2])(recipe),
        ),
        (AGAIN,),
    ),
    "a recording without samples": (record(NOISE[:0]), ("no samples", AGAIN)),
    "a silent recording": (record(0 * NOISE), ("silent: every sample is 0", AGAIN)),
    "an undefined sample": (
        record(np.where(np.arange(RATE) == 7, np.nan, NOISE), subtype="FLOAT"),
        ("infinite or undefined", AGAIN),
    ),
    "an infinite sample": (
        record(np.where(np.arange(RATE) == 7, np.inf, NOISE), subtype="FLOAT"),
        ("infinite or undefined", AGAIN),
    ),
    "a web page for a recording": (
        change(lambda content: b"<html>not found</html>"),
        ("cannot be read as a recording", AGAIN),
    ),
    "a sampling rate of 0": (
        change(lambda content: content[:24] + bytes(4) + content[28:]),
        ("sampling rate of 0 Hz", AGAIN),
    ),
    "no file": (lambda recipe: WAV.unlink(), ("No such file", "; check the path")),
}
IN_HEADERS = {
    "an empty recording",
    "a recording cut short",
    "a recording without samples",
    "a sampling rate of 0",
    "no file",
}
CASES = [
    *(Case(what, JOB, breaks, (str(WAV), *words)) for what, (breaks, words) in RECORDINGS.items()),
    *(
        Case(what, PREPARE, breaks, (UTT, str(WAV), *words))
        for what, (breaks, words) in RECORDINGS.items()
        if what != "no file"  # which nothing names at that stage
    ),
    *(
        Case(what, VALIDATE, breaks, ("data/small/wav.scp:1", UTT, str(WAV), *words))
        for what, (breaks, words) in RECORDINGS.items()
        if what in IN_HEADERS
    ),
    Case("a recording shorter than a window", JOB, record_and_note(NOISE[:199]), (str(WAV), UTT, "199 samples", "200", "; leave out")),
    Case("a recording that is missing", PREPARE, lambda recipe: WAV.unlink(), ("corpus: 1 recordings missing", "fetch them again")),
    Case("a wrong name", PREPARE, lambda recipe: WAV.rename("corpus/my-own.wav"), ("corpus/my-own.wav",)),
    Case(
        "wrong names alone",
        PREPARE,
        lambda recipe: [path.rename(path.with_stem(f"x{path.stem}")) for path in Path("corpus").rglob("*.wav")],
        ("corpus: contains no speech recording", "such as"),
    ),
    Case("no corpus", PREPARE, lambda recipe: shutil.rmtree("corpus"), ("corpus: no such folder", "; give the folder")),
    Case("a duplicate id", VALIDATE, edits(TABLES / "text", f"{UTT} ", f"{UTT} x\n{UTT} "), ("text:2", UTT, "duplicate", "; remove one of the lines")),
    Case("a duplicate id", FOLDS, edits(TABLES / "utt2emo", f"{UTT} ", f"{UTT} x\n{UTT} "), ("utt2emo:2", UTT, "twice", "; remove one")),
    Case(
        "unsorted ids",
        VALIDATE,
        lambda recipe: Path(TABLES, "text").write_text("".join(sorted((TABLES / "text").read_text().splitlines(True), reverse=True)[:2])),
        ("text:2", "out of order", "; sort the table"),
    ),
    Case("an utterance without label", VALIDATE, edits(TABLES / "utt2emo", f"{UTT} calm\n", f"{UTT}\n"), ("utt2emo:1", UTT, "; it should")),
    Case("an utterance without label", FOLDS, edits(TABLES / "utt2emo", f"{UTT} calm\n", f"{UTT}\n"), ("utt2emo:1", UTT, "; add it")),
    Case("an utterance without a line", VALIDATE, edits(TABLES / "utt2emo", f"{UTT} calm\n", ""), ("utt2emo: ", UTT, "; add it")),
    Case("an utterance without a line", FOLDS, edits(TABLES / "utt2emo", f"{UTT} calm\n", ""), ("utt2emo: ", UTT, "; add it")),
    Case("a label misspelt in the protocol", FOLDS, edits("conf/protocols/small.yaml", "angry", "angri"), ("small.yaml: classes", "angri", "; did you mean angry?")),
    Case("a label that the corpus lacks", FOLDS, edits("conf/protocols/small.yaml", "angry", "joyful"), ("small.yaml: classes", "joyful", "; the corpus has angry, calm")),
    Case("a label that the system does not know", TRAIN, then_laid_out(edits(FOLD / "train", "a-01 low", "a-01 lwo")), ("fold1/train:2", "a-01", "'lwo'", "; one of low, high")),
    Case("an archive cut short", TRAIN, lambda recipe: (cut_archive(recipe), lay_out(recipe)), ("feats.ark:", "cannot read the features of b-", "; remove dump/")),
    Case("an archive cut short", TRAIN_SVM, lambda recipe: (write_features({}), lay_out(recipe, "svm")), ("feats.scp: empty", "; remove dump/")),
    Case("frames of two dimensions", TRAIN, one_wide, ("feats.ark:", "a-03 has 7 values per frame", "; remove dump/")),
    Case("features of another dimension than the network's", SCORE, all_wide("tiny", 1), (RUN.format("tiny"), "best.safetensors", "n_features is 6, but 7", "; remove or rename")),
    Case("features of another dimension than the SVM's", SCORE_SVM, all_wide("svm", 1), (RUN.format("svm"), "model.skops", "another", "; ")),
    Case("an unknown utterance in a fold", LAUNCH, edits(FOLD / "train", "a-01", "a-99"), ("fold1/train:2", "a-99 is not in data/all", "; remove the line")),
    Case("an utterance on both sides", TRAIN, then_laid_out(edits(FOLD / "test", "d-01", "a-01")), ("fold1/test:2", "a-01 is also in train", "; remove one of the lines")),
    Case("a class with no training example", FOLDS, no_high_but_actor01s, ("small.yaml: folds", "fold1: train has no utterance of high", "; use fewer folds")),
    Case("a class with no training example", TRAIN, then_laid_out(no_high), ("fold1/train", "no utterance of high", "; add some")),
    Case("a test part without utterance", TRAIN, then_laid_out(lambda recipe: (FOLD / "test").write_text("")), ("fold1/test", "no utterance", "; add some")),
    *(
        Case(what, command, edits("conf/toy/tiny.yaml", old, new), ("conf/toy/tiny.yaml", *words))
        for what, old, new, words in (
            ("a typo in a system file", "epochs:", "epoch:", ("training.epoch", "; did you mean training.epochs?")),
            ("a wrong type in a system file", "epochs: 3", "epochs: many", ("training.epochs", "'many'")),
            ("a negative number in a system file", "learning_rate: 0.01", "learning_rate: -0.01", ("training.learning_rate", "greater than 0", "-0.01")),
            ("a system file that is no YAML", "training:", "training: [", ("tiny.yaml:31", "not valid YAML")),
        )
        for command in (DUMP, LAUNCH)
    ),
    Case("a checkpoint of another system", TRAIN, other_checkpoint, (f"{RUN.format('tiny')}/checkpoint.safetensors", "another", "; remove")),
    Case("a checkpoint cut short", TRAIN, lambda recipe: (other_checkpoint(recipe), cut_checkpoint()), (f"{RUN.format('tiny')}/checkpoint.safetensors", "not a complete", "; remove")),
    Case("a network cut short", SCORE, cut("tiny", "best.safetensors"), (f"{RUN.format('tiny')}/best.safetensors", "not a complete", "; remove")),
    Case("an SVM cut short", SCORE_SVM, cut("svm", "model.skops"), (f"{RUN.format('svm')}/model.skops", "; remove")),
    Case("an SVM that would run code", SCORE_SVM, unknown_type, (f"{RUN.format('svm')}/model.skops", "; remove")),
    Case("scores cut short", REPORT, lambda recipe: (scored(recipe), edit(SCORES, "\nd-02 ", "\nd-02")), (f"{SCORES}:", "not a line of scores", "; run stage 5 again")),
    Case("a command in wav.scp", DUMP, piped, ("data/small/wav.scp:1", UTT, PIPE, "--allow-pipes")),
    Case("a command in wav.scp", VALIDATE, piped, ("data/small/wav.scp:1", UTT, PIPE, "--allow-pipes")),
    Case("a command that fails", JOB.replace("--job", "--allow-pipes --job"), failing_pipe, ("split1/wav.1.scp", UTT, "false |", "exit status 1 (no such file)", "; fix the command")),
    Case("no word vectors", VECTORS, lambda recipe: None, ("glove.txt: no such file", "; give a file")),
    Case("word vectors of two sizes", VECTORS, vectors("kids 1 2 3\ndoor 1 2\n"), ("glove.txt:2", "2 values instead of 3", "; give a file")),
    Case("a word vector that is none", VECTORS, vectors("kids 1 2 3\ndoor 1 2 x\n"), ("glove.txt:2", "'x' is not a number", "; give a file")),
    Case("word vectors of another language", VECTORS, vectors("porte 1 2 3\n"), ("glove.txt", "none of the", "; use vectors for")),
    Case("no weights of a recogniser", HEAR, lambda recipe: None, ("weights.pt: no such file", "; download https:")),
    Case("a recogniser that there is not", HEAR.replace("cpu", "cpu --model WAV2VEC_ASR"), lambda recipe: None, ("--model WAV2VEC_ASR", "; did you mean")),
    Case("a command in wav.scp", HEAR, piped, ("data/small/wav.scp:1", UTT, PIPE, "--allow-pipes")),
    Case("a download that is a web page", GET, lambda recipe: None, ("/corpus.zip", "a web page", "; open the address", "downloads/Audio_Speech")),
]  # fmt: skip


def cut_checkpoint():
    path = Path(RUN.format("tiny"), "checkpoint.safetensors")
    path.write_bytes(path.read_bytes()[:-10])


def scored(recipe):
    trained(recipe)
    importlib.import_module("ser.score").main(SCORE.split()[1:])


def name(case):
    return f"{case.what}, {case.command.split()[0]}"


def arguments(command):
    """The module, and its arguments."""
    module, *words = command.split()
    return module, [
        path for word in words for path in (sorted(glob.glob(word)) if "*" in word else [word.replace("@", " ")])
    ]


def call(command):
    """Call a command as `python -m` does; return what it ends with: None, or its last line."""
    module, words = arguments(command)
    try:
        cli.run(lambda: importlib.import_module(f"ser.{module}").main(words))
    except SystemExit as stop:
        return stop.code
    return None


def files():
    """What a command that fails must not change: all files but logs and locks, and all that is hidden."""
    paths = [path for path in Path().rglob("*") if "log" not in path.parts and not path.name.endswith("lock")]
    paths = [path for path in paths if path.is_file() or path.name.startswith(".")]
    return {path: path.read_bytes() if path.is_file() else None for path in paths}


def fails(command, words, capfd):
    """The command ends with an error, and one line has the words; nothing else changes."""
    before = files()
    capfd.readouterr()
    error = call(command)
    assert isinstance(error, str) and error.startswith("error: ") and "\n" not in error, error
    lines = [*"".join(capfd.readouterr()).splitlines(), error]
    told = [line.strip() for line in lines if all(word in line for word in words)]
    assert len(told) == 1, f"{words} in {lines}"
    assert files() == before
    print(told[0])


COMMANDS = [PREPARE, VALIDATE, FOLDS, DUMP, JOB, TRAIN, TRAIN_SVM, SCORE, SCORE_SVM, REPORT]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split()[0])
def test_nothing_is_wrong_before_it_is_broken(place, command):
    if command in (TRAIN, TRAIN_SVM):
        lay_out(place, "svm" if command is TRAIN_SVM else "tiny")
    elif command in (SCORE, SCORE_SVM):
        trained(place, "svm" if command is SCORE_SVM else "tiny")
    elif command is REPORT:
        scored(place)
    assert call(command) is None


@pytest.mark.parametrize("case", CASES, ids=name)
def test_bad_input(place, page, monkeypatch, capfd, case):
    monkeypatch.setattr(ravdess, "URL", page)
    case.breaks(place)
    fails(case.command, case.words, capfd)


IN_A_PROCESS = [case for case in CASES if name(case) in (
    "a label misspelt in the protocol, make_folds", "a silent recording, dump_features", "a typo in a system file, launch",
    "an utterance on both sides, train", "a command in wav.scp, validate_data",
)]  # fmt: skip


@pytest.mark.parametrize("case", IN_A_PROCESS, ids=name)
def test_bad_input_in_a_process_of_its_own(place, case):
    assert len(IN_A_PROCESS) == 5
    case.breaks(place)
    before = files()
    module, words = arguments(case.command)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-m", f"ser.{module}", *words], env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 1
    first, *others = ended.stderr.splitlines()
    assert all(word in first for word in case.words)
    assert others == (
        ["error: data/small: faults found: 1; fix them as said above"] if module == "validate_data" else []
    )
    assert files() == before


class Disk(NamedTuple):
    """What a command writes to: the folder that is a disk of its own, and what is done before it is full or read-only."""

    command: str
    folder: str
    before: Callable = lambda recipe: None


DISKS = [
    Disk(PREPARE.replace("data/small", "disk/data"), "disk"),
    Disk(FOLDS.replace("data/folds", "disk/folds"), "disk"),
    Disk(DUMP.replace("dump_new", "disk/dump"), "disk"),
    Disk(
        JOB.replace("dump_small", "disk"),
        "disk",
        lambda recipe: shutil.copytree("dump_small", "disk", dirs_exist_ok=True),
    ),
    Disk(VECTORS.replace("small vectors", "small disk"), "disk", vectors("kids 1 2 3\n")),
    Disk(LAUNCH, "exp"),
    Disk(TRAIN, "exp", lay_out),
    Disk(TRAIN_SVM, "exp", lambda recipe: lay_out(recipe, "svm")),
    Disk(SCORE, "results", trained),
    Disk(SCORE_SVM, "results", lambda recipe: trained(recipe, "svm")),
]


@pytest.fixture
def mount():
    """A function that mounts a small disk at a folder; all are taken off in the end."""
    mounted = []

    def mount(folder, *options):
        done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
        mounted.append(Path(folder).absolute())

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root mounts a disk")
@pytest.mark.parametrize("fault", ["full", "read-only"])
@pytest.mark.parametrize("disk", DISKS, ids=lambda disk: " ".join(disk.command.split()[:2]))
def test_a_disk_that_takes_nothing(place, mount, capfd, disk, fault):
    Path(disk.folder).mkdir(exist_ok=True)
    mount(disk.folder, "-o", "size=64k")
    disk.before(place)
    if fault == "full":
        with open(Path(disk.folder, "filler"), "wb", buffering=0) as stream, pytest.raises(OSError):
            while True:
                stream.write(bytes(4096))
        words = ("No space left on device", "; free some space")
    else:
        subprocess.run(["mount", "-o", "remount,ro", disk.folder], check=True)
        words = ("Read-only file system", "; ")
    fails(disk.command, (f"{disk.folder}/", *words), capfd)
