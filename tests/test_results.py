"""The tables of speakers in results/, from which a clone without data/ knows who speaks."""

from pathlib import Path

import pytest

from ser import results
from ser.cli import UserError
from ser.scores import read_scores

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("results").mkdir()


def test_speakers_and_sexes():
    assert results.read_speakers() == results.read_sexes() == {}
    Path("results/utt2spk").write_text("ann-1 ann\nann-2 ann\nbob-1 bob\n")
    Path("results/spk2gender").write_text("ann f\nbob m\n")
    assert results.read_speakers() == {"ann-1": "ann", "ann-2": "ann", "bob-1": "bob"}
    assert results.read_sexes() == {"ann": "f", "bob": "m"}


@pytest.mark.parametrize(("line", "told"), [("bob male", "male"), ("bob", "no value")])
def test_another_word_for_a_sex(line, told):
    Path("results/spk2gender").write_text(f"ann f\n{line}\n")
    with pytest.raises(UserError, match=f"results/spk2gender:2: bob has {told}; write f or m, or remove the line"):
        results.read_sexes()


@pytest.mark.parametrize("recipe", ["ravdess", "tess"])
def test_every_utterance_with_committed_scores_has_a_speaker(recipe, monkeypatch):
    """One run of each protocol is read; its speaker's id is the start of its own."""
    monkeypatch.chdir(ROOT / "egs" / recipe)
    speakers, sexes = results.read_speakers(), results.read_sexes()
    assert set(speakers.values()) == sexes.keys()
    assert all(utt.startswith(f"{speaker}-") for utt, speaker in speakers.items())
    if recipe == "ravdess":  # odd actors are men
        assert sexes == {f"actor{number:02}": "fm"[number % 2] for number in range(1, 25)}
    places = {path.parent.name: path for path in Path("results").glob("*/*/fold1_seed1.txt")}
    assert len(places) > 1
    for path in places.values():
        assert set(read_scores(path).utts) <= speakers.keys()
