"""What a network reads beside frames."""

from pathlib import Path

import kaldiio
import numpy as np
import pytest
import torch

from ser import dump_vectors, networks, score
from ser.cli import UserError
from ser.config import read_system, read_yaml
from ser.inputs import speakers, words
from ser.inputs.words import UNKNOWN, Words, read_vocabulary
from ser.reading import read_inputs, read_run_fold, start
from ser.runs import read_run
from ser.scores import read_scores
from ser.train import train


def test_speakers_are_numbered_as_they_train(noisy):
    recipe, run = noisy
    fold = read_run_fold(run)
    numbers = speakers.read(run, fold).numbers
    assert numbers.keys() == {*fold.train, *fold.dev, *fold.test}
    assert all(numbers[utt] == "ab".index(utt[0]) for utt in fold.train)
    assert all(numbers[utt] == -1 for utt in (*fold.dev, *fold.test))  # unseen
    fold_folder = run.folds / "fold1"
    moved = recipe.part("train")[0]
    (fold_folder / "train").write_text(
        "".join(f"{utt} {name}\n" for utt, name in recipe.classes.items() if utt[0] in "ab" and utt != moved)
    )
    (fold_folder / "test").write_text(f"{moved} {recipe.classes[moved]}\nd-00 high\n")
    assert speakers.read(run, read_run_fold(run)).numbers[moved] == "ab".index(moved[0])  # seen


def test_words_are_numbers_and_none_is_one_unknown():
    words = Words({"a": "No, NO way!", "b": "", "c": "way to go"}, [UNKNOWN, "no", "way"])
    assert words.sizes == {"vocabulary_size": 3}
    given = words.of(["c", "a", "b"])
    assert given["words"].tolist() == [[2, 0, 0], [1, 1, 2], [0, 0, 0]]
    assert given["n_words"].tolist() == [3, 3, 1]
    assert given["words"].dtype == given["n_words"].dtype == torch.int64


def test_the_vocabulary_is_of_training_alone(spoken):
    run = read_run(spoken.lay_out("run", system="peng"))
    inputs = read_inputs(run, read_run_fold(run))
    own = {f"{utt[0]}{utt[-2:]}" for utt in read_run_fold(run).train}
    assert read_vocabulary(run) == [UNKNOWN, "no", "oh", "yes"]  # own words come once
    assert own and inputs.sizes == {"n_features": 6, "n_classes": 2, "vocabulary_size": 4, "xvector_size": 3}
    Path("data/all/text").write_text(Path("data/all/text").read_text().replace("yes", "yeah"))
    assert read_vocabulary(run) == [UNKNOWN, "no", "oh", "yes"]  # what was trained stays
    assert read_inputs(run, read_run_fold(run)).batch(["a-01"], {}).extras["words"].tolist() == [[0, 0]]


def test_transcripts_that_are_not_there(spoken):
    peng = read_yaml("conf/toy/peng.yaml")
    spoken.write_yaml("conf/toy/asr.yaml", **peng | {"model": peng["model"] | {"words": "text_asr"}})
    table = Path("data/all/text_asr")
    table.write_text(Path("data/all/text").read_text())
    folder = spoken.lay_out("run", system="asr")
    table.unlink()
    with pytest.raises(
        UserError,
        match="^data/all/text_asr: no such table; put .* python -m ser.transcribe data/all; or leave asr out$",
    ):
        train(folder)
    Path("data/all/xvector.scp").unlink()
    with pytest.raises(
        UserError, match="^data/all/xvector.scp: no such table; extract .* data/all data/all; or leave peng out$"
    ):
        read_run(folder).__class__(
            **vars(read_run(folder)) | {"system": read_system("conf/toy/peng.yaml")}
        ).refuse_missing_inputs()


@pytest.mark.parametrize("what", ["words", "xvectors"])
def test_a_run_is_of_the_words_and_x_vectors_that_it_was_made_with(spoken, what):
    folder = spoken.lay_out("run", system="peng")
    train(folder)
    kept = {path: path.read_bytes() for path in (Path("data/all/text"), Path("data/all/xvector.ark"))}
    if what == "words":
        Path("data/all/text").write_bytes(kept[Path("data/all/text")].replace(b"yes", b"no!"))
    else:
        content = bytearray(kept[Path("data/all/xvector.ark")])
        content[-1] ^= 1  # one value
        Path("data/all/xvector.ark").write_bytes(content)
    with pytest.raises(UserError, match=f"^{folder}: made with different {what}; remove .*, or undo the change$"):
        score.score(folder, Path("scores.txt"), "cpu")
    with pytest.raises(UserError, match=f"made with different {what}; remove"):
        spoken.lay_out("run", system="peng")
    for path, content in kept.items():
        path.write_bytes(content)
    score.score(folder, Path("scores.txt"), "cpu")
    told = read_scores(Path("scores.txt")).about["inputs"]
    assert [one.split()[0] for one in told.split(", ")] == ["words", "vectors", "xvectors"] and "vectors none" in told


