"""Recognisers of transformers, with random weights; torchaudio's are in test_transcribe.py."""

import functools
import json
import re
import shutil
import sys
import warnings

import numpy as np
import pytest
import safetensors.torch
import soundfile

from ser import audio, encoders, transcribe
from ser.cli import UserError

RATE = 16000
LONGEST = 1  # seconds that the Whisper here takes
NAMES = [
    "<|endoftext|>",
    "<|startoftranscript|>",
    *"abcdefgh",
    "Ġ",
    "<|en|>",
    "<|fr|>",
    "<|transcribe|>",
    "<|notimestamps|>",
]
CONTROL = [1, 11, 12, 13, 14]  # those that are no words
UTTS = {"a-1": 0.05, "a-2": 0.4, "b-1": 0.9, "b-2": 2.3}  # seconds


@functools.cache
def ctc():
    """A wav2vec 2.0 whose labels vary from frame to frame, its tokenizer and its feature extractor."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    torch.manual_seed(1)
    config = Wav2Vec2Config(
        vocab_size=7, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, pad_token_id=0,
        conv_dim=(8,) * 7, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    network = Wav2Vec2ForCTC(config).eval()
    torch.nn.init.normal_(network.lm_head.weight)
    return network, Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=False)


@functools.cache
def whisper():
    """A Whisper of one second whose words depend on what it hears, and its feature extractor."""
    import torch
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    size = dict(
        d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=8,
        decoder_ffn_dim=8, num_mel_bins=8, max_source_positions=50, max_target_positions=20,
    )  # fmt: skip
    special = dict(pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=1)
    config = WhisperConfig(vocab_size=len(NAMES), **size, **special, suppress_tokens=None, begin_suppress_tokens=None)
    network = WhisperForConditionalGeneration(config).eval()
    torch.manual_seed(12)  # with which recordings and languages differ
    for weight in network.parameters():
        torch.nn.init.normal_(weight)
    network.generation_config.update(max_length=18, suppress_tokens=CONTROL, begin_suppress_tokens=None)
    return network, WhisperFeatureExtractor(feature_size=8, chunk_length=LONGEST)


def save_ctc(folder):
    network, extractor = ctc()
    network.save_pretrained(folder)
    extractor.save_pretrained(folder)
    labels = ["<pad>", "|", "A", "B", "C", "<unk>", "'"]
    (folder / "vocab.json").write_text(json.dumps({label: number for number, label in enumerate(labels)}))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Wav2Vec2CTCTokenizer", "pad_token": "<pad>", "unk_token": "<unk>"})
    )
    return folder


def save_whisper(folder):
    from transformers import WhisperTokenizer

    network, extractor = whisper()
    network.save_pretrained(folder)
    extractor.save_pretrained(folder)
    WhisperTokenizer(vocab={name: number for number, name in enumerate(NAMES)}, merges=[]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of each recogniser."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            save.__name__.removeprefix("save_"): save(tmp_path_factory.mktemp("models"))
            for save in (save_ctc, save_whisper)
        }


@pytest.fixture(params=["ctc", "whisper"])
def model(request, saved, tmp_path):
    return shutil.copytree(saved[request.param], tmp_path / request.param)


@pytest.fixture
def wav2vec(saved, tmp_path):
    return shutil.copytree(saved["ctc"], tmp_path / "ctc")


@pytest.fixture
def data(tmp_path):
    """A data directory of four recordings of noise that grows louder."""
    data = tmp_path / "data"
    data.mkdir()
    rng = np.random.default_rng(0)
    for utt, seconds in UTTS.items():
        length = int(seconds * RATE)
        noise = rng.standard_normal(length) * np.linspace(0, 1, length) ** 2
        soundfile.write(tmp_path / f"{utt}.wav", 0.1 * noise, RATE, subtype="FLOAT")
    (data / "wav.scp").write_text("".join(f"{utt} {tmp_path}/{utt}.wav\n" for utt in UTTS))
    (data / "text").write_text("".join(f"{utt} some words\n" for utt in UTTS))
    return data


def call(data, model, *options):
    transcribe.main(["--device", "cpu", "--model", str(model), *map(str, options), str(data)])


def by_pipeline(data, model, longest=None):
    """text_asr as transformers' own pipeline hears it; recordings longer than `longest` seconds in equal pieces."""
    from transformers import pipeline

    hear, lines = pipeline("automatic-speech-recognition", str(model), device="cpu"), []
    for utt in UTTS:
        samples, _ = soundfile.read(data.parent / f"{utt}.wav", dtype="float32")
        samples = np.concatenate([samples, np.zeros(max(0, RATE // 10 - len(samples)), np.float32)])
        number = int(np.ceil(len(samples) / RATE / longest)) if longest else 1
        options = {"generate_kwargs": {"num_beams": 1}} if longest else {}  # the pipeline's default is 5
        heard = [hear(piece, **options)["text"] for piece in np.array_split(samples, number)]
        lines.append(" ".join([utt, *" ".join(heard).split()]) + "\n")
    return "".join(lines)


def test_as_transformers_own_pipeline(data, model, capsys):
    call(data, model)
    table = (data / "text_asr").read_text()
    assert table == by_pipeline(data, model, LONGEST if model.name == "whisper" else None)
    lines = [line.partition(" ")[2] for line in table.splitlines()]
    assert len(set(lines)) == len(UTTS)  # the network is not deaf
    assert re.fullmatch(r"word error rate .* no words recognised in \d\)\n", capsys.readouterr().out)


def test_a_language_for_whisper_in_many(data, saved, tmp_path):
    """The language's token is told to the network before its first word."""
    import torch

    folder = shutil.copytree(saved["whisper"], tmp_path / "many")
    path = folder / "generation_config.json"
    many = {"is_multilingual": True, "lang_to_id": {"<|en|>": 11, "<|fr|>": 12}, "task_to_id": {"transcribe": 13}}
    settings = json.loads(path.read_text()) | many | {"no_timestamps_token_id": 14}
    settings.pop("_from_model_config")  # otherwise they are made anew from config.json
    path.write_text(json.dumps(settings))
    with pytest.raises(UserError, match=f"--language de: not one of {folder}: en, fr$"):
        call(data, folder, "--language", "de")
    tables = []
    for language in ("en", "fr"):
        call(data, folder, "--language", language)
        tables.append((data / "text_asr").read_text())
        (data / "text_asr").unlink()
    assert tables[0] != tables[1]
    network, extractor = whisper()
    samples, _ = soundfile.read(data.parent / "a-2.wav", dtype="float32")
    inputs = extractor(samples, sampling_rate=RATE, return_tensors="pt").input_features
    for place, token in enumerate((11, 12)):
        heard = torch.tensor([[1, token, 13, 14]])
        allowed = torch.full((len(NAMES),), 0.0).index_fill(0, torch.tensor(CONTROL), -torch.inf)
        while heard.shape[1] < 20 and heard[0, -1] != 0:
            with torch.inference_mode():
                scores = network(input_features=inputs, decoder_input_ids=heard).logits[0, -1]
            heard = torch.cat([heard, (scores + allowed).argmax()[None, None]], 1)
        said = "".join(NAMES[number] for number in heard[0, 4:].tolist() if number).replace("Ġ", " ")
        assert tables[place].splitlines()[1] == " ".join(["a-2", *said.split()])


class Stopped(BaseException):
    """As by a signal."""


def test_an_interrupted_call_goes_on_with_the_same_content(data, model, monkeypatch):
    heard, read = [], audio.read

    def stopping(recording, rate):
        heard.append(str(recording)[-7:-4])
        if len(heard) == 3:
            raise Stopped
        return read(recording, rate)

    monkeypatch.setattr(audio, "read", stopping)
    for changed in (False, True):
        heard.clear()
        with pytest.raises(Stopped):
            call(data, model)
        model = model.rename(model.with_name(f"moved{changed}"))
        if changed:
            path = model / "preprocessor_config.json"
            path.write_text(path.read_text() + " ")
        call(data, model)
        assert heard[3:] == [*UTTS][0 if changed else 2 :]
        assert len((data / "text_asr").read_text().splitlines()) == len(UTTS)
        (data / "text_asr").unlink()


def test_weights_that_could_run_code_are_not_read(data, wav2vec):
    (wav2vec / "model.safetensors").rename(wav2vec / "pytorch_model.bin")
    with pytest.raises(
        UserError, match=f"{wav2vec}: no weights in safetensors; pytorch_model.bin is not read, .* code"
    ):
        call(data, wav2vec)


def test_code_in_a_folder_is_not_run(data, wav2vec, tmp_path):
    config = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}, "architectures": ["Mine"]}
    (wav2vec / "config.json").write_text(json.dumps(config))
    (wav2vec / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UserError, match="config.json: not read by transformers"):
        call(data, wav2vec)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("architecture", ["Wav2Vec2Model", "VoxtralForConditionalGeneration"])
def test_not_a_recogniser(data, wav2vec, architecture):
    config = json.loads((wav2vec / "config.json").read_text())
    (wav2vec / "config.json").write_text(json.dumps(config | {"architectures": [architecture]}))
    with pytest.raises(UserError, match=f"^{wav2vec}: {architecture}: not a recogniser; give one such as Whisper"):
        call(data, wav2vec)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no output layer", "has no weights for lm_head.bias and 1 more; give a whole model"),
        ("cut short", "its weights cannot be loaded .*; fetch it again"),
        ("vocab.json", "its preprocessor_config.json or tokenizer is missing or damaged .*; fetch it again"),
        (
            "preprocessor_config.json",
            "its preprocessor_config.json or tokenizer is missing or damaged .*; fetch it again",
        ),
        ("config.json", "no config.json; give a folder"),
    ],
)
def test_a_folder_that_is_not_whole(data, wav2vec, fault, message):
    path = wav2vec / "model.safetensors"
    if fault == "no output layer":
        kept = {name: value for name, value in safetensors.torch.load_file(path).items() if "lm_head" not in name}
        safetensors.torch.save_file(kept, path, {"format": "pt"})
    elif fault == "cut short":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        (wav2vec / fault).unlink()
    with pytest.raises(UserError, match=f"^{wav2vec}: {message}"):
        call(data, wav2vec)
    assert not [*data.glob("text_asr*")]


