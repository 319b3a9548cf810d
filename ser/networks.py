"""Networks of ser/models: built, run, and stored as safetensors (nothing is unpickled)."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ser.batches import Batch
from ser.cli import UserError
from ser.config import System, Training, kind_of, load_kind
from ser.files import whole
from ser.layers import masked_mean
from ser.normalisation import Statistics
from ser.runs import Run
from ser.tensors import checksum


def device(name: str) -> torch.device:
    """The device named "cpu", "cuda" or "auto" (a GPU if there is one)."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU here; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def build(system: System, sizes: Mapping[str, int]) -> nn.Module:
    """A new network, initialised from torch's seed. sizes: n_features, n_classes, and those of its extra inputs."""
    module = load_kind("model", kind_of(system.model), system.name)
    return module.Network(system.model, **sizes)


def trained(run: Run, sizes: Mapping[str, int] | None = None) -> tuple[nn.Module, Statistics, dict[str, int]]:
    """The network of a finished run that its protocol selects, on the CPU in evaluation mode; its normalisation; and
    the sizes that its constructor took. Needs only the run's folder.

    Raises UserError if the network does not fit inputs of `sizes`.
    """
    path = run.weights
    weights, notes = load(path)
    if "sizes" not in notes:
        raise UserError(f"{path}: written by an older version; remove or rename the folder and run stage 4 again")
    for name, size in (sizes or {}).items():
        if notes["sizes"].get(name) != size:
            raise UserError(
                f"{path}: {name} is {notes['sizes'].get(name)}, but {size} in {run.feature_folder()} and {run.data} "
                "now; remove or rename the folder and run stage 4 again"
            )
    network = build(run.system, notes["sizes"])
    fill(network, weights, path)
    statistics = load(run.folder / "normalisation.safetensors")[0]
    return network.eval(), {name: value.numpy() for name, value in statistics.items()}, notes["sizes"]


def count_parameters(network: nn.Module) -> int:
    """Number of trained parameters."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def groups(network: nn.Module, learning_rate: float) -> list[dict[str, Any]]:
    """The trained parameters of a network for an optimiser: one group for each learning rate, lowest first.

    `network.rates()`, if there is such a method, gives factors of the learning rate by the parameter's name.
    """
    rates = network.rates() if hasattr(network, "rates") else {}
    trained: dict[float, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            trained.setdefault(rates.get(name, 1.0), []).append(parameter)
    return [{"params": trained[rate], "lr": learning_rate * rate} for rate in sorted(trained)]


def optimiser(settings: Training, weights: Iterable[nn.Parameter] | Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimiser of a system, for the weights that it trains, or `groups` of them."""
    options = {"lr": settings.learning_rate, "eps": settings.epsilon}
    if settings.optimiser == "adam":
        return torch.optim.Adam(weights, fused=True, **options)  # a quarter of the time on a CPU
    if settings.optimiser == "rmsprop":
        return torch.optim.RMSprop(weights, alpha=0.9, **options)  # rho in Keras; PyTorch's default is 0.99
    return torch.optim.NAdam(weights, **options)


def forward(network: nn.Module, batch: Batch, precision: str) -> tuple[Tensor, Tensor]:
    """Log-posteriors (B, classes) in float32 and penalty, on the network's device.

    If a network scores each frame, these are means over an utterance's frames: the cross-entropy is then the mean of
    the frames' cross-entropies. precision "bfloat16": automatic mixed precision; weights and sums stay float32. A
    network whose `learns_from_targets` is true gets the targets (B,) in training, and never otherwise.
    """
    place = next(network.parameters()).device
    lengths = batch.lengths.to(place)
    with torch.autocast(place.type, torch.bfloat16, enabled=precision == "bfloat16"):
        more = {name: values.to(place) for name, values in batch.extras.items()}
        if network.training and getattr(network, "learns_from_targets", False):  # never where it is tested
            more["targets"] = batch.targets.to(place)
        try:
            scores, penalty = network(batch.frames.to(place), lengths, **more)
        except RuntimeError as error:
            if precision != "bfloat16" or "primitive descriptor" not in str(error):
                raise
            raise UserError(
                "training.precision: bfloat16: this CPU cannot run the network in it (LSTMs need AVX-512); use another "
                'machine, or float32, which is another system: run.sh --set "training.precision=float32"'
            ) from None
    if scores.ndim not in (2, 3) or len(scores) != len(batch.utts):
        raise UserError(
            f"{type(network).__module__}: forward returned scores of shape {tuple(scores.shape)} for "
            f"{len(batch.utts)} utterances; it should return (B, classes), or (B, T, classes)"
        )
    logs = scores.float().log_softmax(-1)
    return (masked_mean(logs, lengths) if logs.ndim == 3 else logs), penalty


