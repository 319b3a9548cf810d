"""A pretrained speech encoder (ser.encoding) that is trained further for emotions, all of it or only LoRA's small
matrices (Hu et al. 2022, "LoRA: Low-rank adaptation of large language models"), and the classifier of ser.heads."""

import re
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ser.cli import UserError
from ser.encoders import LONGEST, RATE
from ser.encoding import SHORTEST, Encoder
from ser.heads import Head, Pooling
from ser.settings import Checksum, Layers, Positive, PositiveFloat, Share, strict

if TYPE_CHECKING:
    from ser.config import System

STEP = 320  # samples in a row of the feature: 20 ms, as from one frame of an encoder to the next
FEATURE = {"kind": "samples", "sample_rate": RATE, "segment_length": STEP, "hop_length": STEP}
WANTED = f"feature: {{{', '.join(f'{key}: {value}' for key, value in FEATURE.items())}}}"
# of queries and values: of all encoders but w2v-BERT, and of w2v-BERT
ADAPTED = r".*\.(q_proj|v_proj|linear_q|linear_v)"


@dataclass(config=strict, frozen=True, kw_only=True)
class Config:
    """model: a folder, or a name on Hugging Face's hub; revision: of the hub; weights: the checksum that names the
    encoder, which `python -m ser.encoders MODEL` prints. layers: whose states the classifier gets; 0 is the input of
    the first layer. projection, pooling, dropout: of the classifier (ser.heads); dropout inside the encoder is that of
    its own config.json.

    frozen_stem: whether the convolutions below the first layer keep their weights. lora_rank: rank of the matrices that
    are trained in place of the encoder's weights, beside the projections of queries and values in every attention;
    null: the encoder's weights are trained. lora_alpha: their product is multiplied by lora_alpha / lora_rank.

    encoder_rate: learning rate of the encoder, as a factor of that of the classifier, for the highest of `layers`.
    layer_decay: factor from each layer to the one below, and from the first layer to what is below it. checkpointing:
    whether the states inside a layer are computed again in the backward pass, which takes less memory and more time.
    """

    model: str
    revision: str | None = None
    weights: Checksum
    layers: Layers
    projection: Positive
    pooling: Pooling
    dropout: Share
    frozen_stem: bool = True
    lora_rank: Positive | None = None
    lora_alpha: PositiveFloat = 16.0
    encoder_rate: PositiveFloat = 1.0
    layer_decay: Annotated[PositiveFloat, Field(le=1)] = 1.0
    checkpointing: bool = False

    def __post_init__(self) -> None:
        if len(set(self.layers)) < len(self.layers):
            raise ValueError("layers: one is there twice; remove it")


def check_system(system: "System") -> None:
    """Raise ValueError if the feature is not a recording cut into rows, which the network puts together again."""
    kind = type(system.feature).__module__.rpartition(".")[2]
    for key, value in FEATURE.items():
        found = kind if key == "kind" else getattr(system.feature, key, "missing")
        if found != value:
            raise ValueError(f"feature.{key}: {found}; for model.kind: finetune write {WANTED}")
    if system.normalisation != "none":
        raise ValueError(
            f"normalisation: {system.normalisation}; write none, since the encoder wants samples as they are"
        )


