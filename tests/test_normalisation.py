"""Normalisation, against numpy over the concatenated training set."""

import kaldiio
import numpy as np
import pytest

from ser.archive import Features
from ser.cli import UserError
from ser.normalisation import normalise, statistics, train_statistics

TRAIN = {"a-1": "neutral", "a-2": "sad", "b-1": "neutral"}
TEST = ["c-1", "c-2"]


def write(folder, matrices):
    with kaldiio.WriteHelper(f"ark,scp:{folder}/feats.ark,{folder}/feats.scp") as writer:
        for utt, matrix in matrices.items():
            writer(utt, matrix)
    (folder / "utt2num_frames").write_text("".join(f"{utt} {len(matrix)}\n" for utt, matrix in matrices.items()))
    return Features(folder)


def make(lengths, seed=0):
    """Features as logmel gives them: dB from -80 to 0, dimensions of unlike mean and spread."""
    rng = np.random.default_rng(seed)
    spread = np.array([1, 5, 20, 0.1])
    return {
        utt: np.clip(-40 + 9 * np.arange(4) + spread * rng.standard_normal((length, 4)), -80, 0).astype(np.float32)
        for utt, length in lengths.items()
    }


@pytest.fixture
def unequal():
    return make({"a-1": 30, "a-2": 1, "b-1": 77, "c-1": 12, "c-2": 9})


@pytest.fixture
def equal():
    return make(dict.fromkeys([*TRAIN, *TEST], 20))


