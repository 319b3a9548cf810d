"""What a trained system hears in a recording, from its run's folder alone."""

import shutil
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import skops.io
import soundfile
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from ser import networks, predict, runs
from ser import trained as trained_module
from ser.cli import UserError
from ser.config import kinds, read_yaml
from ser.features import logmel
from ser.inputs.words import Words, read_vocabulary
from ser.learners import classical
from ser.runs import read_run
from ser.train import train

RATE = 8000
PENG = {
    "kind": "peng", "audio_kernels": [3], "audio_pooling": ["max"], "xvectors": True, "text_kernels": [1], "text_pooling": ["mean"],
    "words": "text", "word_size": 4, "swem": True, "attention": True, "filters": 5, "reduced_size": 6, "dropout": 0.2,
}  # fmt: skip
LEMOINE = {
    "kind": "lemoine", "segment": 8, "channels": 1, "maps": [3], "linear_size": 5, "hidden_size": 4, "embedding_size": 6,
    "regularisation": "mean", "speaker_weight": 1.0,
}  # fmt: skip


HEARS_FRAMES = {
    "tiny": None,  # of ser/models/sherman.py
    "mirsamadi": {"kind": "mirsamadi", "dense_sizes": [4], "hidden_size": 3, "pooling": "attention", "functionals": [], "dropout": 0.5},
    "bledea": {"kind": "bledea", "steps": "frames", "hidden_size": 4, "dense_size": 5, "dropout": 0.5},
    "clstm": {
        "kind": "clstm", "channels": [3, 4], "pools": [2, 1], "first_kernel": 2, "first_stride": 1, "kernel": 3, "gru_size": 4,
        "gru_layers": 1, "dropout": 0.5,
    },
}  # fmt: skip


@pytest.fixture
def place(recipe):
    """The toy recipe, with three recordings of unequal length in a folder, and what else a network may read."""
    rng = np.random.default_rng(2)
    Path("heard").mkdir()
    for name, length in (("b", 4000), ("a", 2500), ("c", 900)):
        soundfile.write(f"heard/{name}.wav", 0.1 * rng.standard_normal(length), RATE, subtype="FLOAT")
    with (
        kaldiio.WriteHelper("ark,scp:heard.ark,heard.scp") as writer,
        kaldiio.WriteHelper("ark,scp:data/all/x.ark,data/all/xvector.scp") as other,
    ):
        for name in "abc":
            writer(name, rng.standard_normal(3).astype(np.float32))
        for utt in recipe.classes:
            other(utt, rng.standard_normal(3).astype(np.float32))
    Path("data/all/text").write_text(
        "".join(f"{utt} {'yes' if name == 'low' else 'oh no'}\n" for utt, name in recipe.classes.items())
    )
    others = [(name, model, "global") for name, model in HEARS_FRAMES.items() if model]
    for name, model, normalisation in (("peng", PENG, "global"), ("lemoine", LEMOINE, "speaker"), *others):
        content = read_yaml("conf/toy/tiny.yaml") | {"model": model, "normalisation": normalisation}
        recipe.write_yaml(f"conf/toy/{name}.yaml", **content)
    return recipe


def trained(place, system, select="dev"):
    """The folder of a run, where nothing else of the recipe is."""
    folder = place.lay_out(f"{system}_{select}", select, system=system)
    train(folder)
    for name in ("data", "dump", "conf"):
        shutil.rmtree(name, ignore_errors=True)
    return Path(shutil.move(folder, f"kept_{system}"))


def features(name):
    samples, _ = soundfile.read(f"heard/{name}.wav", dtype="float32")
    return logmel.extract(samples, read_run(next(Path().glob("kept_*"))).system.feature)


def told(capsys, *arguments):
    """The lines of the table: {file: (class, probabilities)}."""
    capsys.readouterr()
    predict.main([*map(str, arguments)])
    header, *lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert header == ["file", "class", "low", "high"]
    table = {line[0]: (line[1], np.array(line[2:], float)) for line in lines}
    for name, shares in table.values():
        assert shares.sum() == pytest.approx(1, abs=2e-4)
        assert name == ["low", "high"][shares.argmax()]
    return table


