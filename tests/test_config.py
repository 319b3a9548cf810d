"""System and protocol files: what is read, and how each fault is named."""

import hashlib
import json
import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml

from ser import config
from ser.cli import UserError

EGS = Path(__file__).resolve().parents[1] / "egs"
PACKAGE = Path(config.__file__).parent
KINDS = {
    part: ", ".join(sorted(path.stem for path in PACKAGE.glob(f"{part}/[a-z]*.py"))) for part in ("features", "models")
}
FEATURE = """\
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
"""
SVM = f"""\
description: a machine
{FEATURE}normalisation: none
model:
  kind: svm
  functionals: [mean]
  cost: [1, 3]
  gamma: [1]
  inner_folds: 2
"""
NETWORK = f"""\
description: a network
{FEATURE}normalisation: global
model:
  kind: sherman
  window: 128
  hop: 64
  channels: [4, 8]
  pools: [2, 4]
  norm_momentum: 0.1
  activation: elu
  dropout: 0.2
  hidden_size: 16
  attention_size: 8
  state_l1: 0
training:
  epochs: 3
  batch_size: 4
  learning_rate: 1e-4
"""
PROTOCOL = """\
description: speakers apart
classes: {low: [neutral, sad], high: [angry]}
folds: {kind: groups, by: spk, number: 3}
select: dev
"""


def write(folder, name, text):
    path = folder / name
    path.write_text(text)
    return path


def edit(text, old, new):
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times"
    return text.replace(old, new)


def fault(read, path):
    """The message of the fault, after the file's name, which must come first."""
    with pytest.raises(UserError) as error:
        read(path)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


def test_a_system_is_read(tmp_path):
    system = config.read_system(write(tmp_path, "small.yaml", NETWORK))
    assert (system.name, system.description, system.normalisation) == ("small", "a network", "global")
    assert (config.kind_of(system.feature), system.feature.n_mels) == ("logmel", 40)
    assert (system.feature.duration, system.feature.pad, system.feature.top_db) == (None, "end", 80)
    assert (config.kind_of(system.model), system.model.pools) == ("sherman", [2, 4])
    assert system.training.learning_rate == 1e-4  # plain YAML 1.1 would read text
    assert (system.training.patience, system.training.monitor) == (None, "dev_loss")


def test_a_system_without_training_is_read(tmp_path):
    system = config.read_system(write(tmp_path, "svm.yaml", SVM))
    assert (system.name, system.training) == ("svm", None)
    assert system.model.cost == [1, 3]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("2e+3", 2e3),
        ("1.5e-3", 1.5e-3),
        ("1.e1", 10.0),
        ("-3e2", -300.0),
        (".5e-1", 0.05),
    ],
)
def test_numbers_with_exponents(tmp_path, text, number):
    value = config.read_yaml(write(tmp_path, "x.yaml", f"x: {text}\n"))["x"]
    assert type(value) is float
    assert value == number


@pytest.mark.parametrize("text", ["1.2.3e4", "e5", "1e", "1e5x", "3-e5"])
def test_words_that_look_like_numbers_are_words(tmp_path, text):
    assert config.read_yaml(write(tmp_path, "x.yaml", f"x: {text}\n")) == {"x": text}


