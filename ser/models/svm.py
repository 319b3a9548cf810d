"""RBF support vector machine on statistics of the frames, its settings chosen inside the training part."""

import warnings
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from ser import functionals
from ser.cli import UserError
from ser.settings import PositiveFloat, strict

DRAWS = 10  # of groups into inner folds, before they are given up


@dataclass(config=strict, frozen=True, kw_only=True)
class Config:
    """cost and gamma: values to choose from; gamma is divided by the number of functionals, so that
    1 is scikit-learn's "scale" for features of unit variance. inner_folds: of the choice; as many as
    there are groups where those are fewer."""

    functionals: Annotated[list[functionals.Name], Field(min_length=1)]
    cost: Annotated[list[PositiveFloat], Field(min_length=1)]
    gamma: Annotated[list[PositiveFloat], Field(min_length=1)]
    inner_folds: Annotated[int, Field(ge=2)]


def pool(frames: np.ndarray, config: Config) -> np.ndarray:
    """Frames (T, D) -> the functionals, one after the other (F * D,)."""
    batch = torch.tensor(frames)[None]
    return functionals.pool(batch, torch.tensor([len(frames)]), config.functionals)[0].numpy()


def fit(
    pooled: np.ndarray, targets: np.ndarray, groups: np.ndarray, config: Config, seed: int, n_jobs: int
) -> GridSearchCV:
    """Choose cost and gamma by UA in cross-validation over `pooled` (N, F * D), then fit on all of it.

    groups (N,): utterances of one group stay on one side of an inner split; see `inner_splits`. Classes
    are weighted by the inverse of their number.
    """
    machine = make_pipeline(StandardScaler(), SVC(class_weight="balanced", break_ties=True, cache_size=500))
    grid = {"svc__C": config.cost, "svc__gamma": [gamma / pooled.shape[1] for gamma in config.gamma]}
    splits = inner_splits(targets, groups, config.inner_folds, seed)
    search = GridSearchCV(
        machine, grid, scoring="balanced_accuracy", cv=splits, n_jobs=n_jobs, error_score="raise"
    )
    return search.fit(pooled, targets)


def inner_splits(
    targets: np.ndarray, groups: np.ndarray, n_folds: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Numbers of the utterances that train, and of those that test, in each of `n_folds` inner folds, or in as many
    as there are groups.

    Groups are whole, and all classes train that have two utterances or more. Where there is one group alone (one of
    two speakers), or groups cannot give that (one has all of a class), each utterance is its own. Raises UserError
    where fewer than two classes have two utterances.
    """
    classes, counts = np.unique(targets, return_counts=True)
    common = classes[counts > 1]
    if len(common) < 2:
        raise UserError(
            "the SVM's inner folds need two classes with two training utterances or more; use fewer folds or other "
            "classes"
        )
    if len(np.unique(groups)) < 2:
        groups = np.arange(len(groups))
    n_folds = min(n_folds, counts.max())
    n_groups = len(np.unique(groups))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with fewer utterances than there are inner folds
        for draw in range(DRAWS):
            folds = StratifiedGroupKFold(min(n_folds, n_groups), shuffle=True, random_state=seed + draw)
            splits = list(folds.split(targets, targets, groups))
            if all(np.isin(common, targets[train]).all() for train, _ in splits):
                return splits
        print("inner folds: each utterance is a group of its own, since whole groups leave a class out of training")
        return list(StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(targets, targets))


def refuse_other(machine: object, n_classes: int) -> None:
    """Raise an error, of whatever kind, where an object is not what `fit` gives for so many classes."""
    if type(machine) is not Pipeline or [type(step) for _, step in machine.steps] != [StandardScaler, SVC]:
        raise ValueError("it holds something else")
    scaler, svc = (step for _, step in machine.steps)
    if not np.array_equal(svc.classes_, np.arange(n_classes)):
        raise ValueError(f"of the classes {svc.classes_.tolist()}, and the run has {n_classes}")
    n_vectors, n_features = svc.support_vectors_.shape
    n_pairs = n_classes * (n_classes - 1) // 2
    sizes = {  # on which libsvm relies
        "support_": n_vectors, "_n_support": n_classes, "_dual_coef_": (n_classes - 1) * n_vectors,
        "_intercept_": n_pairs, "_probA": 0, "_probB": 0,
    }  # fmt: skip
    wrong = [name for name, size in sizes.items() if getattr(svc, name).size != size]
    if wrong or svc.kernel != "rbf" or svc._n_support.sum() != n_vectors or (svc._n_support < 0).any():
        raise ValueError("its parts do not fit together")
    if not np.isfinite(posteriors(machine, np.zeros((1, n_features)))).all():
        raise ValueError("it gives no numbers")


def posteriors(machine: Pipeline, pooled: np.ndarray) -> np.ndarray:
    """(N, classes): softmax of the one-against-rest decision values. They rank the classes as the
    machine does, and are not calibrated."""
    decisions = machine.decision_function(pooled)
    decisions = np.stack([-decisions, decisions], 1) if decisions.ndim == 1 else decisions
    exponentials = np.exp(decisions - decisions.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)
