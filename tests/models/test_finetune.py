"""Fine-tuning against transformers' own forward and autograd, on encoders of two layers with random weights."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import torch
from torch import nn

import ser
from ser import encoders, networks
from ser.batches import Batch
from ser.cli import UserError
from ser.config import Training, feature_name, read_system
from ser.models.finetune import Config, Network
from ser.runs import read_run
from ser.train import train

STEP = 320
CLASSES = 3
LENGTHS = [50, 31, 12]  # rows of 20 ms; 50 is what the tiny Whisper hears
TARGETS = [2, 0, 1]
NO_DROPOUT = dict.fromkeys(
    ("dropout", "attention_dropout", "activation_dropout", "hidden_dropout", "feat_proj_dropout"), 0.0
)


def save(folder, network, extractor):
    network.save_pretrained(folder)
    extractor.save_pretrained(folder)
    found, _ = encoders.load(folder)
    return folder, encoders.checksum(folder, found.config, extractor)


def save_whisper(folder):
    """A Whisper that hears one second; its own dropout is 0."""
    import transformers

    config = transformers.WhisperConfig(
        vocab_size=60, d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=24, decoder_layers=1,
        decoder_attention_heads=2, decoder_ffn_dim=16, max_source_positions=50, num_mel_bins=80, pad_token_id=1, init_std=0.2,
        bos_token_id=1, eos_token_id=1, decoder_start_token_id=1,
    )  # fmt: skip
    return save(
        folder, transformers.WhisperModel(config), transformers.WhisperFeatureExtractor(feature_size=80, chunk_length=1)
    )


def save_wav2vec2(folder, kind="Wav2Vec2", **changes):
    """One with layer norm, in which padding changes nothing; or a HuBERT or WavLM of that kind."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, conv_dim=[8] * 7,
        feat_extract_norm="layer", num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
        conv_bias=True, initializer_range=0.2, **NO_DROPOUT | changes,
    )  # fmt: skip
    assert config.layerdrop > 0 and config.mask_time_prob > 0  # which ours must not follow
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    return save(folder, getattr(transformers, f"{kind}Model")(config), extractor)


@pytest.fixture(scope="module", autouse=True)
def one_second():
    """Take the Whisper of one second too, which transformers runs without 30 s of padding."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoders, "WHISPER_POSITIONS", 50)
        yield


@pytest.fixture(scope="module")
def saved(one_second, tmp_path_factory):
    """{kind: (folder, checksum)} of encoders."""
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("encoders")
    return {"whisper": save_whisper(place / "whisper"), "wav2vec2": save_wav2vec2(place / "wav2vec2")}


def config_of(of, **changes):
    content = {"layers": [0, 1, 2], "projection": 5, "pooling": "mean", "dropout": 0.0, "frozen_stem": False} | changes
    return Config(model=str(of[0]), weights=of[1], **content)


def built(of, **changes):
    """A network in training mode; the same weights each time, but for LoRA's."""
    torch.manual_seed(1)
    network = Network(config_of(of, **changes), STEP, CLASSES).train()
    with torch.no_grad():
        network.head.layer_scores.copy_(torch.tensor([0.3, -0.2, 0.5])[: len(network.config.layers)])
    return network


def waves_of(lengths, seed=2):
    rng = np.random.default_rng(seed)
    return [(0.1 * rng.standard_normal(length * STEP)).astype(np.float32) for length in lengths]


