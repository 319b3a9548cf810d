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
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.model_selection import GridSearchCV, ParameterGrid, StratifiedGroupKFold, StratifiedKFold
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
        layers_of(run),
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


def layers_of(run: Run) -> list[int]:
    """The encoder's layers that the model of a run chooses from; [] if it does not choose."""
    chooses = getattr(config_of(run), "layers", "all") == "best"
    return getattr(run.system.feature, "layers", []) if chooses else []


class Layer(TransformerMixin, BaseEstimator):
    """Takes the values of one layer out of the functionals of an encoder's frames: (N, F * layers * D) -> (N, F * D).

    number: place of the layer in a frame, from 0; None: all layers, unchanged.
    """

    def __init__(self, n_functionals: int, n_layers: int, number: int | None = None) -> None:
        self.n_functionals, self.n_layers, self.number = n_functionals, n_layers, number

    def fit(self, pooled: np.ndarray, targets: np.ndarray | None = None) -> "Layer":
        """Remember the number of values, as scikit-learn's estimators do."""
        self.n_features_in_ = pooled.shape[1]
        return self

    def transform(self, pooled: np.ndarray) -> np.ndarray:
        """The values of the layer."""
        if self.number is None:
            return pooled
        by_layer = pooled.reshape(len(pooled), self.n_functionals, self.n_layers, -1)
        return by_layer[:, :, self.number].reshape(len(pooled), -1)


def new_estimator(config: ClassicalConfig, seed: int, layers: Sequence[int]) -> BaseEstimator:
    """The unfitted estimator of a model, with a step Layer before it if there is a choice of layers."""
    model = load_kind("model", kind_of(config), "").estimator(config, seed)
    if len(layers) < 2:
        return model
    return Pipeline([("layer", Layer(len(config.functionals), len(layers))), ("model", model)])


def grid_of(config: ClassicalConfig, n_values: int, layers: Sequence[int]) -> list[dict[str, list[Any]]]:
    """The settings to choose from: the model's own, for all layers and then for each alone. n_values: F * D."""
    module = load_kind("model", kind_of(config), "")
    grid = module.grid if hasattr(module, "grid") else lambda config, n_values: {}
    if len(layers) < 2:
        return [grid(config, n_values)]
    numbers: list[list[Any]] = [[None], [*range(len(layers))]]
    sizes = n_values, n_values // len(layers)
    return [
        {"layer__number": these, **{f"model__{name}": values for name, values in grid(config, size).items()}}
        for these, size in zip(numbers, sizes, strict=True)
    ]


def pool(frames: np.ndarray, config: ClassicalConfig) -> np.ndarray:
    """Frames (T, D) -> the functionals of the model's Config, concatenated (F * D,)."""
    batch = torch.tensor(frames)[None]
    return functionals.pool(batch, torch.tensor([len(frames)]), config.functionals)[0].numpy()


def search(
    pooled: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    config: ClassicalConfig,
    seed: int,
    n_jobs: int,
    layers: Sequence[int] = (),
) -> tuple[BaseEstimator, dict[str, Any]]:
    """Choose among the settings of the model's `grid`, and among `layers` of an encoder, by UA in cross-validation over
    `pooled` (N, F * D), then fit on all of it. Returns the estimator, and what was chosen: {} if there is no choice.

    groups (N,): an inner split does not divide the utterances of a group; see `inner_splits`. layers: those of an
    encoder that are in the frames; one of them is taken, or all together.
    """
    estimator, grid = new_estimator(config, seed, layers), grid_of(config, pooled.shape[1], layers)
    if len(ParameterGrid(grid)) == 1:
        return estimator.set_params(**ParameterGrid(grid)[0]).fit(pooled, targets), {}
    splits = inner_splits(targets, groups, config.inner_folds, seed)
    found = GridSearchCV(
        estimator, grid, scoring="balanced_accuracy", cv=splits, n_jobs=n_jobs, error_score="raise"
    ).fit(pooled, targets)
    chosen = {name.removeprefix("model__"): value for name, value in found.best_params_.items()}
    if len(layers) > 1:
        number = chosen.pop("layer__number")
        chosen = {"layers": "all" if number is None else layers[number], **chosen}
    return found.best_estimator_, {**chosen, "inner_ua": 100 * float(found.best_score_)}


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
        shown = {name: value if name == "layers" else f"{value:.4g}" for name, value in chosen.items()}
        settings = ", ".join(f"{name} {value}" for name, value in shown.items())
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
        trusted = trusted_types(config_of(run))
        estimator = skops.io.load(path, trusted=trusted)  # only known types: nothing is executed
        refuse_other(estimator, config_of(run), len(run.protocol.classes), layers_of(run))
        learned = Learned(run, estimator)
    except FileNotFoundError:
        raise
    except Exception as error:  # skops reports a damaged file in many ways
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not a complete {kind_of(run.system.model)} ({reason}); {remedy}") from None
    if sizes and sizes["n_features"] * len(config_of(run).functionals) != estimator.n_features_in_:
        raise UserError(f"{path}: trained on features of another size than those in {run.feature_folder()}; {remedy}")
    return learned


