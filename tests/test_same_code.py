"""Code that was shown to give the same bytes counts as one."""

import shutil
from pathlib import Path

import pytest
import yaml

from ser import identity, same_code, score, train
from ser.cli import UserError


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
    monkeypatch.setattr(identity, "SAME_CODE", tmp_path / "same_code.txt")
    monkeypatch.setattr(same_code, "SAME_CODE", tmp_path / "same_code.txt")
    identity._newer.cache_clear()
    return before, Path()


def call(before, after):
    same_code.main([str(before), str(after)])


def test_code_that_gives_the_same_bytes_is_written_down(two, tmp_path, capsys):
    call(*two)
    assert "2 runs, all the same" in capsys.readouterr().out
    lines = [line.split()[:5] for line in (tmp_path / "same_code.txt").read_text().splitlines()]
    assert lines == [
        ["oldsvm", "newsvm", "logmel+svm", "c0", "c1"],
        ["oldtiny", "newtiny", "logmel+sherman", "c0", "c1"],
    ]
    assert identity.current_code("oldtiny") == "newtiny" == identity.current_code("newtiny")
    assert identity.current_code("another") == "another"
    whole = (tmp_path / "same_code.txt").read_bytes()
    call(*two)
    assert (tmp_path / "same_code.txt").read_bytes() == whole


def test_a_later_change_follows_the_earlier(two, tmp_path):
    (tmp_path / "same_code.txt").write_text("a b x c0 c1 2026-01-01\nb c x c1 c2 2026-01-02\n")
    assert [identity.current_code(code) for code in "abcd"] == ["c", "c", "c", "d"]


@pytest.mark.parametrize(
    "what", ["exp/tiny/selects_on_dev/fold1_seed1/best.safetensors", "results/svm/selects_on_dev/fold1_seed1.txt"]
)
def test_another_byte_is_refused(two, tmp_path, what):
    path = two[0] / what
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"^{what}: not the same in "):
        call(*two)
    assert not (tmp_path / "same_code.txt").exists()


def test_archives_count_too(two):
    ark = next(two[0].glob("dump/*/feats.ark"))
    content = bytearray(ark.read_bytes())
    content[-1] ^= 1
    ark.write_bytes(content)
    with pytest.raises(UserError, match="feats.ark: not the same in "):
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
