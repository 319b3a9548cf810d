"""Stage 4: train the network of one run, from where it stopped if it did.

RUN is a run's folder as ser.launch lays it out. Writes epochs.jsonl (a line an epoch), best.safetensors
and last.safetensors (weights), normalisation.safetensors, checkpoint.safetensors (to go on from, within an
epoch too) and, at the end, done.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser import cli
from ser.cli import UserError
from ser.files import whole
from ser.worker import once, work

if TYPE_CHECKING:
    import numpy as np

    from ser.runs import Run


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ser.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--list",
        action="store_true",
        help="RUN is a list of runs' folders, one a line, which several processes may share: train those "
        "that no other takes, one after the other",
    )
    cli.add_device(parser)
    parser.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=60,
        metavar="S",
        help="seconds between checkpoints within an epoch (default 60); there is one after each epoch too",
    )
    parser.add_argument(
        "--num-threads", type=int, metavar="N", help="processor cores (default: what OMP_NUM_THREADS says)"
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    args = parser.parse_args(argv)

    if args.num_threads:
        import torch

        torch.set_num_threads(args.num_threads)

    def one(folder: Path) -> None:
        train(folder, args.device, args.checkpoint_seconds)

    work(args.run, one) if args.list else one(args.run)


def train(folder: Path, device_name: str = "auto", checkpoint_seconds: float = 60) -> None:
    """Train one run to its end. Raises UserError where another process is at it."""
    once(folder, lambda run: train_network(run, device_name, checkpoint_seconds))


def train_network(run: "Run", device_name: str, checkpoint_seconds: float) -> None:
    """Train the network of a run, and write what becomes of it into the run's folder."""
    import numpy as np
    import torch
    from tqdm import tqdm

    from ser import batches, metrics, networks
    from ser.inputs import Inputs, start
    from ser.normalisation import train_statistics

    folder, settings = run.folder, run.system.training
    device = networks.device(device_name)
    inputs = Inputs(run)
    fold, features, targets = inputs.fold, inputs.features, inputs.targets
    n_classes = len(fold.classes)
    train_lengths = features.lengths_of(fold.train)
    selects = run.protocol.select != "last"
    # where nothing is selected, the test set's learning curve is for the eye alone
    dev_lengths = features.lengths_of(fold.dev if run.protocol.select == "dev" else fold.test)

    statistics = train_statistics(run.system.normalisation, features, fold.train)
    networks.save(
        folder / "normalisation.safetensors",
        {name: torch.from_numpy(value) for name, value in statistics.items()},
    )
    torch.manual_seed(run.seed)
    network = networks.build(run.system, inputs.sizes)
    start(network, run, inputs)
    network.to(device)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = networks.optimiser(settings, trained)
    weights = class_weights(settings.class_weights, [targets[utt] for utt in fold.train], n_classes)
    cross_entropy = torch.nn.NLLLoss(torch.tensor(weights, device=device))  # of log-posteriors
    print(
        f"{run.system.name}: {networks.count_parameters(network)} trained parameters, {device}, {torch.get_num_threads()} threads",
        flush=True,
    )

    identity = run.identity

    def save_checkpoint(log: list[dict[str, float]], sums: Sums | None) -> None:
        notes = {"run": identity, "log": log, "sums": sums and sums.as_dict()}
        networks.save_checkpoint(folder / "checkpoint.safetensors", network, optimiser, notes)

    def one_pass(order: list[list[str]], title: str, sums: Sums, learn: bool) -> None:
        """Go through the batches that `sums` lacks, and add them to it."""
        network.train(learn)
        saved = time.monotonic()
        for utts in tqdm(order[sums.batches :], desc=title, leave=False, disable=None):
            started = time.monotonic()
            batch = inputs.batch(utts, statistics)
            with torch.set_grad_enabled(learn):
                logs, penalty = networks.forward(network, batch, settings.precision)
                loss = cross_entropy(logs, batch.targets.to(device)) + penalty
            if not torch.isfinite(loss):
                raise UserError(
                    f"{folder}: {title}: the loss is {loss.item()}; lower learning_rate or set clip_norm"
                )
            if learn:
                optimiser.zero_grad()
                loss.backward()
                if settings.clip_norm:
                    torch.nn.utils.clip_grad_norm_(trained, settings.clip_norm)
                optimiser.step()
            sums.add(loss.item(), penalty.item(), batch.targets.numpy(), logs.argmax(1).cpu().numpy())
            sums.seconds += time.monotonic() - started
            if learn and time.monotonic() - saved >= checkpoint_seconds:
                save_checkpoint(log, sums)
                saved = time.monotonic()

    log: list[dict[str, float]] = []
    resumed = None  # what an interrupted epoch has come to
    checkpoint = folder / "checkpoint.safetensors"
    if checkpoint.exists():
        notes = networks.load_checkpoint(checkpoint, network, optimiser, identity)
        log, resumed = notes["log"], notes["sums"] and Sums.of(notes["sums"])
        within = f" and {resumed.batches} batches" if resumed else ""
        print(f"goes on after epoch {len(log)}{within}", flush=True)
    for epoch in range(len(log) + 1, settings.epochs + 1):
        if (
            log
            and selects
            and settings.patience
            and len(log) - networks.best_line(log, settings.monitor)["epoch"] >= settings.patience
        ):
            print(f"no better {settings.monitor} in {settings.patience} epochs", flush=True)
            break
        # all that is random in an epoch follows from seed and epoch: a resumed run is the same run
        rng = np.random.default_rng([run.seed, epoch])
        if settings.batches == "balanced":
            of_train = {utt: targets[utt] for utt in fold.train}
            order = batches.balanced_batches(of_train, settings.batch_size, rng)
        else:
            order = batches.random_batches(train_lengths, settings.batch_size, rng)
        if not resumed:  # otherwise the checkpoint has torch's random numbers
            torch.manual_seed(run.seed * 1_000_003 + epoch)
        sums = resumed or Sums.empty(n_classes)
        resumed = None
        one_pass(order, f"epoch {epoch}", sums, learn=True)
        line = {"epoch": epoch, **sums.means("train")}
        seconds = sums.seconds
        sums = Sums.empty(n_classes)
        order = batches.sorted_batches(dev_lengths, settings.batch_size)
        one_pass(order, f"epoch {epoch}, dev", sums, learn=False)
        line |= sums.means("dev")
        line |= {f"dev_{name}": metric.of(sums.confusion) for name, metric in metrics.METRICS.items()}
        line["seconds"] = seconds + sums.seconds
        said = 100 * sums.confusion.sum(0) / sums.confusion.sum()
        line |= {f"dev_share_{name}": share for name, share in zip(fold.classes, said, strict=True)}
        log.append(line)
        is_best = selects and networks.best_line(log, settings.monitor) is line
        if is_best:
            networks.save(folder / "best.safetensors", network.state_dict(), {"sizes": inputs.sizes})
        with whole(folder / "epochs.jsonl") as stream:
            stream.writelines(json.dumps(line) + "\n" for line in log)
        save_checkpoint(log, None)
        print(
            " ".join(f"{key} {value:.4g}" for key, value in line.items()), "*" if is_best else "", flush=True
        )
        number = metrics.collapse(sums.confusion)
        if number is not None:
            print(f"warning: epoch {epoch}: {metrics.COLLAPSE.format(fold.classes[number])}", flush=True)

    networks.save(folder / "last.safetensors", network.state_dict(), {"sizes": inputs.sizes})
    (folder / "done").touch()
    checkpoint.unlink(missing_ok=True)


