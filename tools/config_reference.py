"""Writes docs/config.md, every key of the files in a recipe's conf/, from the dataclasses that they are read into:

    . ./path.sh; python tools/config_reference.py > docs/config.md

A key's meaning is the comment beside its field, or above it; the docstring of a dataclass comes before its table.
"""

import ast
import inspect
import io
import json
import re
import textwrap
import tokenize
from dataclasses import MISSING, Field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from ser import config, settings

SYSTEM = """\
description: RBF SVM on mean and deviation of log-mel bands
feature:
  kind: logmel
  sample_rate: 16000
  n_fft: 512
  win_length: 400
  hop_length: 160
  window: hann
  n_mels: 40
  fmin: 0
  fmax: 8000
normalisation: none
model: {kind: svm, functionals: [mean, deviation], cost: [1, 10], gamma: [1], inner_folds: 5}
"""
PROTOCOL = """\
description: speaker-independent; the speakers of the next fold select the model, the others train it
classes: {angry: [angry], neutral: [neutral, calm]}
folds: {kind: groups, by: spk, number: 5}
select: dev
"""
PAPER = """\
name: Ours et al.
reference: A. Ours and B. Theirs, How many layers, Some venue, 2020
tables:
  - number: III
    title: number of layers
    protocol: paper
    honest: honest
    rows:
      - {name: 2 layers, wa: 62, systems: [two_layers, two_layers_text]}
      - {name: "Theirs et al. [7]", wa: 70.5, ua: 68, note: ± 2.0, systems: []}
"""
HEAD = f"""\
# Configuration reference

Written by `python tools/config_reference.py > docs/config.md` from the dataclasses in `ser/`; do not edit it by hand.

A **system** is a file `conf/<paper>/<system>.yaml`, a **protocol** a file `conf/protocols/<protocol>.yaml`. Each has
the name of its file. A minimal system:

```yaml
{SYSTEM}```

and a minimal protocol:

```yaml
{PROTOCOL}```

Either may have a key `base`, the path of another such file, relative to this one. Then it needs only its
`description` and the keys that differ; sections such as `training` are merged key by key, unless their `kind`
differs. `description` is never inherited.

`./run.sh --set "training.epochs=2 model.dropout=0"` runs systems with other settings without a file of your own.
Values are written as in YAML, lists without spaces: `model.cost=[1,3]`. Each system gets a name of its own,
`<system>+model.dropout=0+training.epochs=2`, for its runs and scores; its file is written to `exp/systems/`. It is a
row of RESULTS.md only while `--systems` or `--set` selects it, and git ignores its scores.

Runs in `exp/` keep the settings they were made with. After a change to a system, a protocol, the code or the data,
stages 3 and 4 list the runs that no longer match and what differs, and train the others. `--overwrite true` removes
the listed runs and trains them again. (`--replace true` is about scores: stage 5 then replaces those in `results/`
that come from another commit or machine.)

The numbers that a paper publishes are in `conf/papers/<paper>.yaml`: its tables for the recipe's corpus, as printed and in
its order. Each row names the systems that are meant to reproduce it:

```yaml
{PAPER}```

A number may be written as `1e-4`. A key that is not listed here is an error.
"""
CONSTRAINTS = {  # of a number or of a list's length, as pydantic calls them
    "ge": "at least {}",
    "gt": "above {}",
    "le": "at most {}",
    "lt": "below {}",
    "min_length": "at least {}",
    "max_length": "at most {}",
}
WORDS = {int: "whole number", float: "number", str: "text", bool: "`true` or `false`", NoneType: "`null`"}
MEANINGS = {  # of keys that mean the same in several kinds, where neither a comment nor the docstring has more
    "kind": "which of the two kinds",
    "sample_rate": "in Hz; recordings are resampled to it",
    "n_fft": "length of the Fourier transform, in samples",
    "win_length": "length of the window, in samples",
    "hop_length": "samples between the starts of consecutive frames",
    "window": "window function",
    "n_mels": "number of mel bands",
    "fmin": "lowest frequency of the bands, in Hz",
    "fmax": "highest frequency of the bands, in Hz",
    "n_mfcc": "number of cepstral coefficients",
    "f0_min": "lowest fundamental frequency, in Hz",
    "f0_max": "highest fundamental frequency, in Hz",
    "pad": "where a shorter utterance is filled with zeros",
    "segment_length": "samples per frame",
    "functionals": "statistics of each value over the frames",
    "dropout": "share of values set to 0 in training",
    "dense_size": "units of the dense layer",
    "linear_size": "units of the linear layer",
    "embedding_size": "units of the layer before the output",
    "activation": "function after each convolution",
    "word_size": "length of a word's vector",
    "xvectors": "whether the network reads x-vectors",
}


def main() -> None:
    print(reference(), end="")


