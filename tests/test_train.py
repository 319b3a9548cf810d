"""Stage 4: the training loop on a toy task."""

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import kaldiio
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from sklearn.metrics import balanced_accuracy_score, f1_score
from sklearn.utils.class_weight import compute_class_weight

import ser
from ser import networks, score
from ser.cli import UserError
from ser.epochs import Sums, best_line, line_of
from ser.learners.network import class_weights, shares_of
from ser.runs import read_run
from ser.scores import read_scores
from ser.train import train

ROOT = Path(ser.__file__).parents[1]
SELECTS = ("dev", "test", "last")


def log_of(folder):
    return [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]


def without_time(log):
    return [{key: value for key, value in line.items() if key != "seconds"} for line in log]


def weights_of(folder, names=("best", "last")):
    return [(folder / f"{name}.safetensors").read_bytes() for name in names]


def done(folder):
    train(folder, "cpu")
    assert (folder / "done").exists()
    return folder


def initial(folder):
    """The weights before the first epoch."""
    run = read_run(folder)
    torch.manual_seed(run.seed)
    return networks.build(run.system, {"n_features": 6, "n_classes": 2})


def test_it_learns(recipe):
    folder = done(recipe.lay_out("run", epochs=12))
    log = log_of(folder)
    assert [line["epoch"] for line in log] == list(range(1, 13))
    assert log[-1]["train_loss"] < 0.5 * log[0]["train_loss"]
    assert log[-1]["dev_loss"] < 0.5 * log[0]["dev_loss"]
    assert max(line["dev_wa"] for line in log) >= 90
    both = [f"{part}_{what}" for part in ("train", "dev") for what in ("loss", "penalty", "wa")]
    assert list(log[-1]) == ["epoch", *both, "dev_ua", "dev_f1", "seconds", "dev_share_low", "dev_share_high"]
    assert 0 < log[0]["train_penalty"] < log[0]["train_loss"]  # L1 of the states
    assert sorted(path.name for path in folder.iterdir()) == [
        "best.safetensors", "done", "epochs.jsonl", "last.safetensors", "normalisation.safetensors", "run.yaml",
    ]  # fmt: skip


@pytest.mark.parametrize("select", SELECTS)
def test_the_share_of_each_predicted_class_is_logged(recipe, select, capsys):
    folder = done(recipe.lay_out("run", select, epochs=3))
    names = recipe.part("dev" if select == "dev" else "test")
    for line in log_of(folder):
        shares = [line["dev_share_low"], line["dev_share_high"]]
        assert sum(shares) == pytest.approx(100)
        for share in shares:
            assert share * len(names) / 100 == pytest.approx(round(share * len(names) / 100))
    if select == "last":  # what is scored is what was logged last
        score.score(folder, Path("result.txt"), "cpu")
        predicted = read_scores(Path("result.txt")).predicted
        assert line["dev_share_high"] == pytest.approx(100 * np.mean(predicted))
    assert "warning: epoch 3" not in capsys.readouterr().out


def test_a_class_that_takes_over_is_told_of(recipe, monkeypatch, capsys):
    own = networks.forward

    def biased(*arguments):
        logs, penalty = own(*arguments)
        return (logs + 100 * torch.tensor([0, 1])).log_softmax(1), penalty

    monkeypatch.setattr(networks, "forward", biased)
    folder = done(recipe.lay_out("run", epochs=2))
    assert [line["dev_share_high"] for line in log_of(folder)] == [100, 100]
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert told == [
        f"warning: epoch {epoch}: more than half of the utterances of other classes are predicted as high"
        for epoch in (1, 2)
    ]


def test_the_same_seed_gives_the_same_bytes(recipe):
    first, again, other = (
        done(recipe.lay_out(name, seed=seed)) for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert weights_of(first) == weights_of(again)
    assert without_time(log_of(first)) == without_time(log_of(again))
    assert (first / "normalisation.safetensors").read_bytes() == (again / "normalisation.safetensors").read_bytes()
    assert not set(weights_of(first)) & set(weights_of(other))


class Interruption(BaseException):
    """Ends a training at once, as a kill does."""


def interrupt(monkeypatch, name, times, after):
    """Let networks.<name> be called `times` times, and end the training before or after the last of these."""
    own, calls = getattr(networks, name), []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) < times:
            return own(*arguments, **options)
        if after:
            own(*arguments, **options)
        raise Interruption

    monkeypatch.setattr(networks, name, interrupted)


