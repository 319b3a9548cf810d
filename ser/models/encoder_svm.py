"""RBF support vector machine on an encoder's states: that of svm.py, with the layer chosen within the training set."""

from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from ser.functionals import Name
from ser.models import svm
from ser.settings import PositiveFloat, strict

if TYPE_CHECKING:
    from ser.config import System

estimator, grid, refuse_damaged = svm.estimator, svm.grid, svm.refuse_damaged


@dataclass(config=strict, frozen=True, kw_only=True)
class Config:
    """cost, gamma and inner_folds: as in svm.py. layers: "all": those of the feature, side by side; "best": either all
    of them or one, whichever is best in the inner folds.

    functionals: of the frames; the default is the frame itself for a feature with one frame an utterance.
    """

    layers: Literal["all", "best"] = "all"
    functionals: Annotated[list[Name], Field(min_length=1)] = field(default_factory=lambda: ["mean"])
    cost: Annotated[list[PositiveFloat], Field(min_length=1)]
    gamma: Annotated[list[PositiveFloat], Field(min_length=1)]
    inner_folds: Annotated[int, Field(ge=2)]


def check_system(system: "System") -> None:
    """Raise ValueError if a layer is to be chosen of a feature that has none."""
    assert isinstance(system.model, Config)
    if system.model.layers == "best" and not hasattr(system.feature, "layers"):
        raise ValueError("model.layers: best; write all, since the feature has no layers (pretrained has)")