@dataclass
class Sums:
    """What the batches of an epoch have come to so far, as a checkpoint keeps it.

    loss, and what of it is penalty: summed over utterances; confusion: counts, a row a true class; seconds: spent
    on them.
    """

    batches: int
    utterances: int
    loss: float
    penalty: float
    confusion: "np.ndarray"
    seconds: float

    @classmethod
    def empty(cls, n_classes: int) -> "Sums":
        return cls.of(
            {
                "batches": 0,
                "utterances": 0,
                "loss": 0.0,
                "penalty": 0.0,
                "confusion": [[0] * n_classes] * n_classes,
                "seconds": 0.0,
            }
        )

    @classmethod
    def of(cls, content: dict[str, Any]) -> "Sums":
        """What `as_dict` wrote."""
        import numpy as np

        return cls(**content | {"confusion": np.array(content["confusion"])})

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"confusion": self.confusion.tolist()}

    def add(self, loss: float, penalty: float, true: "np.ndarray", predicted: "np.ndarray") -> None:
        """Add a batch; loss and penalty: its mean ones."""
        from ser import metrics

        self.batches += 1
        self.utterances += len(true)
        self.loss += loss * len(true)
        self.penalty += penalty * len(true)
        self.confusion += metrics.confusion_matrix(true, predicted, len(self.confusion))

    def means(self, part: str) -> dict[str, float]:
        """Mean loss and penalty, and WA, as the log calls them of a part."""
        from ser import metrics

        return {
            f"{part}_loss": self.loss / self.utterances,
            f"{part}_penalty": self.penalty / self.utterances,
            f"{part}_wa": metrics.wa(self.confusion),
        }


def class_weights(kind: str, targets: list[int], n_classes: int) -> list[float]:
    """Weight of each class in the loss: 1, or "balanced": N / (classes * its number), as scikit-learn."""
    if kind == "none":
        return [1.0] * n_classes
    return [len(targets) / (n_classes * targets.count(number)) for number in range(n_classes)]


if __name__ == "__main__":
    cli.run(main)