# 4 epochs, each of 4 training batches and 2 development batches; normalisation.safetensors is the first
# of what is saved, then best (where it is best) and checkpoint each epoch
@pytest.mark.parametrize(
    ("name", "times", "after", "epochs_left"),
    [
        ("forward", 1, False, 4),
        ("forward", 9, True, 3),  # in the training pass of epoch 2
        ("forward", 12, False, 3),  # in its development pass
        ("save", 2, True, 4),  # the best model of epoch 1 is kept, its checkpoint is not
        ("save_checkpoint", 2, False, 3),  # the log of epoch 2 is written, its checkpoint is not
        ("save_checkpoint", 2, True, 2),
        ("save_checkpoint", 4, True, 0),  # all but the last model is there
    ],
)
def test_going_on_ends_in_the_same_bytes(recipe, monkeypatch, name, times, after, epochs_left):
    settings = {"epochs": 4, "clip_norm": 0.5, "class_weights": "balanced", "batch_size": 7}
    undisturbed, folder = (recipe.lay_out(place, **settings) for place in ("undisturbed", "run"))
    done(undisturbed)
    with monkeypatch.context() as patch:
        interrupt(patch, name, times, after)
        with pytest.raises(Interruption):
            train(folder, "cpu")
    assert not (folder / "done").exists()
    passes = []
    with monkeypatch.context() as patch:
        forward = networks.forward
        patch.setattr(
            networks,
            "forward",
            lambda network, batch, precision: passes.append(batch.utts) or forward(network, batch, precision),
        )
        done(folder)
    assert len(passes) == 6 * epochs_left  # it does not begin again
    assert weights_of(folder) == weights_of(undisturbed)
    assert without_time(log_of(folder)) == without_time(log_of(undisturbed))


@pytest.mark.parametrize(
    ("batches_done", "settings"),
    [
        *((number, {}) for number in range(1, 10)),
        *((number, {"optimiser": "nadam", "batches": "balanced"}) for number in (3, 9)),
        (3, {"optimiser": "rmsprop"}),
    ],
)  # four of an epoch's six are learnt from
def test_going_on_within_an_epoch(recipe, monkeypatch, batches_done, settings):
    """The checkpoint has the batch, the sums of the epoch, the optimiser, and torch's random numbers, which dropout takes."""
    undisturbed, folder = (recipe.lay_out(place, epochs=2, **settings) for place in ("undisturbed", "run"))
    done(undisturbed)
    with monkeypatch.context() as patch:
        interrupt(patch, "forward", batches_done, False)
        with pytest.raises(Interruption):
            train(folder, "cpu", checkpoint_seconds=0)
    torch.rand(7)  # another process has other random numbers
    passes = []
    with monkeypatch.context() as patch:
        forward = networks.forward
        patch.setattr(
            networks,
            "forward",
            lambda network, batch, precision: passes.append(batch.utts) or forward(network, batch, precision),
        )
        train(folder, "cpu", checkpoint_seconds=0)
    in_epoch = (batches_done - 1) % 6
    again = in_epoch - min(in_epoch, 4)  # the development pass begins again
    assert len(passes) == 12 - (batches_done - 1) + again
    assert weights_of(folder) == weights_of(undisturbed)
    assert without_time(log_of(folder)) == without_time(log_of(undisturbed))


def test_the_checkpoint_of_another_run(recipe):
    folder, other, seed = (
        recipe.lay_out("run"),
        recipe.lay_out("other", learning_rate=0.02),
        recipe.lay_out("seed", seed=2),
    )
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, "save_checkpoint", 1, True)
        with pytest.raises(Interruption):
            train(folder, "cpu")
    for place in (other, seed):
        (place / "checkpoint.safetensors").write_bytes((folder / "checkpoint.safetensors").read_bytes())
        with pytest.raises(
            UserError,
            match=r"checkpoint\.safetensors: belongs to another run or system; remove it and run stage 4",
        ):
            train(place, "cpu")


