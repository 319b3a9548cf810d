"""System, protocol and paper files: YAML read into typed dataclasses; every error names file and key."""

import difflib
import hashlib
import importlib
import json
import os
import pkgutil
import re
import sys
from collections import Counter
from collections.abc import Hashable
from dataclasses import field, fields, is_dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import yaml
from pydantic import Field, SkipValidation, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from ser.cli import UserError
from ser.metrics import METRICS
from ser.settings import FeatureConfig, ModelConfig, Noise, Positive, PositiveFloat, strict

if TYPE_CHECKING:  # type checkers do not support computed literals
    Monitor = str
else:
    Monitor = Literal[tuple(f"dev_{name}" for name in ("loss", *METRICS))]

LARGEST_FILE = 100_000  # bytes of a YAML file; reading this many takes a second, and ours have a few thousand
LONGEST_NUMBER = 40  # characters
LONGEST_SHOWN = 100  # characters of a value in a message
NAMES = ("classes", "where")  # sections that hold only labels and other names
# keys that a system file may omit, although System requires them
OPTIONAL: dict[str, Any] = {"training": None}
PerCent = Annotated[float, Field(gt=1, le=100)]  # a share such as 0.68 is a mistake
YAML_FAULTS = (yaml.YAMLError, ValueError, OverflowError, RecursionError)  # OverflowError: of "\\UFFFFFFFF"


@dataclass(config=strict, frozen=True, kw_only=True)
class Training:
    """How a network is trained; read by ser/learners/network.py."""

    epochs: Positive  # maximum number
    batch_size: Positive  # utterances
    learning_rate: PositiveFloat  # constant over all epochs
    optimiser: Literal["adam", "nadam", "rmsprop"] = "adam"  # nadam: with Nesterov momentum
    epsilon: PositiveFloat = 1e-8  # of the optimiser; Keras uses 1e-7
    # alike: batches of utterances of similar length; balanced: batches with equally many utterances of each class
    batches: Literal["alike", "balanced"] = "alike"
    patience: Positive | None = None  # epochs without a better dev value before training stops; null: no early stopping
    monitor: Monitor = "dev_loss"  # what selects the best model
    clip_norm: PositiveFloat | None = None  # maximum norm of the whole gradient; null: no clipping
    class_weights: Literal["none", "balanced"] = "none"  # balanced: inversely proportional to class frequency
    precision: Literal["float32", "bfloat16"] = "float32"  # bfloat16: automatic mixed precision
    # batches whose gradients are added up before a step of the optimiser, which then is that of one large batch, unless
    # the network has batch normalisation
    accumulation: Positive = 1


@dataclass(config={**strict, "arbitrary_types_allowed": True}, frozen=True, kw_only=True)
class System:
    """One row of a table; `feature` and `model` are the Config of the module named by their `kind`."""

    name: str
    description: str  # one line, for the table; no result depends on it
    feature: SkipValidation[FeatureConfig]  # how a recording becomes frames; `kind` names a module of ser/features
    model: SkipValidation[ModelConfig]  # what predicts the class; `kind` names a module of ser/models
    # mean and standard deviation of each dimension, from the training part: over all frames (global), over the frames
    # of the class neutral (neutral), or per frame position too (cell); speaker: over all utterances of each speaker in
    # the fold, test utterances included, or over those that the protocol's `adapt` draws
    normalisation: Literal["none", "global", "neutral", "cell", "speaker"]
    training: Training | None  # how a network is trained; null for a classical model, which has no epochs
    augment: list[Noise] = field(default_factory=list)  # noises: for each, a noisy copy of the training part is added

    @property
    def extras(self) -> tuple[str, ...]:
        """What the model reads beside frames; see ser/inputs/__init__.py."""
        return getattr(self.model, "extras", ())

    @property
    def learner(self) -> str:
        """The module of ser/learners that trains the model: "network" or "classical"."""
        return learner_of(sys.modules[type(self.model).__module__])


@dataclass(config=strict, frozen=True, kw_only=True)
class RandomFolds:
    """Test utterances drawn at random for each fold: training and test set share speakers."""

    kind: Literal["random"]
    number: Positive  # of folds, each drawn independently
    test_share: Annotated[float, Field(gt=0, lt=1)]  # of all utterances; the development set is as large
    seed: Annotated[int, Field(ge=0)]  # of the draws


