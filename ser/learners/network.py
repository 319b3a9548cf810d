"""Networks: trained for epochs on batches of padded utterances; training can resume after any batch."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from tqdm import tqdm

from ser import batches, metrics, networks
from ser.batches import Batch
from ser.cli import UserError
from ser.config import Training
from ser.epochs import Sums, best_line, is_over, line_of, read_log
from ser.files import whole
from ser.learners import Resources
from ser.normalisation import train_statistics
from ser.reading import Inputs, read_inputs, read_run_fold, start
from ser.runs import Run


def fit(run: Run, resources: Resources) -> None:
    """Train the network of a run, resuming if it was interrupted, and write the results into its folder."""
    if resources.num_threads:
        torch.set_num_threads(resources.num_threads)
    folder, settings, selects = run.folder, settings_of(run), run.protocol.select != "last"
    device = networks.device(resources.device)
    fold = read_run_fold(run)
    inputs = read_inputs(run, fold)
    train_lengths = inputs.features.lengths_of(fold.train)
    # if nothing is selected, the test set's learning curve is only for plots
    dev_lengths = inputs.features.lengths_of(fold.dev if run.protocol.select == "dev" else fold.test)
    dev_batches = batches.sorted_batches(dev_lengths, settings.batch_size)

    statistics = train_statistics(run.system.normalisation, inputs.features, fold.train)
    networks.save(
        folder / "normalisation.safetensors",
        {name: torch.from_numpy(value) for name, value in statistics.items()},
    )
    torch.manual_seed(run.seed)
    network = networks.build(run.system, inputs.sizes)
    start(network, run, fold, inputs.extras)
    network.to(device)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = networks.optimiser(settings, networks.groups(network, settings.learning_rate))
    cross_entropy = loss_of(settings, [inputs.targets[utt] for utt in fold.train], len(fold.classes), device)
    print(
        f"{run.system.name}: {networks.count_parameters(network)} trained parameters, {device}, "
        f"{torch.get_num_threads()} threads",
        flush=True,
    )

    checkpoint, identity = folder / "checkpoint.safetensors", run.identity
    log: list[dict[str, float]] = []
    resumed = None  # the sums of an interrupted epoch
    if checkpoint.exists():
        notes = networks.load_checkpoint(checkpoint, network, optimiser, identity)
        log, resumed = notes["log"], notes["sums"] and Sums.of(notes["sums"])
        within = f" and {resumed.batches} batches" if resumed else ""
        print(f"resumes after epoch {len(log)}{within}", flush=True)

    def save_checkpoint(sums: Sums | None) -> None:
        notes = {"run": identity, "log": log, "sums": sums and sums.as_dict()}
        networks.save_checkpoint(checkpoint, network, optimiser, notes)

    for epoch in range(len(log) + 1, settings.epochs + 1):
        if selects and is_over(log, settings):
            print(f"no better {settings.monitor} in {settings.patience} epochs", flush=True)
            break
        # all random numbers of an epoch depend on seed and epoch: a resumed run gives the same result
        order = draw(train_lengths, inputs.targets, settings, np.random.default_rng([run.seed, epoch]))
        if not resumed:  # otherwise the checkpoint restored torch's random numbers
            torch.manual_seed(run.seed * 1_000_003 + epoch)
        sums, resumed = resumed or Sums.empty(len(fold.classes)), None
        network.train()
        title, saved = f"epoch {epoch}", time.monotonic()
        firsts = range(sums.batches, len(order), settings.accumulation)  # a checkpoint stands between two steps
        for first in tqdm(firsts, desc=title, leave=False, disable=None):
            started = time.monotonic()
            step = order[first : first + settings.accumulation]
            optimiser.zero_grad()
            shares = shares_of(step, inputs.targets, cross_entropy.weight.tolist())
            for utts, (of_loss, of_penalty) in zip(step, shares, strict=True):
                batch = inputs.batch(utts, statistics)
                logs, penalty = networks.forward(network, batch, settings.precision)
                entropy = cross_entropy(logs, batch.targets.to(device))
                loss = entropy + penalty
                refuse_infinite(loss, run, title)
                (of_loss * entropy + of_penalty * penalty).backward()
                sums.add(batch, loss, penalty, logs)
            if settings.clip_norm:
                torch.nn.utils.clip_grad_norm_(trained, settings.clip_norm)
            optimiser.step()
            sums.seconds += time.monotonic() - started
            if time.monotonic() - saved >= resources.checkpoint_seconds:
                save_checkpoint(sums)
                saved = time.monotonic()

        title, started, dev = f"epoch {epoch}, dev", time.monotonic(), Sums.empty(len(fold.classes))
        read = (inputs.batch(utts, statistics) for utts in tqdm(dev_batches, desc=title, leave=False, disable=None))
        for batch, logs, penalty in networks.evaluate(network, read, settings.precision):
            loss = cross_entropy(logs, batch.targets.to(device)) + penalty
            refuse_infinite(loss, run, title)
            dev.add(batch, loss, penalty, logs)
        dev.seconds = time.monotonic() - started

        log.append(line_of(epoch, sums, dev, fold.classes))
        is_best = selects and best_line(log, settings.monitor) is log[-1]
        if is_best:
            networks.save(folder / "best.safetensors", network.state_dict(), {"sizes": inputs.sizes})
        with whole(folder / "epochs.jsonl") as stream:
            stream.writelines(json.dumps(line) + "\n" for line in log)
        save_checkpoint(None)
        report(log[-1], is_best, metrics.collapse(dev.confusion), fold.classes)

    networks.save(folder / "last.safetensors", network.state_dict(), {"sizes": inputs.sizes})
    (folder / "done").touch()
    checkpoint.unlink(missing_ok=True)


def settings_of(run: Run) -> Training:
    """How the network of a run is trained."""
    assert run.system.training  # ser.config requires it for networks
    return run.system.training


def loss_of(settings: Training, targets: list[int], n_classes: int, device: torch.device) -> torch.nn.NLLLoss:
    """The cross-entropy of log-posteriors, with class weights as the settings say. targets: of the training part."""
    weights = class_weights(settings.class_weights, targets, n_classes)
    return torch.nn.NLLLoss(torch.tensor(weights, device=device))


def class_weights(kind: str, targets: list[int], n_classes: int) -> list[float]:
    """Weight of each class in the loss: 1, or "balanced": N / (classes * count of the class), as in scikit-learn."""
    if kind == "none":
        return [1.0] * n_classes
    return [len(targets) / (n_classes * targets.count(number)) for number in range(n_classes)]


def shares_of(
    step: Sequence[list[str]], targets: Mapping[str, int], weights: Sequence[float]
) -> list[tuple[float, float]]:
    """The shares of each batch in the mean cross-entropy, which weighs classes, and in the mean penalty, of all batches
    of a step together. weights: of the classes."""
    total = [sum(weights[targets[utt]] for utt in utts) for utts in step], [len(utts) for utts in step]
    return [(weight / sum(total[0]), number / sum(total[1])) for weight, number in zip(*total, strict=True)]


def draw(
    lengths: Mapping[str, int], targets: Mapping[str, int], settings: Training, rng: np.random.Generator
) -> list[list[str]]:
    """The batches of an epoch. lengths: of the training utterances, in frames; targets: {utt: class number}."""
    if settings.batches == "balanced":
        return batches.balanced_batches({utt: targets[utt] for utt in lengths}, settings.batch_size, rng)
    return batches.random_batches(lengths, settings.batch_size, rng)


def refuse_infinite(loss: torch.Tensor, run: Run, title: str) -> None:
    """Raise UserError if a loss is infinite or undefined."""
    if not torch.isfinite(loss):
        raise UserError(f"{run.folder}: {title}: the loss is {loss.item()}; lower learning_rate or set clip_norm")


def report(line: dict[str, float], is_best: bool, collapsed: int | None, classes: list[str]) -> None:
    """Print an epoch's line, and a warning if one class takes over."""
    print(" ".join(f"{key} {value:.4g}" for key, value in line.items()), "*" if is_best else "", flush=True)
    if collapsed is not None:
        print(f"warning: epoch {line['epoch']}: {metrics.COLLAPSE.format(classes[collapsed])}", flush=True)


