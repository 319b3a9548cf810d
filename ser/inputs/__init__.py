"""What a network reads beside frames: words, x-vectors, speakers. One module per input, with the input's name.

A model's Config lists its inputs in the property `extras`. Nothing else in ser names an input: to add one, add a module
here. It must define

- `check(run)`: raise UserError if its table is missing, and say how to make it;
- `checksums(run)`: {name: MD5 or None} of what it reads, which becomes part of the run's identity;
- `read(run, fold)`: an `Extra` with all utterances of a fold, noisy copies included (`fold.sources`);

and, if it needs them,

- FILES, which it writes into a run's folder: what it found in the training part, and the model depends on;
- PARTIAL, tables of the data directory in which utterances may be missing;
- `start(network, fold, extra, run)`: prepare a new network before training;
- for ser.predict and ser.load: NOUN and OPTIONS, used in messages; `add_options(parser)`;
  `from_options(args, names)`, a value for each recording, {} if no option was given; and
  `given(run, values, sizes)`, the `Extra` of some recordings from such values (`sizes`: of the trained network);
- for ser.draw_run, if networks attend to the input: WEIGHTS, the name of the network's method that returns the weights,
  and `pieces(run, utts)`, the pieces that have these weights.

Modules here must be quick to import: they import slow packages inside functions.
"""

import importlib
import pkgutil
from collections.abc import Collection, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from ser.cli import UserError
from ser.datadir import read_table

if TYPE_CHECKING:
    from torch import Tensor

    from ser.config import System


class Extra(Protocol):
    """An input of some utterances. sizes: arguments of the network's constructor, by name."""

    sizes: dict[str, int]

    def of(self, utts: Sequence[str]) -> "dict[str, Tensor]":
        """Arguments of the network's forward for a batch, by name."""


def every() -> dict[str, ModuleType]:
    """All inputs: {name: module}."""
    return {name: _module(name) for name in sorted(module.name for module in pkgutil.iter_modules(__path__))}


def partial_tables() -> set[str]:
    """Tables of the data directory in which utterances may be missing."""
    return {name for module in every().values() for name in getattr(module, "PARTIAL", ())}


def of(system: "System") -> dict[str, ModuleType]:
    """The inputs that a system reads beside frames: {name: module}."""
    return {name: _module(name) for name in system.extras}


def refuse_missing(path: Path, names: Collection[str]) -> None:
    """Raise UserError if a table given for recordings has no line for one of them."""
    missing = sorted(set(names) - read_table(path).keys())
    if missing:
        raise UserError(f"{path}: no line for {missing[0]}; each line starts with a file's name without its suffix")


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"ser.inputs.{name}")
