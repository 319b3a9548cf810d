"""Multinomial logistic regression on statistics of the frames, with the penalty chosen within the training set."""

from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ser.functionals import Name
from ser.settings import PositiveFloat, strict

ITERATIONS = 1000  # maximum; scikit-learn's 100 may be too few with many functionals


@dataclass(config=strict, frozen=True, kw_only=True)
class Config:
    """cost: inverse strengths of the L2 penalty to choose from. inner_folds: number of inner folds for the
    choice, at most one per group."""

    functionals: Annotated[list[Name], Field(min_length=1)]
    cost: Annotated[list[PositiveFloat], Field(min_length=1)]
    inner_folds: Annotated[int, Field(ge=2)]


def estimator(config: Config, seed: int) -> Pipeline:
    """An unfitted regression. Classes are weighted by the inverse of their frequency."""
    return make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=ITERATIONS))


def grid(config: Config, n_values: int) -> dict[str, list[Any]]:
    """The parameter grid."""
    return {"logisticregression__C": config.cost}
