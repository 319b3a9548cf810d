"""A run: one system under one protocol, on one fold, with one seed, in a folder of its own.

EXP/<system>/<protocol>/fold<k>_seed<s>/ holds run.yaml (all that made it) and what training writes;
the file `done` appears when training has ended.
"""

import functools
import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import yaml

from ser.cli import UserError
from ser.config import (
    Dumper,
    Protocol,
    System,
    as_dict,
    check,
    feature_name,
    kind_of,
    load_kind,
    make_system,
    read_yaml,
)
from ser.datadir import read_column, read_table
from ser.files import whole
from ser.folds import Fold, read_fold

if TYPE_CHECKING:
    import numpy as np

    from ser.archive import Features

PACKAGES = ("torch", "torchaudio", "librosa", "numpy", "scipy", "scikit-learn", "kaldiio", "soundfile")


@dataclass(frozen=True)
class Run:
    """folder: where the run lives; data: the data directory; folds: the protocol's folder of stage 1;
    dump: of all features."""

    folder: Path
    corpus: str
    system: System
    protocol: Protocol
    fold: int
    seed: int
    data: Path
    folds: Path
    dump: Path
    made: dict[str, Any]  # command, commit, machine, versions: for the record alone

    @property
    def is_done(self) -> bool:
        return (self.folder / "done").exists()

    def feature_folder(self, noise: str | None = None) -> Path:
        """Folder of the system's feature, of the recordings as they are or with a noise added."""
        return self.dump / feature_name(self.system.feature, noise)

    @property
    def feature(self) -> ModuleType:
        """The module of the system's feature."""
        return load_kind("feature", kind_of(self.system.feature), self.folder / "run.yaml")

    @property
    def columns(self) -> "np.ndarray | None":
        """Numbers of the values of each frame that the system takes; None: all."""
        return self.feature.columns(self.system.feature) if hasattr(self.feature, "columns") else None

    @property
    def vectors(self) -> Path | None:
        """Word vectors that a network starts with, where it reads words and stage 2 has made some."""
        path = self.dump / "vectors" / "vectors.txt"
        return path if self.reads_words and path.exists() else None

    @property
    def reads_words(self) -> bool:
        return "words" in self.system.extras

    @property
    def words(self) -> Path:
        """The table of the transcripts that the system reads, if it does."""
        return self.data / self.system.model.words

    @property
    def xvectors(self) -> Path:
        """Index of the x-vectors, for a system that reads some."""
        return self.data / "xvector.scp"

    def refuse_missing_inputs(self) -> None:
        """Raise UserError where what is read beside features is not there."""
        leave = f"or leave {self.system.name} out"
        if self.reads_words and not self.words.exists():
            raise UserError(
                f"{self.words}: no such table; put transcripts there, a line `utterance words` each, or have a "
                f"recogniser write text_asr: python -m ser.transcribe {self.data}; {leave}"
            )
        if "xvectors" in self.system.extras and not self.xvectors.exists():
            raise UserError(
                f"{self.xvectors}: no such table; extract x-vectors with Kaldi, or by python -m ser.dump_xvectors "
                f"{self.data} {self.data}; {leave}"
            )

    @property
    def noises(self) -> list[str | None]:
        """All that the run needs the feature of; None: the recordings as they are."""
        return list(dict.fromkeys([None, *self.system.augment, self.protocol.noise]))

    @property
    def split(self) -> str:
        """Fingerprint of the fold's utterances and classes, as they are on disk now."""
        folder = self.folds / f"fold{self.fold}"
        paths = (self.folds / "classes", *(folder / part for part in ("train", "dev", "test")))
        return fingerprint(*(sorted(read_table(path).items()) for path in paths))

    @property
    def content(self) -> dict[str, Any]:
        """All that makes the run what it is, as run.yaml has it."""
        return {
            "corpus": self.corpus,
            "fold": self.fold,
            "seed": self.seed,
            "split": self.split,
            "data": str(self.data),
            "folds": str(self.folds),
            "dump": str(self.dump),
            "system": as_dict(self.system),
            "protocol": as_dict(self.protocol),
            **self.inputs,
        }

    @property
    def inputs(self) -> dict[str, str | None]:
        """MD5 of what is read beside features, as it is on disk now; None: of word vectors that are not there."""
        found: dict[str, str | None] = {}
        if self.reads_words:
            found["words"] = md5_of(self.words)
            found["vectors"] = self.vectors and md5_of(self.vectors)
        if "xvectors" in self.system.extras:
            from ser.xvectors import archives

            found["xvectors"] = md5_of(self.xvectors, *archives(self.xvectors))
        return found

    @property
    def identity(self) -> str:
        """Fingerprint of what its results follow from."""
        return fingerprint({key: without_prose(value) for key, value in self.content.items()})

    def refuse_other_inputs(self) -> None:
        """Raise UserError where the fold, or what is read beside features, is no longer what the run was laid out
        for."""
        then = read_yaml(self.folder / "run.yaml")
        remedy = "remove or rename the folder and run it anew"
        if then.get("split") != self.split:
            raise UserError(
                f"{self.folder}: made with other utterances in {self.folds}/fold{self.fold}; {remedy}"
            )
        self.refuse_missing_inputs()
        changed = [name for name, md5 in self.inputs.items() if then.get(name) != md5]
        if changed:
            raise UserError(
                f"{self.folder}: made with other {' and '.join(changed)}; {remedy}, or put them back"
            )

    def read_fold(self) -> Fold:
        """The fold, with the noisy copies of its training part that the system asks for."""
        fold = read_fold(self.folds / f"fold{self.fold}", self.data)
        sources = self.with_copies(fold.train)
        return replace(fold, train={utt: fold.train[source] for utt, source in sources.items()})

    def read_features(self) -> "Features":
        """The features of all utterances of the fold, each with its noise."""
        from ser.archive import Features

        fold = read_fold(self.folds / f"fold{self.fold}", self.data)
        features = Features(self.feature_folder(), self.columns)
        for noise in self.system.augment:
            copies = {copy_id(utt, noise): utt for utt in fold.train}
            features.take(Features(self.feature_folder(noise)), copies)
        if self.protocol.noise:
            features.take(Features(self.feature_folder(self.protocol.noise)), {utt: utt for utt in fold.test})
        if self.system.normalisation == "speaker":
            features.normalise_speakers(self.read_utt2spk())
        return features

    def read_utt2spk(self) -> dict[str, str]:
        """The speaker of every utterance of the fold, and of its training part's noisy copies."""
        sources = self.sources()
        utt2spk = read_table(self.data / "utt2spk", sources.values())
        return {utt: utt2spk[source] for utt, source in sources.items()}

    def sources(self) -> dict[str, str]:
        """Every utterance of the fold and its training part's noisy copies, each with that which it is made of."""
        fold = read_fold(self.folds / f"fold{self.fold}", self.data)
        return self.with_copies(fold.train) | {utt: utt for utt in (*fold.dev, *fold.test)}

    def read_groups(self) -> dict[str, str]:
        """The group of every training utterance, which an inner split must keep together."""
        by = getattr(self.protocol.folds, "by", "utt")  # of folds drawn at random, each is its own
        sources = self.with_copies(read_fold(self.folds / f"fold{self.fold}", self.data).train)
        place = f"{self.folder / 'run.yaml'}: protocol.folds.by"
        groups = read_column(self.data, by, sources.values(), place)
        return {utt: groups[source] for utt, source in sources.items()}

    def with_copies(self, train: Iterable[str]) -> dict[str, str]:
        """Training utterances and then their noisy copies, each with the utterance that it is made of."""
        sources = {utt: utt for utt in train}
        return sources | {copy_id(utt, noise): utt for noise in self.system.augment for utt in sources}


