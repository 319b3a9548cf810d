"""What a network reads beside frames: words, x-vectors, who speaks. One module an input, named as the input.

A model's Config names the inputs that it takes in its property `extras`. Nothing else in ser names one: to add an
input, add a module here. It owes

- `check(run)`: raise UserError where its table is not there, saying how to make it;
- `checksums(run)`: {name: MD5 or None} of what it reads, which becomes part of the run's identity;
- `read(run, fold)`: an `Extra`, of all utterances of a fold, its noisy copies among them (`fold.sources`);

and, as far as there is something to do,

- PARTIAL, tables of the data directory that may lack utterances;
- `start(network, fold, extra, run)`: what a fresh network is given before training;
- for ser.predict and ser.load: NOUN and OPTIONS, which messages name; `add_options(parser)`;
  `from_options(args, names)`, a value for each recording, {} where no option was given; and
  `given(run, values, sizes)`, the `Extra` of some recordings from such values (`sizes`: of the trained network);
- for ser.draw_run, of an input that a network attends to: WEIGHTS, the network's method that gives the weights, and
  `pieces(run, utts)`, what they are the weights of.

Modules here are quick to import: what takes long is imported where it is used.
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
    """An input of some utterances. sizes: what the network's constructor takes, by name."""

    sizes: dict[str, int]

    def of(self, utts: Sequence[str]) -> "dict[str, Tensor]":
        """What the network's forward takes of a batch, by name."""


def every() -> dict[str, ModuleType]:
    """All inputs that there are: {name: module}."""
    return {name: _module(name) for name in sorted(module.name for module in pkgutil.iter_modules(__path__))}


def partial_tables() -> set[str]:
    """Tables of the data directory that may lack utterances."""
    return {name for module in every().values() for name in getattr(module, "PARTIAL", ())}


def of(system: "System") -> dict[str, ModuleType]:
    """The inputs that a system reads beside frames: {name: module}."""
    return {name: _module(name) for name in system.extras}


def refuse_missing(path: Path, names: Collection[str]) -> None:
    """Raise UserError where a table that is given for recordings has no line for one of them."""
    missing = sorted(set(names) - read_table(path).keys())
    if missing:
        raise UserError(f"{path}: no line for {missing[0]}; lines start with the files' names without their suffixes")


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"ser.inputs.{name}")