def evaluate(network: nn.Module, batches: Iterable[Batch], precision: str) -> Iterator[tuple[Batch, Tensor, Tensor]]:
    """Each batch with its log-posteriors and penalty, as `forward` returns them, in evaluation mode."""
    network.eval()
    for batch in batches:
        with torch.inference_mode():
            logs, penalty = forward(network, batch, precision)
        yield batch, logs, penalty


def save(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, Any] | None = None) -> None:
    """Write tensors, and notes as JSON in the header, atomically."""
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    about = {**(notes or {}), "md5": checksum(content, notes or {})}
    with whole(path, "wb") as stream:
        stream.write(safetensors.torch.save(content, {"notes": json.dumps(about)}))


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and notes of a file that `save` wrote. Raises UserError if it is missing or damaged."""
    remedy = "remove it and run stage 4 again"
    try:
        with safetensors.safe_open(path, "pt") as stream:
            notes = json.loads((stream.metadata() or {}).get("notes", "{}"))
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
            md5 = notes.pop("md5", None)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run stage 4") from None
    except Exception as error:  # safetensors, torch and json report a damaged file in many ways
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: not a complete safetensors file ({reason}); {remedy}") from None
    if md5 is None:
        raise UserError(f"{path}: written by an older version, without a checksum; {remedy}")
    if md5 != checksum(tensors, notes):
        raise UserError(f"{path}: damaged: the checksum does not match the content; {remedy}")
    return tensors, notes


def save_checkpoint(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, notes: Mapping[str, Any]) -> None:
    """Write the state of the network, of the optimiser and of torch's random number generators, and notes."""
    state = optimiser.state_dict()
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for number, moments in state["state"].items():
        tensors |= {f"optimiser.{number}.{name}": tensor for name, tensor in moments.items()}
    tensors["random.cpu"] = torch.get_rng_state()
    place = next(network.parameters()).device
    if place.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(place)
    save(path, tensors, {**notes, "groups": state["param_groups"]})


def load_checkpoint(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, run: str) -> dict[str, Any]:
    """Restore network, optimiser and torch's random number generators from a checkpoint; return its notes.

    Raises UserError if notes["run"] is not `run`.
    """
    tensors, notes = load(path)
    if notes.get("run") != run:
        raise UserError(f"{path}: belongs to another run or system; remove it and run stage 4 again")
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "optimiser": {}, "random": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    fill(network, parts["network"], path)
    try:
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimiser"].items():
            number, _, key = name.partition(".")
            state.setdefault(int(number), {})[key] = tensor
        optimiser.load_state_dict({"state": state, "param_groups": notes.pop("groups")})
        for weight, moments in optimiser.state.items():
            for name, moment in moments.items():
                if moment.shape == weight.shape:  # a fused step assumes the same memory layout
                    moments[name] = torch.empty_like(weight).copy_(moment)
        torch.set_rng_state(parts["random"]["cpu"])
        if "cuda" in parts["random"] and torch.cuda.is_available():
            torch.cuda.set_rng_state(parts["random"]["cuda"], next(network.parameters()).device)
    except Exception as error:  # torch reports unknown weights or optimiser states in many ways
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: not a checkpoint of this version ({type(error).__name__}: {reason}); remove it and run stage 4 "
            "again"
        ) from None
    return notes


def fill(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load weights from the file `path` into a network. Raises UserError if they belong to another network."""
    own = network.state_dict()
    wrong = [name for name in own if name not in weights or own[name].shape != weights[name].shape]
    wrong += [name for name in weights if name not in own]
    if wrong:
        raise UserError(
            f"{path}: its weights are not those of the run's network: {wrong[0]} and {len(wrong) - 1} more do not fit; "
            "remove or rename the folder and run stage 4 again"
        )
    network.load_state_dict(weights)