def copy_id(utt: str, noise: str) -> str:
    """Id of the noisy copy of an utterance."""
    return f"{utt}-{noise}"


def read_run(folder: str | Path) -> Run:
    """Read FOLDER/run.yaml."""
    path = Path(folder) / "run.yaml"
    content = read_yaml(path)
    try:
        return Run(
            folder=Path(folder),
            corpus=content["corpus"],
            system=make_system(content["system"], path),
            protocol=check(Protocol, content["protocol"], path),
            fold=content["fold"],
            seed=content["seed"],
            data=Path(content["data"]),
            folds=Path(content["folds"]),
            dump=Path(content["dump"]),
            made=content["made"],
        )
    except KeyError as error:
        raise UserError(
            f"{path}: {error.args[0]}: missing; remove the folder and run stage 4 again"
        ) from None


def write_run(run: Run) -> None:
    """Write run.yaml; where the folder holds a run made otherwise, say so and leave it alone."""
    path, content = run.folder / "run.yaml", run.content
    if path.exists():
        then = read_run(run.folder)  # with defaults for settings that were added since
        old = read_yaml(path) | {"system": as_dict(then.system), "protocol": as_dict(then.protocol)}
        changed = [key for key in content if without_prose(old.get(key)) != without_prose(content[key])]
        if changed:
            raise UserError(
                f"{path}: made with other {', '.join(changed)}; remove or rename the folder {run.folder} to run it anew"
            )
        return
    with whole(path) as stream:
        yaml.dump({**content, "made": run.made}, stream, Dumper, sort_keys=False, allow_unicode=True)


def md5_of(*paths: Path) -> str:
    """MD5 of some files, one after the other; of a file that has not changed it is known."""
    sums = [_md5(path, path.stat().st_mtime_ns, path.stat().st_size) for path in paths]
    return hashlib.md5("".join(sums).encode(), usedforsecurity=False).hexdigest()


@functools.cache
def _md5(path: Path, changed: int, size: int) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def fingerprint(*values: Any) -> str:
    """16 hexadecimal digits that follow from values of JSON."""
    text = "".join(json.dumps(value, sort_keys=True) for value in values)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def without_prose(value: Any) -> Any:
    """A system or protocol without what changes no result."""
    return (
        {key: value[key] for key in value if key not in ("description", "paper")}
        if isinstance(value, dict)
        else value
    )


def provenance(command: str) -> dict[str, Any]:
    """What a run was made with: command line, git commit, machine, versions."""
    root = Path(__file__).parent.parent
    git = subprocess.run(
        ["git", "-C", root, "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True
    )
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "command": command,
        "commit": git.stdout.strip() or "not a git checkout",
        "machine": f"{platform.machine()}, {platform.system()} {platform.release()}",
        "versions": versions,
    }