def write_vectors(content):
    """As stage 2 does."""
    Path("vectors.txt").write_text(content)
    dump_vectors.main(["--glove", "vectors.txt", "data/all", "dump/vectors"])


def test_words_that_came_after_the_vectors(spoken):
    write_vectors("no 1 2 3 4\n")
    Path("data/all/text").write_text(Path("data/all/text").read_text().replace("yes", "zebra"))
    with pytest.raises(
        UserError,
        match=r"^dump/vectors/vectors.txt: made from different transcripts, without 'zebra' in \S+; run stage 2 with --glove",
    ):
        train(spoken.lay_out("run", system="peng"), "cpu")


def test_word_vectors_start_the_embedding(spoken):
    vectors = {"no": [1, 2, 3, 4], "yes": [5, 6, 7, 8], "zebra": [9, 9, 9, 9.5]}
    tested, table = spoken.part("test")[0], Path("data/all/text")
    table.write_text(table.read_text().replace(f"{tested} ", f"{tested} zebra "))
    write_vectors("".join(f"{word} {' '.join(map(str, values))}\n" for word, values in vectors.items()))
    run = read_run(spoken.lay_out("run", system="peng"))
    fold = read_run_fold(run)
    inputs = read_inputs(run, fold)
    network = networks.build(run.system, inputs.sizes)
    words.start(network, fold, inputs.extras["words"], run)
    names = read_vocabulary(run)
    assert names == [UNKNOWN, "no", "oh", "yes", "zebra"]  # a word of the corpus that training does not have, too
    for word, values in vectors.items():
        assert network.words.weight[names.index(word)].tolist() == values
    assert network.words.weight[[0, 2]].abs().max() > 0


def test_other_word_vectors_make_another_run(spoken):
    folder = spoken.lay_out("run", system="peng")
    assert read_yaml(folder / "run.yaml")["parts"]["vectors"] is None
    (folder / "done").touch()
    write_vectors("no 1 2 3 4\n")
    with pytest.raises(UserError, match="made with different vectors;"):
        spoken.lay_out("run", system="peng")


def test_vectors_of_another_size_are_reported(spoken):
    write_vectors("no 1 2 3\n")
    with pytest.raises(
        UserError, match=r"^dump/vectors/vectors.txt: vectors of 3 values, but model.word_size is 4; set it to 3$"
    ):
        train(spoken.lay_out("run", system="peng"), "cpu")


def test_an_utterance_without_x_vector_is_told(spoken):
    lines = Path("data/all/xvector.scp").read_text().splitlines(keepends=True)
    Path("data/all/xvector.scp").write_text("".join(line for line in lines if not line.startswith("d-03")))
    with pytest.raises(
        UserError, match="^data/all/xvector.scp: 1 of 50 utterances have no x-vector, the first is d-03;"
    ):
        train(spoken.lay_out("run", system="peng"), "cpu")


def test_it_learns_from_words(spoken):
    """Frames say nothing of the class here."""
    for matrix in spoken.matrices.values():
        matrix[:] = 0
    run = spoken.lay_out("run", system="peng", epochs=12)
    train(run, "cpu")
    score.score(run, Path("result.txt"), "cpu")
    scores = read_scores(Path("result.txt"))
    assert np.mean(scores.true == scores.predicted) > 0.9


@pytest.mark.parametrize("scale", [1, 1000])
def test_x_vectors_start_with_the_scale_of_training(spoken, scale):
    rng = np.random.default_rng(5)
    vectors = {utt: (scale * rng.standard_normal(3) + [0, 5, 7]).astype(np.float32) for utt in spoken.classes}
    with kaldiio.WriteHelper("ark,scp:data/all/xvector.ark,data/all/xvector.scp") as writer:
        for utt, vector in vectors.items():
            vector[2] = 7  # of all the same
            writer(utt, vector)
    run = read_run(spoken.lay_out("run", system="peng"))
    fold = read_run_fold(run)
    inputs = read_inputs(run, fold)
    network = networks.build(run.system, inputs.sizes)
    start(network, run, fold, inputs.extras)
    of_train = np.stack([vectors[utt] for utt in fold.train])
    np.testing.assert_allclose(network.xvector_mean, of_train.mean(0), rtol=1e-4)
    np.testing.assert_allclose(network.xvector_deviation, [*of_train.std(0)[:2], 1], rtol=1e-4)
    train(run.folder)
    trained, _, _ = networks.trained(run)
    assert torch.equal(trained.xvector_mean, network.xvector_mean)  # and stays
