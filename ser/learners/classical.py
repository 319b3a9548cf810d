"""Scikit-learn's estimators, on statistics of an utterance's frames; settings are tuned within the training part."""

import json
import math
import time
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import skops.io
import torch
from sklearn.base import BaseEstimator
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import Pipeline

from ser import functionals
from ser.cli import UserError
from ser.config import kind_of, load_kind
from ser.files import whole
from ser.learners import Resources
from ser.reading import Inputs, read_features, read_groups, read_run_fold
from ser.runs import Run
from ser.settings import ClassicalConfig

DRAWS = 10  # attempts to divide the groups into inner folds, before groups are ignored


def fit(run: Run, resources: Resources) -> None:
    """Train the model of a run; write model.skops, chosen.json and done into its folder."""
    started = time.monotonic()
    fold = read_run_fold(run)
    features, targets, utt2group = read_features(run, fold), fold.targets(), read_groups(run, fold)
    utts = sorted(fold.train)
    estimator, chosen = search(
        np.stack([pool(features[utt], config_of(run)) for utt in utts]),
        np.array([targets[utt] for utt in utts]),
        np.array([utt2group[utt] for utt in utts]),
        config_of(run),
        run.seed,
        resources.num_threads or 1,
    )
    if chosen:
        print(f"{run.system.name}: chosen within the training part: {chosen}")
    content = skops.io.dumps(estimator)
    refuse_untrusted(content, config_of(run))
    with whole(run.folder / "model.skops", "wb") as stream:
        stream.write(content)
    with whole(run.folder / "chosen.json") as stream:
        json.dump({**chosen, "seconds": time.monotonic() - started}, stream)
    (run.folder / "done").touch()


def config_of(run: Run) -> ClassicalConfig:
    """The settings of a run's model."""
    return cast(ClassicalConfig, run.system.model)


def pool(frames: np.ndarray, config: ClassicalConfig) -> np.ndarray:
    """Frames (T, D) -> the functionals of the model's Config, concatenated (F * D,)."""
    batch = torch.tensor(frames)[None]
    return functionals.pool(batch, torch.tensor([len(frames)]), config.functionals)[0].numpy()


def search(
    pooled: np.ndarray, targets: np.ndarray, groups: np.ndarray, config: ClassicalConfig, seed: int, n_jobs: int
) -> tuple[BaseEstimator, dict[str, float]]:
    """Choose among the settings of the model's `grid` by UA in cross-validation over `pooled` (N, F * D), then fit on
    all of it. Returns the estimator, and what was chosen: {} for a model without a grid.

    groups (N,): an inner split does not divide the utterances of a group; see `inner_splits`.
    """
    module = load_kind("model", kind_of(config), "")
    estimator = module.estimator(config, seed)
    if not hasattr(module, "grid"):
        return estimator.fit(pooled, targets), {}
    splits = inner_splits(targets, groups, config.inner_folds, seed)
    found = GridSearchCV(
        estimator,
        module.grid(config, pooled.shape[1]),
        scoring="balanced_accuracy",
        cv=splits,
        n_jobs=n_jobs,
        error_score="raise",
    ).fit(pooled, targets)
    return found.best_estimator_, {**found.best_params_, "inner_ua": 100 * float(found.best_score_)}


