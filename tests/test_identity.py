"""What a result follows from, told by content."""

import json
import textwrap
from dataclasses import MISSING, fields, replace
from pathlib import Path

import pytest

from ser import config, identity
from ser.config import read_protocol, read_system

SOURCE = """
    \"\"\"A module.\"\"\"
    from ser.second import helper

    def double(value: int = 1) -> int:
        \"\"\"Twice.\"\"\"
        return helper(2 * value)
    """


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package ser of three modules, the first of which reads the second."""
    monkeypatch.setattr(identity, "ROOT", tmp_path)
    (tmp_path / "ser").mkdir()
    for name, text in {"first": SOURCE, "second": "def helper(x): return x", "third": "x = 1"}.items():
        (tmp_path / f"ser/{name}.py").write_text(textwrap.dedent(text))
    return tmp_path / "ser"


def first(package):
    identity.sources.cache_clear()
    return dict(identity.sources("ser.first"))


def test_modules_and_what_they_import(package):
    assert list(first(package)) == ["ser.first", "ser.second"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("A module", "Another text"), ("Twice.", "Two times.\n\n    At length."), ("return helper", "# why\n    return  helper"),
        ("helper(2 * value)", "helper(\n        2 * value\n    )"),
    ],
)  # fmt: skip
def test_prose_and_layout_are_no_matter(package, old, new):
    before, text = first(package), (package / "first.py").read_text()
    assert old in text
    (package / "first.py").write_text(text.replace(old, new))
    assert first(package) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [("2 *", "3 *"), ("2 *", "2.0 *"), ("int = 1", "int = 2"), ("2 * value", "value * 2"), ("return ", "")],
)
def test_what_computes_is(package, old, new):
    before, text = first(package), (package / "first.py").read_text()
    assert old in text
    (package / "first.py").write_text(text.replace(old, new))
    after = first(package)
    assert (after["ser.first"] != before["ser.first"], after["ser.second"]) == (True, before["ser.second"])


def test_a_change_below_is_a_change(package):
    before = first(package)
    (package / "second.py").write_text("def helper(x): return -x")
    assert first(package)["ser.second"] != before["ser.second"]


def test_a_module_that_is_not_python_is_reported_in_one_line(package):
    (package / "second.py").write_text("x = 1\ndef :\n")
    with pytest.raises(identity.UserError, match=r"ser/second\.py:2: .*; fix the module$"):
        first(package)


# Those that decide no number: what looks, tells, fetches, lays out and draws; and stage 0 and 1, whose outcome is told by its content.
TELLS = """
    adaptation_curve audio calibration check_scores combine_data containers corpus corpus_table derive_systems details draw_results draw_run dump_features dump_vectors dump_xvectors figures fix_data get_corpus get_vectors download
    jobs launch make_folds overview papers predict prepare_data provenance recipe recognisers report results same_code score scores ser statistics subset_data summary tables train trained transcribe validate_data
    __init__ markdown page rerun tiny_encoder verify