@pytest.mark.parametrize(("system", "select"), [(name, "dev") for name in HEARS_FRAMES] + [("tiny", "last")])
def test_a_network_that_hears_frames(place, system, select, capsys):
    folder = trained(place, system, select)
    table = told(capsys, folder, "heard")
    assert list(table) == ["heard/a.wav", "heard/b.wav", "heard/c.wav"]
    network, statistics, _ = networks.trained(read_run(folder))
    for name in "abc":
        frames = torch.from_numpy((features(name) - statistics["mean"]) / statistics["deviation"])[None]
        with torch.no_grad():
            expected = network(frames, torch.tensor([frames.shape[1]]))[0].softmax(1)[0]
        np.testing.assert_allclose(table[f"heard/{name}.wav"][1], expected, atol=1e-4)
    assert told(capsys, folder, "heard/b.wav").keys() == {"heard/b.wav"}


def test_code_that_changed_since_is_refused(place, monkeypatch):
    folder = trained(place, "svm")
    sources = runs.sources
    monkeypatch.setattr(runs, "sources", lambda *modules: {**sources(*modules), "ser.features.logmel": "edited"})
    with pytest.raises(
        UserError,
        match=rf"^{folder}: trained with different code \(ser.features.logmel\); restore that code, or train again",
    ):
        predict.main([str(folder), "heard"])


def test_a_machine(place, capsys):
    folder = trained(place, "svm")
    table = told(capsys, folder, "heard/c.wav", "heard/a.wav")
    assert list(table) == ["heard/c.wav", "heard/a.wav"]
    run = read_run(folder)
    pooled = np.stack([classical.pool(features(name), run.system.model) for name in "ca"])
    expected = classical.probabilities(classical.load(run).estimator, pooled)
    np.testing.assert_allclose([shares for _, shares in table.values()], expected, atol=1e-4)


def test_a_network_that_reads_words_and_x_vectors(place, capsys):
    folder = trained(place, "peng")
    Path("texts").write_text("a Oh no!\nb\nc yes zebra\n")
    table = told(capsys, "--texts", "texts", "--xvectors", "heard.scp", folder, "heard")
    network, statistics, _ = networks.trained(read_run(folder))
    vectors = kaldiio.load_scp("heard.scp")
    words = Words({"a": "Oh no!", "b": "", "c": "yes zebra"}, read_vocabulary(read_run(folder)))
    for name in "abc":
        frames = torch.from_numpy((features(name) - statistics["mean"]) / statistics["deviation"])[None]
        with torch.no_grad():
            scores, _ = network(
                frames, torch.tensor([frames.shape[1]]), **words.of([name]), xvectors=torch.tensor(vectors[name])[None]
            )
        np.testing.assert_allclose(table[f"heard/{name}.wav"][1], scores.softmax(1)[0], atol=1e-4)
    one = told(capsys, "--text", "Oh no!", "--xvectors", "heard.scp", folder, "heard/a.wav")
    np.testing.assert_allclose(one["heard/a.wav"][1], table["heard/a.wav"][1], atol=1e-4)


def test_a_system_that_is_normalised_by_speaker(place, capsys):
    """All recordings that are given are one speaker's."""
    folder = trained(place, "lemoine")
    table = told(capsys, folder, "heard")
    all_frames = np.concatenate([features(name) for name in "abc"]).astype(float)
    network, *_ = networks.trained(read_run(folder))
    for name in "abc":
        frames = torch.from_numpy(((features(name) - all_frames.mean(0)) / all_frames.std(0)).astype(np.float32))[None]
        with torch.no_grad():
            expected = network(frames, torch.tensor([frames.shape[1]]))[0].softmax(1)[0]
        np.testing.assert_allclose(table[f"heard/{name}.wav"][1], expected, atol=1e-3)


@pytest.mark.parametrize("system", ["svm", "tiny", "lemoine"])
def test_a_recording_that_cannot_be_taken_leaves_the_others(place, system, capsys):
    folder = trained(place, system)
    table = told(capsys, folder, "heard")
    soundfile.write("heard/aa.wav", 0.1 * np.arange(50) % 3 / 9, RATE)
    soundfile.write("heard/silent.wav", np.zeros(4000), RATE)
    Path("heard/._a.wav").write_bytes(b"Mac OS X")  # which macOS puts beside each file on other disks
    capsys.readouterr()
    with pytest.raises(UserError, match=r"^2 of 5 recordings could not be read .see above.; fix or remove them$"):
        predict.main([str(folder), "heard"])
    out, err = capsys.readouterr()
    assert [line.split("\t")[0] for line in out.splitlines()[1:]] == list(table)
    for line in out.splitlines()[1:]:
        name, _, *shares = line.split("\t")
        np.testing.assert_allclose(np.array(shares, float), table[name][1], atol=1e-4)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert errors == [
        "error: heard/aa.wav: too short: 50 samples at 8000 Hz, but a window needs 200; leave it out",
        "error: heard/silent.wav: silent: every sample is 0; fetch it again or leave it out",
    ]