def reference() -> str:
    """The whole page."""
    parts = [HEAD, "## Systems\n", table(config.System, skip=("name",), optional=config.OPTIONAL)]
    parts.append(section("### `training`", config.Training))
    for part in ("feature", "model"):
        parts.append(f"## Kinds of `{part}`\n")
        parts += [of_kind(part, kind) for kind in config.kinds(part)]
    parts += ["## Protocols\n", table(config.Protocol, skip=("name",))]
    parts += [
        section("### `folds`, kind `groups`", config.GroupFolds),
        section("### `folds`, kind `random`", config.RandomFolds),
        section("### `adapt`", config.Adapt),
        f"## Papers\n\n{plain(inspect.getdoc(config.Paper) or '')}\n\n{table(config.Paper, skip=('key',))}",
        section("### `tables`: a list", config.Table),
        section("### `rows`: a list", config.Row),
    ]
    return "\n".join(parts)


def of_kind(part: str, kind: str) -> str:
    """The keys of a module of ser/features or ser/models."""
    module = config.load_kind(part, kind, "tools/config_reference.py")
    about = (inspect.getdoc(module) or "").split("\n\n")[0]
    return f"### `{part}.kind: {kind}`\n\n{plain(about)}\n\n" + with_docstring(module.Config)


def section(title: str, cls: type) -> str:
    """A title and the keys of a dataclass."""
    return f"{title}\n\n" + with_docstring(cls)


def with_docstring(cls: type) -> str:
    """The docstring of a dataclass, and its table."""
    return f"{plain(inspect.getdoc(cls) or '')}\n\n{table(cls)}"


def table(cls: type, skip: tuple[str, ...] = (), optional: dict[str, Any] | None = None) -> str:
    """A row for each key. optional: defaults of keys for which the dataclass has none."""
    types, meanings = get_type_hints(cls, include_extras=True), comments(cls)
    rows = [["key", "type", "default", "meaning"], ["---"] * 4]
    for item in fields(cls):
        if item.name not in skip:
            default = json.dumps((optional or {})[item.name]) if item.name in (optional or {}) else default_of(item)
            is_above = re.search(rf"\b{item.name}\b", inspect.getdoc(cls) or "")
            meaning = meanings[item.name] or ("see above" if is_above else MEANINGS.get(item.name, ""))
            rows.append(
                [
                    f"`{item.name}`",
                    in_words(types[item.name]),
                    f"`{default}`" if default else "required",
                    plain(meaning),
                ]
            )
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def plain(text: str) -> str:
    """Escape what Markdown would take for a tag or for the end of a cell."""
    return text.replace("<", "&lt;").replace("|", "\\|")


def default_of(item: Field) -> str:
    """A key's default, as JSON; "" if it has none."""
    if item.default_factory is not MISSING:
        return json.dumps(item.default_factory())
    return "" if item.default is MISSING else json.dumps(item.default)


def in_words(kind: Any) -> str:
    """A type, in words."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind == config.Noise:
        return "noise, such as `snr10` (in dB) or `deviation1`"
    if origin is Annotated:
        inner, limits = in_words(arguments[0]), ", ".join(limit for meta in arguments[1:] for limit in limits_of(meta))
        return (
            inner.replace("list of", f"list of {limits}", 1)
            if get_origin(arguments[0]) is list
            else ", ".join(filter(None, [inner, limits]))
        )
    if origin in (Union, UnionType):
        parts = list(dict.fromkeys(map(in_words, arguments)))
        return (", or " if "," in "".join(parts) else " or ").join(parts)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is list:
        return f"list of: {in_words(arguments[0])}"
    if origin is dict:
        return f"mapping of names to: {in_words(arguments[1])}"
    if kind in (settings.FeatureConfig, settings.ModelConfig) or is_dataclass(kind):
        return "section"
    return WORDS[kind]


def limits_of(meta: Any) -> list[str]:
    """The limits in pydantic's Field, in words."""
    found = {}
    for constraint in getattr(meta, "metadata", []):
        for name in CONSTRAINTS:
            value = getattr(constraint, name, None)
            if value is not None:
                found[name] = value
    if "min_length" in found and found["min_length"] == found.get("max_length"):
        return [str(found["min_length"])]
    return [CONSTRAINTS[name].format(value) for name, value in found.items()]


def comments(cls: type) -> dict[str, str]:
    """For each field of a dataclass and its bases, the comment on its lines, or else the one above it."""
    found: dict[str, str] = {}
    for base in reversed([base for base in cls.__mro__ if is_dataclass(base)]):
        source = textwrap.dedent(inspect.getsource(base))
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        lines = {token.start[0]: token for token in tokens if token.type == tokenize.COMMENT}
        for node in ast.parse(source).body[0].body:
            if isinstance(node, ast.AnnAssign):
                beside = [lines[number] for number in range(node.lineno, node.end_lineno + 1) if number in lines]
                text = " ".join(token.string for token in beside or above(lines, node.lineno))
                found[node.target.id] = re.sub(r"(^| )# ?", r"\1", text)
    return found


def above(lines: dict[int, tokenize.TokenInfo], number: int) -> list[tokenize.TokenInfo]:
    """The comment lines directly above a line."""
    token = lines.get(number - 1)
    return [*above(lines, number - 1), token] if token and token.line.lstrip().startswith("#") else []


if __name__ == "__main__":
    main()
