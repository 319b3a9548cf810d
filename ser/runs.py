"""A run: one system under one protocol, on one fold, with one seed, in a folder of its own.

EXP/<system>/<protocol>/fold<k>_seed<s>/ holds run.yaml (everything that the run depends on) and what training
writes; the file `done` appears when training has finished.

A run's identity is the fingerprint of its parts, each identified by its content: settings, source code, the fold's
utterances and the checksums of their recordings, fold and seed. If a part has changed since run.yaml was written, the
run is refused. Its row is what must be the same for all runs that a table averages.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import yaml

from ser import inputs
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
from ser.files import alone, whole
from ser.folds import fold_numbers
from ser.identity import column_of, differences, fingerprint, md5_of, settings, sources, split_of
from ser.settings import FeatureConfig

if TYPE_CHECKING:
    import numpy as np

REMEDY = "remove or rename the folder to train it again"


class OtherRun(UserError):
    """A run's folder holds a run with different settings, code or data; reason: what differs."""

    def __init__(self, folder: Path, reason: str, remedy: str = REMEDY) -> None:
        super().__init__(f"{folder}: {reason}; {remedy}")
        self.reason = reason


@dataclass(frozen=True)
class Run:
    """folder: the run's own. data: the data directory. folds: the protocol's folder, written by stage 1. dump: the
    folder of all features."""

    folder: Path
    corpus: str
    system: System
    protocol: Protocol
    fold: int
    seed: int
    data: Path
    folds: Path
    dump: Path
    made: dict[str, Any]  # command, commit, machine, versions: for the record only

    @property
    def is_done(self) -> bool:
        return (self.folder / "done").exists()

    def feature_folder(self, noise: str | None = None) -> Path:
        """Folder of the system's feature: of the original recordings, or with a noise added."""
        return self.dump / feature_name(self.system.feature, noise)

    @property
    def feature(self) -> ModuleType:
        """The module of the system's feature."""
        return load_kind("feature", kind_of(self.system.feature), self.folder / "run.yaml")

    @property
    def columns(self) -> "np.ndarray | None":
        """Indices of the values in each frame that the system uses; None: all."""
        return self.feature.columns(self.system.feature) if hasattr(self.feature, "columns") else None

    @property
    def noises(self) -> list[str | None]:
        """The versions of the recordings whose features the run needs; None: the original recordings."""
        return list(dict.fromkeys([None, *self.system.augment, self.protocol.noise]))

    @property
    def code(self) -> Mapping[str, str]:
        """Source code that all runs of a row share: {module: fingerprint}."""
        return code_of(self.system, self.protocol)

    @property
    def trainer(self) -> Mapping[str, str]:
        """The other source code that training uses: {module: fingerprint}."""
        every = learner_sources(self.system)
        return {module: of_module for module, of_module in every.items() if module not in self.code}

    @property
    def parts(self) -> dict[str, Any]:
        """Everything that the run's weights depend on, as it is now."""
        return {
            "corpus": self.corpus,
            "system": fingerprint(settings(self.system)),
            "protocol": fingerprint(settings(self.protocol)),
            "code": fingerprint(dict(self.code)),
            "trainer": fingerprint(dict(self.trainer)),
            "split": split_of(self.folds, self.fold),
            **columns_of(self.data, self.folds, self.protocol, (self.fold,)),
            **self.inputs,
            "fold": self.fold,
            "seed": self.seed,
        }

    @property
    def identity(self) -> str:
        """Fingerprint of the parts."""
        return fingerprint(self.parts)

    @property
    def row(self) -> dict[str, str | None]:
        """What must be the same for all runs that a table averages, beside the settings of system and protocol."""
        return {
            "code": fingerprint(dict(self.code)),
            **row_of(self.data, self.folds, self.protocol),
            **self.inputs,
        }

    @property
    def inputs(self) -> dict[str, str | None]:
        """MD5 of each input beside features, as it is on disk now; None: optional and missing."""
        modules = inputs.of(self.system).values()
        return {name: md5 for module in modules for name, md5 in module.checksums(self).items()}

    def refuse_missing_inputs(self) -> None:
        """Raise UserError if an input beside features is missing."""
        for module in inputs.of(self.system).values():
            module.check(self)

    @property
    def weights(self) -> Path:
        """The file with the trained weights that the protocol selects."""
        if self.system.learner == "classical":
            return self.folder / "model.skops"
        return self.folder / ("last.safetensors" if self.protocol.select == "last" else "best.safetensors")

    @property
    def model(self) -> str:
        """MD5 of all that the scores of a finished run depend on."""
        if not self.weights.exists():
            raise UserError(f"{self.weights}: missing; {REMEDY}")
        beside = [self.folder / "normalisation.safetensors", *self.input_files]
        return md5_of(self.weights, *(path for path in beside if path.exists()))

    @property
    def input_files(self) -> list[Path]:
        """The files that keep what was found in a run's training part before it was trained, such as a vocabulary."""
        modules = inputs.of(self.system).values()
        names = [name for module in modules for name in getattr(module, "FILES", ())]
        return [self.folder / name for name in names] + [self.adaptation] * self.adapts

    @property
    def adapts(self) -> bool:
        """Whether the speakers' statistics come from the utterances that the protocol limits them to."""
        return adapts(self.system, self.protocol)

    @property
    def adaptation(self) -> Path:
        """The file of ser.adaptation with the moments of the training part."""
        return self.folder / "adaptation.safetensors"

    def refuse_changes(self, ignore: Iterable[str] = ()) -> None:
        """Raise OtherRun if a part has changed since run.yaml was written. ignore: parts that may change."""
        self.refuse_missing_inputs()
        refuse_other_protocol(self.folds, self.protocol)
        then = read_run_yaml(self.folder / "run.yaml")
        changed = changes(then, self)
        reasons = [reason for part, reason in changed.items() if part not in ignore]
        if reasons:
            raise OtherRun(self.folder, f"made with different {', '.join(reasons)}", f"{REMEDY}, or undo the change")

    def refuse_other_code(self) -> None:
        """Raise OtherRun if the code of the feature or the model has changed since run.yaml was written. Needs only the
        run's folder."""
        changed = other_modules(read_run_yaml(self.folder / "run.yaml"), "code", self.code)
        if changed:
            raise OtherRun(self.folder, f"trained with different {changed}", "restore that code, or train again")


