"""Seconds per training step of Peng et al.'s networks: ours, and a plain PyTorch version.

plain: one Conv2d over all frames and values per width, as in the usual code of Text-CNNs; statistics over whole maps,
with masked padding. The function is the same: before timing, it gets our weights and must give our scores. Both run in
one process and alternate at each step, with a forward and a backward pass and an Adam step on 64 utterances: ours and
plain on a batch of similar lengths, as in training, and plain also on a random batch.

    . ./path.sh; python tests/benchmarks/scales.py egs/iemocap/conf/peng/mscnn_spu_att.yaml
    python tests/benchmarks/scales.py --lengths egs/iemocap/dump/mfcc-*/utt2num_frames ...
"""

import argparse
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ser import cli, networks
from ser.batches import Batch, random_batches
from ser.config import System, read_system
from ser.datadir import read_table
from ser.models import peng

D, CLASSES, VOCABULARY, XVECTOR, BATCH = 96, 4, 3000, 512, 64


class Plain(nn.Module):
    """The same function as peng.Network."""

    def __init__(self, ours: peng.Network) -> None:
        super().__init__()
        self.ours, self.config = ours, ours.config
        self.audio = nn.ModuleList(map(as_image, ours.audio.convolutions))
        self.text = nn.ModuleList(map(as_image, ours.text.convolutions)) if ours.config.words else None

    def forward(self, frames: Tensor, lengths: Tensor, **extras: Tensor) -> tuple[Tensor, Tensor]:
        config, parts = self.config, []
        if config.audio_kernels:
            contexts = statistics(maps_of(self.audio, frames), lengths, config.audio_pooling)
            parts.append(contexts.flatten(1))
        if config.xvectors:
            parts.append(extras["xvectors"])  # with mean 0 and deviation 1, the initial values in ours
        if config.words:
            words, n_words = extras["words"], extras["n_words"]
            vectors = self.ours.words(words)
            outside = torch.arange(words.shape[1])[None] >= n_words[:, None]
            maps = maps_of(self.text, vectors.masked_fill(outside[:, :, None], 0))
            parts.append(statistics(maps, n_words, config.text_pooling).flatten(1))
            if config.swem:
                parts.append(statistics(vectors, n_words, ["max", "mean"]).flatten(1))
            if config.attention:
                scores = (contexts @ maps.transpose(1, 2)).masked_fill(outside[:, None], -torch.inf)
                parts.append((scores.softmax(2) @ maps).flatten(1))
        reduced = F.relu(self.ours.reduce(F.dropout(torch.cat(parts, 1), config.dropout, self.training)))
        return self.ours.output(F.dropout(reduced, config.dropout, self.training)), frames.new_zeros(())


