"""What a run reads from disk: its fold, its features, and its inputs beside frames."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ser import adaptation, inputs
from ser.archive import Features
from ser.batches import Batch, stack
from ser.cli import UserError
from ser.config import read_yaml
from ser.datadir import read_column
from ser.folds import Fold, copy_id, read_fold
from ser.identity import table_of
from ser.normalisation import Statistics, normalise
from ser.runs import Run, and_more, feature_sources, other_modules

if TYPE_CHECKING:
    import numpy as np


class Inputs:
    """What a model reads of some utterances.

    features: the frames (T, D) of each. targets: {utt: class number}. extras: inputs beside frames, by name. sizes:
    n_features, n_classes, and whatever else a network's constructor takes beside its Config.
    """

    def __init__(
        self,
        features: "Features | Matrices",
        targets: Mapping[str, int],
        n_classes: int,
        extras: Mapping[str, inputs.Extra],
    ) -> None:
        self.features, self.targets, self.extras = features, targets, extras
        self.sizes = {"n_features": features.dimension, "n_classes": n_classes}
        for extra in extras.values():
            self.sizes |= extra.sizes

    def batch(self, utts: list[str], statistics: Statistics) -> Batch:
        """Read, normalise, pad and stack some utterances."""
        more = {name: values for extra in self.extras.values() for name, values in extra.of(utts).items()}
        matrices = [normalise(self.features[utt], statistics) for utt in utts]
        return stack(utts, matrices, [self.targets[utt] for utt in utts], more)


class Matrices(dict[str, "np.ndarray"]):
    """The frames (T, D) of some utterances in memory, with the interface of Features."""

    scp = Path("recordings")  # where they come from, for errors

    @property
    def dimension(self) -> int:
        """Values per frame."""
        return next(iter(self.values())).shape[1]

    def lengths_of(self, utts: Iterable[str]) -> dict[str, int]:
        """Number of frames of each of `utts`."""
        return {utt: len(self[utt]) for utt in utts}


def read_run_fold(run: Run) -> Fold:
    """The fold of a run, with the noisy copies of training utterances that the system asks for."""
    fold = read_fold(run.folds / f"fold{run.fold}", run.data, run.protocol)
    return fold.with_copies(run.system.augment)


def read_inputs(run: Run, fold: Fold) -> Inputs:
    """What a run's model reads of all utterances of its fold."""
    features = read_features(run, fold)
    extras = {name: module.read(run, fold) for name, module in inputs.of(run.system).items()}
    return Inputs(features, fold.targets(), len(fold.classes), extras)


def start(network: torch.nn.Module, run: Run, fold: Fold, extras: Mapping[str, inputs.Extra]) -> None:
    """Give a new network what its inputs provide before training, such as word vectors."""
    for name, module in inputs.of(run.system).items():
        if hasattr(module, "start"):
            module.start(network, fold, extras[name], run)


def read_features(run: Run, fold: Fold) -> Features:
    """The features of all utterances of the fold, each with its noise."""
    refuse_other_features(run, fold)
    of_noise = {noise: Features(run.feature_folder(noise), run.columns) for noise in run.noises}
    features = of_noise[None]
    originals = [utt for utt in fold.train if fold.sources[utt] == utt]
    for noise in run.system.augment:
        features.take(of_noise[noise], {copy_id(utt, noise): utt for utt in originals})
    table = table_of(run.data / "utt2spk")
    if run.protocol.noise:
        tested = {table[utt] for utt in fold.test}
        heard = [utt for utt, spk in fold.adapt.items() if spk in tested]  # set aside where the others are recorded
        features.take(of_noise[run.protocol.noise], {utt: utt for utt in [*fold.test, *heard]})
    if run.system.normalisation == "speaker":
        utt2spk = {utt: table[source] for utt, source in fold.sources.items()}
        features.normalise_speakers(utt2spk, adapted(run, fold, features, utt2spk))
    return features


def adapted(run: Run, fold: Fold, features: Features, utt2spk: Mapping[str, str]) -> dict[str, Statistics] | None:
    """The mean and deviation of every speaker, if the protocol limits what a system may adapt to."""
    if not run.protocol.adapt:
        return None
    training = read_moments(run, fold, features)
    return adaptation.of_speakers(features, fold, utt2spk, training, run.protocol.adapt.relevance)


def read_moments(run: Run, fold: Fold, features: Features) -> adaptation.Moments:
    """The moments of the training part, noisy copies included: read from the run's folder, or computed and written
    there, so that recordings of new speakers can be normalised too."""
    if not run.adaptation.exists():
        adaptation.write(run.adaptation, adaptation.moments(features[utt] for utt in fold.train))
    return adaptation.read(run.adaptation)


def refuse_other_features(run: Run, fold: Fold) -> None:
    """Raise UserError if the features were made with different code, or from different recordings of the fold."""
    wanted = table_of(run.data / "utt2md5")
    utts = sorted(set(fold.sources.values()))
    for noise in run.noises:
        folder, code = run.feature_folder(noise), feature_sources(run.system.feature)
        if not (folder / "feats.scp").exists() or not (folder / "utt2md5").exists():
            raise UserError(f"{folder}: no features here, or only those of an older version; run stage 2")
        changed = other_modules(read_yaml(folder / "feature.yaml"), "code", code)
        if changed:
            raise UserError(f"{folder}: made with different {changed}; run stage 2 again")
        there = table_of(folder / "utt2md5")
        others = [utt for utt in utts if there.get(utt) != wanted.get(utt)]
        if others:
            raise UserError(
                f"{folder}: made from different recordings: {others[0]}{and_more(others)}; run stage 2 again"
            )


def read_groups(run: Run, fold: Fold) -> dict[str, str]:
    """The group of every training utterance; an inner split must keep groups together."""
    by = getattr(run.protocol.folds, "by", "utt")  # random folds: each utterance is its own group
    place = f"{run.folder / 'run.yaml'}: protocol.folds.by"
    sources = {utt: fold.sources[utt] for utt in fold.train}
    groups = read_column(run.data, by, sources.values(), place)
    return {utt: groups[source] for utt, source in sources.items()}
