"""CPU seconds per training epoch: ours, and a plain PyTorch version of the same network.

ours: ser.networks and ser.batches, used as in the training loop, in the precision of the system; reading a batch
from an archive and normalising it is included. plain: the networks below, which use nothing from ser/models, in
float32 and, if the precision of the system is bfloat16, also in bfloat16; their batches are in memory and already
normalised; the optimiser is the same fused one. Both run in one process on the same random features, and alternate at
each step, so that other load on the machine affects both alike. Times are CPU times, summed over threads. The time of
an epoch is the median step time times the number of batches: noisy copies from `augment` are included, the smaller last
batch counts as a full one, and the test set, checkpoints and logs are left out.

Before timing, the plain network gets our weights, and must give the same scores and penalty in float32 without
dropout, in training and in evaluation. One difference remains: torch's LSTM trains a second bias per gate, which Keras'
and ours do not have; it is initialised to zero, and not counted as a parameter. path.sh makes torch keep large tensors
on the heap, which also speeds up the plain version.

    . ./path.sh; python tests/benchmarks/epoch.py --threads 1 egs/ravdess/conf/sherman/*.yaml
    python tests/benchmarks/epoch.py --utterances 2100 egs/tess/conf/bledea/mel*.yaml
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ser import batches, networks
from ser.archive import Features, write_archive
from ser.config import System, kind_of, read_system
from ser.datadir import write_table
from ser.models import bledea, sherman
from ser.normalisation import normalise, train_statistics

CLASSES = 7


class PlainSherman(nn.Module):
    """Sherman et al.'s network, with layers in the order of the paper: frames (B, T, D) of one length -> scores (B, classes)
    and penalty."""

    def __init__(self, config: sherman.Config, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.config = config
        blocks: list[nn.Module] = []
        channels, time, bands = 1, config.window, n_features
        for n_maps, pool in zip(config.channels, config.pools, strict=True):
            blocks += [
                nn.Conv2d(channels, n_maps, 3, padding=1),
                nn.BatchNorm2d(n_maps, eps=1e-3, momentum=config.norm_momentum),
                {"elu": nn.ELU, "relu": nn.ReLU}[config.activation](),
                nn.MaxPool2d(pool, ceil_mode=True),
                nn.Dropout(config.dropout),
            ]
            channels, time, bands = n_maps, -(-time // pool), -(-bands // pool)
        self.blocks = nn.Sequential(*blocks)
        n_inputs, n_states = channels * time * bands, 2 * config.hidden_size
        self.blstm = nn.LSTM(n_inputs, config.hidden_size, batch_first=True, bidirectional=True)
        if config.attention_size:
            self.project = nn.Linear(n_states, config.attention_size, bias=False)
            self.energy = nn.Linear(config.attention_size, 1, bias=False)
        self.output = nn.Linear(2 * n_states if config.attention_size else n_states, n_classes)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        config = self.config
        windows = frames.unfold(1, config.window, config.hop).transpose(2, 3)  # (B, W, window, D)
        maps = self.blocks(windows.flatten(0, 1)[:, None])
        states, (last, cells) = self.blstm(maps.reshape(*windows.shape[:2], -1))
        result = last = torch.cat((last[0], last[1]), 1)
        norm = last.abs().sum()
        if config.attention_size:
            energies = self.energy(torch.tanh(self.project(states))) / config.attention_size**0.5
            context = (torch.softmax(energies, 1) * states).sum(1)
            result = torch.cat((context, last), 1)
            norm = norm + states.abs().sum() + cells.abs().sum()
        return self.output(result), config.state_l1 * norm / len(frames)


class PlainBledea(nn.Module):
    """Bledea's network: frames (B, T, D) of one length -> scores (B, classes) and no penalty."""

    def __init__(self, config: bledea.Config, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.values = config.steps == "values"
        n_inputs = 1 if self.values else n_features
        self.lstm = nn.LSTM(n_inputs, config.hidden_size, num_layers=2, batch_first=True)
        self.dense = nn.Sequential(
            nn.Linear(config.hidden_size, config.dense_size),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.dense_size, n_classes),
        )

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        states, _ = self.lstm(frames.transpose(1, 2) if self.values else frames)
        return self.dense(states[:, -1]), torch.zeros(())