def test_where_no_recording_can_be_taken(place, capsys):
    folder = trained(place, "lemoine")
    for name in "ab":
        soundfile.write(f"{name}.wav", np.zeros(4000), RATE)
    with pytest.raises(UserError, match=r"^2 of 2 recordings could not be read"):
        predict.main([str(folder), "a.wav", "b.wav"])
    assert capsys.readouterr().out.endswith("file\tclass\tlow\thigh\n")


def test_a_row_is_told_as_soon_as_it_is_known(place, capsys, monkeypatch):
    """And its features are not kept: a folder may hold thousands of recordings."""
    folder = trained(place, "svm")
    capsys.readouterr()
    rows = []
    read = trained_module.audio.read
    monkeypatch.setattr(
        trained_module.audio,
        "read",
        lambda *given: rows.append(capsys.readouterr().out.count("heard/")) or read(*given),
    )
    predict.main([str(folder), "heard"])
    assert rows == [0, 1, 1]


def test_a_machine_that_is_normalised_by_speaker(place, capsys):
    """As in training: the frames are, before they are pooled."""
    place.write_yaml("conf/toy/svm.yaml", **read_yaml("conf/toy/svm.yaml") | {"normalisation": "speaker"})
    folder = trained(place, "svm")
    table = told(capsys, folder, "heard")
    frames = np.concatenate([features(name) for name in "abc"]).astype(float)
    run = read_run(folder)
    pooled = np.stack(
        [
            classical.pool(((features(name) - frames.mean(0)) / frames.std(0)).astype(np.float32), run.system.model)
            for name in "abc"
        ]
    )
    np.testing.assert_allclose(
        [shares for _, shares in table.values()],
        classical.probabilities(classical.load(run).estimator, pooled),
        atol=1e-3,
    )


