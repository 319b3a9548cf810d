"""CPU seconds per training step of fine-tuning: ours, and what one writes with transformers in plain PyTorch.

A step is forward, backward and Adam, with the convolutions frozen, in float32. ours: ser.models.finetune, used as in the
training loop, from utterances cut into rows to the update. The others start from the same utterances in memory, and use
nothing of ser; the optimiser is the same fused one. All run in one process and alternate at each step, so that other
load on the machine affects all alike. Times are CPU times, summed over threads, and medians of the steps.

whisper   plain, 30 s: transformers' extractor and encoder, which take nothing shorter: utterances are padded to 30 s.
          plain, cut: the same layers called one by one, on the utterances alone, with the first positions.
wav2vec2  plain: transformers' extractor and model, on padded utterances of unequal lengths with their attention mask.

The weights are random, in the shape of Whisper tiny, and as many layers of the same width for wav2vec 2.0. Before timing,
`cut` and the plain wav2vec2 get the classifier's weights from ours, and must give the same scores and gradients. Whisper's
utterances are of one length, so that `cut` needs no masks; ours looks for padding and finds none. With --lora ours trains
LoRA of rank 8 instead; the plain versions, which have none, then train all layers, and gradients are not compared.

    . ./path.sh; python tests/benchmarks/finetune.py --threads 1
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from ser import encoders, networks
from ser.batches import Batch, stack
from ser.config import Training
from ser.models.finetune import STEP, Config, Network

CLASSES, PROJECTION = 7, 256
TRAINING = Training(epochs=1, batch_size=1, learning_rate=1e-4)


class Plain(nn.Module):
    """An encoder of transformers, and a classifier on its layers. encode: utterances -> states of the layers (B, T, width),
    and number of frames of each utterance (B,)."""

    def __init__(self, encoder: Any, encode: Callable[[Any, list[np.ndarray]], tuple[Any, Tensor]]) -> None:
        super().__init__()
        self.encoder, self.encode = encoder, encode
        width = encoder.config.hidden_size
        self.layer_scores = nn.Parameter(torch.zeros(encoder.config.num_hidden_layers + 1))
        self.projection = nn.Linear(width, PROJECTION)
        self.output = nn.Linear(PROJECTION, CLASSES)

    def forward(self, waves: list[np.ndarray]) -> Tensor:
        states, lengths = self.encode(self.encoder, waves)
        mixed = sum(w * state for w, state in zip(self.layer_scores.softmax(0), states, strict=True))
        inside = torch.arange(mixed.shape[1]) < lengths[:, None]
        pooled = (self.projection(mixed) * inside[:, :, None]).sum(1) / lengths[:, None]
        return self.output(pooled)


def whisper_padded(extractor: Any) -> Callable[[Any, list[np.ndarray]], tuple[Any, Tensor]]:
    def encode(encoder: Any, waves: list[np.ndarray]) -> tuple[Any, Tensor]:
        mels = extractor(waves, sampling_rate=16000, return_tensors="pt").input_features
        states = encoder(mels, output_hidden_states=True).hidden_states
        return states, torch.tensor([len(wave) // STEP for wave in waves])

    return encode


def whisper_cut(extractor: Any) -> Callable[[Any, list[np.ndarray]], tuple[Any, Tensor]]:
    def encode(encoder: Any, waves: list[np.ndarray]) -> tuple[Any, Tensor]:
        mels = extractor(waves, sampling_rate=16000, return_tensors="pt", padding="longest").input_features
        state = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mels)))).transpose(1, 2)
        states = [state + encoder.embed_positions.weight[: state.shape[1]]]
        for layer in encoder.layers:
            states.append(layer(states[-1], None))
        states[-1] = encoder.layer_norm(states[-1])
        return states, torch.full((len(waves),), state.shape[1])

    return encode


def wav2vec2(extractor: Any) -> Callable[[Any, list[np.ndarray]], tuple[Any, Tensor]]:
    def encode(encoder: Any, waves: list[np.ndarray]) -> tuple[Any, Tensor]:
        inputs = extractor(waves, sampling_rate=16000, return_tensors="pt", padding=True)
        lengths = encoder._get_feat_extract_output_lengths(inputs.attention_mask.sum(1))
        return encoder(**inputs, output_hidden_states=True).hidden_states, lengths

    return encode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8, help="utterances (default 8)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of the longest utterance (default 4)")
    parser.add_argument("--steps", type=int, default=5, help="steps timed, after one that is not (default 5)")
    parser.add_argument("--threads", type=int, help="processor cores (default: torch's)")
    parser.add_argument("--lora", action="store_true", help="ours trains LoRA of rank 8")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    print(
        f"{args.batch} utterances of up to {args.seconds} s, threads: {torch.get_num_threads()}, median of {args.steps}"
    )
    print(f"{'encoder':9} {'way':12} {'s/step':>7}  times ours: of the medians, and of the single steps")
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("whisper", "wav2vec2"):
            measure(kind, Path(folder) / kind, args)


def measure(kind: str, folder: Path, args: argparse.Namespace) -> None:
    """Print the seconds of a step of each version."""
    torch.manual_seed(0)
    save(kind, folder)
    encoder, extractor = encoders.load(folder)
    config = Config(
        model=str(folder), weights=encoders.checksum(folder, encoder.config, extractor), layers=[0, 1, 2, 3, 4],
        projection=PROJECTION, pooling="mean", dropout=0.0, lora_rank=8 if args.lora else None,
    )  # fmt: skip
    ours = Network(config, STEP, CLASSES).train()
    ways = {"plain, 30 s": whisper_padded, "plain, cut": whisper_cut} if kind == "whisper" else {"plain": wav2vec2}
    plain = {way: plain_network(kind, folder, make(extractor)) for way, make in ways.items()}
    rng = np.random.default_rng(0)
    longest = round(args.seconds * 16000) // STEP
    lengths = [longest if kind == "whisper" else longest - place * longest // 16 for place in range(args.batch)]
    waves = [(0.1 * rng.standard_normal(length * STEP)).astype(np.float32) for length in lengths]
    check_same(ours, plain[list(ways)[-1]], waves, gradients=not args.lora)

    optimisers = {
        way: networks.optimiser(TRAINING, [p for p in network.parameters() if p.requires_grad])
        for way, network in plain.items()
    }
    optimisers["ours"] = networks.optimiser(TRAINING, networks.groups(ours, TRAINING.learning_rate))
    seconds: dict[str, list[float]] = {way: [] for way in ("ours", *plain)}
    targets = torch.arange(len(waves)) % CLASSES
    for _ in range(args.steps + 1):
        for way, spent in seconds.items():
            started = time.process_time()
            optimisers[way].zero_grad()
            if way == "ours":
                logs, penalty = networks.forward(ours, batch_of(waves), "float32")
                loss = F.nll_loss(logs, targets) + penalty
            else:
                loss = F.cross_entropy(plain[way](waves), targets)
            loss.backward()
            optimisers[way].step()
            spent.append(time.process_time() - started)
    own = seconds["ours"][1:]
    for way, spent in seconds.items():
        ratios = [theirs / mine for theirs, mine in zip(spent[1:], own, strict=True)]
        line = f"{kind:9} {way:12} {median(spent[1:]):7.3f}"
        print(
            line
            if way == "ours"
            else f"{line}  {median(spent[1:]) / median(own):.2f}, {min(ratios):.2f} to {max(ratios):.2f}",
            flush=True,
        )


def save(kind: str, folder: Path) -> None:
    """Write an encoder with random weights."""
    if kind == "whisper":
        config = transformers.WhisperConfig(  # the encoder of tiny; no more of a decoder than must be
            d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536, num_mel_bins=80, vocab_size=60,
            decoder_layers=1, decoder_attention_heads=6, decoder_ffn_dim=64, pad_token_id=1, bos_token_id=1, eos_token_id=1,
            decoder_start_token_id=1,
        )  # fmt: skip
        transformers.WhisperModel(config).save_pretrained(folder)
        transformers.WhisperFeatureExtractor().save_pretrained(folder)
        return
    # ours never applies SpecAugment nor skips layers; dropout would hide whether the results are the same
    off = dict.fromkeys(
        ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "layerdrop"), 0.0
    )
    config = transformers.Wav2Vec2Config(
        hidden_size=384, num_hidden_layers=4, num_attention_heads=6, intermediate_size=1536, feat_extract_norm="layer",
        conv_dim=[128] * 7, apply_spec_augment=False, **off,
    )  # fmt: skip
    transformers.Wav2Vec2Model(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)


def plain_network(kind: str, folder: Path, encode: Callable[[Any, list[np.ndarray]], tuple[Any, Tensor]]) -> Plain:
    """A plain version, with the same weights of the encoder, and its convolutions frozen."""
    if kind == "whisper":
        encoder = transformers.WhisperModel.from_pretrained(folder).encoder
        for part in (encoder.conv1, encoder.conv2, encoder.embed_positions):
            part.requires_grad_(False)
    else:
        encoder = transformers.Wav2Vec2Model.from_pretrained(folder)
        encoder.freeze_feature_encoder()
    return Plain(encoder, encode).train()


def batch_of(waves: list[np.ndarray]) -> Batch:
    """The batch that ours reads."""
    return stack(
        [str(place) for place in range(len(waves))], [wave.reshape(-1, STEP) for wave in waves], [0] * len(waves), {}
    )


def check_same(ours: Network, plain: Plain, waves: list[np.ndarray], gradients: bool) -> None:
    """Raise AssertionError if ours and plain with the same weights give different scores or gradients."""
    plain.load_state_dict(ours.head.state_dict(), strict=False)
    scores, _ = ours(batch_of(waves).frames, batch_of(waves).lengths)
    theirs = plain(waves)
    torch.testing.assert_close(theirs, scores, rtol=1e-3, atol=1e-4)
    if not gradients:
        return
    targets = torch.arange(len(waves)) % CLASSES
    F.cross_entropy(scores, targets).backward()
    F.cross_entropy(theirs, targets).backward()
    expected = {f"encoder.{name}": parameter.grad for name, parameter in plain.encoder.named_parameters()}
    for name, parameter in ours.encoder.network.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(expected[f"encoder.{name}"], parameter.grad, rtol=1e-2, atol=1e-5)


if __name__ == "__main__":
    main()
