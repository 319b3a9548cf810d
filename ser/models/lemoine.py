"""Le Moine, Obin and Roebel 2021, "Speaker attentive speech emotion recognition": the ACRNN of Chen et al. 2018
("3-D convolutional recurrent neural networks with attention model"), with a regularised output layer, and a
second ACRNN, trained to recognise the speaker, connected to it by self speaker attention.

An utterance is cut into segments, each of which gives an embedding; the embedding of the utterance is their mean,
weighted by length. Since the output layer is linear, the score of the utterance is the mean of the segments' scores,
and the class with the highest score is the one with the highest mean log-posterior. (Chen et al. score each segment
separately and take the maximum.)
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ser.cli import UserError
from ser.layers import keras_init, mask, masked_softmax
from ser.recurrent import BLSTM
from ser.segments import Activation, Segments
from ser.settings import NonNegative, Positive, strict

POOL = 2  # in time and in frequency, after the first convolution
GAP = 2  # steps between the segments of a strip: the reach of a convolution of width 5
SLOPE = 0.01  # of the leaky ReLU below 0, from the code of Chen et al.
Regularisation = Literal["none", "norm", "projection", "penalty", "mean"]


@dataclass(config=strict, frozen=True, kw_only=True)
class Config:
    """segment: length in frames. channels: number of equal parts of a frame that become input channels, such as
    bands, deltas and delta-deltas. maps: output channels of each convolution. hidden_size: of one direction of a
    BLSTM. regularisation: of the output layer, see Output. speaker_weight: weight of the speaker cross-entropy in the
    loss; null: no speaker network, and plain self attention.
    """

    segment: Positive
    channels: Positive
    maps: list[Positive]
    linear_size: Positive
    hidden_size: Positive
    embedding_size: Positive
    regularisation: Regularisation
    speaker_weight: NonNegative | None

    @property
    def extras(self) -> tuple[str, ...]:
        """Inputs besides frames."""
        return ("speakers",) * (self.speaker_weight is not None)

    def __post_init__(self) -> None:
        if not self.maps:
            raise ValueError("maps: is empty; give one value per convolution")


class Network(nn.Module):
    """frames (B, T, D), lengths (B,), speakers (B,) -> class scores (B, classes), and the penalty: that of the output
    layer, plus speaker_weight times the cross-entropy of the speakers who are in the training set."""

    def __init__(self, config: Config, n_features: int, n_classes: int, n_speakers: int = 0) -> None:
        super().__init__()
        self.config = config
        n_states = 2 * config.hidden_size
        self.encoder = Encoder(config, n_features)
        self.attention: nn.Module
        if config.speaker_weight is None:
            self.attention = SelfAttention(n_states)
        else:
            self.speaker_encoder = Encoder(config, n_features)
            self.speaker_attention = SelfAttention(n_states)
            self.speaker_embedding = Embedding(n_states, config.embedding_size)
            self.speaker_output = nn.Linear(config.embedding_size, n_speakers)
            self.attention = SpeakerAttention(n_states, -(-config.segment // POOL))
        self.embedding = Embedding(n_states, config.embedding_size)
        self.output = Output(config.embedding_size, n_classes, config.regularisation)

    def forward(self, frames: Tensor, lengths: Tensor, speakers: Tensor | None = None) -> tuple[Tensor, Tensor]:
        segments = Segments(lengths, self.config.segment, POOL, GAP)
        states, speaker_states = self.read(frames, segments)
        with torch.autocast(frames.device.type, enabled=False):  # cheap, and scores may be close
            if speaker_states is None:
                context = self.attention(states, segments.steps)
            else:
                context = self.attention(states, speaker_states, segments.steps)
            scores, penalty = self.output(segments.mean(self.embedding(context)))
            if speakers is not None and speaker_states is not None:
                context = self.speaker_attention(speaker_states, segments.steps)
                speaker_scores = self.speaker_output(segments.mean(self.speaker_embedding(context)))
                known = speakers >= 0
                loss = F.cross_entropy(speaker_scores[known], speakers[known], reduction="sum") / max(
                    int(known.sum()), 1
                )
                penalty = penalty + self.config.speaker_weight * loss
        return scores, penalty

    def read(self, frames: Tensor, segments: Segments) -> tuple[Tensor, Tensor | None]:
        """States (S, steps, 2H) of the segments, in float32: of the emotion network and of the
        speaker network (None if there is none)."""
        strip = segments.lay(frames)
        states = self.encoder(strip, segments).float()
        if self.config.speaker_weight is None:
            return states, None
        return states, self.speaker_encoder(strip, segments).float()

    def frame_weights(self, frames: Tensor, lengths: Tensor, even: bool = False) -> dict[str, Tensor]:
        """The attention's weights (B, T) of each frame; with speaker attention, the weights
        of the emotion states (alpha_em) and of the speaker states (alpha_sp). A step's weight is split between its two
        frames; an odd last frame is pooled with a zero, which gets the other half."""
        segments = Segments(lengths, self.config.segment, POOL, GAP)
        states, speaker_states = self.read(frames, segments)
        if even:
            states = torch.zeros_like(states)
        with torch.autocast(frames.device.type, enabled=False):  # as in forward
            if speaker_states is None:
                found = {"attention": self.attention.weights(states, segments.steps)}
            else:
                both = self.attention.weights(states, speaker_states, segments.steps)
                found = dict(zip(("self_attention", "speaker_attention"), both.chunk(2, 1), strict=True))
        return {name: segments.of_frames(weights, frames.shape[1]) for name, weights in found.items()}


class Encoder(nn.Module):
    """Convolutions, a linear layer and a BLSTM (section 2.2.1), for all segments of a batch at once.

    The segments are concatenated in a strip, and the gaps between them are set to zero before each convolution, so that
    each segment sees the same zero padding as on its own.
    """

    def __init__(self, config: Config, n_features: int) -> None:
        super().__init__()
        if n_features % config.channels:
            raise UserError(
                f"model.channels: {config.channels} does not divide the {n_features} values of a frame; "
                "it should be one more than the feature's derivatives"
            )
        self.channels = config.channels
        sizes = [config.channels, *config.maps]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(sizes[i], sizes[i + 1], (5, 3), padding=(2, 1)) for i in range(len(config.maps))
        )
        bands = -(-(n_features // config.channels) // POOL)
        self.linear = nn.Linear(bands * sizes[-1], config.linear_size)
        self.blstm = BLSTM(config.linear_size, config.hidden_size)
        self.apply(keras_init)
        for convolution in self.convolutions:  # or six layers would make the activations vanish (He et al. 2015)
            nn.init.kaiming_uniform_(convolution.weight, SLOPE, nonlinearity="leaky_relu")
        self.to(memory_format=torch.channels_last)

    def forward(self, strip: Tensor, segments: Segments) -> Tensor:
        """strip (POOL * steps, D) -> states (S, steps, 2H), zero after the end of a segment."""
        between = segments.between()
        maps = strip.view(1, len(strip), self.channels, -1).transpose(2, 3)  # channels last
        maps = maps.permute(0, 3, 1, 2)
        for number, convolution in enumerate(self.convolutions):
            maps = convolution(maps)
            if number == 0:
                maps = F.max_pool2d(maps, POOL, ceil_mode=True)
            maps = Activation.apply(maps, between, SLOPE)
        rows = F.leaky_relu(self.linear(maps.permute(0, 2, 3, 1).reshape(segments.n_steps, -1)), SLOPE)
        return self.blstm(segments.pick(rows), segments.steps)[0]


class SelfAttention(nn.Module):
    """Equations 1 and 2: states (S, T, d) and number of steps (S,) -> context (S, d)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.score = nn.Linear(size, 1, bias=False)  # W_att
        keras_init(self.score)

    def forward(self, states: Tensor, steps: Tensor) -> Tensor:
        return weighted(states, self.weights(states, steps))

    def weights(self, states: Tensor, steps: Tensor) -> Tensor:
        """(S, T), equation 1; they sum to 1 over the steps of a segment."""
        return masked_softmax(self.score(states)[:, :, 0], steps)


