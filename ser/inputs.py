"""What the networks read: frames of features, and beside them who speaks, the words, x-vectors.

A model's Config names what it takes beside frames in `extras`; its network's constructor takes their `sizes`, and
its forward what `of` gives of a batch, all by name.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ser import xvectors
from ser.batches import Batch, stack
from ser.cli import UserError
from ser.datadir import read_table
from ser.files import whole
from ser.normalisation import Statistics, normalise, statistics
from ser.text import tokens
from ser.vectors import read_vectors

if TYPE_CHECKING:
    from ser.runs import Run

UNKNOWN = "<unk>"


class Extra(Protocol):
    """sizes: what the network's constructor has to know."""

    sizes: dict[str, int]

    def of(self, utts: Sequence[str]) -> dict[str, Tensor]:
        """What the network's forward takes of a batch."""


class Inputs:
    """What the network of a run reads of its fold's utterances.

    sizes: what a network's constructor takes beside its Config. targets: {utt: class number}.
    """

    def __init__(self, run: "Run") -> None:
        self.fold = run.read_fold()
        self.features = run.read_features()
        self.targets = self.fold.targets()
        self.extras = {name: READERS[name](run) for name in run.system.extras}
        self.sizes = {"n_features": self.features.dimension, "n_classes": len(self.fold.classes)}
        for extra in self.extras.values():
            self.sizes |= extra.sizes

    def batch(self, utts: list[str], statistics: Statistics) -> Batch:
        """Read, normalise, pad and stack what there is of some utterances."""
        more = {name: values for extra in self.extras.values() for name, values in extra.of(utts).items()}
        matrices = [normalise(self.features[utt], statistics) for utt in utts]
        return stack(utts, matrices, [self.targets[utt] for utt in utts], more)


def start(network: nn.Module, run: "Run", inputs: Inputs) -> None:
    """Give a fresh network what it has before training: word vectors, and the training part's mean and deviation of
    each value of the x-vectors, so that their extractor's scale is no matter."""
    if "words" in inputs.extras:
        start_words(run, network)
    if "xvectors" in inputs.extras:
        vectors = inputs.extras["xvectors"].of(list(inputs.fold.train))["xvectors"]
        of_train = statistics([vectors.numpy()])
        network.xvector_mean.copy_(torch.from_numpy(of_train["mean"]))
        network.xvector_deviation.copy_(torch.from_numpy(of_train["deviation"]))


class Speakers:
    """numbers: of the speaker of every utterance; below 0 where training has none such."""

    def __init__(self, numbers: Mapping[str, int]) -> None:
        self.numbers = numbers
        self.sizes = {"n_speakers": max(numbers.values()) + 1}

    def of(self, utts: Sequence[str]) -> dict[str, Tensor]:
        """speakers (B,)."""
        return {"speakers": torch.tensor([self.numbers[utt] for utt in utts])}


def read_speakers(run: "Run") -> Speakers:
    """Speakers who train are numbered by name."""
    fold = run.read_fold()
    utt2spk = run.read_utt2spk()
    names = sorted({utt2spk[utt] for utt in fold.train})
    numbers = {name: number for number, name in enumerate(names)}
    return Speakers({utt: numbers.get(spk, -1) for utt, spk in utt2spk.items()})


class Words:
    """vocabulary: word number 0, UNKNOWN, stands for all that are not in it."""

    def __init__(self, texts: Mapping[str, str], vocabulary: Sequence[str]) -> None:
        numbers = {word: number for number, word in enumerate(vocabulary)}
        self.numbers = {utt: [numbers.get(word, 0) for word in words_of(text)] for utt, text in texts.items()}
        self.sizes = {"vocabulary_size": len(vocabulary)}

    def of(self, utts: Sequence[str]) -> dict[str, Tensor]:
        """words (B, M), 0 behind an utterance's own, and n_words (B,)."""
        rows = [torch.tensor(self.numbers[utt]) for utt in utts]
        words = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return {"words": words, "n_words": torch.tensor([len(row) for row in rows])}


def words_of(text: str) -> list[str]:
    """What a network reads of a transcript: where nothing was said, or understood, one unknown word."""
    return tokens(text) or [UNKNOWN]


def start_words(run: "Run", network: nn.Module) -> None:
    """Give a fresh network's embedding `words` the word vectors that there are; the others are drawn from a normal
    distribution with the vectors' deviation, or with 1 where there are none.
    """
    if not run.vectors:
        print("no word vectors: the network learns them from nothing", flush=True)
        return
    numbers = {word: number for number, word in enumerate(read_vocabulary(run))}
    vectors = read_vectors(run.vectors)
    known = [numbers[word] for word in vectors]
    values = torch.from_numpy(np.stack(list(vectors.values())))
    if values.shape[1] != network.words.embedding_dim:
        raise UserError(
            f"{run.vectors}: vectors of {values.shape[1]} values, and model.word_size is "
            f"{network.words.embedding_dim}; give it theirs"
        )
    with torch.no_grad():
        network.words.weight *= values.std()
        network.words.weight[known] = values
    print(f"{len(known)} of {len(numbers)} words start with a vector of {run.vectors}", flush=True)


def read_words(run: "Run") -> Words:
    """The vocabulary is the run's own where it has one; else it is made, and written there: of training's words
    but those that come once and have no vector, which teach what UNKNOWN means, and of all words with a vector."""
    sources = run.sources()
    texts = read_table(run.words, sources.values())
    path = run.folder / "vocabulary"
    if not path.exists():
        train = [word for utt in run.read_fold().train for word in tokens(texts[sources[utt]])]
        vectors = read_vectors(run.vectors) if run.vectors else {}
        if run.vectors:
            refuse_new_words(run.vectors, vectors, texts)
        often = {word for word, count in Counter(train).items() if count > 1}
        with whole(path) as stream:
            stream.writelines(f"{word}\n" for word in [UNKNOWN, *sorted(often | vectors.keys())])
    return Words({utt: texts[source] for utt, source in sources.items()}, read_vocabulary(run))


def refuse_new_words(path: Path, vectors: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> None:
    """Raise UserError for a word that ser.dump_vectors, which wrote `path`, never met: it was looked for in no file."""
    unknown = path.with_name("unknown")
    looked_for = vectors.keys() | {line.split()[0] for line in unknown.read_text("utf-8").splitlines()}
    for utt, text in texts.items():
        for word in tokens(text):
            if word not in looked_for:
                raise UserError(
                    f"{path}: made of other transcripts, without {word!r} of {utt}; run stage 2 with --glove again"
                )


def read_vocabulary(run: "Run") -> list[str]:
    """The words of a run that has begun, UNKNOWN first."""
    return (run.folder / "vocabulary").read_text(encoding="utf-8").split("\n")[:-1]


class XVectors:
    """vectors: (D,) float32 of every utterance."""

    def __init__(self, vectors: Mapping[str, np.ndarray]) -> None:
        self.vectors = vectors
        self.sizes = {"xvector_size": len(next(iter(vectors.values())))}

    def of(self, utts: Sequence[str]) -> dict[str, Tensor]:
        """xvectors (B, D)."""
        return {"xvectors": torch.from_numpy(np.stack([self.vectors[utt] for utt in utts]))}


def read_xvectors(run: "Run") -> XVectors:
    """A noisy copy has its source's."""
    sources = run.sources()
    vectors = xvectors.read(run.xvectors, dict.fromkeys(sources.values()))
    return XVectors({utt: vectors[source] for utt, source in sources.items()})


READERS = {"speakers": read_speakers, "words": read_words, "xvectors": read_xvectors}
