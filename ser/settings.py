"""Types with limits for the fields of the dataclasses that YAML files are read into."""

from typing import Annotated

from pydantic import ConfigDict, Field

strict = ConfigDict(extra="forbid", strict=True)  # for every such dataclass: no unknown keys, no conversion of values
Positive = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]  # such as a dropout rate or the size of a test set
Noise = Annotated[str, Field(pattern=r"^(snr-?[0-9]+|deviation[0-9]+(\.[0-9]+)?)$")]  # see ser/noise.py
