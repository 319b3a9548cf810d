"""Stage 4: train the network of one run, from where it stopped if it did.

RUN is a run's folder as ser.launch lays it out. Writes epochs.jsonl (a line an epoch), best.safetensors
and last.safetensors (weights), normalisation.safetensors, checkpoint.safetensors (to go on from) and,
at the end, done.
"""

import argparse
import json
import time
from pathlib import Path

from ser import cli
from ser.cli import UserError
from ser.files import whole


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ser.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--job", type=int, help="RUN is a list of runs' folders, one a line: train the one on this line"
    )
    parser.add_argument(
        "--device",
        default="auto",
        choices=("auto", "cpu", "cuda"),
        help="auto: a GPU where there is one (default)",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    args = parser.parse_args(argv)

    from ser.runs import pick

    train(pick(args.run, args.job), args.device)


def train(folder: Path, device_name: str = "auto") -> None:
    """Train one run to its end."""
    import numpy as np
    import torch
    from tqdm import tqdm

    from ser import batches, metrics, networks
    from ser.archive import Features
    from ser.normalisation import train_statistics
    from ser.runs import read_run

    run = read_run(folder)
    if run.is_done:
        print(f"{folder}: done already")
        return
    run.refuse_other_split()
    settings = run.system.training
    device = networks.device(device_name)
    fold = run.read_fold()
    n_classes = len(fold.classes)
    targets = fold.targets()
    features = Features(run.features)
    train_lengths = features.lengths_of(fold.train)
    dev_lengths = features.lengths_of({"dev": fold.dev, "test": fold.test, "last": {}}[run.protocol.select])

    statistics = train_statistics(run.system.normalisation, features, fold.train)
    networks.save(
        folder / "normalisation.safetensors",
        {name: torch.from_numpy(value) for name, value in statistics.items()},
    )
    torch.manual_seed(run.seed)
    network = networks.build(run.system, features.dimension, n_classes).to(device)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=settings.learning_rate, eps=settings.epsilon)
    weights = class_weights(settings.class_weights, [targets[utt] for utt in fold.train], n_classes)
    cross_entropy = torch.nn.CrossEntropyLoss(torch.tensor(weights, device=device))
    print(
        f"{run.system.name}: {networks.count_parameters(network)} trained parameters, {device}, {torch.get_num_threads()} threads",
        flush=True,
    )

    def one_pass(order: list[list[str]], title: str, learn: bool) -> tuple[float, np.ndarray]:
        """Go through the batches once; return the mean loss and the confusion matrix."""
        network.train(learn)
        total, confusion = 0.0, np.zeros((n_classes, n_classes), int)
        for utts in tqdm(order, desc=title, leave=False, disable=None):
            batch = batches.load(utts, features, statistics, targets)
            with torch.set_grad_enabled(learn):
                scores, penalty = networks.forward(network, batch, settings.precision)
                loss = cross_entropy(scores, batch.targets.to(device)) + penalty
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
            total += loss.item() * len(utts)
            confusion += metrics.confusion_matrix(
                batch.targets.numpy(), scores.argmax(1).cpu().numpy(), n_classes
            )
        return total / sum(map(len, order)), confusion

    log: list[dict[str, float]] = []
    if (folder / "checkpoint.safetensors").exists():
        log = networks.load_checkpoint(folder / "checkpoint.safetensors", network, optimiser)["log"]
        print(f"goes on after epoch {len(log)}", flush=True)
    for epoch in range(len(log) + 1, settings.epochs + 1):
        if (
            log
            and dev_lengths
            and settings.patience
            and len(log) - networks.best_line(log, settings.monitor)["epoch"] >= settings.patience
        ):
            print(f"no better {settings.monitor} in {settings.patience} epochs", flush=True)
            break
        started = time.monotonic()
        # all that is random in an epoch follows from seed and epoch: a resumed run is the same run
        torch.manual_seed(run.seed * 1_000_003 + epoch)
        rng = np.random.default_rng([run.seed, epoch])
        loss, confusion = one_pass(
            batches.random_batches(train_lengths, settings.batch_size, rng), f"epoch {epoch}", learn=True
        )
        line = {"epoch": epoch, "train_loss": loss, "train_wa": metrics.wa(confusion)}
        if dev_lengths:
            loss, confusion = one_pass(
                batches.sorted_batches(dev_lengths, settings.batch_size), f"epoch {epoch}, dev", learn=False
            )
            line |= {"dev_loss": loss, "dev_wa": metrics.wa(confusion), "dev_ua": metrics.ua(confusion)}
        line["seconds"] = time.monotonic() - started
        log.append(line)
        is_best = bool(dev_lengths) and networks.best_line(log, settings.monitor) is line
        if is_best:
            networks.save(folder / "best.safetensors", network.state_dict())
        with whole(folder / "epochs.jsonl") as stream:
            stream.writelines(json.dumps(line) + "\n" for line in log)
        networks.save_checkpoint(folder / "checkpoint.safetensors", network, optimiser, {"log": log})
        print(
            " ".join(f"{key} {value:.4g}" for key, value in line.items()), "*" if is_best else "", flush=True
        )

    networks.save(folder / "last.safetensors", network.state_dict())
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    (folder / "done").touch()


def class_weights(kind: str, targets: list[int], n_classes: int) -> list[float]:
    """Weight of each class in the loss: 1, or "balanced": N / (classes * its number), as scikit-learn."""
    if kind == "none":
        return [1.0] * n_classes
    return [len(targets) / (n_classes * targets.count(number)) for number in range(n_classes)]


if __name__ == "__main__":
    cli.run(main)