@dataclass(config=strict, frozen=True, kw_only=True)
class GroupFolds:
    """Utterances of one group (one value of the table utt2<by>) are never split between training and test set.

    The groups are divided into `number` parts of equal size, in order of their names, or with `seed` in random order.
    Fold k tests part k, so that each group is tested once; with `test_parts: 2` also the next part, so that each is
    tested twice, and so on; the first part follows the last. With `select: dev` the part after the tested ones is the
    development set. With `dev`, the development set is only those of its utterances that share one value of the table
    utt2<dev>, such as one speaker of the next session; the value changes from fold to fold, in order of names, and the
    other utterances are used for training.

    `by: spk, number: all` leaves one speaker out. A class may be absent from dev and test parts, but not from a
    training part; metrics are over the classes present, and RESULTS.md then also has them over the utterances of all
    folds together (pooled). dev needs two classes: where one speaker has a single one, write `select: last`.
    """

    kind: Literal["groups"]
    by: str  # a table utt2<by> of the data directory, such as spk or sess; utt: each utterance is its own group
    # of folds; all: as many as groups, so that each fold leaves one out
    number: Annotated[int, Field(ge=2)] | Literal["all"]
    test_parts: Positive = 1  # parts that each fold tests
    seed: Annotated[int, Field(ge=0)] | None = None  # of the random order of groups; null: in order of their names
    dev: str | None = None  # a table utt2<dev>: the development set has one of its values; null: the whole next part


@dataclass(config=strict, frozen=True, kw_only=True)
class Adapt:
    """Unlabelled recordings of each speaker that a system may adapt to, drawn by stage 1.

    Those of test and dev speakers are set aside: they are not scored. Those of training speakers stay in training. A
    system with `normalisation: speaker` takes each speaker's mean and deviation from them, shrunk towards those of the
    training part (see ser/adaptation.py); other systems ignore them. Labels serve the draw alone. The same seed draws
    the same order of recordings for any number of them.
    """

    utterances: Annotated[int, Field(ge=0)]  # of each speaker; 0: none, so that all are normalised alike
    # true: as equally from all classes as possible; false: from as few classes as possible, a skewed draw
    balanced: bool = True
    draws: Positive = 1  # each fold is repeated with so many draws
    relevance: PositiveFloat = 5.0  # of the training part in shrinking, counted in utterances
    seed: Annotated[int, Field(ge=0)] = 0  # of the draws


@dataclass(config=strict, frozen=True, kw_only=True)
class Protocol:
    """Which utterances and classes are used, how they are split, and what selects the model."""

    name: str
    description: str  # one line for RESULTS.md; leave out the numbers of folds and speakers, which stage 1 counts
    classes: dict[str, list[str]]  # each class, with the labels of the corpus that it includes
    # {cond: [improvised]}: only utterances whose value in the table utt2cond is one of these
    where: dict[str, Annotated[list[str], Field(min_length=1)]] = field(default_factory=dict)
    folds: Annotated[RandomFolds | GroupFolds, Field(discriminator="kind")]  # how the utterances are split
    # what selects the model: dev: a development set; test: the test set, as some papers do; last: nothing, the model of
    # the last epoch is used
    select: Literal["dev", "test", "last"]
    noise: Noise | None = None  # added to the test utterances
    labels: Literal["own", "shuffled"] = "own"  # shuffled: a control that shows chance level
    table: str = ""  # title of the table in RESULTS.md that has the protocol as a column; empty: the main table
    # recordings of each speaker that a system may adapt to; null: normalisation by speaker uses all of them. A protocol
    # with this section has no column in the tables of RESULTS.md, but a place in the section on adaptation
    adapt: Adapt | None = None


@dataclass(config=strict, frozen=True, kw_only=True)
class Row:
    """A row of a paper's table."""

    name: str  # as printed
    wa: PerCent | None = None  # weighted accuracy, in per cent
    ua: PerCent | None = None  # unweighted accuracy, in per cent
    note: str = ""  # what the paper prints beside these, such as an interval or another metric
    # names of the systems that are meant to reproduce it: first the main reading of the paper, then other readings; an
    # empty list if the recipe has none
    systems: list[str]


@dataclass(config=strict, frozen=True, kw_only=True)
class Table:
    """A table of a paper, or the part of it that one protocol is meant to reproduce."""

    number: str  # as printed, such as "III", or the place, such as "Section 5"
    title: str  # what the rows differ in
    protocol: str  # the recipe's protocol that is meant to reproduce it
    # the recipe's protocol of honest evaluation: speakers apart, and the test set selects nothing; null: none has the
    # same classes and the same kind of test utterances
    honest: str | None
    rows: Annotated[list[Row], Field(min_length=1)]  # in the paper's order

    @property
    def systems(self) -> list[str]:
        """Names of the systems in its rows, each once."""
        return list(dict.fromkeys(name for row in self.rows for name in row.systems))