class Network(nn.Module):
    """frames (B, T, 320), a recording cut into rows of 20 ms, and lengths (B,) -> class scores (B, classes) and no
    penalty.

    An utterance ends in the zeros of its last row, and is at least 40 ms long with zeros. What no state in
    `config.layers` depends on is not trained. The weights of a run include the encoder's; ser.encoders must still find
    the model, whose config.json says how it is built. Raises UserError if the encoder is not the one in the Config, or
    if LoRA is not installed or not possible with it.
    """

    def __init__(self, config: Config, n_features: int, n_classes: int) -> None:
        super().__init__()
        if n_features != STEP:
            raise UserError(f"model.kind: finetune: {n_features} values per frame; write {WANTED}")
        self.config = config
        self.encoder = Encoder(config)
        depth, top = self.encoder.depth, max(config.layers)
        if top > depth:
            raise UserError(f"model.layers: {config.model} has the layers 0 to {depth}, but not {top}")
        self.head = Head(
            len(config.layers), self.encoder.width, config.projection, config.pooling, config.dropout, n_classes
        )
        if config.lora_rank or config.frozen_stem:
            freeze_stem(self.encoder)
        if config.lora_rank:
            add_lora(self.encoder.network, config.lora_rank, config.lora_alpha)
        if config.checkpointing:
            self.encoder.network.activation_checkpointing_enable({"use_reentrant": False})
        self.first_states = first_states(self.encoder, top)
        for name, parameter in self.encoder.named_parameters():
            parameter.requires_grad_(name in self.first_states)
        if config.lora_rank and not self.first_states:
            raise UserError(
                f"model.lora_rank: the states of {config.layers} of {config.model} do not depend on projections of "
                "queries and values that LoRA can change; leave it out"
            )

    @property
    def output(self) -> nn.Linear:
        return self.head.output

    def rates(self) -> dict[str, float]:
        """Factor of the learning rate of each trained parameter of the encoder, by name."""
        top = max(self.config.layers)
        return {
            f"encoder.{name}": self.config.encoder_rate * self.config.layer_decay ** (top - state)
            for name, state in self.first_states.items()
        }

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        if frames.shape[1] * STEP > LONGEST * RATE:
            raise UserError(
                f"an utterance of {frames.shape[1] * STEP / RATE:.1f} s, but encoders hear {LONGEST:g} s; write "
                f"`longest: {LONGEST:g}` under feature, and longer ones are cut at the end"
            )
        shortest = SHORTEST // STEP
        waves = nn.functional.pad(frames.flatten(1), (0, max(shortest - frames.shape[1], 0) * STEP))
        states, steps = self.encoder(waves, lengths.clamp(min=shortest) * STEP)
        scores = self.head(torch.stack([states[layer] for layer in self.config.layers], 2), steps)
        return scores, scores.new_zeros(())


def freeze_stem(encoder: Encoder) -> None:
    """Keep the weights of the convolutions below the first layer as they are. w2v-BERT has none."""
    network = encoder.network
    if encoder.kind == "whisper":
        network.conv1.requires_grad_(False)
        network.conv2.requires_grad_(False)
    elif hasattr(network, "feature_extractor"):
        network.feature_extractor._freeze_parameters()  # which also saves the backward pass


def add_lora(network: nn.Module, rank: int, alpha: float) -> None:
    """Freeze an encoder, and add LoRA to the projections of queries and values in its attention layers; at the start it
    changes nothing. Raises UserError if peft is not installed."""
    try:
        import peft
    except ImportError:
        raise UserError("model.lora_rank: LoRA needs peft, which is not installed; run: pip install peft") from None
    if not any(re.fullmatch(ADAPTED, name) for name, _ in network.named_modules()):
        raise UserError("model.lora_rank: this encoder's attention is not known to LoRA here; leave it out")
    network.requires_grad_(False)
    peft.inject_adapter_in_model(peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=ADAPTED), network)


def first_states(encoder: Encoder, top: int) -> dict[str, int]:
    """For each parameter that has a gradient, the first of the states 0 to `top` that depends on it. Those that no
    state depends on are left out."""
    device = next(encoder.parameters()).device
    waves = torch.linspace(-0.5, 0.5, SHORTEST, device=device)[None]
    left = {name: parameter for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    found: dict[str, int] = {}
    with torch.enable_grad():
        states, _ = encoder(waves, torch.tensor([SHORTEST], device=device))
        for number, state in enumerate(states[: top + 1]):
            if left and state.requires_grad:
                gradients = torch.autograd.grad(state.sum(), list(left.values()), retain_graph=True, allow_unused=True)
                found |= {name: number for name, grad in zip(left, gradients, strict=True) if grad is not None}
                left = {name: parameter for name, parameter in left.items() if name not in found}
    return found