""".split()


def test_every_module_is_in_an_identity_or_decides_no_number():
    """Of feature and model, of training, or of scoring; a new module must be put on one of the lists, or be imported."""
    names = [
        str(path.relative_to(identity.ROOT).with_suffix("")).replace("/", ".")
        for path in (identity.ROOT / "ser").rglob("*.py")
    ]
    kinds = [
        name for name in names if name.startswith(("ser.features.", "ser.models.")) and not name.endswith("__init__")
    ]
    parts = [
        name for name in names if name.startswith(("ser.learners.", "ser.inputs.")) and not name.endswith("__init__")
    ]
    known = identity.sources(
        *kinds, *parts, "ser.extract", "ser.extract_many", "ser.normalisation", "ser.archive"
    ).keys()
    known |= {f"{name}.__init__" for name in known}
    rest = {
        name
        for name in names
        if name not in known and name not in identity.PLUMBING and not name.startswith("ser.corpora")
    }
    assert {name.removeprefix("ser.").removeprefix("features.").removeprefix("models.") for name in rest} <= set(TELLS)


def test_the_plumbing_computes_nothing():
    for module in identity.PLUMBING:
        text = (identity.ROOT / f"{module.replace('.', '/')}.py").read_text()
        heads = [line for line in text.splitlines() if line.startswith(("import ", "from "))]
        assert not [line for line in heads if any(name in line for name in ("numpy", "torch", "scipy", "sklearn"))], (
            module
        )


def test_defaults_of_the_settings_are_what_they_were():
    """Results follow from these, and no identity holds them: a setting that is added must change nothing by its default, and a
    default that is here must never change."""

    def defaults(cls):
        return {item.name: identity._default(item) for item in fields(cls) if identity._default(item) is not MISSING}

    assert defaults(config.Training) == {
        "optimiser": "adam", "epsilon": 1e-8, "batches": "alike", "patience": None, "monitor": "dev_loss", "clip_norm": None,
        "class_weights": "none", "precision": "float32", "accumulation": 1,
    }  # fmt: skip
    assert defaults(config.System) == {"augment": []}
    assert defaults(config.Protocol) == {"where": {}, "noise": None, "labels": "own", "table": "", "adapt": None}
    assert defaults(config.Adapt) == {"balanced": True, "draws": 1, "relevance": 5.0, "seed": 0}
    assert defaults(config.GroupFolds) == {"test_parts": 1, "seed": None, "dev": None}
    assert defaults(config.RandomFolds) == {}


def test_a_setting_of_none_is_not_its_default():
    one, other = {"top_db": None}, {}
    assert identity.differences(one, other) == ["top_db null, not the default"]
    assert identity.differences(other, one) == ["top_db the default, not null"]


SYSTEM = """
description: a text
feature: {kind: logmel, sample_rate: 8000, n_fft: 256, win_length: 200, hop_length: 80, n_mels: 6, fmin: 0, fmax: 4000, window: hann}
normalisation: none
model: {kind: svm, functionals: [mean], cost: [1], gamma: [1], inner_folds: 2}
"""


def test_settings_have_no_prose_and_no_defaults(tmp_path):
    (tmp_path / "one.yaml").write_text(SYSTEM)
    (tmp_path / "other.yaml").write_text(SYSTEM.replace("a text", "another") + "augment: []\n")
    one, other = (identity.settings(read_system(tmp_path / f"{name}.yaml")) for name in ("one", "other"))
    assert one == other
    assert "augment" not in one
    assert one["model"] == {"kind": "svm", "functionals": ["mean"], "cost": [1.0], "gamma": [1.0], "inner_folds": 2}
    changed = identity.settings(replace(read_system(tmp_path / "one.yaml"), augment=["snr0"]))
    assert identity.differences(one, changed) == ['augment the default, not ["snr0"]']
    assert identity.fingerprint(one) != identity.fingerprint(changed)


EGS = Path(__file__).resolve().parents[1] / "egs"
FILES = {path.stem: path for path in EGS.glob("*/conf/*/*.yaml") if path.parent.name not in ("protocols", "papers")}
SETTINGS = "# system settings: "
COMMITTED = {  # a file of scores of each system; results of other recipes may be those of the user
    "/".join(path.parts[-5:-2:2]): path
    for recipe in ("ravdess", "tess")
    for path in sorted(EGS.glob(f"{recipe}/results/*/*/fold*.txt"))
    if SETTINGS in path.read_text()
}


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_scores_belong_to_the_system_files(name):
    """A change of what a system file may hold leaves the settings as they are in the scores."""
    recipe, _, system = name.partition("/")
    path = next(EGS.glob(f"{recipe}/conf/*/{system}.yaml"), FILES.get(system))
    (stored,) = [line for line in COMMITTED[name].read_text().splitlines() if line.startswith(SETTINGS)]
    assert json.loads(stored.removeprefix(SETTINGS)) == identity.settings(read_system(path))


def test_protocols_too(tmp_path):
    text = "description: d\nclasses: {a: [x], b: [y]}\nfolds: {kind: groups, by: spk, number: 3}\nselect: dev\n"
    (tmp_path / "one.yaml").write_text(text)
    (tmp_path / "other.yaml").write_text(text.replace("3", "4") + "table: Aside\n")
    one, other = (identity.settings(read_protocol(tmp_path / f"{name}.yaml")) for name in ("one", "other"))
    assert identity.differences(one, other) == ["folds.number 3, not 4"]


def test_a_column_is_told_by_the_utterances_of_the_folds(tmp_path):
    (tmp_path / "utt2md5").write_text("a 1\nb 2\nc 3\nz 4\n")
    folds = tmp_path / "folds"
    for number, test in ((1, "b"), (2, "c")):
        (folds / f"fold{number}").mkdir(parents=True)
        for part, utts in (("train", "a"), ("dev", ""), ("test", test)):
            (folds / f"fold{number}" / part).write_text("".join(f"{utt} x\n" for utt in utts))
    (folds / "classes").write_text("0 x\n")

    def column(*numbers):
        return identity.column_of(tmp_path / "utt2md5", folds, numbers)

    one, both = column(1), column(1, 2)
    (tmp_path / "utt2md5").write_text("a 1\nb 2\nc 33\nz 44\n")
    assert column(1) == one
    assert column(1, 2) != both
    (tmp_path / "utt2md5").write_text("a 1\n")
    with pytest.raises(
        identity.UserError, match="fold1/test:1: b is not in .*utt2md5; remove the line or run stages 0 and 1 again"
    ):
        column(1)


def test_md5_of_files(tmp_path):
    path = Path(tmp_path / "x")
    path.write_text("one")
    before = identity.md5_of(path)
    path.write_text("other")
    assert identity.md5_of(path) != before