class Learned:
    """The network of a finished run; see ser/learners/__init__.py."""

    def __init__(self, run: Run, device: str, sizes: Mapping[str, int] | None) -> None:
        self.run = run
        self.network, self.statistics, self.sizes = networks.trained(run, sizes)
        self.network.to(networks.device(device))

    def answers(self, inputs: Inputs, utts: Sequence[str]) -> Iterator[tuple[Batch, torch.Tensor]]:
        """Batches of utterances, longest first, each with its log-posteriors (B, classes)."""
        settings = settings_of(self.run)
        order = batches.sorted_batches(inputs.features.lengths_of(utts), settings.batch_size)
        read = (inputs.batch(chosen, self.statistics) for chosen in order)
        for batch, logs, _ in networks.evaluate(self.network, read, settings.precision):
            yield batch, logs

    def posteriors(self, inputs: Inputs, utts: Sequence[str]) -> np.ndarray:
        """See ser/learners/__init__.py."""
        row = {utt: number for number, utt in enumerate(utts)}
        posteriors = np.empty((len(utts), self.sizes["n_classes"]))
        for batch, logs in self.answers(inputs, utts):
            posteriors[[row[utt] for utt in batch.utts]] = logs.softmax(1).cpu().numpy()
        return posteriors

    def about(self) -> dict[str, object]:
        """Numbers of trained parameters and epochs, and the seconds of training."""
        settings = settings_of(self.run)
        log = read_log(self.run.folder / "epochs.jsonl", ("seconds", "dev_loss", settings.monitor))
        best = best_line(log, settings.monitor) if self.run.protocol.select != "last" else log[-1]
        return {
            "parameters": networks.count_parameters(self.network),
            "epochs": f"{len(log)}, scored after {best['epoch']:.0f}",
            "train_seconds": round(sum(line["seconds"] for line in log)),
        }


def load(run: Run, device: str = "auto", sizes: Mapping[str, int] | None = None) -> Learned:
    """The network of a finished run that its protocol selects. Raises UserError if it is damaged, or does not fit
    inputs of `sizes`."""
    return Learned(run, device, sizes)