def refuse_other(estimator: Any, config: ClassicalConfig, n_classes: int, layers: Sequence[int]) -> None:
    """Raise an error of any type if an object is not a fitted estimator of a model for this number of classes."""
    module, fresh = load_kind("model", kind_of(config), ""), new_estimator(config, 0, layers)
    if types_of(estimator) != types_of(fresh):
        raise ValueError("it contains something else")
    if not np.array_equal(estimator.classes_, np.arange(n_classes)):
        raise ValueError(f"its classes are {estimator.classes_.tolist()}, but the run has {n_classes}")
    if hasattr(module, "refuse_damaged"):
        module.refuse_damaged(estimator["model"] if len(layers) > 1 else estimator)
    if len(layers) > 1:
        refuse_other_layer(estimator, fresh)
    n_features = estimator.n_features_in_
    if n_features % len(config.functionals):
        raise ValueError(f"it takes {n_features} values, which {len(config.functionals)} functionals cannot produce")
    if not np.isfinite(probabilities(estimator, np.zeros((1, n_features)))).all():
        raise ValueError("its probabilities are not finite")


def refuse_other_layer(estimator: Pipeline, fresh: Pipeline) -> None:
    """Raise an error if the step that takes a layer is not that of `fresh`, but for the layer."""
    layer, n_layers = estimator["layer"], fresh["layer"].n_layers
    if layer.get_params() != {**fresh["layer"].get_params(), "number": layer.number}:
        raise ValueError("its layers are not those of the system")
    if layer.number is not None and layer.number not in range(n_layers):
        raise ValueError(f"it takes layer {layer.number} of {n_layers}")
    if layer.n_features_in_ != estimator["model"].n_features_in_ * (1 if layer.number is None else n_layers):
        raise ValueError("its layers have another size")


def types_of(estimator: Any) -> list[type]:
    """The type of an estimator, and of the steps of a pipeline."""
    steps = [step for _, step in estimator.steps] if type(estimator) is Pipeline else []
    return [type(estimator), *(kind for step in steps for kind in types_of(step))]


def trusted_types(config: ClassicalConfig) -> list[str]:
    """The types that skops may load for a model, beside those that it always does."""
    module = load_kind("model", kind_of(config), "")
    return [*getattr(module, "TRUSTED", ()), f"{Layer.__module__}.{Layer.__name__}"]


def refuse_untrusted(content: bytes, config: ClassicalConfig) -> None:
    """Raise UserError if an estimator, as skops writes it, has types that `load` would refuse to read."""
    module = load_kind("model", kind_of(config), "")
    unknown = skops.io.get_untrusted_types(data=content)
    missing = sorted({*unknown} - {*trusted_types(config)})
    if missing:
        raise UserError(
            f"{module.__file__}: TRUSTED lacks {', '.join(missing)}, which the estimator has; add them, "
            f"TRUSTED = {[*getattr(module, 'TRUSTED', ()), *missing]}"
        )


def read_chosen(path: Path) -> dict[str, Any]:
    """The settings that a run's search chose, all numbers but layers: all, and the seconds that training took."""
    try:
        chosen = json.loads(path.read_bytes())
        layers = {"layers": chosen.pop("layers")} if "layers" in chosen else {}
        chosen = {key: float(value) for key, value in chosen.items()}
        if math.isfinite(chosen["seconds"]) and all(layer == "all" or type(layer) is int for layer in layers.values()):
            return {**layers, **chosen}
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):  # not JSON, or not a table of numbers
        pass
    raise UserError(f"{path}: damaged; remove or rename {path.parent} and run stage 3 again")