@dataclass(config=strict, frozen=True, kw_only=True)
class Paper:
    """The tables of a paper for one corpus."""

    key: str  # the file's name without .yaml; not in the file
    name: str  # short, such as Sherman et al.
    reference: str  # authors, title, venue, year
    tables: Annotated[list[Table], Field(min_length=1)]  # in the paper's order


class Loader(yaml.SafeLoader):
    """YAML as users mean it, restricted to what these files need.

    1e-4 is a number, and a date is text. Keys are text as written, and so is everything in the sections NAMES: there
    `yes` is not True, and `1` is not a number. A duplicate key is an error. Anchors, aliases, merge keys and tags are
    refused: with them a short file can expand without limit.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in some if tag.endswith((":null", ":bool", ":int", ":float"))]
        for first, some in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if event.anchor is not None:  # an alias has one too
            raise mistake("anchors (&) and aliases (*) are not allowed; write out what they stand for", event)
        if getattr(event, "tag", None) is not None:
            raise mistake("tags (!) are not allowed; remove it", event)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping: dict[Hashable, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise mistake("a key must be text", key)
            if key.value == "<<":
                raise mistake("merge keys (<<) are not allowed; write out what it stands for", key)
            if key.value in mapping:
                raise mistake(f"duplicate key {key.value}", key)
            if key.value in NAMES:
                take_as_written(value)
            mapping[key.value] = self.construct_object(value, deep=True)
        return mapping

    def construct_number(self, node: yaml.ScalarNode) -> float:
        if len(node.value) > LONGEST_NUMBER:
            raise mistake(f"a number of more than {LONGEST_NUMBER} characters", node)
        is_whole = node.tag.endswith(":int")
        try:
            number = self.construct_yaml_int(node) if is_whole else self.construct_yaml_float(node)
        except ValueError:  # 0b_
            raise mistake(f"{node.value} is not a number", node) from None
        if is_whole and abs(number) >= 2**63:
            raise mistake(f"{node.value} is too large", node)
        return number


for tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
    Loader.add_constructor(tag, Loader.construct_number)


def mistake(problem: str, place: yaml.Event | yaml.Node) -> yaml.MarkedYAMLError:
    """The error for a problem at a place in a YAML file."""
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)  # type: ignore[arg-type]


def take_as_written(node: yaml.Node) -> None:
    """Read all values below a node as text."""
    if isinstance(node, yaml.ScalarNode):
        node.tag = "tag:yaml.org,2002:str"
    for item in node.value if isinstance(node, yaml.CollectionNode) else []:
        take_as_written(item[1] if isinstance(node, yaml.MappingNode) else item)


class Dumper(yaml.SafeDumper):
    """Writes what Loader reads back unchanged, even text such as the commit 45e6789; uses no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for reader_or_writer in (Loader, Dumper):
    exponent = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
    reader_or_writer.add_implicit_resolver("tag:yaml.org,2002:float", exponent, list("-+0123456789"))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping. Raises UserError with the line of an error."""
    try:
        with open(path, "rb") as stream:
            text = stream.read(LARGEST_FILE + 1)
        if len(text) > LARGEST_FILE:
            raise UserError(f"{path}: more than {LARGEST_FILE} bytes; no system or protocol needs that much")
        content = load_yaml(text)
    except FileNotFoundError:
        others = [other.name for other in Path(path).parent.glob("*.yaml")]
        near = difflib.get_close_matches(Path(path).name, others, 1)
        raise UserError(f"{path}: no such file{f'; did you mean {near[0]}?' if near else ''}") from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {error.problem}") from None
    except YAML_FAULTS as error:
        raise UserError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: should consist of `key: value` lines")
    return content


def load_yaml(text: str | bytes) -> Any:
    """The content of one YAML document. Raises one of YAML_FAULTS."""
    loader = Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def read_system(path: str | Path) -> System:
    """Read a system file."""
    return make_system({**OPTIONAL, **read_named(path, "a system")}, path)


def change_system(path: str | Path, changes: dict[str, Any], place: str) -> System:
    """Read a system file with changes, as a file with it as its base would make them. place: named in errors."""
    return make_system(merge({**OPTIONAL, **read_named(path, "a system")}, changes), place)


def read_named(path: str | Path, what: str) -> dict[str, Any]:
    """Read a file merged onto its `base` (a path relative to it); the file's name becomes the key `name`."""
    content = with_base(Path(path), [])
    if "name" in content:
        raise UserError(f"{path}: name: remove it: {what} is named after its file")
    if "paper" in content:
        raise UserError(f"{path}: paper: remove it: the numbers of papers are in conf/papers/<paper>.yaml")
    return {"name": Path(path).stem, **content}


