"""docs/config.md: current, whole, and with examples that can be used."""

import importlib.util
import re
from dataclasses import fields
from pathlib import Path

import pytest

from ser import config

ROOT = Path(config.__file__).parents[1]
PAGE = ROOT / "docs/config.md"
spec = importlib.util.spec_from_file_location("config_reference", ROOT / "tools/config_reference.py")
config_reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(config_reference)


def test_the_page_is_current():
    assert PAGE.read_text() == config_reference.reference(), "python tools/config_reference.py > docs/config.md"


def rows():
    """Of each key the cells behind it, by the title that it stands under."""
    title, found = "", {}
    for line in PAGE.read_text().splitlines():
        title = line if line.startswith("#") else title
        if match := re.match(r"\| `(\w+)` \| (.*) \| (required|`.*`) \| (.*) \|$", line):
            found[title, match[1]] = match.groups()[1:]
    return found


def test_every_key_has_its_row_and_its_meaning():
    named = {"## Systems": config.System, "### `training`": config.Training, "## Protocols": config.Protocol}
    for part in ("feature", "model"):
        for kind in config.kinds(part):
            named[f"### `{part}.kind: {kind}`"] = config.load_kind(part, kind, "").Config
    found = rows()
    for title, cls in named.items():
        keys = [item.name for item in fields(cls) if item.name != "name"]
        assert [key for above, key in found if above == title] == keys
    assert [key for key, (_, _, meaning) in found.items() if not meaning] == []


def test_some_rows_written_out():
    found = rows()
    assert found["### `training`", "patience"][:2] == ("whole number, at least 1, or `null`", "`null`")
    assert found["### `training`", "optimiser"][:2] == ("`adam`, `nadam`, `rmsprop`", '`"adam"`')
    assert found["## Systems", "training"][:2] == ("section or `null`", "`null`")
    assert found["### `model.kind: issa`", "channels"][:2] == ("list of 6: whole number, at least 1", "required")
    assert found["### `feature.kind: mfcc`", "n_mels"] == (
        "whole number, at least 1",
        "required",
        "number of mel bands",
    )  # of the class above
    assert found["### `feature.kind: logmel`", "duration"][2].startswith("longer is cut at the end")


@pytest.mark.parametrize(("number", "read"), [(0, config.read_system), (1, config.read_protocol)])
def test_the_minimal_files_are_whole_and_minimal(tmp_path, number, read):
    text = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)[number]
    path = tmp_path / "minimal.yaml"
    path.write_text(text)
    read(path)
    parts = re.split(r"^(?=[ a-z])", text, flags=re.MULTILINE)[1:]
    sections = re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]
    for part in [*sections, *(part for part in parts if part.startswith(" "))]:
        path.write_text(text.replace(part, ""))
        with pytest.raises(config.UserError, match="missing"):
            read(path)