PLAIN = {"sherman": PlainSherman, "bledea": PlainBledea}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="+", metavar="YAML", help="system files")
    parser.add_argument("--utterances", type=int, default=1152, help="of the training set (default 1152, of RAVDESS)")
    parser.add_argument("--steps", type=int, default=5, help="steps timed, after one that is not (default 5)")
    parser.add_argument("--threads", type=int, help="processor cores (default: torch's)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)

    print(
        f"{args.utterances} utterances, threads: {torch.get_num_threads()}, median of {args.steps} steps; "
        "times ours: of the medians, and of the single steps"
    )
    print(f"{'system':26} {'parameters':>10}  {'way':15} {'s/step':>7} x batches = s/epoch  times ours")
    for path in args.systems:
        system = read_system(path)
        n_utterances = args.utterances * (1 + len(system.augment))
        n_batches = -(-n_utterances // system.training.batch_size)
        n_parameters, seconds = measure(system, n_utterances, args.steps)
        head, ours = f"{system.name:26} {n_parameters:10,}", next(iter(seconds.values()))
        for way, spent in seconds.items():
            one = median(spent)
            line = f"{head:37}  {way:15} {one:7.4f} x {n_batches:7} = {one * n_batches:7.2f}"
            if way.startswith("plain"):
                ratios = [theirs / own for theirs, own in zip(spent, ours, strict=True)]
                line += f"  {one / median(ours):5.2f}, {min(ratios):.2f} to {max(ratios):.2f}"
            print(line, flush=True)
            head = ""


def measure(system: System, n_utterances: int, n_steps: int) -> tuple[int, dict[str, list[float]]]:
    """Number of trained parameters, and the seconds of each step of each version, ours first."""
    settings = system.training
    n_frames, n_features = feature_shape(system)
    torch.manual_seed(1)
    check_same(system, n_frames, n_features)

    networks_of = {
        f"ours {settings.precision}": networks.build(system, {"n_features": n_features, "n_classes": CLASSES})
    }
    for precision in dict.fromkeys(("float32", settings.precision)):
        networks_of[f"plain {precision}"] = plain_network(system, n_features)
    ours = next(iter(networks_of))
    optimisers = {
        way: networks.optimiser(settings, [p for p in network.parameters() if p.requires_grad])
        for way, network in networks_of.items()
    }
    seconds: dict[str, list[float]] = {way: [] for way in (ours, "  of it reading", *networks_of)}

    @contextmanager
    def timed(way: str) -> Iterator[None]:
        started = time.process_time()
        yield
        seconds[way].append(time.process_time() - started)

    with tempfile.TemporaryDirectory() as folder:
        size = min(settings.batch_size, n_utterances)
        features = random_features(Path(folder), (n_steps + 1) * size, n_frames, n_features)
        utts = list(features.index)
        statistics = train_statistics(system.normalisation, features, dict.fromkeys(utts, "neutral"))
        targets = {utt: number % CLASSES for number, utt in enumerate(utts)}
        for start in range(0, len(utts), size):
            for way, network in networks_of.items():
                with timed(way):
                    if way == ours:
                        with timed("  of it reading"):
                            chosen = utts[start : start + size]
                            matrices = [normalise(features[utt], statistics) for utt in chosen]
                            batch = batches.stack(chosen, matrices, [targets[utt] for utt in chosen], {})
                        scores, penalty = networks.forward(network, batch, settings.precision)
                    else:
                        with torch.autocast("cpu", torch.bfloat16, enabled=way.endswith("bfloat16")):
                            scores, penalty = network(batch.frames)
                    update(optimisers[way], scores.float(), penalty, batch.targets)
    return networks.count_parameters(networks_of[ours]), {way: spent[1:] for way, spent in seconds.items()}


def update(optimiser: torch.optim.Optimizer, scores: Tensor, penalty: Tensor, targets: Tensor) -> None:
    """The rest of a training step after the forward pass, including the values that are logged."""
    loss = F.cross_entropy(scores, targets) + penalty
    if not torch.isfinite(loss):
        raise SystemExit(f"the loss is {loss.item()}")
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    loss.item()
    (scores.argmax(1) == targets).sum().item()


def plain_network(system: System, n_features: int) -> nn.Module:
    """The plain version of a system's network."""
    return PLAIN[kind_of(system.model)](system.model, n_features, CLASSES)


def check_same(system: System, n_frames: int, n_features: int) -> None:
    """Raise AssertionError if ours and plain with the same weights give different results."""
    system = replace(system, model=replace(system.model, dropout=0.0))
    ours, plain = (
        networks.build(system, {"n_features": n_features, "n_classes": CLASSES}),
        plain_network(system, n_features),
    )
    second_biases = sum(p.numel() for name, p in plain.named_parameters() if "bias_hh" in name)
    assert networks.count_parameters(ours) == networks.count_parameters(plain) - second_biases, system.name
    # both have the same order of layers
    plain.load_state_dict(dict(zip(plain.state_dict(), ours.state_dict().values(), strict=True)))
    frames = torch.randn(3, n_frames, n_features)
    for training in (True, False):  # training updates the running statistics of the batch normalisation
        with torch.no_grad():
            given = plain.train(training)(frames)
            expected = ours.train(training)(frames, torch.full((3,), n_frames))
        torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)


def feature_shape(system: System) -> tuple[int, int]:
    """Number of frames, and of values per frame, of an utterance."""
    feature = system.feature
    if kind_of(feature) == "means":
        sizes = {"mel": feature.n_mels, "mfcc": feature.n_mfcc, "zcr": 1, "rms": 1}
        return 1, sum(sizes[part] for part in feature.parts)
    if not feature.duration:
        raise SystemExit(f"{system.name}: its utterances have no common length (feature.duration)")
    return 1 + round(feature.duration * feature.sample_rate) // feature.hop_length, feature.n_mels


def random_features(folder: Path, number: int, n_frames: int, n_features: int) -> Features:
    """Archive of `number` utterances of random features (n_frames, n_features)."""
    matrices = ((f"utt{i}", torch.randn(n_frames, n_features).numpy()) for i in range(number))
    frames = write_archive(folder / "feats.ark", matrices)
    write_table(folder / "utt2num_frames", {utt: str(n) for utt, n in frames.items()})
    return Features(folder)


if __name__ == "__main__":
    main()