KEYS = {  # of run.yaml, with the type of each value
    "corpus": str, "fold": int, "seed": int, "data": str, "folds": str, "dump": str, "system": dict, "protocol": dict,
    "made": dict,
}  # fmt: skip


def read_run(folder: str | Path) -> Run:
    """Read FOLDER/run.yaml. Raises UserError if something is missing or damaged."""
    path = Path(folder) / "run.yaml"
    content = read_run_yaml(path)
    return Run(
        folder=Path(folder),
        corpus=content["corpus"],
        system=system_in(content, path),
        protocol=check(Protocol, content["protocol"], path),
        fold=content["fold"],
        seed=content["seed"],
        data=Path(content["data"]),
        folds=Path(content["folds"]),
        dump=Path(content["dump"]),
        made=content["made"],
    )


def read_run_yaml(path: Path) -> dict[str, Any]:
    """The content of a run.yaml. Raises UserError if something is missing or damaged."""
    content = read_yaml(path)
    for key, kind in KEYS.items():
        if not isinstance(content.get(key), kind):
            what = "missing" if key not in content else "damaged"
            raise UserError(f"{path}: {key}: {what}; {REMEDY}")
    made, parts = content["made"], content.get("parts")
    if {*made} != {"command", "commit", "machine", "versions"} or not isinstance(made["versions"], dict):
        raise UserError(f"{path}: made: damaged; {REMEDY}")
    if parts is not None and not (isinstance(parts, dict) and "trainer" in parts):  # files of older versions have none
        raise UserError(f"{path}: parts: damaged; {REMEDY}")
    return content