def with_base(path: Path, above: list[Path]) -> dict[str, Any]:
    """Read a file and merge it onto its base. above: the files that this one is a base of."""
    if path.resolve() in above:
        raise UserError(f"{above[-1]}: base: leads back to {path.resolve()}; use another file")
    content = read_yaml(path)
    if "base" not in content:
        return content
    base_path = path.parent / str(content.pop("base"))
    if not base_path.is_file():
        raise UserError(f"{path}: base: there is no {base_path}; give the path of a file beside this one")
    if not os.path.realpath(base_path).endswith(".yaml"):  # errors would show the content of any other file
        raise UserError(f"{path}: base: {base_path} is not a .yaml file; give the path of one")
    base = with_base(base_path, [*above, path.resolve()])
    base.pop("description", None)  # it describes one file only
    return merge(base, content)


def make_system(content: dict[str, Any], path: str | Path) -> System:
    """Turn the mapping of a system file into a System; `path` is named in errors."""
    system = check(System, content, path)
    for part in ("feature", "model"):
        section = getattr(system, part)
        if not isinstance(section, dict) or "kind" not in section:
            raise UserError(f"{path}: {part}.kind: missing; one of {', '.join(kinds(part))}")
        section = dict(section)
        module = load_kind(part, section.pop("kind"), path)
        system = replace(system, **{part: check(module.Config, section, path, f"{part}.")})
    is_network = system.learner == "network"
    if is_network != (system.training is not None):
        fault = "missing: a network needs it" if is_network else "remove it: this model has no epochs"
        raise UserError(f"{path}: training: {fault}")
    if not is_network and system.normalisation not in ("none", "speaker"):
        raise UserError(
            f"{path}: normalisation: {system.normalisation}; write none or speaker, since a classical model takes "
            "frames as they are"
        )
    if hasattr(module, "check_system"):
        try:
            module.check_system(system)
        except ValueError as error:
            raise UserError(f"{path}: {error}") from None
    return system


def learner_of(module: ModuleType) -> str:
    """What trains a model of ser/models: "network" or "classical". Raises UserError if the module has neither a
    Network nor an estimator."""
    for learner, name in (("network", "Network"), ("classical", "estimator")):
        if hasattr(module, name):
            return learner
    raise UserError(
        f"{module.__file__}: has neither Network nor estimator; ser/models/__init__.py says what a model needs"
    )


def read_protocol(path: str | Path) -> Protocol:
    """Read a protocol file."""
    protocol = check(Protocol, read_named(path, "a protocol"), path)
    labels = [label for taken in protocol.classes.values() for label in taken]
    for label, number in Counter(labels).items():
        if number > 1:
            raise UserError(f"{path}: classes: {label} is in more than one class")
    for name in protocol.classes:
        if name.split() != [name] or not name.isprintable():
            raise UserError(f"{path}: classes: {name!r}: a class must be one printable word")
    if len(protocol.classes) < 2:
        raise UserError(f"{path}: classes: at least two are needed")
    if getattr(protocol.folds, "dev", None) and protocol.select != "dev":
        raise UserError(f"{path}: folds.dev: remove it: only `select: dev` has a development set")
    if protocol.adapt and not protocol.adapt.utterances and protocol.adapt.draws > 1:
        raise UserError(f"{path}: adapt.draws: {protocol.adapt.draws}; write 1: with 0 utterances nothing is drawn")
    return protocol


def merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """`base` overridden by `change`; sections of the same kind are merged key by key."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        if isinstance(value, dict) and isinstance(old, dict) and value.get("kind", old.get("kind")) == old.get("kind"):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def kinds(part: str) -> list[str]:
    """Names of the modules in ser/features or ser/models (part: "feature" or "model")."""
    package = importlib.import_module(f"ser.{part}s")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def load_kind(part: str, kind: str, path: str | Path) -> Any:
    """The module ser.<part>s.<kind>."""
    if kind not in kinds(part):
        raise UserError(f"{path}: {part}.kind: {kind} is unknown; one of {', '.join(kinds(part))}")
    return importlib.import_module(f"ser.{part}s.{kind}")


def kind_of(config: Any) -> str:
    """The kind that a feature's or model's Config belongs to: its module's name."""
    return type(config).__module__.rpartition(".")[2]


