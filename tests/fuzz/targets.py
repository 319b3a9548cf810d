"""The fuzzing targets: for each reader, valid files, and a call that reads them.

A target has two functions, which run in the same folder. `make(folder)` writes valid files into it, and returns those
to damage, {path: kind of mutate}. `read(path)` is called after one of them was damaged: it calls the reader, and
asserts that the result is valid.
"""

import contextlib
import gzip
import io
import json
import math
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import kaldiio
import numpy as np
import scipy.stats  # noqa: F401  (here, since each damaged file is read in a process of its own)
import soundfile
import torch

from ser import (
    archive,
    audio,
    config,
    datadir,
    download,
    folds,
    identity,
    networks,
    papers,
    report,
    runs,
    score,
    scores,
    train,
    transcribe,
    validate_data,
    vectors,
)
from ser.cli import UserError
from ser.inputs import xvectors

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from conftest import Recipe  # noqa: E402


class Target(NamedTuple):
    make: Callable[[Path], dict[str, str]]
    read: Callable[[Path], None]


def write(name: str, content: str | bytes) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def is_plain(value: object) -> bool:
    """Whether it can be stored as JSON in UTF-8."""
    return bool(json.dumps(value, allow_nan=False, ensure_ascii=False).encode())


def make_system(folder: Path) -> dict[str, str]:
    shutil.copytree(ROOT / "egs/ravdess/conf", "conf")
    write(
        "conf/fuzz/x.yaml",
        "description: x\nbase: ../sherman/cnn4_blstm_attention.yaml\ntraining: {epochs: 2}\nmodel: {dropout: 0.1}\n",
    )
    return dict.fromkeys(("conf/fuzz/x.yaml", "conf/sherman/cnn4_blstm_attention.yaml"), "yaml")


def read_system(path: Path) -> None:
    system = config.read_system("conf/fuzz/x.yaml")
    assert is_plain(config.as_dict(system))
    config.feature_name(system.feature)


def make_protocol(folder: Path) -> dict[str, str]:
    shutil.copytree(ROOT / "egs/ravdess/conf/protocols", "protocols")
    return {str(path): "yaml" for path in sorted(Path("protocols").glob("*.yaml"))}


def read_protocol(path: Path) -> None:
    protocol = config.read_protocol(path)
    assert is_plain(config.as_dict(protocol))
    assert len(protocol.classes) > 1


def make_papers(folder: Path) -> dict[str, str]:
    shutil.copytree(ROOT / "egs/ravdess/conf/papers", "papers")
    return {str(path): "yaml" for path in sorted(Path("papers").glob("*.yaml"))}


def read_papers(path: Path) -> None:
    for paper in papers.read_papers(path.parent):
        assert is_plain(asdict(paper))
        assert all(0 <= (row.wa or 0) <= 100 and row.name for table in paper.tables for row in table.rows)


def make_run(folder: Path) -> dict[str, str]:
    Recipe(folder).lay_out("run")
    return {"exp/run/run.yaml": "yaml"}


def read_run(path: Path) -> None:
    run = runs.read_run("exp/run")
    assert is_plain([config.as_dict(run.system), config.as_dict(run.protocol), run.corpus, run.made])
    assert isinstance(run.corpus, str), f"corpus is {run.corpus!r}"
    assert type(run.fold) is type(run.seed) is int, f"fold is {run.fold!r}, seed {run.seed!r}"
    assert isinstance(run.made, dict) and isinstance(run.made["versions"], dict), f"made is {run.made!r}"
    assert {"command", "commit", "machine"} <= run.made.keys(), f"made is {run.made!r}"


def make_table(folder: Path) -> dict[str, str]:
    write("text", "a-1 Don't, the door!\na-2\na-3 été\tla  porte\nb-1 [LAUGHTER] the doorman... Zoé\nb-2 the doorman\n")
    return {"text": "text"}


def read_table(path: Path) -> None:
    table = datadir.read_table("text")
    assert all(key and not set(key) & set(" \t\n") and "\n" not in value for key, value in table.items())


