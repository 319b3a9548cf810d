"""Seconds per training step of Le Moine et al.'s networks: ours, and a plain PyTorch version.

plain: all segments are padded to full length and convolved in PyTorch's default memory format; a bidirectional torch
LSTM reads all steps, and attention includes the padding, as in the usual code. If all segments are full, the function
is the same; before timing, it gets our weights and must give our scores. Both run in one process and alternate at each
step on the same batch, with a forward and a backward pass and a NAdam step, so that other load on the machine affects
both alike. The output layer is not regularised. `of a product`: floating-point operations per second of the
convolutions and linear layers on real frames, forward and backward, relative to those of a large matrix product in the
same run and precision. `parts`: shares of our step, from torch's profiler.

    . ./path.sh; python tests/benchmarks/segments.py --threads 2 egs/atthack/conf/lemoine/*.yaml
    python tests/benchmarks/segments.py --lengths egs/iemocap/dump/logmel-*/utt2num_frames ...
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ser import cli, networks
from ser.batches import Batch
from ser.config import read_system
from ser.datadir import read_table
from ser.models import lemoine

CLASSES, SPEAKERS = 4, 20
PARTS = {
    "convolutions": ("convolution",),
    "BLSTM": ("rnn", "lstm"),
    "linear layers": ("mm", "addmm", "linear"),
    "pooling and activations": ("pool", "leaky_relu", "index_fill"),
    "cutting and laying out": ("index", "repeat_interleave", "where", "nonzero", "cat", "cumsum"),
}


class PlainEncoder(nn.Module):
    def __init__(self, config: lemoine.Config, n_features: int) -> None:
        super().__init__()
        sizes = [config.channels, *config.maps]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(*pair, (5, 3), padding=(2, 1)) for pair in zip(sizes, config.maps, strict=False)
        )
        bands = -(-(n_features // config.channels) // 2)
        self.linear = nn.Linear(bands * sizes[-1], config.linear_size)
        self.blstm = nn.LSTM(config.linear_size, config.hidden_size, batch_first=True, bidirectional=True)

    def forward(self, images: Tensor) -> Tensor:
        for number, convolution in enumerate(self.convolutions):
            images = F.leaky_relu(convolution(images), 0.01)
            if number == 0:
                images = F.max_pool2d(images, 2, ceil_mode=True)
        return self.blstm(F.leaky_relu(self.linear(images.permute(0, 2, 3, 1).flatten(2)), 0.01))[0]


class Plain(nn.Module):
    """Segments (S, channels, segment, bands), the utterance of each (S,), and the number of segments (B,) -> class
    scores and speaker scores (None without a speaker network)."""

    def __init__(self, config: lemoine.Config, n_features: int) -> None:
        super().__init__()
        size, n_steps = 2 * config.hidden_size, -(-config.segment // 2)
        self.with_speakers = config.speaker_weight is not None
        self.encoder = PlainEncoder(config, n_features)
        if self.with_speakers:
            self.speaker_encoder = PlainEncoder(config, n_features)
            self.speaker_score = nn.Linear(size, 1, bias=False)
            self.speaker_embedding = nn.Sequential(
                nn.Linear(size, config.embedding_size), nn.BatchNorm1d(config.embedding_size)
            )
            self.speaker_output = nn.Linear(config.embedding_size, SPEAKERS)
            self.query = nn.Linear(n_steps, 1, bias=False)
            self.key, self.value, self.speaker_value = (nn.Linear(size, size, bias=False) for _ in range(3))
        self.score = nn.Linear(size, 1, bias=False)
        self.embedding = nn.Sequential(nn.Linear(size, config.embedding_size), nn.BatchNorm1d(config.embedding_size))
        self.output = nn.Linear(config.embedding_size, CLASSES)

    def forward(self, images: Tensor, utt: Tensor, n_segments: Tensor) -> tuple[Tensor, Tensor | None]:
        def mean(vectors: Tensor) -> Tensor:
            sums = vectors.new_zeros(len(n_segments), vectors.shape[1]).index_add(0, utt, vectors)
            return sums / n_segments[:, None]

        states = self.encoder(images)
        if not self.with_speakers:
            context = (self.score(states).softmax(1) * states).sum(1)
            return self.output(mean(F.leaky_relu(self.embedding(context), 0.01))), None
        others = self.speaker_encoder(images)
        query = self.query(states.transpose(1, 2))  # (S, d, 1)
        speaker = self.key(others) @ query / states.shape[1] ** 0.5
        weights = torch.cat((self.score(states), speaker), 1).softmax(1)
        values = torch.cat((self.value(states), self.speaker_value(others)), 1)
        scores = self.output(mean(F.leaky_relu(self.embedding((weights * values).sum(1)), 0.01)))
        context = (self.speaker_score(others).softmax(1) * others).sum(1)
        return scores, self.speaker_output(mean(F.leaky_relu(self.speaker_embedding(context), 0.01)))


def plain_step(plain: Plain, config: lemoine.Config, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
    """The input of the plain version for a padded batch."""
    n_segments = -(-lengths // config.segment)
    frames = F.pad(frames, (0, 0, 0, int(n_segments.max()) * config.segment - frames.shape[1]))
    segments = frames.unflatten(1, (-1, config.segment))  # (B, most segments, segment, D)
    real = torch.arange(segments.shape[1], device=lengths.device) < n_segments[:, None]
    images = segments[real].unflatten(2, (config.channels, -1)).transpose(1, 2)
    return plain(images.contiguous(), real.nonzero()[:, 0], n_segments)


def copy_weights(ours: lemoine.Network, plain: Plain) -> None:
    """Copy our weights to the plain version."""
    pairs = [(ours.encoder, plain.encoder), (ours.embedding.linear, plain.embedding[0])]
    pairs += [(ours.embedding.norm, plain.embedding[1]), (ours.output.linear, plain.output)]
    pairs += [(ours.attention.score, plain.score)]
    if plain.with_speakers:
        pairs += [(ours.speaker_encoder, plain.speaker_encoder), (ours.speaker_output, plain.speaker_output)]
        pairs += [(ours.speaker_embedding.linear, plain.speaker_embedding[0])]
        pairs += [(ours.speaker_embedding.norm, plain.speaker_embedding[1])]
        pairs += [(ours.speaker_attention.score, plain.speaker_score), (ours.attention.query, plain.query)]
        pairs += [(ours.attention.speaker_key, plain.key), (ours.attention.value, plain.value)]
        pairs += [(ours.attention.speaker_value, plain.speaker_value)]
    for own, theirs in pairs:
        state = own.state_dict()
        for name in list(state):  # ours has one LSTM per direction
            for direction, suffix in (("ahead", ""), ("back", "_reverse")):
                if name.startswith(f"blstm.{direction}."):
                    state[f"blstm.{name.rpartition('.')[2]}{suffix}"] = state.pop(name)
        theirs.load_state_dict(state)


def check_same(ours: lemoine.Network, plain: Plain, config: lemoine.Config, n_features: int) -> None:
    frames, lengths = torch.randn(3, 2 * config.segment, n_features), torch.tensor([2, 1, 2]) * config.segment
    with torch.no_grad():
        ours.eval(), plain.eval()
        expected = plain_step(plain, config, frames, lengths)[0]
        torch.testing.assert_close(ours(frames, lengths)[0], expected, rtol=1e-3, atol=1e-4)
        ours.train(), plain.train()


def operations(config: lemoine.Config, n_features: int, lengths: Tensor) -> float:
    """Floating-point operations of the convolutions and linear layers in a step: two per multiplication and addition,
    times three, for the forward pass and both gradients."""
    bands = n_features // config.channels
    sizes = [config.channels, *config.maps]
    a_step = 2 * bands * 15 * sizes[0] * sizes[1]
    a_step += sum(15 * bands // 2 * sizes[i] * sizes[i + 1] for i in range(1, len(config.maps)))
    a_step += bands // 2 * sizes[-1] * config.linear_size
    a_step += 8 * config.hidden_size * (config.linear_size + config.hidden_size)
    encoders = 1 if config.speaker_weight is None else 2
    return 6.0 * encoders * a_step * float(lengths.sum()) / 2


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product."""
    size = 2048 if device.type == "cpu" else 8192
    one = torch.randn(size, size, device=device, dtype=dtype)
    best = 0.0
    for _ in range(5):
        seconds = timed(device, lambda: one @ one)
        best = max(best, 2 * size**3 / seconds)
    return best


