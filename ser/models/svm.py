"""RBF support vector machine on statistics of the frames, its settings chosen inside the training part."""

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from ser import functionals
from ser.config import PositiveFloat, strict


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

    groups (N,): utterances of one group stay on one side of an inner split; where there is one group
    alone (one of two speakers), each utterance is its own. Classes are weighted by the inverse of
    their number.
    """
    if len(np.unique(groups)) < 2:
        groups = np.arange(len(groups))
    machine = make_pipeline(StandardScaler(), SVC(class_weight="balanced", break_ties=True, cache_size=500))
    grid = {"svc__C": config.cost, "svc__gamma": [gamma / pooled.shape[1] for gamma in config.gamma]}
    n_folds = min(config.inner_folds, len(np.unique(groups)))
    splits = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    search = GridSearchCV(
        machine, grid, scoring="balanced_accuracy", cv=splits, n_jobs=n_jobs, error_score="raise"
    )
    return search.fit(pooled, targets, groups=groups)


def posteriors(machine: Pipeline, pooled: np.ndarray) -> np.ndarray:
    """(N, classes): softmax of the one-against-rest decision values. They rank the classes as the
    machine does, and are not calibrated."""
    decisions = machine.decision_function(pooled)
    decisions = np.stack([-decisions, decisions], 1) if decisions.ndim == 1 else decisions
    exponentials = np.exp(decisions - decisions.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)