UTTS = [f"{spk}-{number}" for spk in "ab" for number in (1, 2)]


def make_data(folder: Path) -> dict[str, str]:
    """A data directory of four recordings."""
    rng = np.random.default_rng(0)
    for number, utt in enumerate(UTTS, 10):
        soundfile.write(f"{utt}.wav", 0.1 * rng.standard_normal(number * 100), 8000)
    tables = {
        "wav.scp": [f"{folder}/{utt}.wav" for utt in UTTS],
        "text": ["oh no", "", "the door", "été"],
        "text_asr": ["OH NO", "A", "", "AT THE DOOR"],
        "utt2spk": [utt[0] for utt in UTTS],
        "utt2emo": ["sad", "happy", "sad", "happy"],
        "utt2dur": [f"{number * 100 / 8000:.3f}" for number in range(10, 14)],
    }
    for name, values in tables.items():
        write(
            f"data/{name}", "".join(f"{utt} {value}".rstrip() + "\n" for utt, value in zip(UTTS, values, strict=True))
        )
    write("data/spk2utt", "a a-1 a-2\nb b-1 b-2\n")
    write("data/spk2gender", "a f\nb m\n")
    with kaldiio.WriteHelper("ark,scp:data/xvector.ark,data/xvector.scp") as writer:
        for utt in UTTS:
            writer(utt, rng.standard_normal(3).astype(np.float32))
    return {str(path): "text" for path in sorted(Path("data").iterdir()) if path.suffix != ".ark"}


def read_data(path: Path) -> None:
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            validate_data.main(["data"])
    except UserError:
        for line in printed.getvalue().removesuffix("\n").split("\n"):
            assert line.startswith("data/") and "; " in line, f"of no file, or no remedy: {line!r}"
        raise
    assert datadir.read_table("data/utt2spk").keys() == set(UTTS)


def make_heard(folder: Path) -> dict[str, str]:
    make_data(folder)
    return dict.fromkeys(("data/text_asr", "data/text", "data/wav.scp"), "text")


def read_heard(path: Path) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        transcribe.main(["data"])
    assert "word error rate" in printed.getvalue()


def make_part(folder: Path) -> dict[str, str]:
    write("text_asr.part", "# TINY /x/y.pt 0123\n" + "".join(f"{utt} A DOOR\n" for utt in UTTS))
    return {"text_asr.part": "text"}


def read_part(path: Path) -> None:
    recognised = transcribe.read_part(Path("text_asr.part"), "# TINY /x/y.pt 0123")
    datadir.write_table("recognised", {utt: recognised[utt] for utt in UTTS if utt in recognised})


def make_fold(folder: Path) -> dict[str, str]:
    Recipe(folder)
    place = "data/folds/selects_on_dev"
    return dict.fromkeys(
        [
            f"{place}/classes",
            *(f"{place}/fold1/{name}" for name in ("train", "dev", "test", "overlap")),
            "data/all/utt2spk",
        ],
        "text",
    )


def read_fold(path: Path) -> None:
    fold = folds.read_fold("data/folds/selects_on_dev/fold1", "data/all")
    numbers = fold.targets()
    assert set(numbers.values()) <= set(range(len(fold.classes)))
    assert len(numbers) == len(fold.train) + len(fold.dev) + len(fold.test)
    assert len(set(fold.classes)) == len(fold.classes) > 1


RESULT = Path("results/svm/selects_on_dev/fold1_seed1.txt")


