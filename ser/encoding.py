"""Run a pretrained encoder on padded batches: each utterance gets what it gets alone."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from ser.cli import UserError
from ser.encoders import RATE, Pretrained, checksum, find, load, sizes
from ser.layers import mask

SHORTEST = 640  # samples: two frames of every encoder
WHISPER_RANGE = 8.0  # of log10 of power, below the loudest cell of the utterance


class Encoder(nn.Module):
    """A pretrained encoder: waves (B, N) float32 at 16 kHz, full scale +-1, zero-padded at the end, and lengths (B,) in
    samples, at least SHORTEST -> the states of its layers, depth + 1 tensors (B, T, width), and the number of frames of
    each utterance (B,). The first state is the input of the first layer, the last the encoder's output.

    Whisper was trained on 30 s, with silence after the utterance. Here it gets the utterance alone, as the log-mel
    frames that transformers computes without padding, and the first positions: a fifth of the work or less, and as good
    for emotions (egs/ravdess/README.md). Raises UserError if the weights do not have the checksum in the settings.
    """

    def __init__(self, settings: Pretrained) -> None:
        super().__init__()
        folder = find(settings.model, settings.revision)
        self.network, self.extractor = load(folder)
        found = checksum(folder, self.network.config, self.extractor)
        if found != settings.weights:
            raise UserError(
                f"{folder}: its weights have the checksum {found}, but the system says {settings.weights}; give the "
                f"same model, or write `weights: {found}`, which is another system"
            )
        config = self.network.config
        self.width, self.depth = sizes(config)
        self.kind = str(config.model_type)
        # these draw numbers from numpy's or Python's generators, or skip whole layers, in training
        config.apply_spec_augment, config.layerdrop = False, 0.0
        # with other networks padding changes the frames: a normalisation over time, or biases that convolutions reach
        self.may_pad = self.kind in ("whisper", "wav2vec2-bert") or (
            self.kind in ("wav2vec2", "hubert", "wavlm") and config.feat_extract_norm == "layer"
        )
        if self.kind == "whisper":
            bands = torch.from_numpy(self.extractor.mel_filters).float()
            self.register_buffer("bands", bands, persistent=False)  # (1 + n_fft / 2, bands)

    def forward(self, waves: Tensor, lengths: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        is_padded = bool((lengths < waves.shape[1]).any())
        if self.kind == "whisper":
            return self._whisper(waves, lengths, is_padded)
        inputs: dict[str, Any]
        if self.kind == "wav2vec2-bert":
            inputs, steps = self._filterbank(waves, lengths)
        else:
            inputs = {"input_values": self._levelled(waves, lengths)}
            steps = self.network._get_feat_extract_output_lengths(lengths)
            if is_padded:
                inputs["attention_mask"] = mask(lengths, waves.shape[1]).long()
        found = self.network(**inputs, output_hidden_states=True)
        # the last of transformers' hidden states may lack the final normalisation
        return (*found.hidden_states[:-1], found.last_hidden_state), steps

    def _whisper(self, waves: Tensor, lengths: Tensor, is_padded: bool) -> tuple[tuple[Tensor, ...], Tensor]:
        network = self.network
        hop = self.extractor.hop_length
        frames = lengths // hop
        mels = waves.new_zeros(len(waves), self.bands.shape[1], int(frames.max()))
        for mel, wave, length in zip(mels, waves, lengths, strict=True):
            mel[:, : int(length) // hop] = self._log_mel(wave[: int(length)])
        states = gelu(network.conv1(mels))
        if is_padded:  # else the second convolution would reach into what the first made of zeros
            states = states * mask(frames, mels.shape[2])[:, None]
        states = gelu(network.conv2(states)).transpose(1, 2)
        states = states + network.embed_positions.weight[: states.shape[1]]
        steps = (frames + 1) // 2
        attended = mask(steps, states.shape[1])[:, None, None] if is_padded else None
        found = [states]
        for layer in network.layers:
            found.append(layer(found[-1], attended))
        return (*found[:-1], network.layer_norm(found[-1])), steps

    @torch.no_grad()
    def _log_mel(self, wave: Tensor) -> Tensor:
        """Whisper's input (bands, N // hop) of one utterance (N,), as transformers computes it without padding; in
        float32, even in mixed precision."""
        size, hop = self.extractor.n_fft, self.extractor.hop_length
        window = torch.hann_window(size, device=wave.device)
        spectrum = torch.stft(wave, size, hop, window=window, return_complex=True)[:, :-1]
        power = spectrum.real.square() + spectrum.imag.square()
        with torch.autocast(wave.device.type, enabled=False):
            logs = (self.bands.T @ power).clamp(min=1e-10).log10()
        return (logs.maximum(logs.max() - WHISPER_RANGE) + 4) / 4

    def _levelled(self, waves: Tensor, lengths: Tensor) -> Tensor:
        """Each utterance with mean 0 and variance 1, if the encoder was trained so, as in transformers."""
        if not self.extractor.do_normalize:
            return waves
        inside = mask(lengths, waves.shape[1])
        mean = waves.sum(1, keepdim=True) / lengths[:, None]  # padding is 0
        centred = (waves - mean).masked_fill(~inside, 0)
        variance = centred.square().sum(1, keepdim=True) / lengths[:, None]
        return centred / (variance + 1e-7).sqrt()

    def _filterbank(self, waves: Tensor, lengths: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The input of w2v-BERT: transformers' own extractor, which runs on the CPU."""
        utterances = [wave[: int(length)].cpu().numpy() for wave, length in zip(waves, lengths, strict=True)]
        given = self.extractor(utterances, sampling_rate=RATE, return_tensors="pt")
        inputs = {name: values.to(waves.device) for name, values in given.items()}
        return inputs, inputs["attention_mask"].sum(1)