class SpeakerAttention(nn.Module):
    """Self speaker attention, equations 3 to 7: states of both networks, (S, T, d) each, zero after the end of a
    segment, and the number of steps (S,) -> context (S, d).

    W_em^q has one value per step of a full segment; a shorter one uses the first of them, and its own length as T in
    the square root of equation 5. Equation 4 is printed with W_em^q, but its text and dimensions require W_em^k.
    Equation 7 gives d values, although the text says 2d.
    """

    def __init__(self, size: int, n_steps: int) -> None:
        super().__init__()
        self.query = nn.Linear(n_steps, 1, bias=False)  # W_em^q
        self.score = nn.Linear(size, 1, bias=False)  # W_em^k
        self.speaker_key = nn.Linear(size, size, bias=False)
        self.value = nn.Linear(size, size, bias=False)
        self.speaker_value = nn.Linear(size, size, bias=False)
        self.apply(keras_init)

    def forward(self, states: Tensor, speaker_states: Tensor, steps: Tensor) -> Tensor:
        own, speaker = self.weights(states, speaker_states, steps).chunk(2, 1)
        # W^v is moved out of the sum in equation 7: the same result, applied to one vector instead of T
        return self.value(weighted(states, own)) + self.speaker_value(weighted(speaker_states, speaker))

    def weights(self, states: Tensor, speaker_states: Tensor, steps: Tensor) -> Tensor:
        """(S, 2T), equations 3 to 6: first the emotion states, then the speaker states; together they sum to 1."""
        n_steps = states.shape[1]
        query = F.linear(states.transpose(1, 2), self.query.weight[:, :n_steps])  # (S, d, 1)
        own = self.score(states)[:, :, 0]
        # q^T (h W)^T = h (W^T q), so keys need not be computed
        asked = query[:, :, 0] @ self.speaker_key.weight  # (S, d)
        speaker = (speaker_states @ asked[:, :, None])[:, :, 0] / steps[:, None] ** 0.5
        inside = mask(steps, n_steps).repeat(1, 2)
        scores = torch.cat((own, speaker), 1).masked_fill(~inside, -torch.inf)
        return scores.softmax(1)