def batch_of(waves):
    lengths = [len(wave) // STEP for wave in waves]
    frames = torch.zeros(len(waves), max(lengths), STEP)
    for row, wave, length in zip(frames, waves, lengths, strict=True):
        row[:length] = torch.from_numpy(wave.reshape(-1, STEP))
    return Batch(
        [f"{place}" for place in range(len(waves))], frames, torch.tensor(lengths), torch.tensor(TARGETS[: len(waves)])
    )


def backward(network, batch):
    """The scores of a batch; its gradients are in the network."""
    scores, penalty = network(batch.frames, batch.lengths)
    assert penalty == 0
    nn.functional.cross_entropy(scores, batch.targets).backward()
    return scores.detach()


def gradients(network):
    return {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}


def plain_states(kind, folder, waves):
    """transformers' own model, and the states of its layers (B, T, 16) and number of frames of each utterance."""
    import transformers

    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    if kind == "whisper":
        model = transformers.WhisperModel.from_pretrained(folder).encoder
        inputs = extractor(waves, sampling_rate=16000, return_tensors="pt")
        return model, model(**inputs, output_hidden_states=True).hidden_states, [50] * len(waves)
    model = transformers.AutoModel.from_pretrained(folder).eval()  # without SpecAugment and skipped layers
    inputs = extractor(waves, sampling_rate=16000, return_tensors="pt", padding=True)
    lengths = [int(model._get_feat_extract_output_lengths(len(wave))) for wave in waves]
    return model, model(**inputs, output_hidden_states=True).hidden_states, lengths


@pytest.mark.parametrize("kind", ["whisper", "wav2vec2"])
def test_scores_and_gradients_are_those_of_a_plain_loop(saved, kind):
    """In training mode, but with no dropout: of every weight of the encoder and of the classifier. transformers' Whisper
    takes one length only."""
    waves = waves_of([50, 50] if kind == "whisper" else LENGTHS)
    network = built(saved[kind])
    scores = backward(network, batch_of(waves))
    model, states, lengths = plain_states(kind, saved[kind][0], waves)
    head = {name: value.detach().clone().requires_grad_() for name, value in network.head.named_parameters()}
    weights = head["layer_scores"].exp() / head["layer_scores"].exp().sum()
    mixed = sum(weight * state for weight, state in zip(weights, states, strict=True))
    rows = []
    for row, length in zip(mixed, lengths, strict=True):
        frames = row[:length] @ head["projection.weight"].T + head["projection.bias"]
        rows.append(head["output.weight"] @ frames.mean(0) + head["output.bias"])
    torch.testing.assert_close(scores, torch.stack(rows), rtol=1e-4, atol=1e-5)
    nn.functional.cross_entropy(torch.stack(rows), torch.tensor(TARGETS[: len(waves)])).backward()
    found = gradients(network)
    expected = {f"encoder.network.{name}": grad for name, grad in gradients(model).items()}
    expected.pop("encoder.network.embed_positions.weight", None)  # sinusoids, which from_pretrained makes trainable
    expected |= {f"head.{name}": value.grad for name, value in head.items()}
    assert found.keys() == expected.keys()
    assert found.keys() == {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    for name, grad in expected.items():
        torch.testing.assert_close(
            found[name], grad, rtol=1e-3, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("kind", ["whisper", "wav2vec2"])
@pytest.mark.parametrize("changes", [{}, {"lora_rank": 2}, {"pooling": "attention"}])
def test_an_utterance_gets_the_same_in_any_batch(saved, kind, changes):
    network, waves = built(saved[kind], **changes).eval(), waves_of(LENGTHS)
    with torch.inference_mode():
        together, _ = network(batch_of(waves).frames, batch_of(waves).lengths)
        alone = torch.cat([network(batch_of([wave]).frames, batch_of([wave]).lengths)[0] for wave in waves])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_an_utterance_of_one_row_is_heard_with_zeros(saved):
    network, (wave,) = built(saved["whisper"]).eval(), waves_of([1])
    one, two = (batch_of([np.pad(wave, (0, n * STEP))]) for n in (0, 1))
    with torch.inference_mode():
        assert torch.equal(network(one.frames, one.lengths)[0], network(two.frames, two.lengths)[0])


def step(network, settings=None):
    """One step of training; the names of the weights that it changed."""
    settings = settings or Training(epochs=1, batch_size=3, learning_rate=0.01)
    optimiser = networks.optimiser(settings, networks.groups(network, settings.learning_rate))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    backward(network, batch_of(waves_of(LENGTHS)))
    optimiser.step()
    return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


STEM = {"whisper": ("encoder.network.conv",), "wav2vec2": ("encoder.network.feature_extractor.",)}
KEPT = (
    "encoder.network.embed_positions.weight",
    "encoder.network.masked_spec_embed",
)  # are not trained in transformers


@pytest.mark.parametrize("kind", ["whisper", "wav2vec2"])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_stem_stays_as_it_is(saved, kind, frozen):
    network = built(saved[kind], frozen_stem=frozen)
    changed = step(network)
    stem = {name for name, _ in network.named_parameters() if name.startswith(STEM[kind])}
    assert len(stem) >= 4
    assert changed == {name for name, _ in network.named_parameters()} - {*KEPT} - (stem if frozen else set())
    assert not frozen or not stem & gradients(network).keys()
    assert networks.count_parameters(network) == sum(network.state_dict()[name].numel() for name in changed)


def test_layers_above_the_highest_that_is_used_are_not_trained(saved):
    network = built(saved["whisper"], layers=[0, 1])
    changed = step(network)
    above = {name for name in network.state_dict() if ".layers.1." in name or ".network.layer_norm." in name}
    assert len(above) > 10
    assert changed == {name for name, _ in network.named_parameters()} - {*KEPT} - above


RATES = {  # with encoder_rate 0.1 and layer_decay 0.5, of two layers
    "whisper": {"conv": 0.025, "layers.0.": 0.05, "layers.1.": 0.1, "layer_norm.": 0.1},
    "wav2vec2": {
        "feature_extractor.": 0.025, "feature_projection.": 0.025, "encoder.pos_conv_embed.": 0.025, "encoder.layers.0.": 0.05,
        "encoder.layers.1.": 0.1, "encoder.layer_norm.": 0.025,
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", ["whisper", "wav2vec2"])
def test_each_layer_learns_at_its_own_rate(saved, kind):
    network = built(saved[kind], encoder_rate=0.1, layer_decay=0.5)
    settings = Training(epochs=1, batch_size=3, learning_rate=0.01)
    optimiser = networks.optimiser(settings, networks.groups(network, settings.learning_rate))
    found = {id(weight): group["lr"] for group in optimiser.param_groups for weight in group["params"]}
    for name, weight in network.named_parameters():
        if name in KEPT:
            assert id(weight) not in found
            continue
        own = name.removeprefix("encoder.network.")
        factors = [factor for start, factor in RATES[kind].items() if own.startswith(start)]
        (expected,) = [1.0] if name.startswith("head.") else factors
        assert found.pop(id(weight)) == pytest.approx(0.01 * expected), name
    assert not found


def test_a_network_without_rates_has_one_group():
    network = nn.Linear(2, 3)
    network.bias.requires_grad_(False)
    assert networks.groups(network, 0.25) == [{"params": [network.weight], "lr": 0.25}]


@pytest.mark.parametrize("kind", ["whisper", "wav2vec2"])
def test_lora_changes_nothing_at_the_start_and_trains_nothing_else(saved, kind):
    network, whole = built(saved[kind], lora_rank=2), built(saved[kind])
    network.head.load_state_dict(whole.head.state_dict())
    batch = batch_of(waves_of(LENGTHS))
    torch.testing.assert_close(backward(network, batch), backward(whole, batch), rtol=0, atol=0)
    network.zero_grad()
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    added = {name for name in trained if "lora_" in name}
    assert trained == added | {f"head.{name}" for name, _ in network.head.named_parameters()}
    assert sum(network.state_dict()[name].numel() for name in added) == 2 * 2 * 2 * (
        2 * 16
    )  # layers, q and v, rank, in + out
    changed = step(network)
    assert changed == {name for name in trained if "lora_A" not in name}  # whose gradient is 0 as long as B is
    assert step(network) == trained


def test_lora_adds_the_product_of_its_matrices(saved):
    """W + alpha / rank * B A in each projection of queries and values (Hu et al. 2022, equation 3)."""
    network, whole = built(saved["whisper"], lora_rank=2, lora_alpha=6.0).eval(), built(saved["whisper"]).eval()
    network.head.load_state_dict(whole.head.state_dict())
    for own, other in zip(network.encoder.network.layers, whole.encoder.network.layers, strict=True):
        for name in ("q_proj", "v_proj"):
            adapted = getattr(own.self_attn, name)
            (a,), (b,) = adapted.lora_A.values(), adapted.lora_B.values()
            with torch.no_grad():
                b.weight.normal_()
                getattr(other.self_attn, name).weight += 3 * b.weight @ a.weight
    batch = batch_of(waves_of(LENGTHS))
    torch.testing.assert_close(
        *(each(batch.frames, batch.lengths)[0] for each in (network, whole)), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("lora", [None, 2])
def test_checkpointing_gives_the_same_gradients(tmp_path, saved, lora):
    """With dropout, whose numbers must be the same when states are computed again."""
    for of in (saved["whisper"], save_wav2vec2(tmp_path / "w", hidden_dropout=0.3, attention_dropout=0.3)):
        found = []
        for checkpointing in (False, True):
            network = built(of, checkpointing=checkpointing, dropout=0.2, lora_rank=lora)
            torch.manual_seed(3)
            backward(network, batch_of(waves_of(LENGTHS)))
            found.append(gradients(network))
        assert found[0].keys() == found[1].keys()
        for name, grad in found[0].items():
            torch.testing.assert_close(found[1][name], grad, rtol=1e-5, atol=1e-7)


def test_checkpointing_computes_states_again(saved, monkeypatch):
    calls = []
    for checkpointing in (False, True):
        network = built(saved["whisper"], checkpointing=checkpointing)
        network.encoder.network.layers[0].fc1.register_forward_hook(lambda *_: calls.append(1))
        backward(network, batch_of(waves_of(LENGTHS)))
    assert len(calls) == 1 + 2


@pytest.fixture
def heard(recipe, saved):
    """The toy recipe with recordings instead of frames, whose classes differ in level, and the system heard.yaml."""
    feature = {"kind": "samples", "sample_rate": 16000, "segment_length": STEP, "hop_length": STEP}
    folder, weights = saved["whisper"]
    model = {
        "kind": "finetune", "model": str(folder), "weights": weights, "layers": [1, 2], "projection": 4, "pooling": "attention",
        "dropout": 0.1, "encoder_rate": 0.5, "layer_decay": 0.5,
    }  # fmt: skip
    training = {"epochs": 2, "batch_size": 8, "learning_rate": 0.01, "accumulation": 3}
    recipe.write_yaml(
        "conf/toy/heard.yaml",
        description="heard",
        feature=feature,
        normalisation="none",
        model=model,
        training=training,
    )
    rng = np.random.default_rng(0)
    recipe.matrices = {
        utt: (0.01 * (1 + 9 * (name == "high")) * rng.standard_normal((rng.integers(8, 20), STEP))).astype(np.float32)
        for utt, name in recipe.classes.items()
    }
    dump = Path("dump") / feature_name(read_system("conf/toy/heard.yaml").feature)
    dump.mkdir()
    with kaldiio.WriteHelper(f"ark,scp:{dump}/feats.ark,{dump}/feats.scp") as writer:
        for utt, matrix in recipe.matrices.items():
            writer(utt, matrix)
    (dump / "utt2num_frames").write_text("".join(f"{utt} {len(matrix)}\n" for utt, matrix in recipe.matrices.items()))
    recipe.seal(dump, "samples")
    return recipe


class Interruption(BaseException):
    """Ends a training at once, as a kill does."""


# 28 utterances: 4 batches of an epoch, in steps of 3 and 1; then 2 of the development part
@pytest.mark.parametrize(("calls", "again"), [(2, 12), (4, 9), (9, 6), (10, 3), (12, 2)])
@pytest.mark.parametrize("lora", [None, 2])
def test_going_on_ends_in_the_same_bytes(heard, monkeypatch, calls, again, lora):
    """Also from within a step, whose batches are then read again. calls: of forward, the last of which fails."""
    undisturbed, folder = (heard.lay_out(name, system="heard", model={"lora_rank": lora}) for name in ("whole", "run"))
    train(undisturbed, "cpu")
    own, seen = networks.forward, []

    def forward(network, batch, precision):
        seen.append(batch.utts)
        if len(seen) == calls:
            raise Interruption
        return own(network, batch, precision)

    with monkeypatch.context() as patch:
        patch.setattr(networks, "forward", forward)
        with pytest.raises(Interruption):
            train(folder, "cpu", checkpoint_seconds=0)
        torch.rand(7)  # another process has other random numbers
        seen.clear()
        seen += [[]] * 100
        train(folder, "cpu", checkpoint_seconds=0)
    assert len(seen) - 100 == again
    for name in ("best", "last"):
        assert (folder / f"{name}.safetensors").read_bytes() == (undisturbed / f"{name}.safetensors").read_bytes()
    one, other = (
        [json.loads(line) | {"seconds": 0} for line in (place / "epochs.jsonl").read_text().splitlines()]
        for place in (folder, undisturbed)
    )
    assert one == other


def test_a_run_is_enough_to_predict_as_long_as_the_encoder_is_found(heard, saved, tmp_path):
    encoder = tmp_path / "moved"
    shutil.copytree(saved["whisper"][0], encoder)
    folder = heard.lay_out("run", system="heard", model={"model": str(encoder)}, epochs=1)
    train(folder, "cpu")
    copy = shutil.copytree(folder, tmp_path / "copy")
    utt = heard.part("test")[0]
    network, _, _ = networks.trained(read_run(folder))
    frames = torch.from_numpy(heard.matrices[utt])[None]
    with torch.inference_mode():
        expected = network(frames, torch.tensor([frames.shape[1]]))[0].softmax(1)[0]
    predicted = ser.load(copy, "cpu").predict(heard.matrices[utt].flatten(), 16000)
    assert list(predicted.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-5)
    shutil.rmtree(encoder)
    with pytest.raises(UserError, match=r"moved: not a folder here or in .*; link a folder that has config.json"):
        ser.load(copy, "cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"feature": {"hop_length": 160}},
            r"feature\.hop_length: 160; for model.kind: finetune write feature: {kind: samples, ",
        ),
        (
            {"feature": {"segment_length": 640}},
            r"feature\.segment_length: 640; .*segment_length: 320, hop_length: 320}$",
        ),
        ({"feature": {"sample_rate": 8000}}, r"feature\.sample_rate: 8000; .*sample_rate: 16000"),
        ({"normalisation": "global"}, "normalisation: global; write none, since"),
        ({"model": {"layers": [1, 1]}}, "model: layers: one is there twice; remove it"),
    ],
)
def test_what_does_not_fit_is_an_error_of_the_system_file(heard, changes, message):
    content = heard.yaml.safe_load(Path("conf/toy/heard.yaml").read_text())
    for section, change in changes.items():
        content[section] = content[section] | change if isinstance(change, dict) else change
    heard.write_yaml("conf/toy/heard.yaml", **content)
    with pytest.raises(UserError, match=r"^conf/toy/heard\.yaml: " + message.replace("{", r"\{")):
        read_system("conf/toy/heard.yaml")


def test_another_feature_is_an_error_of_the_system_file(heard):
    content = heard.yaml.safe_load(Path("conf/toy/tiny.yaml").read_text())
    content["model"] = heard.yaml.safe_load(Path("conf/toy/heard.yaml").read_text())["model"]
    heard.write_yaml("conf/toy/heard.yaml", **content)
    with pytest.raises(
        UserError, match=r"^conf/toy/heard\.yaml: feature\.kind: logmel; for model\.kind: finetune write "
    ):
        read_system("conf/toy/heard.yaml")


def test_errors_of_the_network(saved, monkeypatch):
    whisper = saved["whisper"]
    with pytest.raises(UserError, match=r"model\.layers: .* has the layers 0 to 2, but not 3"):
        built(whisper, layers=[3])
    with pytest.raises(UserError, match=r"model\.kind: finetune: 40 values per frame; write feature: {kind: samples"):
        Network(config_of(whisper), 40, CLASSES)
    with pytest.raises(UserError, match=r"checksum .*; give the same model, or write `weights: "):
        built((whisper[0], "0" * 32))
    with pytest.raises(UserError, match=r"an utterance of 30\.0 s, .*; write `longest: 30` under feature"):
        built(whisper)(torch.zeros(1, 1501, STEP), torch.tensor([1501]))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"model\.lora_rank: LoRA needs peft, .*; run: pip install peft"):
        built(whisper, lora_rank=2)
    built(whisper)


def test_lora_that_would_have_no_effect_is_refused(tmp_path, saved):
    """WavLM takes the weights of its projections itself, past LoRA; below the first layer there is no attention."""
    wavlm = save_wav2vec2(tmp_path / "wavlm", "WavLM")
    with pytest.raises(UserError, match=r"model\.lora_rank: the states of \[0, 1, 2\] .*; leave it out"):
        built(wavlm, lora_rank=2)
    with pytest.raises(UserError, match=r"model\.lora_rank: the states of \[0\] .*; leave it out"):
        built(saved["whisper"], lora_rank=2, layers=[0])


def test_whispers_input_is_exact_in_mixed_precision(saved):
    network, (wave,) = built(saved["whisper"]), waves_of([50])
    heard = []
    network.encoder.network.conv1.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    for precision in ("float32", "bfloat16"):
        networks.forward(network, batch_of([wave]), precision)
    assert heard[0].dtype is torch.float32
    assert torch.equal(*heard)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["whisper", "wav2vec2"])
def test_a_gpu_gives_the_same(saved, kind):
    found = []
    for device in ("cpu", "cuda"):
        network, batch = built(saved[kind]).to(device), batch_of(waves_of(LENGTHS))
        batch = replace(batch, **{name: getattr(batch, name).to(device) for name in ("frames", "lengths", "targets")})
        backward(network, batch)
        found.append(gradients(network))
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name].cpu(), grad, rtol=1e-2, atol=1e-4)