def inner_splits(
    targets: np.ndarray, groups: np.ndarray, n_folds: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Indices of the training and test utterances of each of `n_folds` inner folds, or of one per group if there are
    fewer groups.

    Groups stay whole, and every class with at least two utterances is in each training part. If there is only one group
    (one of two speakers), or groups do not allow this (one has a whole class), each utterance is its own group. Raises
    UserError if fewer than two classes have two utterances.
    """
    classes, counts = np.unique(targets, return_counts=True)
    common = classes[counts > 1]
    if len(common) < 2:
        raise UserError(
            "the inner folds need at least two classes with two training utterances each; use fewer folds "
            "or other classes"
        )
    if len(np.unique(groups)) < 2:
        groups = np.arange(len(groups))
    n_folds = min(n_folds, counts.max())
    n_groups = len(np.unique(groups))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about classes with fewer utterances than inner folds
        for draw in range(DRAWS):
            folds = StratifiedGroupKFold(min(n_folds, n_groups), shuffle=True, random_state=seed + draw)
            splits = list(folds.split(targets, targets, groups))
            if all(np.isin(common, targets[train]).all() for train, _ in splits):
                return splits
        print("inner folds: groups are ignored, since keeping them whole leaves a class out of training")
        return list(StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(targets, targets))


class Learned:
    """A fitted estimator of a run; see ser/learners/__init__.py."""

    def __init__(self, run: Run, estimator: BaseEstimator) -> None:
        self.run, self.estimator = run, estimator
        n_functionals = len(config_of(run).functionals)
        self.sizes = {
            "n_features": estimator.n_features_in_ // n_functionals, "n_classes": len(estimator.classes_)
        }  # fmt: skip

    def posteriors(self, inputs: Inputs, utts: Sequence[str]) -> np.ndarray:
        """See ser/learners/__init__.py."""
        pooled = np.stack([pool(inputs.features[utt], config_of(self.run)) for utt in utts])
        return probabilities(self.estimator, pooled)

    def about(self) -> dict[str, object]:
        """The chosen settings, and the seconds of training."""
        chosen = read_chosen(self.run.folder / "chosen.json")
        seconds = chosen.pop("seconds")
        settings = ", ".join(f"{name} {value:.4g}" for name, value in chosen.items())
        return {**({"chosen": settings} if settings else {}), "train_seconds": round(seconds)}


def probabilities(estimator: BaseEstimator, pooled: np.ndarray) -> np.ndarray:
    """Probabilities (N, classes) of the estimator; if it has none, the softmax of its one-vs-rest decision values,
    which ranks the classes as the estimator does but is not calibrated."""
    if hasattr(estimator, "predict_proba"):
        return estimator.predict_proba(pooled)
    decisions = estimator.decision_function(pooled)
    decisions = np.stack([-decisions, decisions], 1) if decisions.ndim == 1 else decisions
    exponentials = np.exp(decisions - decisions.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def load(run: Run, device: str = "auto", sizes: Mapping[str, int] | None = None) -> Learned:
    """The estimator of a finished run. Raises UserError if the file is damaged, holds another model than the run's, or
    does not fit inputs of `sizes`."""
    path = run.folder / "model.skops"
    remedy = f"remove or rename {run.folder} and run stage 3 again"
    try:
        with zipfile.ZipFile(path) as parts:  # skops does not compress
            if sum(part.file_size for part in parts.infolist()) > path.stat().st_size:
                raise ValueError("its content is larger than the file")
        trusted = getattr(load_kind("model", kind_of(run.system.model), ""), "TRUSTED", [])
        estimator = skops.io.load(path, trusted=trusted)  # only known types: nothing is executed
        refuse_other(estimator, config_of(run), len(run.protocol.classes))
        learned = Learned(run, estimator)
    except FileNotFoundError:
        raise
    except Exception as error:  # skops reports a damaged file in many ways
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not a complete {kind_of(run.system.model)} ({reason}); {remedy}") from None
    if sizes and sizes["n_features"] * len(config_of(run).functionals) != estimator.n_features_in_:
        raise UserError(f"{path}: trained on features of another size than those in {run.feature_folder()}; {remedy}")
    return learned


def refuse_other(estimator: Any, config: ClassicalConfig, n_classes: int) -> None:
    """Raise an error of any type if an object is not a fitted estimator of a model for this number of classes."""
    module = load_kind("model", kind_of(config), "")
    if types_of(estimator) != types_of(module.estimator(config, 0)):
        raise ValueError("it contains something else")
    if not np.array_equal(estimator.classes_, np.arange(n_classes)):
        raise ValueError(f"its classes are {estimator.classes_.tolist()}, but the run has {n_classes}")
    if hasattr(module, "refuse_damaged"):
        module.refuse_damaged(estimator)
    n_features = estimator.n_features_in_
    if n_features % len(config.functionals):
        raise ValueError(f"it takes {n_features} values, which {len(config.functionals)} functionals cannot produce")
    if not np.isfinite(probabilities(estimator, np.zeros((1, n_features)))).all():
        raise ValueError("its probabilities are not finite")


def types_of(estimator: Any) -> list[type]:
    """The type of an estimator, and of the steps of a pipeline."""
    steps = [step for _, step in estimator.steps] if type(estimator) is Pipeline else []
    return [type(estimator), *map(type, steps)]


def refuse_untrusted(content: bytes, config: ClassicalConfig) -> None:
    """Raise UserError if an estimator, as skops writes it, has types that `load` would refuse to read."""
    module = load_kind("model", kind_of(config), "")
    unknown = skops.io.get_untrusted_types(data=content)
    missing = sorted({*unknown} - {*getattr(module, "TRUSTED", ())})
    if missing:
        raise UserError(
            f"{module.__file__}: TRUSTED lacks {', '.join(missing)}, which the estimator has; add them, "
            f"TRUSTED = {[*getattr(module, 'TRUSTED', ()), *missing]}"
        )


def read_chosen(path: Path) -> dict[str, float]:
    """The settings that a run's search chose, and the seconds that training took."""
    try:
        chosen = {key: float(value) for key, value in json.loads(path.read_bytes()).items()}
        if math.isfinite(chosen["seconds"]):
            return chosen
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):  # not JSON, or not a table of numbers
        pass
    raise UserError(f"{path}: damaged; remove or rename {path.parent} and run stage 3 again")