def timed(device: torch.device, work: Callable[[], object]) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="+", metavar="YAML", help="system files")
    parser.add_argument(
        "--lengths",
        help="utt2num_frames, to draw a batch from (default: evenly from 1 to 3 s, as Att-HACK's)",
    )
    parser.add_argument("--steps", type=int, default=3, help="steps timed, after one that is not (default 3)")
    parser.add_argument("--threads", type=int, help="processor cores (default: torch's)")
    cli.add_device(parser)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = networks.device(args.device)

    rng = np.random.default_rng(1)
    frames_of = [int(n) for n in read_table(args.lengths).values()] if args.lengths else range(100, 301)
    print(f"{device}, threads: {torch.get_num_threads()}, median of {args.steps} steps; times ours: of the medians")
    for path in args.systems:
        system = read_system(path)
        lengths = torch.tensor(rng.choice(frames_of, system.training.batch_size))
        measure(system.name, replace(system.model, regularisation="none"), lengths, args.steps, device)


def measure(name: str, config: lemoine.Config, lengths: Tensor, n_steps: int, device: torch.device) -> None:
    """Print the seconds per step of each version."""
    n_features = 40 * config.channels
    torch.manual_seed(1)
    ours, plain = lemoine.Network(config, n_features, CLASSES, SPEAKERS), Plain(config, n_features)
    copy_weights(ours, plain)
    check_same(ours, plain, config, n_features)
    ours.to(device), plain.to(device)
    frames = torch.randn(len(lengths), int(lengths.max()), n_features)
    frames *= (torch.arange(frames.shape[1]) < lengths[:, None])[:, :, None]
    targets, speakers = torch.arange(len(lengths)) % CLASSES, torch.arange(len(lengths)) % SPEAKERS
    extras = {"speakers": speakers} if config.extras else {}
    batch = Batch([], frames, lengths, targets, extras)
    on_device = [values.to(device) for values in (frames, lengths, targets, speakers)]

    def step_of_ours(precision: str, optimiser: torch.optim.Optimizer) -> None:
        logs, penalty = networks.forward(ours, batch, precision)
        learn(F.nll_loss(logs, on_device[2]) + penalty, optimiser)

    def step_of_plain(precision: str, optimiser: torch.optim.Optimizer) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            scores, voices = plain_step(plain, config, *on_device[:2])
            loss = F.cross_entropy(scores.float(), on_device[2])
            if voices is not None:
                loss = loss + config.speaker_weight * F.cross_entropy(voices.float(), on_device[3])
        learn(loss, optimiser)

    def learn(loss: Tensor, optimiser: torch.optim.Optimizer) -> None:
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    ways = {}
    for precision in ("float32", "bfloat16"):
        for way, network, step in (("ours", ours, step_of_ours), ("plain", plain, step_of_plain)):
            trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
            ways[way, precision] = (step, precision, torch.optim.NAdam(trained, 1e-4))
    seconds: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
    for number in range(n_steps + 1):
        for way, (step, *arguments) in ways.items():
            spent = timed(device, lambda: step(*arguments))
            if number:
                seconds[way].append(spent)

    padded = int((-(-lengths // config.segment)).sum()) * config.segment
    print(f"{name}: {len(lengths)} utterances, {int(lengths.sum())} frames; padded to whole segments {padded}")
    for precision in ("float32", "bfloat16"):
        top = product_rate(device, getattr(torch, precision))
        for way in ("ours", "plain"):
            spent = median(seconds[way, precision])
            times = "" if way == "ours" else f"  {spent / median(seconds['ours', precision]):.2f} times ours"
            share = operations(config, n_features, lengths) / spent / top
            print(
                f"  {way:5} {precision:8} {spent:8.3f} s/step  {100 * share:3.0f} % of a product{times}",
                flush=True,
            )
    step, *arguments = ways["ours", "bfloat16"]
    print(f"  parts of ours, bfloat16: {shares(step, arguments, device)}")


def shares(step: Callable, arguments: list, device: torch.device) -> str:
    """Shares of the parts of a step, as text."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as profiler:
        step(*arguments)
    key = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    times = {event.key: getattr(event, key) for event in profiler.key_averages()}
    total, texts, left = sum(times.values()), [], dict(times)
    for part, words in PARTS.items():
        own = [event for event in left if any(word in event.lower() for word in words)]
        texts.append(f"{part} {100 * sum(left.pop(event) for event in own) / total:.0f} %")
    return ", ".join([*texts, f"the rest {100 * sum(left.values()) / total:.0f} %"])


if __name__ == "__main__":
    main()
