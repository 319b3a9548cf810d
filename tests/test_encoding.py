"""Pretrained encoders on padded batches, against transformers' own forward, and against each utterance alone."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import transformers

from ser import encoders
from ser.cli import UserError
from ser.encoding import SHORTEST, Encoder

SMALL = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "conv_dim": [8, 8, 8, 8, 8, 8, 8],
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "num_feat_extract_layers": 7,
}  # fmt: skip
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
KINDS = {
    "wav2vec2": (transformers.Wav2Vec2Config, transformers.Wav2Vec2Model, {}, True),
    "wav2vec2 large": (transformers.Wav2Vec2Config, transformers.Wav2Vec2Model, LAYER_NORM, True),
    "hubert": (transformers.HubertConfig, transformers.HubertModel, {}, False),
    "hubert large": (transformers.HubertConfig, transformers.HubertModel, LAYER_NORM, True),
    "wavlm": (transformers.WavLMConfig, transformers.WavLMModel, {"num_buckets": 8, "max_bucket_distance": 20}, False),
    "wavlm large": (transformers.WavLMConfig, transformers.WavLMModel, {**LAYER_NORM, "num_buckets": 8}, True),
    "data2vec": (transformers.Data2VecAudioConfig, transformers.Data2VecAudioModel, {"conv_pos_kernel_size": 3}, False),
    "w2v-bert": (
        transformers.Wav2Vec2BertConfig,
        transformers.Wav2Vec2BertModel,
        {"feature_projection_input_dim": 160, "left_max_position_embeddings": 8, "right_max_position_embeddings": 4},
        False,
    ),
}


@dataclass
class Settings:
    model: str
    weights: str = "0" * 32
    revision: str | None = None


def opened(folder):
    """The encoder in a folder, by its own checksum."""
    network, extractor = encoders.load(folder)
    return Encoder(Settings(str(folder), encoders.checksum(folder, network.config, extractor)))


@pytest.fixture(scope="module", params=KINDS)
def written(request, tmp_path_factory):
    """A small random encoder of each kind: its folder, transformers' model and extractor."""
    config_type, model_type, more, normalises = KINDS[request.param]
    torch.manual_seed(0)
    known = {name: value for name, value in SMALL.items() if not request.param.startswith("w2v") or "conv" not in name}
    model = model_type(config_type(**known, **more, apply_spec_augment=True)).eval()
    for weight in model.parameters():  # biases are 0 at first, and then padding would be harmless
        torch.nn.init.normal_(weight, std=0.2)
    if request.param == "w2v-bert":
        extractor = transformers.SeamlessM4TFeatureExtractor()
    else:
        extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalises, return_attention_mask=True)
    folder = tmp_path_factory.mktemp("models") / "small"
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder, model, extractor


def noise(*lengths):
    rng = np.random.default_rng(1)
    return [(rng.normal(0.01, 0.1, n) * np.linspace(0.1, 1, n)).astype(np.float32) for n in lengths]


def padded(waves):
    lengths = torch.tensor([len(wave) for wave in waves])
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(wave) for wave in waves], batch_first=True), lengths


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # of transformers' own call
@torch.no_grad()
def test_an_utterance_gets_what_transformers_computes(written):
    folder, model, extractor = written
    (wave,) = noise(9000)
    found = model(**extractor(wave, sampling_rate=16000, return_tensors="pt"), output_hidden_states=True)
    theirs = (*found.hidden_states[:-1], found.last_hidden_state)
    ours, steps = opened(folder)(*padded([wave]))
    assert len(ours) == len(theirs) == 3
    assert steps.tolist() == [theirs[0].shape[1]]
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, other, atol=2e-5)


@torch.no_grad()
def test_a_batch_gives_what_each_utterance_gives_alone(written):
    encoder = opened(written[0])
    waves = noise(16000, 9111, SHORTEST, 12345)
    states, steps = encoder(*padded(waves))
    for row, wave in enumerate(waves):
        alone, own = encoder(*padded([wave]))
        assert own.tolist() == [steps[row]]
        for mine, other in zip(states, alone, strict=True):
            assert torch.allclose(mine[row, : own[0]], other[0, : own[0]], atol=2e-5)


@torch.no_grad()
def test_encoders_that_may_not_be_padded_are_changed_by_padding(written):
    """Otherwise `may_pad` would be too careful."""
    encoder = opened(written[0])
    if encoder.may_pad:
        return
    waves = noise(16000, 9111)
    encoder.may_pad = True
    states, steps = encoder(*padded(waves))
    alone, _ = encoder(*padded(waves[1:]))
    assert not torch.allclose(states[-1][1, : steps[1]], alone[-1][0], atol=1e-3)


def test_training_draws_nothing_and_skips_no_layer(written):
    """SpecAugment would draw from numpy's generator, which a checkpoint does not hold."""
    config = opened(written[0]).network.config
    assert (config.apply_spec_augment, config.layerdrop) == (False, 0.0)


@torch.no_grad()
def test_whisper_alone_is_transformers_without_padding(tiny_encoder):
    """Its mel frames, and its own forward on 30 s with the positions and frames beyond the utterance left out."""
    encoder = opened(tiny_encoder)
    (wave,) = noise(16123)
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(tiny_encoder)
    mel = extractor(wave, sampling_rate=16000, return_tensors="pt", padding=False).input_features
    assert torch.allclose(encoder._log_mel(torch.tensor(wave)), mel[0], atol=1e-4)

    states, steps = encoder(*padded([wave]))
    assert steps.tolist() == [50]  # 100 frames of 10 ms
    network = encoder.network
    full = network.embed_positions.weight.data
    network.config.max_source_positions = 50
    network.embed_positions = torch.nn.Embedding.from_pretrained(full[:50])
    theirs = network(mel, output_hidden_states=True).hidden_states
    for mine, other in zip(states, theirs, strict=True):
        assert torch.allclose(mine, other, atol=1e-4)


@torch.no_grad()
def test_whisper_of_thirty_seconds_is_transformers(tiny_encoder):
    encoder = opened(tiny_encoder)
    (wave,) = noise(480000)
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(tiny_encoder)
    theirs = encoder.network(
        extractor(wave, sampling_rate=16000, return_tensors="pt").input_features, output_hidden_states=True
    ).hidden_states
    states, steps = encoder(*padded([wave]))
    assert steps.tolist() == [1500]
    for mine, other in zip(states, theirs, strict=True):
        assert torch.allclose(mine, other, atol=1e-3)


@torch.no_grad()
def test_whisper_batch_gives_what_each_utterance_gives_alone(tiny_encoder):
    encoder = opened(tiny_encoder)
    waves = noise(16000, 9111, SHORTEST, 12345)  # an odd number of mel frames among them
    states, steps = encoder(*padded(waves))
    for row, wave in enumerate(waves):
        alone, own = encoder(*padded([wave]))
        assert own.tolist() == [steps[row]]
        for mine, other in zip(states, alone, strict=True):
            assert torch.allclose(mine[row, : own[0]], other[0], atol=1e-5)


def test_other_weights_are_refused(tiny_encoder):
    with pytest.raises(UserError, match=r"its weights have the checksum [0-9a-f]{32}, but the system says 0000"):
        Encoder(Settings(str(tiny_encoder)))