SYSTEM_FAULTS = {
    # name: (text, old, new, message)
    "unknown key": (NETWORK, "epochs: 3", "epoch: 3", ": training.epoch: unknown key; did you mean training.epochs?"),
    "unknown section": (NETWORK, "training:", "trainig:", ": trainig: unknown key; did you mean training?"),
    "key of a section outside it": (
        SVM,
        "description:",
        "epochs: 3\ndescription:",
        ": epochs: unknown key; did you mean training.epochs?",
    ),
    "unknown key of a feature": (
        NETWORK,
        "n_mels:",
        "n_mel:",
        ": feature.n_mel: unknown key; did you mean feature.n_mels?",
    ),
    "unknown key of a model": (
        NETWORK,
        "dropout:",
        "drop_out:",
        ": model.drop_out: unknown key; did you mean model.dropout?",
    ),
    "a paper's numbers": (
        SVM,
        "normalisation:",
        "paper: []\nnormalisation:",
        ": paper: remove it: the numbers of papers are in conf/papers/<paper>.yaml",
    ),
    "unknown key like no other": (
        SVM,
        "inner_folds: 2",
        "inner_folds: 2\n  zzz: 1",
        ": model.zzz: unknown key; known: model.functionals, model.cost, model.gamma, model.inner_folds",
    ),
    "wrong type": (
        NETWORK,
        "epochs: 3",
        "epochs: three",
        ": training.epochs: input should be a valid integer, not 'three'",
    ),
    "text for a number": (
        NETWORK,
        "n_fft: 512",
        "n_fft: '512'",
        ": feature.n_fft: input should be a valid integer, not '512'",
    ),
    "a part of an epoch": (
        NETWORK,
        "epochs: 3",
        "epochs: 3.0",
        ": training.epochs: input should be a valid integer, not 3.0",
    ),
    "truth for a number": (
        NETWORK,
        "epochs: 3",
        "epochs: yes",
        ": training.epochs: input should be a valid integer, not True",
    ),
    "one for a list": (SVM, "cost: [1, 3]", "cost: 1", ": model.cost: input should be a valid array, not 1"),
    "wrong type in a list": (
        SVM,
        "cost: [1, 3]",
        "cost: [1, x]",
        ": model.cost.1: input should be a valid number, not 'x'",
    ),
    "no such choice": (
        NETWORK,
        "activation: elu",
        "activation: gelu",
        ": model.activation: input should be 'elu' or 'relu', not 'gelu'",
    ),
    "unknown metric": (
        NETWORK,
        "epochs: 3",
        "epochs: 3\n  monitor: dev_f2",
        ": training.monitor: input should be 'dev_loss', 'dev_wa', 'dev_ua' or 'dev_f1', not 'dev_f2'",
    ),
    "too small": (
        NETWORK,
        "batch_size: 4",
        "batch_size: 0",
        ": training.batch_size: input should be greater than or equal to 1, not 0",
    ),
    "too large": (NETWORK, "dropout: 0.2", "dropout: 1", ": model.dropout: input should be less than 1, not 1"),
    "not a number": (
        NETWORK,
        "state_l1: 0",
        "state_l1: .nan",
        ": model.state_l1: input should be a finite number, not nan",
    ),
    "infinite": (NETWORK, "1e-4", ".inf", ": training.learning_rate: input should be a finite number, not inf"),
    "empty list": (
        SVM,
        "gamma: [1]",
        "gamma: []",
        ": model.gamma: list should have at least 1 item after validation, not 0, not []",
    ),
    "two that disagree": (
        NETWORK,
        "pools: [2, 4]",
        "pools: [2]",
        ": model: pools: 1 values, but channels has 2; give as many",
    ),
    "missing": (NETWORK, "  epochs: 3\n", "", ": training.epochs: missing"),
    "missing section": (SVM, "normalisation: none\n", "", ": normalisation: missing"),
    "missing feature": (SVM, FEATURE, "", ": feature: missing"),
    "missing in a model": (SVM, "  inner_folds: 2\n", "", ": model.inner_folds: missing"),
    "key twice": (
        NETWORK,
        "  epochs: 3\n",
        "  epochs: 3\n  epochs: 4\n",
        ":27: not valid YAML: duplicate key epochs",
    ),
    "section twice": (SVM, "model:", "description: b\nmodel:", ":13: not valid YAML: duplicate key description"),
    "not YAML": (SVM, "cost: [1, 3]", "cost: [1, 3", ":17: not valid YAML: expected ',' or ']', but got ':'"),
    "unknown feature": (
        SVM,
        "kind: logmel",
        "kind: mfc",
        f": feature.kind: mfc is unknown; one of {KINDS['features']}",
    ),
    "unknown model": (SVM, "kind: svm", "kind: tree", f": model.kind: tree is unknown; one of {KINDS['models']}"),
    "model without a kind": (SVM, "  kind: svm\n", "", f": model.kind: missing; one of {KINDS['models']}"),
    "model that is a word": (
        NETWORK,
        NETWORK[NETWORK.index("model:") : NETWORK.index("training:")],
        "model: svm\n",
        f": model.kind: missing; one of {KINDS['models']}",
    ),
    "network without training": (
        NETWORK,
        NETWORK[NETWORK.index("training:") :],
        "",
        ": training: missing: a network needs it",
    ),
    "svm with training": (
        SVM,
        "normalisation: none",
        "training: {epochs: 1, batch_size: 1, learning_rate: 1}\nnormalisation: none",
        ": training: remove it: this model has no epochs",
    ),
    "a name of its own": (
        SVM,
        "description: a machine",
        "description: a\nname: b",
        ": name: remove it: a system is named after its file",
    ),
}


