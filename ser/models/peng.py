"""Peng et al. 2021, "Efficient speech emotion recognition using multi-scale CNN and attention": convolutions of
several widths over frames and over words, statistical pooling of each over time, and attention from the audio
statistics to the words. Each part can be left out (Tables 1 and 2)."""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ser.functionals import pool_each
from ser.layers import Dropout, mask, masked_softmax
from ser.settings import Positive, Share, strict

Pooling = Literal["max", "mean", "deviation"]


@dataclass(config=strict, frozen=True, kw_only=True)
class Config:
    """audio_kernels, text_kernels: widths, in frames and in words; if empty, that modality is not used. filters: per
    width. audio_pooling, text_pooling: the statistical pooling unit (section 3.2). words: the table of transcripts
    to read. swem: pool the word vectors themselves, too (section 3.4). attention: section 3.3. reduced_size: of
    the layer before the output.
    """

    audio_kernels: list[Positive]
    audio_pooling: list[Pooling]
    xvectors: bool
    text_kernels: list[Positive]
    text_pooling: list[Pooling]
    words: Literal["text", "text_asr"] | None
    word_size: Positive
    swem: bool
    attention: bool
    filters: Positive
    reduced_size: Positive
    dropout: Share

    def __post_init__(self) -> None:
        if not self.audio_kernels and not self.text_kernels:
            raise ValueError("audio_kernels and text_kernels are both empty; give at least one of them")
        for side in ("audio", "text"):
            if bool(getattr(self, f"{side}_kernels")) != bool(getattr(self, f"{side}_pooling")):
                raise ValueError(f"{side}_pooling: required with {side}_kernels, and not allowed without")
        if bool(self.text_kernels) != bool(self.words):
            raise ValueError("words: required with text_kernels, and not allowed without")
        if self.swem and not self.words:
            raise ValueError("swem: needs words; set swem: false, or words to a table")
        if self.attention and len(self.audio_kernels) != len(self.text_kernels):
            raise ValueError("attention: needs as many audio_kernels as text_kernels")

    @property
    def extras(self) -> tuple[str, ...]:
        """Inputs besides frames."""
        return ("words",) * bool(self.words) + ("xvectors",) * self.xvectors


class Network(nn.Module):
    """frames (B, T, D), lengths (B,), words (B, M), n_words (B,), xvectors (B, X), as far as the settings use
    them -> class scores (B, classes), and no penalty."""

    def __init__(
        self,
        config: Config,
        n_features: int,
        n_classes: int,
        vocabulary_size: int = 0,
        xvector_size: int = 0,
    ) -> None:
        super().__init__()
        self.config = config
        n_audio, n_text = (config.filters * len(kernels) for kernels in (config.audio_kernels, config.text_kernels))
        self.audio = MultiScale(n_features, config.audio_kernels, config.filters)
        size = n_audio * len(config.audio_pooling) + xvector_size * config.xvectors
        if config.words:
            self.words = nn.Embedding(vocabulary_size, config.word_size)
            self.text = MultiScale(config.word_size, config.text_kernels, config.filters)
            size += n_text * len(config.text_pooling) + 2 * config.word_size * config.swem
            size += n_text * len(config.audio_pooling) * config.attention
        if config.xvectors:  # ser.inputs.start sets them
            self.register_buffer("xvector_mean", torch.zeros(xvector_size))
            self.register_buffer("xvector_deviation", torch.ones(xvector_size))
        self.dropout = Dropout(config.dropout)
        self.reduce = nn.Linear(size, config.reduced_size)
        self.output = nn.Linear(config.reduced_size, n_classes)

    def forward(
        self,
        frames: Tensor,
        lengths: Tensor,
        words: Tensor | None = None,
        n_words: Tensor | None = None,
        xvectors: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        config, parts = self.config, []
        if config.audio_kernels:
            parts.append(pool_each(self.audio(frames, lengths), lengths, config.audio_pooling))
        contexts = parts[0] if parts else None
        if config.xvectors:
            parts.append((xvectors - self.xvector_mean) / self.xvector_deviation)
        if config.words:
            vectors = self.words(words)
            maps = self.text(vectors, n_words).float()
            parts.append(pool_each(maps, n_words, config.text_pooling))
            if config.swem:
                parts.append(pool_each(vectors, n_words, ["max", "mean"]))
            if config.attention:
                parts.append(self.attend(contexts, maps, n_words)[1])
        reduced = F.relu(self.reduce(self.dropout(torch.cat(parts, 1))))
        return self.output(self.dropout(reduced)), frames.new_zeros(())

    def attend(self, contexts: Tensor, maps: Tensor, n_words: Tensor) -> tuple[Tensor, Tensor]:
        """Equations 4 to 6, in float32: the weights (B, poolings, M) of the text maps (B, M, filters), and the
        weighted sums (B, poolings * filters). contexts (B, poolings * filters): the audio statistics."""
        with torch.autocast(maps.device.type, enabled=False):
            contexts = contexts.unflatten(1, (len(self.config.audio_pooling), -1))
            scores = contexts @ maps.transpose(1, 2)
            weights = torch.stack([masked_softmax(of_one, n_words) for of_one in scores.unbind(1)], 1)
            return weights, (weights @ maps).flatten(1)

    def word_weights(
        self, frames: Tensor, lengths: Tensor, words: Tensor, n_words: Tensor, **_: Tensor
    ) -> dict[str, Tensor]:
        """The weight (B, M) of each word, for each audio statistic that attends to it; {} without attention."""
        if not self.config.attention:
            return {}
        contexts = pool_each(self.audio(frames, lengths), lengths, self.config.audio_pooling)
        maps = self.text(self.words(words), n_words).float()
        weights, _ = self.attend(contexts, maps, n_words)
        return dict(zip(self.config.audio_pooling, weights.unbind(1), strict=True))


class MultiScale(nn.Module):
    """Section 3.1, equations 1 and 2: steps (B, T, D), lengths (B,) -> (B, T, filters of all widths); steps in
    the padding are meaningless. The input is zero-padded to keep its length."""

    def __init__(self, size: int, kernels: list[int], filters: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(size, filters, kernel, padding="same") for kernel in kernels)

    def forward(self, steps: Tensor, lengths: Tensor) -> Tensor:
        outside = ~mask(lengths, steps.shape[1])[:, :, None]
        steps = steps.masked_fill(outside, 0).transpose(1, 2)
        return torch.cat([F.relu(convolution(steps)) for convolution in self.convolutions], 1).transpose(1, 2)