class TestRefused:
    """One line each."""

    def refuse(self, error, *arguments):
        with pytest.raises(UserError) as raised:
            predict.main([*map(str, arguments)])
        assert str(raised.value) == error

    def test_a_run_that_is_not_done(self, place):
        folder = place.lay_out("run")
        self.refuse(f"{folder}: not done; run stage 3 or 4", folder, "heard")

    def test_words_that_are_not_there(self, place):
        folder = trained(place, "peng")
        self.refuse(
            f"{folder}: its system reads transcripts; give --text or --texts (in Python words=)",
            "--xvectors",
            "heard.scp",
            folder,
            "heard",
        )
        self.refuse(
            f"{folder}: its system reads x-vectors; give --xvectors (in Python xvectors=)",
            "--text",
            "no",
            folder,
            "heard/a.wav",
        )
        self.refuse(
            "--text: only for a single recording, but there are 3; use --texts", "--text", "no", folder, "heard"
        )
        Path("texts").write_text("a no\nb no\n")
        named = "each line starts with a file's name without its suffix"
        self.refuse(f"texts: no line for c; {named}", "--texts", "texts", folder, "heard")
        Path("texts").write_text("a no\nb no\nc no\n")
        Path("ids.scp").write_text("s1-a heard.ark:2\n")
        self.refuse(f"ids.scp: no line for a; {named}", "--texts", "texts", "--xvectors", "ids.scp", folder, "heard")
        with kaldiio.WriteHelper("ark,scp:wide.ark,wide.scp") as writer:
            for name in "abc":
                writer(name, np.zeros(4, np.float32))
        learned = (
            f"{folder}: its network was trained on x-vectors of 3 values, but these have 4; use the same extractor"
        )
        self.refuse(learned, "--texts", "texts", "--xvectors", "wide.scp", folder, "heard")

    def test_words_given_twice(self, place, capsys):
        with pytest.raises(SystemExit):
            predict.main(["--text", "no", "--texts", "texts", "run", "heard"])
        assert "--texts: not allowed with argument --text" in capsys.readouterr().err

    @pytest.mark.parametrize("system", ["tiny", "svm"])
    def test_words_that_nobody_reads(self, place, system):
        folder = trained(place, system)
        refused = f"{folder}: its system does not read "
        self.refuse(f"{refused}transcripts; leave --text or --texts out", "--text", "no", folder, "heard/a.wav")
        self.refuse(f"{refused}x-vectors; leave --xvectors out", "--xvectors", "heard.scp", folder, "heard")

    def test_every_model_is_here(self):
        of_one_vector = {"issa"}  # and not of frames: tests/models/test_issa.py
        of_encoders = {"encoder_svm", "finetune", "superb"}  # tests/models/test_encoder_svm.py and so on
        assert of_encoders | {"sherman", "svm", "logistic", "lemoine", "peng"} | of_one_vector | HEARS_FRAMES.keys() - {
            "tiny"
        } == set(kinds("model"))

    def test_recordings(self, place):
        folder = trained(place, "tiny")
        Path("none").mkdir()
        self.refuse(
            "none: contains no recordings (.wav, .flac, .ogg, .mp3, .aiff, .aif); give another folder", folder, "none"
        )
        self.refuse("heard/z.wav: No such file or directory; check the path and its permissions", folder, "heard/z.wav")
        soundfile.write("heard/d.wav", 0.1 * np.arange(50) % 3 / 9, RATE)
        self.refuse(
            "heard/d.wav: too short: 50 samples at 8000 Hz, but a window needs 200; leave it out", folder, "heard/d.wav"
        )
        Path("more").mkdir()
        shutil.copy("heard/a.wav", "more")
        self.refuse(
            "more/a.wav: heard/a.wav has the same name; rename one, or give only one of them",
            folder,
            "heard/a.wav",
            "more",
        )

    def test_a_folder_that_holds_runs(self, place):
        place.lay_out("tiny/honest/fold1_seed1")
        place.lay_out("tiny/honest/fold2_seed1")
        for folder in (Path("exp/tiny"), Path("exp/tiny/honest")):
            self.refuse(
                f"{folder}: contains runs; give the folder of one: exp/tiny/honest/fold1_seed1", folder, "heard"
            )
        Path("exp/tiny/honest/fold2_seed1/done").touch()
        self.refuse("exp/tiny: contains runs; give the folder of one: exp/tiny/honest/fold2_seed1", "exp/tiny", "heard")
        self.refuse("exp: no run in it; give the folder of a run, exp/<system>/<protocol>/<run>", "exp", "heard")
        self.refuse("nope: no such folder; give the folder of a run, exp/<system>/<protocol>/<run>", "nope", "heard")

    @pytest.mark.parametrize("what", ["mapping", "classes", "unfitted", "broken", "large"])
    def test_another_machine_than_the_runs(self, place, what):
        folder = trained(place, "svm")
        machine = classical.load(read_run(folder)).estimator
        features = np.random.default_rng(0).standard_normal((30, machine.n_features_in_))
        if what == "mapping":
            machine, reason = {"a": "1"}, "it contains something else"
        elif what == "classes":
            machine, reason = machine.fit(features, np.arange(30) % 3), "its classes are [0, 1, 2], but the run has 2"
        elif what == "unfitted":
            machine, reason = make_pipeline(StandardScaler(), SVC()), "'SVC' object has no attribute 'classes_'"
        elif what == "broken":
            machine[-1]._n_support, reason = np.array([0, 1000000], np.int32), "its parts are inconsistent"
        else:
            reason = "its content is larger than the file"
        with open(folder / "model.skops", "wb") as stream:
            skops.io.dump(machine, stream, compression=8 if what == "large" else 0)
        self.refuse(
            f"{folder}/model.skops: not a complete svm ({reason}); remove or rename {folder} and run stage 3 again",
            folder,
            "heard",
        )

    def test_a_machine_that_was_damaged(self, place):
        folder = trained(place, "svm")
        whole, machine = (folder / "model.skops").read_bytes(), classical.load(read_run(folder)).estimator
        frames = np.random.default_rng(1).standard_normal((5, machine.n_features_in_))
        rng, refused = np.random.default_rng(0), 0
        for number in range(40):
            content = bytearray(whole)
            at = rng.integers(len(content))
            if number % 2:
                content[at] ^= 1 << rng.integers(8)
            else:
                del content[at:]
            (folder / "model.skops").write_bytes(content)
            try:
                same = classical.load(
                    read_run(folder)
                ).estimator  # a bit that is no matter, as of the time in a zip file
                assert np.array_equal(classical.probabilities(same, frames), classical.probabilities(machine, frames))
            except UserError as error:
                assert str(error).startswith(f"{folder}/model.skops: not a complete svm (")
                refused += 1
        assert refused > 30

    def test_a_run_of_an_older_version(self, place):
        folder = trained(place, "tiny")
        weights, _ = networks.load(folder / "best.safetensors")
        networks.save(folder / "best.safetensors", weights)
        self.refuse(
            f"{folder}/best.safetensors: written by an older version; remove or rename the folder and run stage 4 again",
            folder,
            "heard",
        )