@pytest.mark.parametrize("name", SYSTEM_FAULTS)
def test_a_fault_of_a_system_is_named(tmp_path, name):
    text, old, new, message = SYSTEM_FAULTS[name]
    assert fault(config.read_system, write(tmp_path, "x.yaml", edit(text, old, new))) == message


PROTOCOL_FAULTS = {
    "unknown key": ("select:", "selct:", ": selct: unknown key; did you mean select?"),
    "unknown key of the folds": ("number: 3", "numbr: 3", ": folds.numbr: unknown key; did you mean folds.number?"),
    "key of the other folds": (
        "by: spk",
        "by: spk, test_share: 0.2",
        ": folds.test_share: unknown key; did you mean folds.test_parts?",
    ),
    "unknown key of adapt": (
        "select: dev",
        "select: dev\nadapt: {uterances: 2}",
        ": adapt.uterances: unknown key; did you mean adapt.utterances?",
    ),
    "key of adapt that folds have too": (
        "select: dev",
        "select: dev\nadapt: {utterances: 2, seeds: 1}",
        ": adapt.seeds: unknown key; did you mean adapt.seed?",
    ),
    "adapt without a number": ("select: dev", "select: dev\nadapt: {balanced: true}", ": adapt.utterances: missing"),
    "fewer than none to adapt to": (
        "select: dev",
        "select: dev\nadapt: {utterances: -1}",
        ": adapt.utterances: input should be greater than or equal to 0, not -1",
    ),
    "draws of nothing": (
        "select: dev",
        "select: dev\nadapt: {utterances: 0, draws: 5}",
        ": adapt.draws: 5; write 1: with 0 utterances nothing is drawn",
    ),
    "key like no other": (
        "by: spk",
        "by: spk, 8to2: true",
        ": folds.8to2: unknown key; known: folds.kind, folds.number, folds.test_share, folds.seed, folds.by, folds.test_parts, folds.dev",
    ),
    "missing": ("select: dev\n", "", ": select: missing"),
    "missing in the folds": ("by: spk, ", "", ": folds.by: missing"),
    "no such selection": (
        "select: dev",
        "select: best",
        ": select: input should be 'dev', 'test' or 'last', not 'best'",
    ),
    "one group": ("number: 3", "number: 1", ": folds.number: input should be greater than or equal to 2, not 1"),
    "neither a number of folds nor all": (
        "number: 3",
        "number: al",
        ": folds.number: input should be a valid integer, not 'al'",
    ),
    "no such folds": ("kind: groups", "kind: grops", ": folds.kind: grops is unknown; one of random, groups"),
    "folds without a kind": ("kind: groups, ", "", ": folds.kind: missing; one of random, groups"),
    "everything tested": (
        "{kind: groups, by: spk, number: 3}",
        "{kind: random, number: 3, test_share: 1.0, seed: 1}",
        ": folds.test_share: input should be less than 1, not 1.0",
    ),
    "label twice": ("[angry]", "[angry, sad]", ": classes: sad is in more than one class"),
    "one class": (", high: [angry]", "", ": classes: at least two are needed"),
    "labels that are no list": ("[angry]", "angry", ": classes.high: input should be a valid array, not 'angry'"),
    "class with a terminal's escape": (
        "high:",
        '"\\e[2J":',
        ": classes: '\\x1b[2J': a class must be one printable word",
    ),
    "half a character": (
        "select: dev",
        'select: dev\ntable: "\\ud800"',
        ": contains something that cannot be read (unexpected end of hex escape); remove it",
    ),
    "class with a space": ("high:", "very high:", ": classes: 'very high': a class must be one printable word"),
    "a name of its own": (
        "select: dev",
        "select: dev\nname: b",
        ": name: remove it: a protocol is named after its file",
    ),
    "development groups and nothing to select": (
        "number: 3}\nselect: dev",
        "number: 3, dev: spk}\nselect: last",
        ": folds.dev: remove it: only `select: dev` has a development set",
    ),
    "no value to take": (
        "select: dev",
        "select: dev\nwhere: {cond: []}",
        ": where.cond: list should have at least 1 item after validation, not 0, not []",
    ),
    "one value for a list": (
        "select: dev",
        "select: dev\nwhere: {cond: improvised}",
        ": where.cond: input should be a valid array, not 'improvised'",
    ),
    "a truth for a name": (
        "by: spk",
        "by: yes",
        ": folds.by: input should be a valid string, not True; put it in quotes",
    ),
    "a number for a name": (
        "select: dev",
        "select: dev\ntable: 0x1F",
        ": table: input should be a valid string, not 31; put it in quotes",
    ),
    "class twice": ("high:", "low:", ":2: not valid YAML: duplicate key low"),
    "a value that is a list": (
        "[angry]",
        "[[angry]]",
        ": classes.high.0: input should be a valid string, not ['angry']",
    ),
}


