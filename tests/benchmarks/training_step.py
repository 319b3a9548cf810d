"""Seconds of one training step of Sherman et al.'s network against a plain PyTorch version of it.

plain: the same layers in the paper's order (convolution, batch normalisation, activation, pooling,
dropout), torch's own dropout, float32 and then bfloat16. Batch of 16, random features, same process.

    . ./path.sh; python tests/benchmarks/training_step.py egs/ravdess/conf/sherman/cnn4_blstm_attention.yaml
"""

import argparse
import time

import torch
from torch import nn

from ser import networks
from ser.batches import Batch
from ser.config import read_system
from ser.models import sherman


class PlainBlock(nn.Module):
    """A block as the paper has it."""

    def __init__(self, block: sherman.Block) -> None:
        super().__init__()
        self.conv, self.norm = block.convolution.conv, block.convolution.norm
        self.rest = nn.Sequential(
            nn.ELU(), nn.MaxPool2d(block.pool, ceil_mode=True), nn.Dropout(block.dropout.share)
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.rest(self.norm(self.conv(maps.contiguous())))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("system", help="system file of Sherman et al.'s network")
    parser.add_argument("--steps", type=int, default=5, help="steps timed; the median counts (default 5)")
    args = parser.parse_args()
    system = read_system(args.system)
    batch = Batch(["utt"] * 16, torch.randn(16, 626, 128), torch.full((16,), 626), torch.arange(16) % 7)
    plain = networks.build(system, 128, 7).to(memory_format=torch.contiguous_format)
    plain.blocks = nn.Sequential(*map(PlainBlock, plain.blocks))
    ways = [("ours", networks.build(system, 128, 7)), ("plain", plain)]
    seconds = {}
    for precision in ("bfloat16", "float32"):
        for name, network in ways:
            seconds[name, precision] = median_step(network, batch, precision, args.steps)
    slowest = seconds["plain", "float32"]
    for (name, precision), spent in seconds.items():
        print(
            f"{name:6} {precision:9} {spent:6.2f} s a step   {slowest / spent:4.1f} times plain float32, {torch.get_num_threads()} threads"
        )


def median_step(network: nn.Module, batch: Batch, precision: str, steps: int) -> float:
    """Median seconds of forward, backward and update."""
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 1e-4)
    spent = []
    for _ in range(steps + 1):
        started = time.perf_counter()
        scores, penalty = networks.forward(network, batch, precision)
        optimiser.zero_grad()
        (nn.functional.cross_entropy(scores, batch.targets) + penalty).backward()
        optimiser.step()
        spent.append(time.perf_counter() - started)
    return sorted(spent[1:])[steps // 2]


if __name__ == "__main__":
    main()