def weighted(states: Tensor, weights: Tensor) -> Tensor:
    """Sum (S, d) of states (S, T, d), weighted by (S, T)."""
    return (weights[:, None] @ states)[:, 0]


class Embedding(nn.Module):
    """The fully connected layer after the attention, with batch normalisation (Chen et al.)."""

    def __init__(self, size: int, embedding_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, embedding_size)
        self.norm = nn.BatchNorm1d(embedding_size)
        keras_init(self.linear)

    def forward(self, context: Tensor) -> Tensor:
        if len(context) == 1:  # no variance: use the running statistics
            norm = self.norm
            vectors = F.batch_norm(
                self.linear(context),
                norm.running_mean,
                norm.running_var,
                norm.weight,
                norm.bias,
                eps=norm.eps,
            )
        else:
            vectors = self.norm(self.linear(context))
        return F.leaky_relu(vectors, SLOPE)


class Output(nn.Module):
    """The classification layer (section 2.4): embeddings (B, E) -> scores (B, K) and a penalty.

    For the weights W^c of each of K classes and the embeddings x_i of a batch of N, equation 8 requires
    |W^c|_1 = N / (K |sum x_i|_1). The paper does not say how this is enforced:

    norm: by reparametrisation. W^c is a free vector divided by its norm, times the norm of equation 8; gradients go
    through all of this. projection: W^c is rescaled to that norm before each batch. penalty: the squared deviations
    of |W^c|_1 from it are added to the loss. mean: enforces the purpose given in the text, that all classes are
    equally likely to be output: the scores W^c x_i of a batch sum to N / K for each class. none: no constraint, and a
    bias, which the others omit because it could favour a class. In evaluation, a running mean over training batches
    replaces the mean of the batch, and there is no penalty.
    """

    def __init__(self, size: int, n_classes: int, regularisation: Regularisation) -> None:
        super().__init__()
        self.regularisation = regularisation
        self.linear = nn.Linear(size, n_classes, bias=regularisation == "none")
        keras_init(self.linear)
        if regularisation in ("norm", "mean"):
            self.register_buffer("mean", torch.zeros(size))  # of the embeddings
            self.register_buffer("n_batches", torch.zeros((), dtype=torch.int64))

    def forward(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        weight, penalty = self.linear.weight, embeddings.new_zeros(())
        n_classes = len(weight)
        match self.regularisation:
            case "norm":
                weight = F.normalize(weight, 1) / (n_classes * self.batch_mean(embeddings).abs().sum())
            case "mean":
                centred = embeddings - self.batch_mean(embeddings)
                return F.linear(centred, weight) + 1 / n_classes, penalty
            case "projection" if self.training:
                with torch.no_grad():
                    norm = 1 / (n_classes * embeddings.mean(0).abs().sum())
                    weight.copy_(norm * F.normalize(weight, 1))
            case "penalty" if self.training:
                norm = 1 / (n_classes * embeddings.mean(0).abs().sum())
                penalty = (weight.abs().sum(1) - norm).square().sum()
        return F.linear(embeddings, weight, self.linear.bias), penalty

    def batch_mean(self, embeddings: Tensor) -> Tensor:
        """Mean (E,) of the embeddings; in evaluation, the running mean from training."""
        if not self.training:
            return self.mean
        mean = embeddings.mean(0)
        with torch.no_grad():  # as in batch normalisation, but initialised with the first batch
            self.mean.lerp_(mean, 0.1 if self.n_batches else 1.0)
            self.n_batches += 1
        return mean