@pytest.mark.parametrize("name", PROTOCOL_FAULTS)
def test_a_fault_of_a_protocol_is_named(tmp_path, name):
    old, new, message = PROTOCOL_FAULTS[name]
    assert fault(config.read_protocol, write(tmp_path, "x.yaml", edit(PROTOCOL, old, new))) == message


@pytest.mark.parametrize("noise", ["snr", "snr1.5", "deviation", "white", "snr10 dB"])
def test_a_noise_that_is_none_is_named(tmp_path, noise):
    message = fault(config.read_protocol, write(tmp_path, "x.yaml", PROTOCOL + f"noise: {noise}\n"))
    assert message == f": noise: unknown noise {noise!r}; write snr10 (10 dB) or deviation1"


def test_a_protocol_may_have_a_base(tmp_path):
    write(tmp_path, "x.yaml", PROTOCOL)
    derived = config.read_protocol(write(tmp_path, "y.yaml", "base: x.yaml\ndescription: d\nnoise: snr-5\n"))
    base = config.read_protocol(tmp_path / "x.yaml")
    assert (derived.name, derived.noise, base.noise) == ("y", "snr-5", None)
    assert (derived.folds, derived.classes, derived.select) == (base.folds, base.classes, base.select)


def test_protocols_are_read(tmp_path):
    protocol = config.read_protocol(write(tmp_path, "apart.yaml", PROTOCOL))
    assert (protocol.name, protocol.select) == ("apart", "dev")
    assert list(protocol.classes.items()) == [("low", ["neutral", "sad"]), ("high", ["angry"])]
    assert protocol.folds == config.GroupFolds(kind="groups", by="spk", number=3)
    assert protocol.where == {}
    text = edit(
        PROTOCOL, "by: spk, number: 3}", "by: sess, number: 2, dev: spk}\nwhere: {cond: [improvised], sess: ['1', '2']}"
    )
    protocol = config.read_protocol(write(tmp_path, "some.yaml", text))
    assert protocol.folds == config.GroupFolds(kind="groups", by="sess", number=2, dev="spk")
    assert protocol.where == {"cond": ["improvised"], "sess": ["1", "2"]}
    text = edit(PROTOCOL, "{kind: groups, by: spk, number: 3}", "{kind: random, number: 2, test_share: 0.2, seed: 0}")
    protocol = config.read_protocol(write(tmp_path, "drawn.yaml", text))
    assert protocol.folds == config.RandomFolds(kind="random", number=2, test_share=0.2, seed=0)


def test_a_file_that_is_no_mapping(tmp_path):
    assert fault(config.read_system, tmp_path / "gone.yaml") == ": no such file"
    write(tmp_path, "gun.yaml", "")
    assert fault(config.read_system, tmp_path / "gone.yaml") == ": no such file; did you mean gun.yaml?"
    assert fault(config.read_system, write(tmp_path, "empty.yaml", "")) == ": should consist of `key: value` lines"
    assert (
        fault(config.read_protocol, write(tmp_path, "list.yaml", "- a\n")) == ": should consist of `key: value` lines"
    )
    assert fault(config.read_system, write(tmp_path, "deep.yaml", "[" * 5000)).startswith(": not valid YAML: ")
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"description: caf\xe9\n")
    assert ": not valid YAML: " in fault(config.read_system, path)


