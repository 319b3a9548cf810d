"""Types with limits for the fields of the dataclasses that YAML files are read into."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Protocol

from pydantic import ConfigDict, Field

strict = ConfigDict(extra="forbid", strict=True)  # for every such dataclass: no unknown keys, no conversion of values
Positive = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]  # such as a dropout rate or the size of a test set
Checksum = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]  # MD5
Layers = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]  # of a pretrained encoder
Noise = Annotated[str, Field(pattern=r"^(snr-?[0-9]+|deviation[0-9]+(\.[0-9]+)?)$")]  # see ser/noise.py


class FeatureConfig(Protocol):
    """The Config of a module of ser/features, which says what it owes."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def sample_rate(self) -> int:
        """Of the samples that the feature takes, in Hz."""


class ModelConfig(Protocol):
    """The Config of a module of ser/models, which says what it owes."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class FramedConfig(FeatureConfig, Protocol):
    """The Config of a feature whose frames follow time."""

    @property
    def hop_length(self) -> int:
        """From one frame to the next, in samples."""


class WordsConfig(ModelConfig, Protocol):
    """The Config of a network that reads words."""

    @property
    def words(self) -> str:
        """The table of the data directory that has the transcripts."""


class ClassicalConfig(ModelConfig, Protocol):
    """The Config of a classical model."""

    @property
    def inner_folds(self) -> int:
        """Number of inner folds, for a model with a grid."""

    @property
    def functionals(self) -> Sequence[Any]:
        """Names of the statistics of the frames, of ser.functionals."""