def write_run(run: Run, shared: str | None = None, overwrite: bool = False) -> None:
    """Write run.yaml. If the folder holds a started run with different settings, code or data, raise OtherRun, or
    with `overwrite` empty the folder. Raises InUse if another process is using it.

    shared: what `shared_part` returns, to compute it once for many runs of one system under one protocol.
    """
    path, parts = run.folder / "run.yaml", run.parts
    own = {"identity": fingerprint(parts), "fold": run.fold, "seed": run.seed, "parts": parts}
    lines = [f"{key}: {json.dumps(value)}\n" for key, value in own.items()]
    if first_line(path) == lines[0]:
        return
    if run.is_done and path.exists() and changes(read_run_yaml(path), run).keys() == {"trainer"}:
        return  # a finished run is kept, as it is scored: by the code that trained it
    # a run that has just started has written nothing yet, but holds its lock
    with alone(run.folder / "lock", str(run.folder)) if run.folder.exists() else nullcontext():
        has_started = any((run.folder / name).exists() for name in ("done", "checkpoint.safetensors", "epochs.jsonl"))
        if has_started and overwrite:
            empty(run.folder)
        elif has_started:
            if not path.exists():
                raise OtherRun(run.folder, "no run.yaml that says what was trained here")
            reasons = ", ".join(changes(read_run_yaml(path), run).values()) or "run.yaml, which was edited by hand"
            raise OtherRun(run.folder, f"made with different {reasons}")
        for leftover in run.input_files:  # of a run that was killed before its first checkpoint
            leftover.unlink(missing_ok=True)
        with whole(path) as stream:
            stream.writelines([*lines, shared or shared_part(run)])