def test_options_of_other_recognisers(data, wav2vec):
    with pytest.raises(
        UserError, match=f"--weights: only for torchaudio's recognisers, not for {wav2vec}; give a folder"
    ):
        call(data, wav2vec, "--weights", "x.pt")
    with pytest.raises(
        UserError, match=f"--language fr: not one of {wav2vec}: it has no choice of languages; leave the"
    ):
        call(data, wav2vec, "--language", "fr")
    with pytest.raises(UserError, match="--language: only for Whisper, not for WAV2VEC2_ASR_BASE_960H; leave it out"):
        call(data, "WAV2VEC2_ASR_BASE_960H", "--language", "fr")


def test_a_hub_that_is_not_reached(data, monkeypatch):
    import huggingface_hub

    asked = []

    def download(name, revision, allow_patterns):
        asked.append((name, revision, allow_patterns))
        raise OSError("no\nconnection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(UserError) as error:
        call(data, "nobody/whisper")
    assert str(error.value).startswith(
        f"nobody/whisper: not a folder here or in {encoders.MODELS}, and the hub does not give it (no connection); "
    )
    assert asked == [("nobody/whisper", None, ["*.json", "*.safetensors", "*.txt", "*.model"])]


def test_without_transformers(data, wav2vec, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError) as error:
        call(data, wav2vec)
    assert str(error.value) == (
        "pretrained models need transformers, which is not installed; run: pip install transformers"
    )