def as_image(convolution: nn.Conv1d) -> nn.Conv2d:
    """The same over an image of one channel, frames by values."""
    size, width = convolution.in_channels, convolution.kernel_size[0]
    image = nn.Conv2d(1, convolution.out_channels, (width, size), padding=(width // 2, 0))
    with torch.no_grad():
        image.weight.copy_(convolution.weight.transpose(1, 2)[:, None])
        image.bias.copy_(convolution.bias)
    return image


def maps_of(convolutions: nn.ModuleList, steps: Tensor) -> Tensor:
    maps = [F.relu(convolution(steps[:, None])[:, :, :, 0]) for convolution in convolutions]
    return torch.cat(maps, 1).transpose(1, 2).float()


def statistics(maps: Tensor, lengths: Tensor, names: list[str]) -> Tensor:
    """(B, statistics, D) of maps (B, T, D)."""
    outside = (torch.arange(maps.shape[1])[None] >= lengths[:, None])[:, :, None]
    mean = maps.masked_fill(outside, 0).sum(1) / lengths[:, None]
    square = (maps - mean[:, None]).masked_fill(outside, 0).square().sum(1) / lengths[:, None]
    found = {
        "max": maps.masked_fill(outside, -torch.inf).amax(1),
        "mean": mean,
        "deviation": square.clamp(min=1e-10).sqrt(),
    }
    return torch.stack([found[name] for name in names], 1)


def make_batch(lengths: list[int], config: peng.Config, seed: int) -> Batch:
    """Utterances of noise, with three words per second."""
    torch.manual_seed(seed)
    n_words = torch.tensor([1 + length // 33 for length in lengths])
    frames = nn.utils.rnn.pad_sequence([torch.randn(length, D) for length in lengths], batch_first=True)
    rows = [torch.randint(VOCABULARY, (int(count),)) for count in n_words]
    extras = {}
    if config.words:
        extras = {"words": nn.utils.rnn.pad_sequence(rows, batch_first=True), "n_words": n_words}
    if config.xvectors:
        extras["xvectors"] = torch.randn(len(lengths), XVECTOR)
    targets = torch.randint(CLASSES, (len(lengths),))
    return Batch(list(map(str, lengths)), frames, torch.tensor(lengths), targets, extras)


def measure(system: System, lengths: dict[str, int], n_steps: int) -> None:
    """Print the seconds of each version, and how much of the batches is padding."""
    config, rng = system.model, np.random.default_rng(0)
    more = {"vocabulary_size": VOCABULARY} if config.words else {}
    more |= {"xvector_size": XVECTOR} if config.xvectors else {}
    torch.manual_seed(0)
    ours = networks.build(system, {"n_features": D, "n_classes": CLASSES, **more})
    plain = Plain(ours)
    given = make_batch([90, 400, 230], config, 0)
    scores = [networks.forward(network.eval(), given, "float32")[0] for network in (ours, plain)]
    torch.testing.assert_close(*scores, rtol=1e-3, atol=1e-4)

    alike = random_batches(lengths, BATCH, rng)
    ways = {"ours": (ours, "like"), "plain": (plain, "like"), "plain, drawn at random": (plain, "random")}
    seconds = {(way, precision): [] for precision in ("float32", "bfloat16") for way in ways}
    padding = {"like": [], "random": []}
    for step in range(n_steps):
        utts = {"like": alike[step % len(alike)], "random": rng.choice(sorted(lengths), BATCH, replace=False)}
        batches = {name: make_batch([lengths[utt] for utt in own], config, step) for name, own in utts.items()}
        for name, batch in batches.items():
            padding[name].append(100 - 100 * batch.lengths.sum() / batch.frames.shape[:2].numel())
        for way, precision in seconds:
            network, batch = ways[way][0].train(), batches[ways[way][1]]
            optimiser = torch.optim.Adam(network.parameters(), lr=1e-6)
            started = time.perf_counter()
            logs, _ = networks.forward(network, batch, precision)
            F.nll_loss(logs, batch.targets).backward()
            optimiser.step()
            optimiser.zero_grad()
            seconds[way, precision].append((time.perf_counter() - started) / int(batch.lengths.sum()))
    print(f"{system.name}, seconds a million frames (and times ours):")
    for (way, precision), each in seconds.items():
        ratio = median(each) / median(seconds["ours", precision])
        print(f"  {precision}, {way}: {1e6 * median(each):.1f} ({ratio:.1f})")
    print(
        "  padding: " + ", ".join(f"{name} {np.mean(one):.0f} % of the frames" for name, one in padding.items()),
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--lengths",
        type=Path,
        metavar="TABLE",
        help="utt2num_frames of a feature with 100 frames a second (default: 5000 lengths from 0.6 to 30 s, most "
        "of them short)",
    )
    parser.add_argument("--steps", type=int, default=12, metavar="N", help="steps of each way (default 12)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="processor cores (default 1)")
    parser.add_argument("systems", nargs="+", metavar="SYSTEM", help="system file (YAML)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.lengths:
        lengths = {utt: int(number) for utt, number in read_table(args.lengths).items()}
    else:
        drawn = np.random.default_rng(0).lognormal(5.85, 0.65, 5000).clip(60, 3000)
        lengths = {str(place): int(length) for place, length in enumerate(drawn)}
    for path in args.systems:
        measure(read_system(path), lengths, args.steps)


if __name__ == "__main__":
    cli.run(main)