def test_global(tmp_path, unequal):
    statistics = train_statistics("global", write(tmp_path, unequal), TRAIN)
    everything = np.concatenate([unequal[utt] for utt in TRAIN]).astype(np.float64)
    assert {name: (value.shape, value.dtype) for name, value in statistics.items()} == {
        "mean": ((4,), np.float32),
        "deviation": ((4,), np.float32),
    }
    np.testing.assert_allclose(statistics["mean"], everything.mean(0), rtol=1e-6)
    np.testing.assert_allclose(statistics["deviation"], everything.std(0), rtol=1e-6)
    normal = np.concatenate([normalise(unequal[utt], statistics) for utt in TRAIN])
    assert normal.dtype == np.float32
    np.testing.assert_allclose(normal.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(normal.std(0), 1, rtol=1e-4)
    other = normalise(unequal["c-1"], statistics)
    np.testing.assert_allclose(other, (unequal["c-1"] - everything.mean(0)) / everything.std(0), rtol=1e-3, atol=1e-4)


def test_neutral(tmp_path, unequal):
    statistics = train_statistics("neutral", write(tmp_path, unequal), TRAIN)
    neutral = np.concatenate([unequal["a-1"], unequal["b-1"]]).astype(np.float64)
    np.testing.assert_allclose(statistics["mean"], neutral.mean(0), rtol=1e-6)
    np.testing.assert_allclose(statistics["deviation"], neutral.std(0), rtol=1e-6)


def test_neutral_where_nobody_is(tmp_path, unequal):
    with pytest.raises(UserError, match="neutral: no training utterance has the class neutral; use global"):
        train_statistics("neutral", write(tmp_path, unequal), {"a-1": "sad"})


def test_cell(tmp_path, equal):
    statistics = train_statistics("cell", write(tmp_path, equal), TRAIN)
    stack = np.stack([equal[utt] for utt in TRAIN]).astype(np.float64)
    np.testing.assert_allclose(statistics["mean"], stack.mean(0), rtol=1e-6)
    np.testing.assert_allclose(statistics["deviation"], stack.std(0), rtol=1e-5)
    assert statistics["mean"].shape == statistics["deviation"].shape == (20, 4)
    normal = np.stack([normalise(equal[utt], statistics) for utt in TRAIN])
    np.testing.assert_allclose(normal.std(0), 1, rtol=1e-3)


def test_none(tmp_path, unequal):
    statistics = train_statistics("none", write(tmp_path, unequal), TRAIN)
    assert statistics == {}
    assert normalise(unequal["a-1"], statistics) is unequal["a-1"]


def test_speakers(tmp_path, unequal):
    """By the features themselves: each speaker's own mean and deviation, over the utterances that are named."""
    features = write(tmp_path, unequal)
    features.normalise_speakers({"a-1": "a", "a-2": "a", "b-1": "b", "c-1": "c"})  # not c-2
    assert train_statistics("speaker", features, TRAIN) == {}
    for utts in (["a-1", "a-2"], ["b-1"], ["c-1"]):
        own = np.concatenate([unequal[utt] for utt in utts]).astype(np.float64)
        for utt in utts:
            assert features[utt].dtype == np.float32
            np.testing.assert_allclose(features[utt], (unequal[utt] - own.mean(0)) / own.std(0), rtol=1e-4, atol=1e-4)
    normal = np.concatenate([features["a-1"], features["a-2"]])
    np.testing.assert_allclose(normal.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(normal.std(0), 1, rtol=1e-5)


@pytest.mark.parametrize("kind", ["global", "cell"])
def test_the_training_part_alone_counts(tmp_path, equal, kind):
    before = train_statistics(kind, write(tmp_path, equal), TRAIN)
    for utt in TEST:
        equal[utt] = equal[utt] * 3 + 7
    after = train_statistics(kind, write(tmp_path, equal), TRAIN)
    assert all(np.array_equal(before[name], after[name]) for name in ("mean", "deviation"))
    equal["b-1"] = equal["b-1"] * 3 + 7
    changed = train_statistics(kind, write(tmp_path, equal), TRAIN)
    assert not any(np.array_equal(before[name], changed[name]) for name in ("mean", "deviation"))


def test_cells_of_unequal_lengths(tmp_path, unequal):
    with pytest.raises(UserError) as error:
        train_statistics("cell", write(tmp_path, unequal), TRAIN)
    told = "a-2 has 1 frames, others 30; normalisation: cell needs a feature with a `duration`"
    assert str(error.value) == f"{tmp_path}/feats.scp: {told}"


@pytest.mark.parametrize("kind", ["global", "cell"])
@pytest.mark.parametrize("constant", [0, -80, -37.3, 1e-3, 4321.1])
def test_a_dimension_that_never_changes_becomes_zero(tmp_path, equal, kind, constant):
    for matrix in equal.values():
        matrix[:, 2] = constant
    statistics = train_statistics(kind, write(tmp_path, equal), TRAIN)
    for matrix in equal.values():
        normal = normalise(matrix, statistics)
        assert np.isfinite(normal).all()
        np.testing.assert_allclose(normal[:, 2], 0, atol=1e-2)


def test_a_long_corpus_keeps_its_precision(tmp_path):
    # a small spread on a large mean, over as many frames as sums in float32 would lose it on
    rng = np.random.default_rng(0)
    matrices = {f"a-{i}": (-79 + 0.02 * rng.standard_normal((40000, 1))).astype(np.float32) for i in range(5)}
    statistics = train_statistics("global", write(tmp_path, matrices), dict.fromkeys(matrices, "sad"))
    everything = np.concatenate(list(matrices.values())).astype(np.float64)
    np.testing.assert_allclose(statistics["deviation"], everything.std(0), rtol=1e-4)


@pytest.mark.parametrize("gain", [1e-25, 1e-7, 1e-3, 1e3, 1e12])
def test_the_level_is_no_matter(gain):
    """Powers of quiet recordings are far below 1e-5, and no less worth."""
    rng = np.random.default_rng(0)
    powers = [(rng.chisquare(2, (50, 4)) * [1e-6, 1, 1e3, 0]).astype(np.float32) for _ in range(9)]
    other = [matrix * np.float32(gain) for matrix in powers]
    at_one = np.concatenate([normalise(matrix, statistics(powers)) for matrix in powers])
    at_gain = np.concatenate([normalise(matrix, statistics(other)) for matrix in other])
    np.testing.assert_allclose(at_gain, at_one, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(at_gain.std(0), [1, 1, 1, 0], rtol=1e-4)


@pytest.mark.parametrize("share", [3e-6, 1e-4, 0.1])
def test_a_deviation_that_is_small_beside_the_mean(share):
    rng = np.random.default_rng(0)
    matrices = [(4321.1 * (1 + share * rng.standard_normal((5000, 2)))).astype(np.float32) for _ in range(40)]
    everything = np.concatenate(matrices).astype(np.float64)
    np.testing.assert_allclose(statistics(matrices)["deviation"], everything.std(0), rtol=1e-5)
    np.testing.assert_allclose(statistics(matrices)["mean"], everything.mean(0), rtol=1e-7)


@pytest.mark.parametrize("constant", [0, -80, -37.3, 1e-30, 4321.1, 3e30])
@pytest.mark.parametrize("steps", [0, 1])
def test_a_long_constant_becomes_zero(constant, steps):
    """By as many frames as the sums of its squares lose their last digits on; also where it is rounded by turns up and down."""
    column = np.full((100_000, 1), constant, np.float32)
    for _ in range(steps):
        column[::3] = np.nextafter(column[::3], np.float32(np.inf))
    found = statistics(np.split(column, 50))
    assert found["deviation"] == 1
    np.testing.assert_allclose(normalise(column, found), 0, atol=1.2e-7 * abs(constant) + 1e-44)