ALIASES = "anchors (&) and aliases (*) are not allowed; write out what they stand for"
REFUSED = {
    # name: (text, line, fault)
    "a circle": ("description: d\nmodel: &a [*a]\n", 2, ALIASES),
    "an anchor": ("description: d\nmodel: &a x\n", 2, ALIASES),
    "an alias": ("a:\n  *b\n", 2, ALIASES),
    "an alias as a key": ("description: d\n*a : x\n", 2, ALIASES),
    "a merge key": (
        "model: {x: 1,\n  <<: {y: 2}}\n",
        2,
        "merge keys (<<) are not allowed; write out what it stands for",
    ),
    "code": ("a: !!python/object/apply:os.getcwd []\n", 1, "tags (!) are not allowed; remove it"),
    "bytes": ("description: d\n? !!binary aGk=\n: x\n", 2, "tags (!) are not allowed; remove it"),
    "a set": ("a: !!set {x}\n", 1, "tags (!) are not allowed; remove it"),
    "text by a tag": ("a: ! 1\n", 1, "tags (!) are not allowed; remove it"),
    "a list as a key": ("description: d\n[a, b]: c\n", 2, "a key must be text"),
    "a mapping as a key": ("{a: b}: c\n", 1, "a key must be text"),
    "hexadecimal digits without end": (f"description: 0x{'f' * 9000}\n", 1, "a number of more than 40 characters"),
    "digits without end": (f"a: x\nb: {'9' * 9000}\n", 2, "a number of more than 40 characters"),
    "minutes without end": (f"a: {'1:' * 300}1.5\n", 1, "a number of more than 40 characters"),
    "a number of 64 bits": ("a: 9223372036854775808\n", 1, "9223372036854775808 is too large"),
    "no digits": ("a: 0b_\n", 1, "0b_ is not a number"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_yaml_that_these_files_do_not_need(tmp_path, name):
    text, line, told = REFUSED[name]
    assert fault(config.read_yaml, write(tmp_path, "x.yaml", text)) == f":{line}: not valid YAML: {told}"


def test_a_character_beyond_unicode(tmp_path):
    assert fault(config.read_yaml, write(tmp_path, "x.yaml", 'a: "\\UFFFFFFFF"\n')).startswith(": not valid YAML: ")


@pytest.mark.parametrize(
    "text", ["x: " + 99_998 * "y", "x: [" + 60_000 * "y,", "".join(f"k{i}: 1\n" for i in range(20_000))]
)
def test_a_file_that_is_too_large(tmp_path, text):
    assert (
        fault(config.read_yaml, write(tmp_path, "x.yaml", text))
        == ": more than 100000 bytes; no system or protocol needs that much"
    )


def test_a_long_value_is_not_shown_whole(tmp_path):
    message = fault(config.read_system, write(tmp_path, "x.yaml", edit(NETWORK, "epochs: 3", f"epochs: {'x' * 5000}")))
    assert message == f": training.epochs: input should be a valid integer, not '{'x' * 99}..."


@pytest.mark.parametrize(
    "name",
    ["yes", "No", "on", "1e3", "007", "0x1F", "1:30", "null", "~", "2001-01-01", "2001-13-45", "=", "1_000", "喜び"],
)
def test_names_are_as_they_are_written(tmp_path, name):
    text = edit(
        PROTOCOL,
        "classes: {low: [neutral, sad]",
        f"where: {{cond: [{name}], {name}: [b]}}\nclasses: {{{name}: [{name}, sad]",
    )
    protocol = config.read_protocol(write(tmp_path, "x.yaml", text))
    assert protocol.where == {"cond": [name], name: ["b"]}
    assert protocol.classes == {name: [name, "sad"], "high": ["angry"]}
    again = config.read_yaml(
        write(tmp_path, "run.yaml", yaml.dump(config.as_dict(protocol), Dumper=config.Dumper, allow_unicode=True))
    )
    assert config.check(config.Protocol, again, "x") == protocol  # as run.yaml has it


def test_what_is_written_holds_no_alias(tmp_path):
    twice = {"classes": ["a", 1e-5], "x": "1e5"}
    path = write(tmp_path, "x.yaml", yaml.dump({"one": twice, "other": twice, "list": [twice]}, Dumper=config.Dumper))
    shown = {"classes": ["a", "1.0e-05"], "x": "1e5"}  # names are text
    assert config.read_yaml(path) == {"one": shown, "other": shown, "list": [shown]}


class TestBase:
    """`base: FILE`, and what a file has in its place."""

    @pytest.fixture
    def base(self, tmp_path):
        return write(tmp_path, "base.yaml", NETWORK)

    def read(self, base, text):
        return config.read_system(write(base.parent, "derived.yaml", f"base: base.yaml\ndescription: b\n{text}"))

    def test_sections_are_merged_key_by_key(self, base):
        whole, derived = config.read_system(base), self.read(base, "model: {dropout: 0}\ntraining: {epochs: 9}\n")
        assert derived.model == replace(whole.model, dropout=0)
        assert derived.training == replace(whole.training, epochs=9)
        assert (derived.feature, derived.normalisation) == (whole.feature, whole.normalisation)

    def test_a_list_is_replaced_whole(self, base):
        assert self.read(base, "model: {channels: [1], pools: [8]}\n").model.channels == [1]

    def test_the_same_kind_may_be_repeated(self, base):
        assert self.read(base, "model: {kind: sherman, hop: 9}\n").model.window == 128

    def test_another_kind_replaces_the_section(self, base):
        text = "training: null\nnormalisation: none\nmodel: {kind: svm, functionals: [mean], cost: [1], gamma: [1], inner_folds: 2}\n"
        derived = self.read(base, text)
        assert config.kind_of(derived.model) == "svm"
        assert derived.training is None

    def test_a_classical_model_takes_frames_as_they_are(self, base):
        text = "training: null\nmodel: {kind: svm, functionals: [mean], cost: [1], gamma: [1], inner_folds: 2}\n"
        with pytest.raises(UserError, match=r"normalisation: global; write none or speaker, since a classical model"):
            self.read(base, text)
        assert self.read(base, f"normalisation: speaker\n{text}").normalisation == "speaker"

    def test_what_speaks_of_one_file_is_not_inherited(self, base):
        derived = self.read(base, "")
        assert (derived.name, derived.description) == ("derived", "b")
        path = write(base.parent, "bare.yaml", "base: base.yaml\n")
        assert fault(config.read_system, path) == ": description: missing"

    def test_it_is_found_from_the_file_that_names_it(self, base):
        folder = base.parent / "other/folder"
        folder.mkdir(parents=True)
        derived = write(folder, "derived.yaml", "base: ../../base.yaml\ndescription: b\n")
        assert config.read_system(derived).training.epochs == 3

    def test_a_fault_names_the_file_that_was_asked_for(self, base):
        path = write(base.parent, "x.yaml", "base: base.yaml\ndescription: b\nmodel: {windoww: 3}\n")
        assert fault(config.read_system, path) == ": model.windoww: unknown key; did you mean model.window?"

    def test_a_base_that_is_not_there(self, base):
        base.unlink()
        with pytest.raises(UserError, match=r"derived\.yaml: base: there is no .*base\.yaml; give the path"):
            self.read(base, "")

    @pytest.mark.parametrize("name", ["secret", "secret.txt", "link.yaml"])
    def test_no_other_file_is_shown(self, tmp_path, name):
        """Its key would stand in the error."""
        write(tmp_path, "secret", "hunter2: x\n")
        write(tmp_path, "secret.txt", "hunter2: x\n")
        (tmp_path / "link.yaml").symlink_to("secret")
        path = write(tmp_path, "x.yaml", f"base: {name}\n")
        assert fault(config.read_system, path) == f": base: {tmp_path / name} is not a .yaml file; give the path of one"

    def test_a_base_may_have_a_base(self, base):
        self.read(base, "model: {dropout: 0}\ntraining: {epochs: 9}\n")
        path = write(base.parent, "third.yaml", "base: derived.yaml\ndescription: c\ntraining: {epochs: 8}\n")
        first, third = config.read_system(base), config.read_system(path)
        assert (third.name, third.description) == ("third", "c")
        assert (third.model, third.training) == (replace(first.model, dropout=0), replace(first.training, epochs=8))

    def test_a_circle(self, base):
        write(base.parent, "one.yaml", "base: two.yaml\n")
        path = write(base.parent, "two.yaml", "base: one.yaml\n")
        with pytest.raises(UserError, match=r"one\.yaml: base: leads back to .*two\.yaml; use another file"):
            config.read_system(path)


def all_files(*patterns):
    return [str(path.relative_to(EGS)) for pattern in patterns for path in sorted(EGS.glob(pattern))]


SYSTEMS = [path for path in all_files("*/conf/*/*.yaml") if Path(path).parent.name not in ("protocols", "papers")]
PROTOCOLS = all_files("*/conf/protocols/*.yaml")


def test_there_are_systems_and_protocols():
    assert {"mini/conf/baseline/svm.yaml", "ravdess/conf/sherman/cnn4_blstm_attention.yaml"} <= set(SYSTEMS)
    assert {"mini/conf/protocols/honest.yaml", "ravdess/conf/protocols/paper.yaml"} <= set(PROTOCOLS)


@pytest.mark.parametrize("path", SYSTEMS)
def test_every_system_in_egs_is_right_and_survives_a_round_trip(path):
    system = config.read_system(EGS / path)
    assert system.name == Path(path).stem
    text = yaml.safe_dump(config.as_dict(system))
    assert config.make_system(yaml.safe_load(text), "x") == system


@pytest.mark.parametrize("path", PROTOCOLS)
def test_every_protocol_in_egs_is_right_and_survives_a_round_trip(path):
    protocol = config.read_protocol(EGS / path)
    assert protocol.name == Path(path).stem
    content = yaml.safe_load(yaml.safe_dump(config.as_dict(protocol), sort_keys=False))
    again = config.check(config.Protocol, content, "x")
    assert again == protocol
    assert list(again.classes) == list(protocol.classes)  # their order is the order of the numbers


def test_as_dict_is_what_the_file_says(tmp_path):
    content = config.as_dict(config.read_system(write(tmp_path, "svm.yaml", SVM)))
    assert content["model"] == yaml.safe_load(SVM)["model"]
    given = yaml.safe_load(SVM)["feature"]
    assert content["feature"] == {**given, "top_db": 80.0, "duration": None, "pad": "end", "derivatives": 0}
    json.dumps(content)  # plain values alone


CHANGES = {
    "sample_rate": 22050, "n_fft": 1024, "win_length": 256, "hop_length": 80, "n_mels": 41, "fmin": 1.0, "fmax": 7999.0,
    "window": "hamming", "top_db": 79.0, "duration": 5.0, "pad": "front", "derivatives": 2,
}  # fmt: skip


def test_a_features_name_follows_from_every_setting_and_nothing_else(tmp_path):
    feature = config.read_system(write(tmp_path, "a.yaml", SVM)).feature
    assert CHANGES.keys() == {item.name for item in fields(feature)}
    names = {config.feature_name(replace(feature, **{key: value})) for key, value in CHANGES.items()}
    assert len(names | {config.feature_name(feature)}) == len(CHANGES) + 1

    lines = FEATURE.splitlines()
    other_order = "\n".join([lines[0], *reversed(lines[1:])])
    text = edit(SVM, FEATURE, other_order + "\n  pad: end\n")  # a default that is spelled out
    assert config.feature_name(config.read_system(write(tmp_path, "b.yaml", text)).feature) == config.feature_name(
        feature
    )


def test_a_features_name_stays_as_it_is(tmp_path):
    # another name would leave what was dumped before unused; defaults are not in it, so that new settings change nothing
    text = (
        '{"fmax": 8000.0, "fmin": 0.0, "hop_length": 160, "kind": "logmel", "n_fft": 512, "n_mels": 40, '
        '"sample_rate": 16000, "win_length": 400, "window": "hann"}'
    )
    feature = config.read_system(write(tmp_path, "a.yaml", SVM)).feature
    assert config.feature_name(feature) == f"logmel-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def test_a_share_is_checked_to_be_a_number(tmp_path):
    path = write(tmp_path, "x.yaml", edit(NETWORK, "dropout: 0.2", "dropout: .nan"))
    assert fault(config.read_system, path).startswith(": model.dropout: ")
    assert math.isnan(config.read_yaml(path)["model"]["dropout"])