KILLED = """
import os, signal
from pathlib import Path
from ser import networks, train

def save(path, tensors, notes=None, own=networks.save):
    if Path(path).name == "checkpoint.safetensors" and len(notes["log"]) == 2:
        with networks.whole(path, "wb") as stream:
            stream.write(b"half a checkpoint")
            stream.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    own(path, tensors, notes)

networks.save = save
train.main(["--device", "cpu", "exp/run"])
"""


def test_a_killed_training_goes_on(recipe):
    undisturbed, folder = (recipe.lay_out(name) for name in ("undisturbed", "run"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", KILLED], env=environment, capture_output=True, text=True)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert not (folder / "done").exists()
    assert not (folder / "last.safetensors").exists()
    done(folder)
    assert weights_of(folder) == weights_of(done(undisturbed))


def test_a_checkpoint_that_is_broken_is_named(recipe):
    folder = recipe.lay_out("run")
    (folder / "checkpoint.safetensors").write_bytes(b"no checkpoint")
    with pytest.raises(
        UserError, match=r"checkpoint\.safetensors: not a complete safetensors file .*; remove it and run stage 4 again"
    ):
        train(folder, "cpu")


def test_each_epoch_has_an_order_of_its_own(recipe, monkeypatch):
    """And a network that learns drops values out and normalises by the batch; one that is asked does not."""
    order, modes, forward = [], [], networks.forward

    def listen(network, batch, precision):
        order.append(tuple(batch.utts))
        modes.append((network.training, torch.is_grad_enabled()))
        return forward(network, batch, precision)

    monkeypatch.setattr(networks, "forward", listen)
    done(recipe.lay_out("run", epochs=3))
    epochs = [order[start : start + 4] for start in range(0, 18, 6)]  # each 4 batches to learn from, 2 to be asked
    assert len(order) == 18
    assert all(sorted(sum(epoch, ())) == recipe.part("train") for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert modes == ([(True, True)] * 4 + [(False, False)] * 2) * 3


def test_balanced_batches(recipe, monkeypatch):
    trained = []
    forward = networks.forward
    monkeypatch.setattr(
        networks,
        "forward",
        lambda network, batch, precision: (
            trained.append(batch.targets.tolist() if network.training else []) or forward(network, batch, precision)
        ),
    )
    done(recipe.lay_out("run", epochs=1, batch_size=6, batches="balanced"))
    batches = [sorted(targets) for targets in trained if targets]
    assert len(batches) > 1 and all(targets == [0, 0, 0, 1, 1, 1] for targets in batches[:-1])


def test_a_run_that_is_done_is_left_alone(recipe, capsys):
    folder = done(recipe.lay_out("run", epochs=1))
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    capsys.readouterr()
    done(folder)
    assert capsys.readouterr().out == f"{folder}: already done\n"
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize("monitor", ["dev_loss", "dev_wa", "dev_ua", "dev_f1"])
def test_best_line(monitor):
    values = [3, 1, 2, 1, 3, 2]
    log = [{"epoch": epoch, monitor: value} for epoch, value in enumerate(values, 1)]
    assert best_line(log, monitor)["epoch"] == (2 if monitor == "dev_loss" else 1)  # the first of equals


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_a_class_that_dev_lacks_does_not_count_in_what_selects():
    """Of three classes dev has the first and the last; some of its utterances are predicted as the second."""
    rng = np.random.default_rng(3)
    dev = Sums.empty(3)
    true, logs = (
        torch.tensor([0, 2])[torch.from_numpy(rng.integers(0, 2, 40))],
        torch.from_numpy(rng.normal(size=(40, 3))),
    )
    dev.add(SimpleNamespace(targets=true), torch.tensor(1.0), torch.tensor(0.0), logs)
    line = line_of(1, dev, dev, ["a", "b", "c"])
    predicted = logs.argmax(1)
    assert set(predicted.tolist()) == {0, 1, 2}
    assert line["dev_ua"] == pytest.approx(100 * balanced_accuracy_score(true, predicted))
    assert line["dev_f1"] == pytest.approx(100 * f1_score(true, predicted, average="macro"))


@pytest.mark.parametrize(("monitor", "patience"), [("dev_loss", 2), ("dev_wa", 3)])
def test_early_stopping(recipe, monitor, patience):
    folder = done(recipe.lay_out("run", epochs=60, learning_rate=0.1, patience=patience, monitor=monitor))
    log = log_of(folder)
    better = {"dev_loss": lambda new, old: new < old, "dev_wa": lambda new, old: new > old}[monitor]
    best, waited = log[0], 0
    for line in log[1:]:
        assert waited < patience  # else it would have ended before this epoch
        best, waited = (line, 0) if better(line[monitor], best[monitor]) else (best, waited + 1)
    assert waited == patience
    assert len(log) < 60
    # the best model is the one after that epoch: what a training of so many epochs ends with
    shorter = done(recipe.lay_out("shorter", epochs=best["epoch"], learning_rate=0.1, monitor=monitor))
    assert weights_of(folder, ["best"]) == weights_of(shorter, ["last"])
    assert weights_of(folder, ["best"]) != weights_of(folder, ["last"])


def test_early_stopping_goes_on_waiting_after_an_interruption(recipe, monkeypatch):
    settings = {"epochs": 60, "learning_rate": 0.1, "patience": 2}
    undisturbed, folder = (recipe.lay_out(name, **settings) for name in ("undisturbed", "run"))
    number = len(log_of(done(undisturbed)))
    with monkeypatch.context() as patch:
        interrupt(patch, "save_checkpoint", number - 1, after=True)
        with pytest.raises(Interruption):
            train(folder, "cpu")
    assert len(log_of(done(folder))) == number
    assert weights_of(folder) == weights_of(undisturbed)


def test_what_selects_the_model(recipe):
    """The development part, the test part, or nothing."""
    heard = {select: log_of(done(recipe.lay_out(select, select, epochs=2))) for select in SELECTS}
    assert without_time(heard["last"]) == without_time(heard["test"])  # the curve of the test set, for the eye
    assert [line["train_loss"] for line in heard["last"]] == [line["train_loss"] for line in heard["dev"]]
    n_dev, n_test = len(recipe.part("dev")), len(recipe.part("test"))
    for select, number in (("dev", n_dev), ("test", n_test)):
        for line in heard[select]:
            right = line["dev_wa"] / 100 * number
            assert right == pytest.approx(round(right))
    assert heard["dev"][0]["dev_loss"] != heard["test"][0]["dev_loss"]
    assert not Path("exp/last/best.safetensors").exists()
    last = {select: Path(f"exp/{select}/last.safetensors").read_bytes() for select in SELECTS}
    assert last["dev"] == last["test"] == last["last"]  # what selects does not teach


@pytest.mark.parametrize(("select", "file"), [("dev", "best"), ("test", "best"), ("last", "last")])
def test_scores_are_those_of_the_saved_weights(recipe, select, file):
    folder = done(recipe.lay_out("run", select, epochs=5, learning_rate=0.05, monitor="dev_wa"))
    result = Path("scores.txt")
    score.score(folder, result, "cpu")
    scores = read_scores(result)
    assert scores.utts == sorted(recipe.part("test"))
    assert [scores.classes[number] for number in scores.true] == [recipe.classes[utt] for utt in scores.utts]

    network = initial(folder).eval()
    network.load_state_dict(
        {name: torch.from_numpy(value) for name, value in load_file(folder / f"{file}.safetensors").items()}
    )
    taught = np.concatenate([recipe.matrices[utt] for utt in recipe.part("train")]).astype(np.float64)
    for utt, posteriors in zip(scores.utts, scores.posteriors, strict=True):  # each utterance alone
        frames = (recipe.matrices[utt] - taught.mean(0)) / taught.std(0)
        with torch.no_grad():
            own, _ = network(torch.tensor(frames, dtype=torch.float32)[None], torch.tensor([len(frames)]))
        np.testing.assert_allclose(posteriors, own.softmax(1)[0].numpy(), atol=1e-5)

    log = log_of(folder)
    chosen = log[-1] if select == "last" else max(log, key=lambda line: line["dev_wa"])
    if select != "last":
        assert chosen is not log[-1]  # or best and last would be one
    assert scores.about["epochs"] == f"5, scored after {chosen['epoch']}"
    if select == "test":
        assert 100 * (scores.predicted == scores.true).mean() == pytest.approx(chosen["dev_wa"])
    trained = sum(value.numel() for name, value in network.named_parameters() if "bias_hh" not in name)
    assert scores.about["parameters"] == str(trained)


@pytest.mark.parametrize(("weights", "balanced"), [("none", False), ("balanced", True)])
def test_the_loss_is_the_weighted_cross_entropy_and_the_penalty(recipe, weights, balanced):
    """A learning rate that moves nothing: the logged loss is that of the saved weights."""
    folder = done(
        recipe.lay_out(
            "run", "test", epochs=1, batch_size=100, learning_rate=1e-30, class_weights=weights, model={"dropout": 0}
        )
    )
    network = initial(folder).eval()
    network.load_state_dict(
        {name: torch.from_numpy(value) for name, value in load_file(folder / "last.safetensors").items()}
    )
    statistics = load_file(folder / "normalisation.safetensors")
    taught = [recipe.classes[utt] for utt in recipe.part("train")]
    weight = {name: len(taught) / 2 / taught.count(name) if balanced else 1.0 for name in ("low", "high")}
    total, norm, l1 = 0.0, 0.0, 0.0
    utts = recipe.part("test")
    for utt in utts:
        frames = torch.from_numpy((recipe.matrices[utt] - statistics["mean"]) / statistics["deviation"])[None]
        with torch.no_grad():
            own, penalty = network(frames, torch.tensor([frames.shape[1]]))
        name = recipe.classes[utt]
        total -= weight[name] * own.log_softmax(1)[0, ["low", "high"].index(name)].item()
        norm += weight[name]
        l1 += penalty.item() / len(utts)
    assert log_of(folder)[0]["dev_loss"] == pytest.approx(total / norm + l1, rel=1e-5)


def test_class_weights_are_scikit_learns():
    targets = [0, 0, 0, 1, 2, 2]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=targets)
    assert class_weights("balanced", targets, 3) == pytest.approx(expected)
    assert class_weights("none", targets, 3) == [1, 1, 1]


def moved(folder):
    """How far the farthest weight has gone from where it started."""
    last = load_file(folder / "last.safetensors")
    return max(np.abs(value.detach().numpy() - last[name]).max() for name, value in initial(folder).named_parameters())


def test_gradient_clipping(recipe):
    settings = {"epochs": 1, "epsilon": 1.0, "learning_rate": 1.0}  # an epsilon that lets a gradient's size through
    free, clipped = (
        done(recipe.lay_out(name, **settings, **clip))
        for name, clip in (("free", {}), ("clipped", {"clip_norm": 1e-6}))
    )
    assert moved(free) > 1e-2
    # Adam's steps of at most lr * 1e-6 / epsilon, 4 of them
    assert 0 < moved(clipped) <= 4e-6


class Penalised(torch.nn.Module):
    """A linear layer on the mean frame; the penalty is the mean square of an utterance's scores."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(6, 2)

    def forward(self, frames, lengths):
        scores = self.layer(frames.sum(1) / lengths[:, None])
        return scores, scores.square().mean()


@pytest.mark.parametrize("clip", [None, 0.1])
def test_accumulated_batches_are_one_large_batch(recipe, monkeypatch, clip):
    """Of unequal sizes and weights, with a penalty; the last step of an epoch has fewer batches."""
    utts, ends = recipe.part("train"), {1: [0, 8, 16, 24, 28], 3: [0, 5, 6, 8, 11, 12, 16, 18, 21, 24, 25, 28]}
    found = {}
    for accumulation, places in ends.items():
        with monkeypatch.context() as patch:
            patch.setattr(networks, "build", lambda system, sizes: Penalised())
            cut = [utts[start:end] for start, end in itertools.pairwise(places)]
            patch.setattr("ser.learners.network.draw", lambda *_, cut=cut: cut)
            folder = recipe.lay_out(
                f"run{accumulation}", class_weights="balanced", epsilon=1.0, learning_rate=1.0, accumulation=accumulation, clip_norm=clip
            )  # fmt: skip
            torch.manual_seed(0)
            found[accumulation] = load_file(done(folder) / "last.safetensors")
    start = Penalised()
    for name, value in found[1].items():
        np.testing.assert_allclose(found[3][name], value, rtol=1e-4, atol=1e-6)
        assert np.abs(value - start.state_dict()[name].numpy()).max() > 0.05


def test_shares_of_accumulated_batches():
    """Cross-entropy by the weights of the classes, here 1 and 3; penalty by the number of utterances."""
    targets = {"a": 0, "b": 0, "c": 1, "d": 1}
    assert shares_of([["a", "b"], ["c"]], targets, [1.0, 3.0]) == [(2 / 5, 2 / 3), (3 / 5, 1 / 3)]
    assert shares_of([["a", "c", "d"]], targets, [1.0, 3.0]) == [(1.0, 1.0)]


def test_bfloat16(recipe):
    rounded, exact = (done(recipe.lay_out(precision, precision=precision)) for precision in ("bfloat16", "float32"))
    assert all(value.dtype != np.float16 for value in load_file(rounded / "last.safetensors").values())
    assert {str(value.dtype) for value in load_file(rounded / "last.safetensors").values()} == {"float32", "int64"}
    assert weights_of(rounded) != weights_of(exact)
    for one, other in zip(log_of(rounded), log_of(exact), strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=0.1)


def test_a_loss_that_is_not_finite(recipe):
    folder = recipe.lay_out("run", learning_rate=1e30)
    with pytest.raises(UserError) as error:
        train(folder, "cpu")
    told = str(error.value).removeprefix(f"{folder}: epoch 1: the loss is ")
    assert told in ("nan; lower learning_rate or set clip_norm", "inf; lower learning_rate or set clip_norm")
    assert not (folder / "done").exists()


def rewrite(recipe, change):
    """Dump the features again, those of some utterances changed."""
    (dump,) = Path("dump").iterdir()
    with kaldiio.WriteHelper(f"ark,scp:{dump}/feats.ark,{dump}/feats.scp") as writer:
        for utt, matrix in recipe.matrices.items():
            writer(utt, change(utt, matrix))


def test_statistics_and_weights_come_from_the_training_part_alone(recipe):
    folder = done(recipe.lay_out("run", "last"))
    taught = np.concatenate([recipe.matrices[utt] for utt in recipe.part("train")]).astype(np.float64)
    statistics = load_file(folder / "normalisation.safetensors")
    np.testing.assert_allclose(statistics["mean"], taught.mean(0), rtol=1e-6)
    np.testing.assert_allclose(statistics["deviation"], taught.std(0), rtol=1e-5)

    rewrite(recipe, lambda utt, matrix: matrix if utt in recipe.part("train") else matrix * 2 + 100)
    other = done(recipe.lay_out("other", "last"))
    assert weights_of(other, ["last", "normalisation"]) == weights_of(folder, ["last", "normalisation"])
    rewrite(recipe, lambda utt, matrix: matrix + (utt == recipe.part("train")[3]))
    changed = done(recipe.lay_out("changed", "last"))
    assert weights_of(changed, ["normalisation"]) != weights_of(folder, ["normalisation"])


def test_features_that_are_missing_are_named_before_anything_is_trained(recipe):
    (dump,) = Path("dump").iterdir()
    frames = (dump / "utt2num_frames").read_text().splitlines(True)
    (dump / "utt2num_frames").write_text("".join(line for line in frames if not line.startswith("c-03 ")))
    folder = recipe.lay_out("run")
    with pytest.raises(UserError, match=r"utt2num_frames: no valid length for c-03; .* run stage 2 again"):
        train(folder, "cpu")
    assert sorted(path.name for path in folder.iterdir()) == ["run.yaml"]


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device cuda: torch sees no GPU here; use --device cpu"):
        networks.device("cuda")
    assert networks.device("auto") == networks.device("cpu") == torch.device("cpu")


def test_what_is_saved_is_read_again(tmp_path):
    tensors = {"a": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last), "b": torch.tensor(3)}
    networks.save(tmp_path / "x.safetensors", tensors, {"log": [{"loss": 0.1}]})
    read, notes = networks.load(tmp_path / "x.safetensors")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    assert notes == {"log": [{"loss": 0.1}]}
    with pytest.raises(UserError, match=r"y\.safetensors: no such file; run stage 4"):
        networks.load(tmp_path / "y.safetensors")


def test_a_run_of_other_utterances_is_refused(recipe):
    """Scored on a fold that has changed, a model could be tested on what it was trained on."""
    folder = recipe.lay_out("old")
    test = recipe.folder / "data/folds/selects_on_dev/fold1/test"
    test.write_text("".join(test.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(UserError, match="made with different utterances in .*fold1; remove or rename"):
        train(folder)
