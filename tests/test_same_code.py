"""Code that was shown to give the same bytes counts as one."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ser import identity, same_code, score, train
from ser.cli import UserError
from ser.config import read_system


@pytest.fixture
def two(recipe, tmp_path, monkeypatch):
    """The toy recipe before and after a change of the code, with a network and an SVM that have been scored."""
    for system in ("tiny", "svm"):
        folder = recipe.lay_out(f"{system}/selects_on_dev/fold1_seed1", system=system, epochs=2)
        train.train(folder, "cpu")
        score.score(folder, Path(f"results/{system}/selects_on_dev/fold1_seed1.txt"), "cpu")
    before = tmp_path / "before"
    shutil.copytree(recipe.folder, before, ignore=shutil.ignore_patterns("before"))
    for number, root in enumerate((before, Path())):
        for path in root.glob("exp/*/*/*/run.yaml"):
            content = yaml.safe_load(path.read_text())
            content["parts"]["code"] = f"{'old' if number == 0 else 'new'}{content['system']['name']}"
            content["made"]["commit"] = f"c{number}"
            path.write_text(yaml.safe_dump(content))
            result = root / f"results/{content['system']['name']}/selects_on_dev/fold1_seed1.txt"
            run = identity.fingerprint(content["parts"])
            result.write_text(without_checksum(re.sub("(?m)^# run: .*$", f"# run: {run}", result.read_text())))
    monkeypatch.setattr(identity, "SAME_CODE", tmp_path / "same_code.txt")
    identity._newer.cache_clear()
    return before, Path()


def without_checksum(text):
    """Scores as an older version wrote them, so that a test may change them."""
    return re.sub("(?m)^# checksum: .*\n", "", text)


def call(before, after):
    same_code.main([str(before), str(after)])


def test_code_that_gives_the_same_bytes_is_written_down(two, tmp_path, capsys):
    call(*two)
    assert "2 runs, all the same" in capsys.readouterr().out
    lines = [line.split() for line in (tmp_path / "same_code.txt").read_text().splitlines()]
    settings = [line.pop(2) for line in lines]
    assert len(set(settings)) == 2
    assert [line[:5] for line in lines] == [
        ["oldsvm", "newsvm", "svm", "c0", "c1"],
        ["oldtiny", "newtiny", "tiny", "c0", "c1"],
    ]
    tiny = read_system("conf/toy/tiny.yaml")
    longer = replace(tiny, training=replace(tiny.training, epochs=200))
    for system in (tiny, longer):
        of_system = identity.settings(system)
        assert identity.current_code("oldtiny", of_system) == "newtiny" == identity.current_code("newtiny", of_system)
        assert identity.current_code("another", of_system) == "another"
    never_run = identity.settings(replace(tiny, normalisation="none"))  # other lines of the same modules
    assert identity.current_code("oldtiny", never_run) == "oldtiny"
    whole = (tmp_path / "same_code.txt").read_bytes()
    call(*two)
    assert (tmp_path / "same_code.txt").read_bytes() == whole


def test_a_later_change_follows_the_earlier(two, tmp_path):
    key, other = identity.compared_settings({}), identity.compared_settings({"normalisation": "none"})
    pairs = [("a", "b", key), ("b", "c", key), ("e", "f", key), ("e", "g", key), ("c", "h", other)]
    (tmp_path / "same_code.txt").write_text("".join(f"{' '.join(pair)} x c0 c1 2026-01-01\n" for pair in pairs))
    assert "".join(identity.current_code(code, {}) for code in "abcdefg") == "cccdggg"
    assert identity.current_code("c", {"normalisation": "none"}) == "h"


@pytest.mark.parametrize("line", ["", "<<<<<<< HEAD", "a b c d e f"])
def test_a_damaged_line_is_refused(two, tmp_path, line):
    (tmp_path / "same_code.txt").write_text(f"a b k x c0 c1 2026-01-01\n{line}\n")
    with pytest.raises(UserError, match=r"same_code.txt:2: not a line of ser.same_code; remove it, or restore"):
        identity.current_code("a", {})


def test_scores_of_another_run_are_not_taken_for_these(two):
    """As in a clone whose published scores stage 5 does not replace: the run's own are in own/."""
    for root in two:
        result = root / "results/tiny/selects_on_dev/fold1_seed1.txt"
        own = result.parent / "own" / result.name
        own.parent.mkdir()
        own.write_bytes(result.read_bytes())
        result.write_text(re.sub("(?m)^# run: .*$", "# run: 0123456789abcdef", result.read_text()))
    call(*two)
    content = bytearray(own.read_bytes())
    content[-2] ^= 1
    own.write_bytes(content)
    with pytest.raises(UserError, match="its posteriors differ between "):
        call(*two)
    own.unlink()
    with pytest.raises(UserError, match="fold1_seed1: not scored; run stage 5"):
        call(*two)


@pytest.mark.parametrize(
    ("what", "error"),
    [
        (
            "exp/tiny/selects_on_dev/fold1_seed1/normalisation.safetensors",
            "normalisation.safetensors: differs between ",
        ),
        ("results/svm/selects_on_dev/fold1_seed1.txt", "its posteriors differ between "),
    ],
)
def test_another_byte_is_refused(two, tmp_path, what, error):
    path = two[0] / what
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=error):
        call(*two)
    assert not (tmp_path / "same_code.txt").exists()


def test_archives_count_too(two):
    ark = next(two[0].glob("dump/*/feats.ark"))
    content = bytearray(ark.read_bytes())
    content[-1] ^= 1
    ark.write_bytes(content)
    with pytest.raises(UserError, match="feats.ark: differs between "):
        call(*two)


def test_what_is_no_comparison_is_refused(two, tmp_path):
    path = two[0] / "exp/tiny/selects_on_dev/fold1_seed1/run.yaml"
    kept = path.read_text()
    path.write_text(kept.replace("commit: c0", "commit: c0-dirty"))
    with pytest.raises(UserError, match="made at c0-dirty; commit the tree"):
        call(*two)
    content = yaml.safe_load(kept)
    content["parts"]["seed"] = 2
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match="made with different seed before; train the same systems in both"):
        call(*two)
    shutil.rmtree(two[0] / "exp")
    with pytest.raises(UserError, match="no run is finished in both"):
        call(*two)