def make_scores(folder: Path) -> dict[str, str]:
    """Scores with an identity, and those of a second, undamaged run."""
    Recipe(folder)
    rng = np.random.default_rng(0)
    parts = {
        "system": config.read_system("conf/toy/svm.yaml"),
        "protocol": config.read_protocol("conf/protocols/selects_on_dev.yaml"),
    }
    about = {
        "system": "svm", "corpus": "toy", "seed": 1, "fold": "1 of 2", "run": "0a", "model": "1b", "row": "code a folds b recordings c speakers d",
        "trainer": "2c", "scorer": "3d", "modules": "ser.x 4e, ser.y 5f", "utterances": 20, "overlap": "x: y", "date": "2020-01-01 00:00",
        "train_seconds": 3, "parameters": 7, "commit": "abc", "machine": "m",
    }  # fmt: skip
    about |= {f"{part} settings": json.dumps(identity.settings(of_part)) for part, of_part in parts.items()}
    for fold, row in ((1, about["row"]), (2, "code z folds b recordings c speakers d")):
        posteriors = rng.dirichlet([1, 1], 20)
        utts = [f"u-{number:02}" for number in range(20)]
        made = scores.Scores(
            about | {"row": row}, ["low", "high"], utts, rng.integers(2, size=20), posteriors.argmax(1), posteriors
        )
        scores.write_scores(RESULT.with_stem(f"fold{fold}_seed1"), made)
    write("results/utt2spk", "".join(f"{utt} s{number // 4}\n" for number, utt in enumerate(utts)))
    return {str(RESULT): "text", "results/utt2spk": "text"}


def read_scores(path: Path) -> None:
    """Stage 6, without the figures."""
    read = scores.read_scores(RESULT)
    assert read.posteriors.shape == (len(read.utts), len(read.classes))
    assert np.isfinite(read.posteriors).all() and (read.posteriors >= 0).all(), "posteriors that are none"
    assert len(set(read.utts)) == len(read.utts), "an utterance twice"
    assert len(set(read.classes)) == len(read.classes), "a class twice"
    report.render(["--corpus", "toy", "--main", "svm"])


def make_scored(system: str, *files: str) -> Callable[[Path], dict[str, str]]:
    """A finished run, and its scores."""

    def make(folder: Path) -> dict[str, str]:
        run = Recipe(folder).lay_out(f"{system}/selects_on_dev/fold1_seed1", system=system, epochs=2)
        train.train(run, "cpu")
        kinds = {".json": "json", ".jsonl": "json", ".skops": "zip", ".safetensors": "safetensors"}
        return {str((run / name).relative_to(folder)): kinds[Path(name).suffix] for name in files}

    return make


def read_scored(path: Path) -> None:
    """Stage 5."""
    score.score(path.parent, Path("results/x.txt"), "cpu")
    made = scores.read_scores(Path("results/x.txt"))
    assert np.isfinite(made.posteriors).all(), "posteriors that are none"
    assert math.isfinite(float(made.about["train_seconds"])), "train_seconds"


def make_features(folder: Path) -> dict[str, str]:
    recipe = Recipe(folder)
    (dump,) = Path("dump").iterdir()
    for utt in list(recipe.matrices)[6:]:
        recipe.matrices.pop(utt)
    with kaldiio.WriteHelper(f"ark,scp:{dump}/feats.ark,{dump}/feats.scp") as writer:
        for utt, matrix in recipe.matrices.items():
            writer(utt, matrix)
    write(f"{dump}/utt2num_frames", "".join(f"{utt} {len(matrix)}\n" for utt, matrix in recipe.matrices.items()))
    return {f"{dump}/feats.ark": "binary", f"{dump}/feats.scp": "text", f"{dump}/utt2num_frames": "text"}


def read_features(path: Path) -> None:
    (dump,) = Path("dump").iterdir()
    features = archive.Features(dump)
    features.lengths_of(features.index)
    for utt in features.index:
        matrix = features[utt]
        assert matrix.ndim == 2 and matrix.shape[1] == features.dimension and matrix.dtype == np.float32
        assert np.isfinite(matrix).all(), f"{utt} has undefined values"


def make_xvectors(folder: Path) -> dict[str, str]:
    """One archive in binary, one as text, and one of doubles."""
    rng = np.random.default_rng(0)
    for form, kind in (("t", np.float32), ("", np.float32), ("", np.float64)):
        name = f"xvector{form}{np.dtype(kind).itemsize}"
        with kaldiio.WriteHelper(f"ark,{'t,' * bool(form)}scp:{name}.ark,{name}.scp") as writer:
            for utt in UTTS:
                writer(utt, rng.standard_normal(5).astype(kind))
    return {str(path): "binary" if path.suffix == ".ark" else "text" for path in sorted(Path().glob("xvector*"))}


