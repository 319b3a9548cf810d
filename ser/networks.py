"""Networks of ser/models: made, run, and kept as safetensors (nothing is unpickled)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ser.batches import Batch
from ser.cli import UserError
from ser.config import System, kind_of, load_kind
from ser.files import whole


def device(name: str) -> torch.device:
    """The device named "cpu", "cuda" or "auto" (a GPU where there is one)."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU here; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def build(system: System, n_features: int, n_classes: int) -> nn.Module:
    """A fresh network; its weights follow from torch's seed."""
    module = load_kind("model", kind_of(system.model), system.name)
    return module.Network(system.model, n_features, n_classes)


def count_parameters(network: nn.Module) -> int:
    """Number of trained values."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def forward(network: nn.Module, batch: Batch, precision: str) -> tuple[Tensor, Tensor]:
    """Scores (B, classes) in float32 and penalty, on the network's device.

    precision "bfloat16": automatic mixed precision, weights and sums stay float32.
    """
    place = next(network.parameters()).device
    with torch.autocast(place.type, torch.bfloat16, enabled=precision == "bfloat16"):
        scores, penalty = network(batch.frames.to(place), batch.lengths.to(place))
    return scores.float(), penalty


def best_line(log: list[dict[str, float]], monitor: str) -> dict[str, float]:
    """The first of the best epochs, by "dev_loss" (lowest), "dev_wa" or "dev_ua" (highest)."""
    return min(log, key=lambda line: line[monitor] if monitor == "dev_loss" else -line[monitor])


def save(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, Any] | None = None) -> None:
    """Write tensors, and notes as JSON in the header, whole or not at all."""
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with whole(path, "wb") as stream:
        stream.write(safetensors.torch.save(content, {"notes": json.dumps(notes or {})}))


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and notes of a file that `save` wrote."""
    try:
        with safetensors.safe_open(path, "pt") as stream:
            notes = json.loads((stream.metadata() or {}).get("notes", "{}"))
            return {name: stream.get_tensor(name) for name in stream.keys()}, notes
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run stage 4") from None
    except safetensors.SafetensorError as error:
        raise UserError(
            f"{path}: not a whole safetensors file ({error}); remove it and run stage 4 again"
        ) from None


def save_checkpoint(
    path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, notes: Mapping[str, Any]
) -> None:
    """Write the network, the optimiser's state and notes."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": tensor for name, tensor in state.items()}
    save(path, tensors, notes)


def load_checkpoint(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Put network and optimiser into a checkpoint's state; return its notes."""
    tensors, notes = load(path)
    network.load_state_dict(
        {
            name.removeprefix("network."): tensor
            for name, tensor in tensors.items()
            if name.startswith("network.")
        }
    )
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, number, key = name.split(".")
            state.setdefault(int(number), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return notes
