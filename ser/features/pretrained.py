"""The states of a pretrained encoder's layers (Whisper, wav2vec 2.0, HuBERT, WavLM, data2vec, w2v-BERT), which stays as
it is: frames of 20 ms, or their statistics over an utterance."""

import functools
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from ser import functionals
from ser.cli import UserError
from ser.dsp import check_length
from ser.encoders import LONGEST, pieces
from ser.encoding import SHORTEST, Encoder
from ser.settings import Checksum, Layers, PositiveFloat, strict


@dataclass(config=strict, frozen=True, kw_only=True)
class Config:
    """model: a folder, or a name on Hugging Face's hub; revision: of the hub; weights: the checksum that names the
    encoder, which `python -m ser.encoders MODEL` prints.

    layers: 0 is the input of the first layer; their states stand side by side in a frame, in this order. statistics: of
    each value over the utterance, as in ser.functionals; the utterance is then one frame, with all statistics of the
    first layer, then of the second; null: frames of 20 ms. longest: seconds; a longer utterance is cut into equal
    pieces, which the encoder hears one by one; statistics are over all of them.
    """

    sample_rate: Literal[16000] = 16000
    model: str
    revision: str | None = None
    weights: Checksum
    layers: Layers
    statistics: Annotated[list[functionals.Name], Field(min_length=1)] | None = None
    longest: Annotated[PositiveFloat, Field(ge=1, le=LONGEST)] = LONGEST

    def __post_init__(self) -> None:
        if len(set(self.layers)) < len(self.layers):
            raise ValueError("layers: one is there twice; remove it")


def extract(samples: np.ndarray, config: Config) -> np.ndarray:
    """Frames of one utterance, on the CPU.

    samples: (N,) float32 at 16 kHz. Returns (T, layers * width) float32 with T about N / 320, or with `statistics`
    (1, layers * statistics * width). Raises UserError if N is below SHORTEST, the encoder is missing, or it is not the
    one in the Config.
    """
    return extract_many([samples], config, "cpu")[0]


def extract_many(batch: list[np.ndarray], config: Config, device: str) -> list[np.ndarray]:
    """The same for some utterances, in batches on a GPU; each gets what it gets alone.

    device: as torch names it. On a CPU the utterances are encoded one by one, which is as fast, and gives the same
    bytes whatever is beside them.
    """
    for samples in batch:
        check_length(samples, SHORTEST, config.sample_rate)
    encoder = load_encoder(config, device)
    parts = [samples[piece] for samples in batch for piece in pieces(len(samples), config.longest)]
    together = encoder.may_pad and device != "cpu"
    groups = [parts] if together else [[part] for part in parts]
    encoded = [states for group in groups for states in encode(encoder, group, config.layers)]
    found = []
    for samples in batch:
        own = [encoded.pop(0) for _ in pieces(len(samples), config.longest)]
        found.append(summary(torch.cat(own, 1), config).cpu().numpy())
    return found


@torch.inference_mode()
def encode(encoder: Encoder, batch: list[np.ndarray], layers: list[int]) -> list[torch.Tensor]:
    """The states (layers, T, width) of each utterance in a batch."""
    device = next(encoder.parameters()).device
    lengths = torch.tensor([len(samples) for samples in batch], device=device)
    waves = torch.nn.utils.rnn.pad_sequence([torch.tensor(samples) for samples in batch], batch_first=True).to(device)
    states, steps = encoder(waves, lengths)
    chosen = torch.stack([states[layer] for layer in layers], 1)
    return [of_one[:, : int(n)] for of_one, n in zip(chosen, steps, strict=True)]


def summary(states: torch.Tensor, config: Config) -> torch.Tensor:
    """States (layers, T, width) -> frames (T, layers * width), or the statistics (1, layers * statistics * width)."""
    if not config.statistics:
        return states.transpose(0, 1).flatten(1)
    lengths = torch.full((len(states),), states.shape[1], device=states.device)
    return functionals.pool(states, lengths, config.statistics).flatten()[None]


@functools.lru_cache(maxsize=1)
def _load(model: str, revision: str | None, weights: str, device: str) -> Encoder:
    config = Config(model=model, revision=revision, weights=weights, layers=[0])
    return Encoder(config).to(device).requires_grad_(False).eval()


def load_encoder(config: Config, device: str) -> Encoder:
    """The encoder of a Config, read once. Raises UserError if it has not all of `layers`."""
    encoder = _load(config.model, config.revision, config.weights, device)
    if max(config.layers) > encoder.depth:
        raise UserError(
            f"feature.layers: {config.model} has the layers 0 to {encoder.depth}, but not {max(config.layers)}"
        )
    return encoder