def check(cls: type, content: dict[str, Any], path: str | Path, prefix: str = "") -> Any:
    """Convert `content` to a `cls`; the first error becomes a UserError with file, key and remedy."""
    try:
        # as JSON: in strict mode pydantic accepts a mapping for a dataclass only there
        return TypeAdapter(cls).validate_json(json.dumps(content))
    except ValidationError as error:
        faults = error.errors(include_url=False)
    if faults[0]["type"] == "json_invalid":  # half a character, such as "\ud800"; deeply nested brackets
        reason = faults[0]["ctx"]["error"].partition(" at line ")[0]  # a line of the JSON, not of the file
        raise UserError(f"{path}: contains something that cannot be read ({reason}); remove it")
    # a misspelt key is also a missing key: report the misspelling
    fault = next((one for one in faults if one["type"] == "unexpected_keyword_argument"), faults[0])
    unions = ("random", "groups", "constrained-int", "literal['all']")  # pydantic's names of the members
    key = (prefix + ".".join(str(place) for place in fault["loc"] if place not in unions)).removesuffix(".")
    if fault["type"] == "unexpected_keyword_argument":
        names = [name for name in known_keys(cls, prefix) if name != key]
        place = ".".join(part for part in key.split(".")[:-1] if not part.isdigit())
        beside = list(dict.fromkeys(name for name in names if name.rpartition(".")[0] == place))
        known = {name.rpartition(".")[2]: name for name in [*names, *beside]}
        near = difflib.get_close_matches(str(fault["loc"][-1]).lower(), known, 1, 0.5)
        remedy = f"did you mean {known[near[0]]}?" if near else f"known: {', '.join(beside)}"
        raise UserError(f"{path}: {key}: unknown key; {remedy}")
    if fault["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        raise UserError(f"{path}: {key}: missing")
    if fault["type"] == "value_error":  # from a __post_init__, which names the key itself
        raise UserError(f"{path}: {key}: {fault['ctx']['error']}")
    if fault["type"].startswith("union_tag"):  # "kind", which says what the other keys are
        tag = fault["ctx"].get("tag")
        raise UserError(f"{path}: {key}.kind: {f'{tag} is unknown' if tag else 'missing'}; one of random, groups")
    shown = repr(fault["input"])
    shown = shown if len(shown) <= LONGEST_SHOWN else f"{shown[:LONGEST_SHOWN]}..."
    if fault["type"] == "string_pattern_mismatch":
        raise UserError(f"{path}: {key}: unknown noise {shown}; write snr10 (10 dB) or deviation1")
    message = fault["msg"][0].lower() + fault["msg"][1:]
    remedy = "; put it in quotes" * (fault["type"] == "string_type" and isinstance(fault["input"], int | float))
    raise UserError(f"{path}: {key}: {message}, not {shown}{remedy}")


def known_keys(cls: Any, prefix: str) -> list[str]:
    """Keys of a config dataclass and of the dataclasses inside it, such as training and training.epochs."""
    if not is_dataclass(cls):  # a union, a list, or a plain value
        return [key for inner in get_args(cls) for key in known_keys(inner, prefix)]
    names = [(prefix + item.name, item.type) for item in fields(cls)]
    return [key for name, inner in names for key in (name, *known_keys(inner, f"{name}."))]


def as_dict(config: Any) -> Any:
    """A config as plain mappings, lists and values, as YAML and JSON write them."""
    if not is_dataclass(config):
        return config if not isinstance(config, list) else [as_dict(item) for item in config]
    content = {item.name: as_dict(getattr(config, item.name)) for item in fields(config)}
    return {"kind": kind_of(config), **content} if in_kind(config) else content


def in_kind(config: Any) -> bool:
    """Whether a config belongs to a module named by a `kind`."""
    return type(config).__module__.startswith(("ser.features.", "ser.models."))


def feature_name(config: FeatureConfig, noise: str | None = None) -> str:
    """Name of a feature's folder in dump/: its kind, a fingerprint of its settings, and the noise that was
    added to the recordings. The parts of a feature that a system uses do not matter: the folder has all. Nor do
    settings with their default values, so that adding a setting does not change existing names."""
    defaults = {item.name: item.default for item in fields(config)}
    own = {
        key: value
        for key, value in without_parts(config).items()
        if key not in defaults or value != defaults[key]  # `kind` is no field; MISSING if there is no default
    }
    name = f"{kind_of(config)}-{hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:8]}"
    return f"{name}-{noise}" if noise else name


def without_parts(config: Any) -> dict[str, Any]:
    """The settings of a feature without `parts`, which selects what a system uses of it."""
    return {key: value for key, value in as_dict(config).items() if key != "parts"}
