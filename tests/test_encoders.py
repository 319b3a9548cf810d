"""Pretrained encoders: where they are found, what names them, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers

from ser import encoders
from ser.cli import UserError


@pytest.fixture
def folder(tiny_encoder, tmp_path):
    return Path(shutil.copytree(tiny_encoder, tmp_path / "own"))


def weights_of(folder):
    return safetensors.torch.load_file(folder / "model.safetensors")


def checksum(folder):
    network, extractor = encoders.load(folder)
    return encoders.checksum(folder, network.config, extractor)


def change(path, **content):
    path.write_text(json.dumps(json.loads(path.read_text()) | content))


def test_the_command_prints_the_lines_of_a_system_file(folder, capsys):
    encoders.main([str(folder)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"# {folder}: whisper, layers 0 to 2, 16 values each"
    assert lines[1:] == [f"model: {folder}", f"weights: {checksum(folder)}"]


def test_a_model_is_looked_for_beside_the_tools_first(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(encoders, "MODELS", tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    assert encoders.find("own") == Path("own")
    shutil.copytree(folder, tmp_path / "models/own")
    assert encoders.find("own") == tmp_path / "models/own"


@pytest.mark.parametrize("half", [True, False])
def test_the_same_weights_have_the_same_checksum(folder, half):
    """In either precision, under Whisper's names for a whole model or an encoder, with a decoder or without."""
    rounded = {name: tensor.half().float() for name, tensor in weights_of(folder).items()}
    safetensors.torch.save_file(rounded, folder / "model.safetensors")
    before = checksum(folder)
    if half:
        changed = {name: tensor.half() for name, tensor in rounded.items()}
    else:
        changed = {name.removeprefix("model."): tensor for name, tensor in rounded.items()}
        changed["decoder.layer_norm.weight"] = torch.ones(16)
    safetensors.torch.save_file(changed, folder / "model.safetensors")
    change(folder / "config.json", architectures=["WhisperModel"], decoder_layers=7, transformers_version="4.0")
    assert checksum(folder) == before


def test_another_weight_or_setting_has_another_checksum(folder):
    seen = {checksum(folder)}
    change(folder / "config.json", encoder_attention_heads=4, num_attention_heads=4)
    seen.add(checksum(folder))
    change(folder / "preprocessor_config.json", hop_length=161)
    seen.add(checksum(folder))
    weights = weights_of(folder)
    weights["model.encoder.conv1.bias"][3] += 1e-6
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    assert len({*seen, checksum(folder)}) == 4


def test_all_weights_of_a_sharded_model_count(folder):
    before, weights = checksum(folder), weights_of(folder)
    names = sorted(weights)
    (folder / "model.safetensors").unlink()
    for number, some in enumerate((names[:9], names[9:]), 1):
        part = {name: weights[name] for name in some}
        safetensors.torch.save_file(part, folder / f"model-0000{number}-of-00002.safetensors")
    places = {name: f"model-0000{1 if name in names[:9] else 2}-of-00002.safetensors" for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert checksum(folder) == before
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(UserError, match="model.safetensors.index.json: missing or damaged; fetch it again"):
        checksum(folder)


def test_other_files_do_not_count(folder):
    before = checksum(folder)
    (folder / "other.safetensors").write_text("a pointer of git-lfs")
    assert checksum(folder) == before


def test_dropout_which_training_uses_is_in_the_checksum(folder):
    before = checksum(folder)
    change(folder / "config.json", dropout=0.1)
    assert checksum(folder) != before


def test_without_safetensors_a_folder_is_refused(folder):
    torch.save(weights_of(folder), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        UserError, match=r"no weights in safetensors; pytorch_model\.bin is not read, since loading it can"
    ):
        encoders.find(str(folder))


def drop_a_weight(folder):
    weights = weights_of(folder)
    del weights["model.encoder.layers.1.fc1.weight"]
    safetensors.torch.save_file(weights, folder / "model.safetensors")


def cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def no_speech(folder):
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9
    )
    transformers.BertModel(config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json; give a folder in Hugging Face's layout"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: not read by transformers"),
        (lambda folder: change(folder / "config.json", model_type="new"), "config.json: not read by transformers"),
        (lambda folder: change(folder / "config.json", d_model=32), "its weights cannot be loaded"),
        (lambda folder: change(folder / "config.json", max_source_positions=100), "has 100 positions; only Whisper's"),
        (drop_a_weight, "has no weights for layers.1.fc1.weight"),
        (cut, "its weights cannot be loaded"),
        (no_speech, "bert: not an encoder that is known here; one of whisper, wav2vec2"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "preprocessor_config.json: missing"),
        (
            lambda folder: change(folder / "preprocessor_config.json", sampling_rate=22050),
            "takes 22050 Hz; only encoders",
        ),
    ],
)
def test_what_is_no_whole_encoder_is_refused_in_one_line(folder, damage, message):
    damage(folder)
    with pytest.raises(UserError) as caught:
        encoders.load(encoders.find(str(folder)))
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_model_that_is_nowhere(monkeypatch, tmp_path):
    import huggingface_hub

    def fail(*args, **more):
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(
        UserError, match=r"nobody/none: not a folder here or in .*, and the hub .* \(no network\); link"
    ):
        encoders.find("nobody/none")


def test_without_transformers_there_is_one_line(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(UserError, match="need transformers, which is not installed; run: pip install transformers$"):
        encoders.load(folder)


def test_pieces_are_alike_and_cover_everything():
    assert encoders.pieces(480_000, 30) == [slice(0, 480_000)]
    found = encoders.pieces(480_001, 30)
    assert [piece.stop - piece.start for piece in found] == [240_000, 240_001]
    assert encoders.pieces(1_000_000, 30)[-1].stop == 1_000_000
