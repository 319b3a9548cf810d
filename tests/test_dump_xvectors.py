"""X-vectors by SpeechBrain, which is not installed here: a stand-in has its place."""

import sys
from pathlib import Path
from types import ModuleType

import kaldiio
import numpy as np
import pytest
import soundfile
import torch
import yaml

from ser import dump_xvectors
from ser.cli import UserError
from ser.inputs import xvectors

RATE = 16000
LENGTHS = {"a-0": 16000, "a-1": 9000, "b-0": 24001}
HUB = "speechbrain/spkrec-xvect-voxceleb"


class Encoder:
    """As speechbrain.inference.speaker.EncoderClassifier of 1.1: what it is asked for is kept in `asked`."""

    asked = []
    fault = None
    refuses = None  # the number of samples that it cannot take

    @classmethod
    def from_hparams(cls, source, **options):
        cls.asked.append((source, options))
        if cls.fault:
            raise cls.fault
        return cls()

    def encode_batch(self, wavs, wav_lens=None):
        assert wavs.shape[0] == 1 and wavs.dtype == torch.float32 and wav_lens is None
        if wavs.shape[1] == self.refuses:
            raise RuntimeError("Argument #4: Padding size should be less\nthan the input")
        self.asked.append(wavs.shape[1])
        vector = torch.stack([wavs.mean(), wavs.std(), wavs.abs().max(), torch.tensor(float(wavs.shape[1]))])
        return (vector + 1e-5 * torch.randn(4))[None, None]  # SpeechBrain's pooling adds noise, too


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a data directory of three recordings, and SpeechBrain's stand-in."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    Path("data").mkdir()
    for utt, length in LENGTHS.items():
        soundfile.write(f"{utt}.wav", 0.1 * rng.standard_normal(length), RATE)
    Path("data/wav.scp").write_text("".join(f"{utt} {tmp_path}/{utt}.wav\n" for utt in LENGTHS))
    for name in ("speechbrain", "speechbrain.inference", "speechbrain.inference.speaker"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["speechbrain.inference.speaker"].EncoderClassifier = Encoder
    for name, value in {"asked": [], "fault": None, "refuses": None}.items():
        monkeypatch.setattr(Encoder, name, value)
    return tmp_path


def dump(*options, out="x"):
    dump_xvectors.main([*options, "--device", "cpu", "data", out])


def refused(*options, out="x"):
    with pytest.raises(UserError) as error:
        dump(*options, out=out)
    assert "\n" not in str(error.value)
    return str(error.value)


def edit(old, new):
    path = Path("data/wav.scp")
    path.write_text(path.read_text().replace(old, new))


def test_each_utterance_gets_its_vector(place, capsys):
    dump()
    assert capsys.readouterr().out == "x/xvector.scp: 3 x-vectors of 4 values\n"
    assert Encoder.asked == [(HUB, {"run_opts": {"device": "cpu"}}), *LENGTHS.values()]
    found = xvectors.read_scp("x/xvector.scp", LENGTHS)
    for utt, length in LENGTHS.items():
        samples, _ = soundfile.read(f"{utt}.wav", dtype="float32")
        np.testing.assert_allclose(
            found[utt], [samples.mean(), samples.std(), np.abs(samples).max(), length], rtol=1e-3, atol=1e-4
        )
    ours = dict(kaldiio.load_scp("x/xvector.scp"))
    assert all(np.array_equal(ours[utt], found[utt]) for utt in LENGTHS)
    assert yaml.safe_load(Path("x/xvector.yaml").read_text()) == {"model": HUB}
    assert sorted(path.name for path in Path("x").iterdir()) == ["xvector.ark", "xvector.scp", "xvector.yaml"]


def test_beside_the_tables_where_the_systems_look_for_them(place):
    dump(out="data")
    assert len(xvectors.read_scp("data/xvector.scp", LENGTHS)) == 3


def test_a_vector_is_the_same_whatever_was_before_it(place):
    dump()
    edit(f"a-0 {place}/a-0.wav\n", "")
    torch.manual_seed(7)
    dump(out="y")
    both = [xvectors.read_scp(f"{out}/xvector.scp", ["a-1", "b-0"]) for out in "xy"]
    assert all(np.array_equal(both[0][utt], both[1][utt]) for utt in both[0])


def test_another_rate_and_two_channels(place):
    time = np.arange(8000) / 8000
    soundfile.write("a-0.wav", 0.2 * np.sin(2 * np.pi * 440 * np.stack([time, time], 1)), 8000)
    dump()
    np.testing.assert_allclose(
        xvectors.read_scp("x/xvector.scp", ["a-0"])["a-0"], [0, 0.2 / np.sqrt(2), 0.2, 16000], atol=0.01
    )


def test_a_local_folder(place):
    """Its hyperparams.yaml names the hub as the place of the weights: those of the folder are taken."""
    Path("net").mkdir()
    dump("--model", "net")
    folder = str(place / "net")
    expected = {"run_opts": {"device": "cpu"}, "overrides": {"pretrained_path": folder}, "overrides_must_match": False}
    assert Encoder.asked[0] == (folder, expected)
    assert yaml.safe_load(Path("x/xvector.yaml").read_text()) == {"model": folder}
    dump("--model", folder)  # the same
    assert len(Encoder.asked) == 4


def test_what_is_there_is_left_alone(place, capsys):
    dump()
    before = Path("x/xvector.ark").stat()
    Encoder.asked.clear()
    capsys.readouterr()
    dump()
    assert capsys.readouterr().out == "x/xvector.scp: all 3 utterances are up to date\n"
    assert Encoder.asked == [] and Path("x/xvector.ark").stat() == before


def test_other_utterances_are_made_anew(place):
    dump()
    edit(f"a-0 {place}/a-0.wav\n", "")
    dump()
    assert list(dict(kaldiio.load_scp("x/xvector.scp"))) == ["a-1", "b-0"]


def test_x_vectors_of_another_network_are_kept(place):
    dump()
    assert (
        refused("--model", "other/net") == f"x/xvector.scp: has x-vectors of {HUB}; remove them, or use another folder"
    )
    Path("x/xvector.yaml").unlink()  # Kaldi's have none
    assert refused() == "x/xvector.scp: has x-vectors of another extractor; remove them, or use another folder"
    assert len(dict(kaldiio.load_scp("x/xvector.scp"))) == 3


def test_a_broken_recording_leaves_nothing_that_looks_whole(place):
    Path("b-0.wav").write_bytes(Path("b-0.wav").read_bytes()[:1000])
    assert refused().startswith(f"{place}/b-0.wav: cut short")
    assert [path.name for path in Path("x").iterdir()] == ["xvector.yaml"]
    soundfile.write("b-0.wav", np.tile([0.1, -0.1], 500), RATE)
    dump()
    assert len(dict(kaldiio.load_scp("x/xvector.scp"))) == 3


def test_a_recording_that_the_network_cannot_take(place, monkeypatch):
    monkeypatch.setattr(Encoder, "refuses", 9000)
    assert refused() == (
        f"{place}/a-1.wav: a-1: 9000 samples, too many or too few for the network (Argument #4: Padding size should be less than "
        "the input); leave out the recording"
    )


def test_values_that_are_not_finite(place, monkeypatch):
    monkeypatch.setattr(Encoder, "encode_batch", lambda self, wavs: torch.full((1, 1, 4), torch.nan))
    assert refused() == f"{place}/a-0.wav: a-0 gives non-finite values; fix or leave out the recording"


def test_speechbrain_is_not_installed(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "speechbrain.inference.speaker", None)
    assert refused() == (
        "SpeechBrain cannot be imported (import of speechbrain.inference.speaker halted; None in sys.modules); "
        "run pip install 'speechbrain>=1.1'"
    )
    assert not Path("x").exists()


@pytest.mark.parametrize(
    "fault",
    [
        FileNotFoundError(2, "No such file", "net/hyperparams.yaml"),
        ValueError("File not found\non HF hub"),
        KeyError("modules"),
    ],
)
def test_a_network_that_cannot_be_loaded(place, monkeypatch, fault):
    monkeypatch.setattr(Encoder, "fault", fault)
    message = refused("--model", "some/net")
    assert message.startswith("some/net: cannot load the network (")
    assert message.endswith(
        "); give a folder with its hyperparams.yaml, or a name on https://huggingface.co/speechbrain"
    )
    assert not Path("x").exists()


def test_pipes_are_refused_unless_they_are_allowed(place):
    edit(f"{place}/a-1.wav", f"touch ran; cat {place}/a-1.wav |")
    assert refused() == (
        f"data/wav.scp:2: a-1 is a shell command, 'touch ran; cat {place}/a-1.wav |'; "
        "replace it by a file, or allow it with ser.dump_xvectors --allow-pipes"
    )
    assert not Path("x").exists() and not Path("ran").exists()
    dump("--allow-pipes")
    assert Path("ran").exists() and len(dict(kaldiio.load_scp("x/xvector.scp"))) == 3


def test_help_says_that_a_folder_is_a_program(capsys):
    with pytest.raises(SystemExit):
        dump("--help")
    told = " ".join(capsys.readouterr().out.split())
    assert "Such a folder is a program" in told and "pip install 'speechbrain>=1.1'" in told


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(place):
    with pytest.raises(UserError, match="--device cuda: torch sees no GPU here"):
        dump_xvectors.main(["--device", "cuda", "data", "x"])
