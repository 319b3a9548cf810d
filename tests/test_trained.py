"""ser.load: a trained model, asked from Python."""

from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile

import ser
from ser import predict, train
from ser.cli import UserError
from ser.config import read_yaml

RATE = 8000


@pytest.fixture
def sound(recipe):
    """Three recordings of unequal length, as samples (N,) float32."""
    rng = np.random.default_rng(2)
    found = {}
    for name, length in (("a", 2500), ("b", 4000), ("c", 900)):
        found[name] = (0.1 * rng.standard_normal(length)).astype(np.float32)
        soundfile.write(f"{name}.wav", found[name], RATE, subtype="FLOAT")
    return found


def model_of(recipe, system, **others):
    if others:
        recipe.write_yaml(f"conf/toy/{system}.yaml", **read_yaml(f"conf/toy/{system}.yaml") | others)
    folder = recipe.lay_out(f"{system}/selects_on_dev/fold1_seed1", system=system)
    train.train(folder, "cpu")
    return ser.load(folder)


@pytest.mark.parametrize("system", ["svm", "tiny"])
def test_it_says_what_ser_predict_prints(recipe, sound, system, capsys):
    model = model_of(recipe, system)
    capsys.readouterr()
    predict.main([str(model.run.folder), "a.wav", "b.wav", "c.wav"])
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()[1:]]
    found = model.predict(["a.wav", Path("b.wav"), "c.wav"])
    assert [prediction.label for prediction in found] == [line[1] for line in lines]
    for prediction, line in zip(found, lines, strict=True):
        assert list(prediction.probabilities) == ["low", "high"]
        np.testing.assert_allclose(list(prediction.probabilities.values()), np.array(line[2:], float), atol=2e-4)
    one = model.predict("b.wav")
    assert one.label == found[1].label and sum(one.probabilities.values()) == pytest.approx(1)
    assert model.predict([]) == []


def test_samples_are_as_a_file_of_them(recipe, sound):
    model = model_of(recipe, "tiny")
    of_file = model.predict("a.wav").probabilities
    for samples in (sound["a"], sound["a"].astype(float)):
        assert model.predict(samples, rate=RATE).probabilities == of_file
    whole_numbers = np.round(sound["a"] * 32768).astype(np.int16)
    assert model.predict(whole_numbers, RATE).probabilities == pytest.approx(of_file, abs=1e-2)
    soundfile.write("whole.wav", whole_numbers, RATE, subtype="PCM_16")
    assert model.predict(whole_numbers, RATE).probabilities == model.predict("whole.wav").probabilities


def test_recordings_of_a_list_are_one_speakers_where_that_matters(recipe, sound):
    model = model_of(recipe, "tiny", normalisation="speaker")
    together, alone = model.predict(["a.wav", "b.wav"])[0], model.predict("a.wav")
    assert together.probabilities != pytest.approx(alone.probabilities, abs=1e-6)


def test_words_and_x_vectors(spoken, tmp_path):
    rng = np.random.default_rng(3)
    soundfile.write("a.wav", 0.1 * rng.standard_normal(2500), RATE, subtype="FLOAT")
    soundfile.write("b.wav", 0.1 * rng.standard_normal(2500), RATE, subtype="FLOAT")
    vectors = {name: rng.standard_normal(3).astype(np.float32) for name in "ab"}
    with kaldiio.WriteHelper("ark,scp:given.ark,given.scp") as writer:
        for name, vector in vectors.items():
            writer(name, vector)
    Path("texts").write_text("a oh no\nb yes\n")
    model = model_of(spoken, "peng")
    both = model.predict(["a.wav", "b.wav"], words=["oh no", "yes"], xvectors=[vectors["a"], vectors["b"]])
    one = model.predict("b.wav", words="yes", xvectors=vectors["b"])
    assert one.probabilities == pytest.approx(both[1].probabilities, abs=1e-6)
    other = model.predict("b.wav", words="oh no", xvectors=vectors["b"])
    assert other.probabilities != pytest.approx(one.probabilities, abs=1e-6)
    refused(
        lambda: model.predict("a.wav"),
        f"{model.run.folder}: its system reads transcripts; give --text or --texts (in Python words=)",
    )
    refused(
        lambda: model.predict(["a.wav", "b.wav"], words=["yes"], xvectors=[1, 2]),
        "words: 1 values for 2 recordings; give one for each",
    )
    refused(
        lambda: model.predict("a.wav", words=3, xvectors=vectors["a"]),
        "words: 3 is not a text; give what is said as one string per recording",
    )
    refused(
        lambda: model.predict("a.wav", words="no", xvectors="no"),
        "xvectors: not numbers; give one vector per recording",
    )
    refused(
        lambda: model.predict("a.wav", words="no", xvectors=[1, np.nan, 2]),
        "xvectors: not vectors of finite numbers; give one vector per recording",
    )
    assert model.predict(("b.wav",), words=["yes"], xvectors=[list(map(float, vectors["b"]))])[
        0
    ].probabilities == pytest.approx(one.probabilities)
    refused(
        lambda: model.predict("a.wav", smell="of roses"),
        "smell: unknown input; one of layers, speakers, words, xvectors",
    )


def refused(ask, line):
    with pytest.raises(UserError) as raised:
        ask()
    assert str(raised.value) == line


def test_bad_samples_are_one_line(recipe, sound):
    model = model_of(recipe, "svm")
    for rate in (None, -8000, 0, "8000", 8000.5):
        refused(
            lambda rate=rate: model.predict(sound["a"], rate),
            f"samples: rate={rate!r}; give their sampling rate, a whole number of Hz",
        )
    refused(lambda: model.predict("a.wav", rate=8000), "a.wav: rate=8000; leave it out, since a file states its own")
    refused(lambda: model.predict([0.1, 0.2]), "float: not a recording; give a path, or samples as a numpy array")
    refused(lambda: model.predict(sound["a"][None], RATE), "samples: shape (1, 2500); give one channel, (N,)")
    refused(
        lambda: model.predict(sound["a"].astype(np.uint8), RATE),
        "samples: type uint8; give floats with full scale at +-1",
    )
    refused(lambda: model.predict(np.array([0, np.nan]), RATE), "samples: some are infinite or undefined; remove them")
    refused(
        lambda: model.predict(sound["a"][:50], RATE),
        "samples: too short: 50 samples at 8000 Hz, but a window needs 200; leave it out",
    )
    refused(
        lambda: model.predict("a.wav", words="no"),
        f"{model.run.folder}: its system does not read transcripts; leave --text or --texts out",
    )


def test_a_run_that_has_not_ended(recipe):
    folder = recipe.lay_out("run")
    refused(lambda: ser.load(folder), f"{folder}: not done; run stage 3 or 4")
