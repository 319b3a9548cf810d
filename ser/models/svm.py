"""RBF support vector machine on statistics of the frames, with parameters chosen within the training set."""

from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from ser.functionals import Name
from ser.settings import PositiveFloat, strict


@dataclass(config=strict, frozen=True, kw_only=True)
class Config:
    """cost and gamma: values to choose from; gamma is divided by the number of inputs, so that
    1 is scikit-learn's "scale" for features of unit variance. inner_folds: number of inner folds for the
    choice, at most one per group."""

    functionals: Annotated[list[Name], Field(min_length=1)]
    cost: Annotated[list[PositiveFloat], Field(min_length=1)]
    gamma: Annotated[list[PositiveFloat], Field(min_length=1)]
    inner_folds: Annotated[int, Field(ge=2)]


def estimator(config: Config, seed: int) -> Pipeline:
    """An unfitted SVM. Classes are weighted by the inverse of their frequency."""
    return make_pipeline(StandardScaler(), SVC(class_weight="balanced", break_ties=True, cache_size=500))


def grid(config: Config, n_values: int) -> dict[str, list[Any]]:
    """The parameter grid; n_values: length of the input."""
    return {"svc__C": config.cost, "svc__gamma": [gamma / n_values for gamma in config.gamma]}


def refuse_damaged(machine: Pipeline) -> None:
    """Raise an error if the parts of an SVM are inconsistent, since libsvm does not check them and would crash."""
    svc = machine.steps[1][1]
    n_classes, n_vectors = len(svc.classes_), len(svc.support_vectors_)
    n_pairs = n_classes * (n_classes - 1) // 2
    sizes = {
        "support_": n_vectors, "_n_support": n_classes, "_dual_coef_": (n_classes - 1) * n_vectors,
        "_intercept_": n_pairs, "_probA": 0, "_probB": 0,
    }  # fmt: skip
    wrong = [name for name, size in sizes.items() if getattr(svc, name).size != size]
    wrong += ["support_vectors_"] * (svc.support_vectors_.shape[1:] != (machine.n_features_in_,))
    if wrong or svc.kernel != "rbf" or svc._n_support.sum() != n_vectors or (svc._n_support < 0).any():
        raise ValueError("its parts are inconsistent")