def read_xvectors(path: Path) -> None:
    scp = path.with_suffix(".scp")
    xvectors.archives(scp)
    found = xvectors.read_scp(scp, UTTS)
    assert list(found) == UTTS and len({len(vector) for vector in found.values()}) == 1
    assert all(vector.dtype == np.float32 and len(vector) and np.isfinite(vector).all() for vector in found.values())


def network_of() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(1)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    optimiser = torch.optim.NAdam(network.parameters(), 0.1)
    for _ in range(2):
        network(torch.ones(2, 3) * torch.tensor([[1.0], [2]])).square().sum().backward()
        optimiser.step()
    return network, optimiser


CHECKPOINT = {"run": "0123", "log": [{"epoch": 1, "dev_loss": 0.25, "seconds": 1.5}], "sums": None}
SIZES = {"sizes": {"n_features": 3}}


def make_checkpoint(folder: Path) -> dict[str, str]:
    network, optimiser = network_of()
    networks.save_checkpoint(Path("checkpoint.safetensors"), network, optimiser, CHECKPOINT)
    networks.save(Path("last.safetensors"), network.state_dict(), SIZES)
    return dict.fromkeys(("checkpoint.safetensors", "last.safetensors"), "safetensors")


def read_checkpoint(path: Path) -> None:
    """If accepted, it equals what was saved."""
    wanted, optimiser = network_of()
    found, other = network_of()
    if path.name == "last.safetensors":
        weights, notes = networks.load(path)
        networks.fill(found, weights, path)
        assert notes == SIZES
    else:
        assert networks.load_checkpoint(path, found, other, "0123") == CHECKPOINT
    assert all(
        torch.equal(one, two)
        for one, two in zip(wanted.state_dict().values(), found.state_dict().values(), strict=True)
    )
    for number, moments in optimiser.state_dict()["state"].items():
        assert all(torch.equal(value, other.state_dict()["state"][number][name]) for name, value in moments.items())


GLOVE = "the 0.418 0.24968 -0.41242\nn't 1 2 3\ndo -1e-3 .5 4.\n. . . 0.1 0.2 0.3\ndoor 0.5 -0.25 0\nthe 7 7 7\nété 0.1 0.2 0.3\n"


def make_vectors(folder: Path) -> dict[str, str]:
    write("glove.txt", GLOVE)
    write("fasttext.vec", f"7 3\n{GLOVE}")
    write("glove.gz", gzip.compress(GLOVE.encode(), mtime=0))
    with zipfile.ZipFile("glove.zip", "w") as packed:
        packed.writestr(zipfile.ZipInfo("glove.txt"), GLOVE, zipfile.ZIP_DEFLATED)
    return {"glove.txt": "text", "fasttext.vec": "text", "glove.gz": "gz", "glove.zip": "zip"}


def read_vectors(path: Path) -> None:
    some = vectors.select_vectors(path, {"the", "door", "n't", "été"})
    assert all(math.isfinite(float(value)) for values in some.values() for value in values.split(" "))
    found = vectors.read_vectors(path)
    assert found and all(found) and len({vector.shape for vector in found.values()}) == 1
    assert all(vector.dtype == np.float32 and np.isfinite(vector).all() for vector in found.values())
    assert {word: len(values.split(" ")) for word, values in some.items()} == {word: len(found[word]) for word in some}


FORMS = {
    "pcm16.wav": ("WAV", "PCM_16"), "pcm24.wav": ("WAV", "PCM_24"), "float.wav": ("WAV", "FLOAT"), "double.wav": ("WAV", "DOUBLE"),
    "adpcm.wav": ("WAV", "MS_ADPCM"), "x.wavex": ("WAVEX", "PCM_16"), "x.aiff": ("AIFF", "PCM_16"), "x.flac": ("FLAC", "PCM_16"),
    "vorbis.ogg": ("OGG", "VORBIS"), "opus.ogg": ("OGG", "OPUS"), "x.mp3": ("MP3", "MPEG_LAYER_III"), "x.au": ("AU", "PCM_16"),
    "x.w64": ("W64", "PCM_16"), "x.rf64": ("RF64", "PCM_16"), "x.caf": ("CAF", "PCM_16"), "x.nist": ("NIST", "PCM_16"),
}  # fmt: skip