def empty(folder: Path) -> None:
    """Remove everything from a run's folder except the lock, in an order in which a killed process leaves no run that
    looks finished or could be resumed: `done`, the checkpoint and the log first, run.yaml last."""
    first, last = ("done", "checkpoint.safetensors", "epochs.jsonl"), "run.yaml"
    for path in sorted(folder.iterdir(), key=lambda path: (path.name not in first, path.name == last, path.name)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()


def shared_part(run: Run) -> str:
    """The part of run.yaml that all folds and seeds of a system under a protocol share."""
    content = {
        "corpus": run.corpus,
        "data": str(run.data),
        "folds": str(run.folds),
        "dump": str(run.dump),
        "system": as_dict(run.system),
        "protocol": as_dict(run.protocol),
        "code": dict(run.code),
        "trainer": dict(run.trainer),
        "made": run.made,
    }
    return yaml.dump(content, None, Dumper, sort_keys=False, allow_unicode=True)


def and_more(items: list) -> str:
    """How many items follow the first, in words."""
    return f" and {len(items) - 1} more" if len(items) > 1 else ""


def first_line(path: Path) -> str:
    """The first line of a text file; "" if there is no such file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.readline()
    except FileNotFoundError:
        return ""


def changes(then: Mapping[str, Any], run: Run) -> dict[str, str]:
    """The parts of a run.yaml that differ from those of `run`, each with what differs, in words."""
    old, now = then.get("parts") or {}, run.parts
    if not isinstance(old, dict) or not old:
        return {"code": "code, settings or recordings (an older version made it and did not record them)"}
    found = {}
    for part in {**old, **now}:
        if part in old and part in now and old[part] == now[part]:
            continue
        of_run = {"system": run.system, "protocol": run.protocol}
        modules = {"code": run.code, "trainer": run.trainer}
        what = part
        if part in of_run:
            different = differences(stored_settings(then, part), settings(of_run[part]))
            what = f"{part} ({'; '.join(different[:3])})" if different else part
        elif part in modules:
            what = other_modules(then, part, modules[part]) or "code"
        elif part == "split":
            what = f"utterances in {run.folds}/fold{run.fold}"
        elif part == "recordings":
            what = f"recordings (by {run.data}/utt2md5)"
        found[part] = what
    if "split" in found:  # with different utterances these differ too
        return {part: what for part, what in found.items() if part not in ("recordings", "speakers", "groups")}
    return found


def other_modules(then: Mapping[str, Any], part: str, modules: Mapping[str, str]) -> str:
    """The modules whose source differs from what a run.yaml records, in words; "" if none does."""
    before = then.get(part)
    before = before if isinstance(before, dict) else {}
    names = [name for name in {**before, **modules} if before.get(name) != modules.get(name)]
    return f"code ({', '.join(names)})" if names else ""


def system_in(content: Mapping[str, Any], path: str | Path) -> System:
    """The system in a run.yaml; `path` is named in errors. Files of older versions also have the numbers of papers, on
    which nothing depends."""
    return make_system({key: value for key, value in content["system"].items() if key != "paper"}, path)


def stored_settings(content: Mapping[str, Any], part: str) -> Any:
    """The settings of the system or protocol in a run.yaml; {} if they can no longer be read."""
    try:
        if part == "system":
            return settings(system_in(content, "run.yaml"))
        return settings(check(Protocol, content["protocol"], "run.yaml"))
    except UserError:
        return {}


def refuse_other_protocol(folds: Path, protocol: Protocol) -> None:
    """Raise UserError if stage 1 made the folds in a folder for a protocol with different settings."""
    path = folds / "protocol.yaml"
    if not path.exists():  # made by hand
        return
    made_for = check(Protocol, read_yaml(path), path)
    different = differences(settings(made_for), settings(protocol))
    if different:
        raise UserError(
            f"{folds}: made for another protocol of this name: {'; '.join(different[:3])}; run stage 1 again, or "
            "rename one of the two protocols"
        )


def row_of(data: Path, folds: Path, protocol: Protocol) -> dict[str, str]:
    """Fingerprints of all folds of a protocol, and of the data directory's tables for their utterances."""
    numbers = tuple(fold_numbers(folds))
    splits = fingerprint([split_of(folds, number) for number in numbers])
    return {"folds": splits, **columns_of(data, folds, protocol, numbers)}


def columns_of(data: Path, folds: Path, protocol: Protocol, numbers: tuple[int, ...]) -> dict[str, str]:
    """Fingerprints of the data directory's tables that results depend on, for the utterances of some folds."""
    found = {
        "recordings": column_of(data / "utt2md5", folds, numbers),
        "speakers": column_of(data / "utt2spk", folds, numbers),
    }
    by = getattr(protocol.folds, "by", "utt")
    if by not in ("utt", "spk") and (data / f"utt2{by}").exists():  # a classical model's inner folds keep them together
        found["groups"] = column_of(data / f"utt2{by}", folds, numbers)
    return found


def code_of(system: System, protocol: Protocol) -> Mapping[str, str]:
    """Source code of a system's feature and model, and of what all features share: {module: fingerprint}. That of
    adaptation is part of it only where the system adapts, so that a change of it leaves all other rows as they are."""
    kinds = f"ser.features.{kind_of(system.feature)}", f"ser.models.{kind_of(system.model)}"
    adaptation = ["ser.adaptation"] * adapts(system, protocol)
    return sources(*kinds, "ser.extract", "ser.normalisation", *adaptation)


def adapts(system: System, protocol: Protocol) -> bool:
    """Whether ser.adaptation computes the speakers' statistics of a system under a protocol."""
    return protocol.adapt is not None and system.normalisation == "speaker"


def learner_sources(system: System) -> Mapping[str, str]:
    """Source of what trains a system and computes its posteriors: {module: fingerprint}."""
    extras = (f"ser.inputs.{name}" for name in system.extras)
    return sources(f"ser.learners.{system.learner}", "ser.archive", *extras)


def feature_sources(feature: FeatureConfig) -> Mapping[str, str]:
    """Source code that computes a feature: {module: fingerprint}."""
    module = load_kind("feature", kind_of(feature), "")
    of_batches = ["ser.extract_many"] * hasattr(module, "extract_many")
    return sources(f"ser.features.{kind_of(feature)}", "ser.extract", *of_batches)