def make_audio(folder: Path) -> dict[str, str]:
    """A fifth of a second in each format, so that headers are a large part."""
    tone = 0.3 * np.sin(np.arange(1600) / 3)
    for name, (form, kind) in FORMS.items():
        soundfile.write(name, tone, 8000, format=form, subtype=kind)
    return dict.fromkeys(FORMS, "binary")


def read_audio(path: Path) -> None:
    samples, rate = audio.read(path, 16000)
    assert rate == 16000 and samples.dtype == np.float32 and samples.ndim == 1 and len(samples)
    assert np.isfinite(samples).all(), "undefined samples"


def make_archives(folder: Path) -> dict[str, str]:
    members = {"Actor_01/a.wav": b"RIFF" + bytes(range(256)) * 3, "Actor_01/b.wav": b"two" * 200, "README": b"x"}
    with zipfile.ZipFile("x.zip", "w") as packed:
        for name, content in members.items():
            packed.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    forms = (
        ("w", tarfile.GNU_FORMAT),
        ("w:gz", tarfile.PAX_FORMAT),
        ("w:bz2", tarfile.USTAR_FORMAT),
        ("w:xz", tarfile.PAX_FORMAT),
    )
    for mode, form in forms:
        with tarfile.open(f"x.{mode[2:] or 'tar'}", mode, format=form) as packed:
            long = {"é" * 120: b"long"} if form != tarfile.USTAR_FORMAT else {}
            for name, content in (long | members).items():
                info = tarfile.TarInfo(name)
                info.size, info.mtime = len(content), 1.5
                packed.addfile(info, io.BytesIO(content))
            for name, kind in (("link", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE)):
                info = tarfile.TarInfo(name)
                info.type, info.linkname = kind, "README"
                packed.addfile(info)
    write("x.gz", gzip.compress(gzip.decompress(Path("x.gz").read_bytes()), mtime=0))  # independent of the time
    return {"x.zip": "zip", "x.tar": "tar", "x.gz": "gz", "x.bz2": "binary", "x.xz": "binary"}


def read_archives(path: Path) -> None:
    """Nothing is written outside the folder, and a refused archive leaves nothing behind."""
    before, out = set(Path.cwd().iterdir()), Path("out").resolve()
    try:
        download.unpack(path, out)
        assert out.is_dir()
        assert all(below.resolve().is_relative_to(out) for below in out.rglob("*"))
        shutil.rmtree(out)
    finally:
        assert set(Path.cwd().iterdir()) == before, "something is left"


TARGETS = {
    "system": Target(make_system, read_system),
    "protocol": Target(make_protocol, read_protocol),
    "papers": Target(make_papers, read_papers),
    "run": Target(make_run, read_run),
    "table": Target(make_table, read_table),
    "data": Target(make_data, read_data),
    "fold": Target(make_fold, read_fold),
    "scores": Target(make_scores, read_scores),
    "scored_svm": Target(make_scored("svm", "chosen.json", "model.skops"), read_scored),
    "scored_network": Target(
        make_scored("tiny", "epochs.jsonl", "best.safetensors", "normalisation.safetensors"), read_scored
    ),
    "features": Target(make_features, read_features),
    "xvectors": Target(make_xvectors, read_xvectors),
    "checkpoint": Target(make_checkpoint, read_checkpoint),
    "vectors": Target(make_vectors, read_vectors),
    "text_asr": Target(make_heard, read_heard),
    "text_asr_part": Target(make_part, read_part),
    "audio": Target(make_audio, read_audio),
    "archive": Target(make_archives, read_archives),
}
