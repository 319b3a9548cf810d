"""Transcripts: the words of an utterance, and the word vectors that a network may start with.

`model.words` names the table of the data directory: text, or text_asr, which ser.transcribe writes. The vectors are
in dump/vectors, if stage 2 made any.
"""

import argparse
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ser.cli import UserError
from ser.datadir import read_table
from ser.files import whole
from ser.inputs import refuse_missing
from ser.text import tokens
from ser.vectors import read_vectors

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from ser.folds import Fold
    from ser.runs import Run
    from ser.settings import WordsConfig

NOUN, OPTIONS = "transcripts", "--text or --texts"
WEIGHTS = "word_weights"
FILES = ("vocabulary",)
UNKNOWN = "<unk>"


class Words:
    """vocabulary: word 0, UNKNOWN, stands for all words that are not in it."""

    def __init__(self, texts: Mapping[str, str], vocabulary: Sequence[str]) -> None:
        numbers = {word: number for number, word in enumerate(vocabulary)}
        self.numbers = {utt: [numbers.get(word, 0) for word in words_of(text)] for utt, text in texts.items()}
        self.sizes = {"vocabulary_size": len(vocabulary)}

    def of(self, utts: Sequence[str]) -> "dict[str, Tensor]":
        """words (B, M), padded with 0, and n_words (B,)."""
        import torch

        rows = [torch.tensor(self.numbers[utt]) for utt in utts]
        words = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return {"words": words, "n_words": torch.tensor([len(row) for row in rows])}


def words_of(text: str) -> list[str]:
    """The words of a transcript as a network reads them; one unknown word for an empty transcript."""
    return tokens(text) or [UNKNOWN]


def table_of(run: "Run") -> Path:
    """The table of the transcripts that the system reads."""
    return run.data / cast("WordsConfig", run.system.model).words


def vectors_of(run: "Run") -> Path | None:
    """The file of word vectors that a network starts with; None if stage 2 made none."""
    path = run.dump / "vectors" / "vectors.txt"
    return path if path.exists() else None


def check(run: "Run") -> None:
    """Raise UserError if there are no transcripts."""
    path = table_of(run)
    if not path.exists():
        raise UserError(
            f"{path}: no such table; put transcripts there, with lines `utterance words`, or have a recogniser write "
            f"text_asr: python -m ser.transcribe {run.data}; or leave {run.system.name} out"
        )


def checksums(run: "Run") -> dict[str, str | None]:
    """MD5 of the transcripts and of the word vectors; None if there are no vectors."""
    from ser.identity import md5_of

    vectors = vectors_of(run)
    return {"words": md5_of(table_of(run)), "vectors": md5_of(vectors) if vectors else None}


def read(run: "Run", fold: "Fold") -> Words:
    """The transcripts of a fold. The vocabulary is read from the run's folder, or made and written there: all words
    with a vector, and the words that are in the training part more than once. The rest train the embedding of
    UNKNOWN."""
    texts = read_table(table_of(run), fold.sources.values())
    path = run.folder / "vocabulary"
    if not path.exists():
        train = [word for utt in fold.train for word in tokens(texts[fold.sources[utt]])]
        vectors_path = vectors_of(run)
        vectors = read_vectors(vectors_path) if vectors_path else {}
        if vectors_path:
            refuse_new_words(vectors_path, vectors, texts)
        often = {word for word, count in Counter(train).items() if count > 1}
        with whole(path) as stream:
            stream.writelines(f"{word}\n" for word in [UNKNOWN, *sorted(often | vectors.keys())])
    return Words({utt: texts[source] for utt, source in fold.sources.items()}, read_vocabulary(run))


def refuse_new_words(path: Path, vectors: "Mapping[str, np.ndarray]", texts: Mapping[str, str]) -> None:
    """Raise UserError for a word that was not in the transcripts when ser.dump_vectors wrote `path`."""
    unknown = path.with_name("unknown")
    looked_for = vectors.keys() | {line.split()[0] for line in unknown.read_text("utf-8").splitlines()}
    for utt, text in texts.items():
        for word in tokens(text):
            if word not in looked_for:
                raise UserError(
                    f"{path}: made from different transcripts, without {word!r} in {utt}; run stage 2 "
                    "with --glove again"
                )


def read_vocabulary(run: "Run") -> list[str]:
    """The vocabulary of a run that has started, UNKNOWN first."""
    return (run.folder / "vocabulary").read_text(encoding="utf-8").split("\n")[:-1]


def start(network: "nn.Module", fold: "Fold", extra: Words, run: "Run") -> None:
    """Copy the word vectors into a new network's embedding `words`. The other words keep their normally distributed
    values, scaled to the vectors' standard deviation."""
    import numpy as np
    import torch

    path = vectors_of(run)
    if not path:
        print("no word vectors: the network learns them from scratch", flush=True)
        return
    numbers = {word: number for number, word in enumerate(read_vocabulary(run))}
    vectors = read_vectors(path)
    known = [numbers[word] for word in vectors]
    values = torch.from_numpy(np.stack(list(vectors.values())))
    if values.shape[1] != network.words.embedding_dim:
        raise UserError(
            f"{path}: vectors of {values.shape[1]} values, but model.word_size is {network.words.embedding_dim}; "
            f"set it to {values.shape[1]}"
        )
    with torch.no_grad():
        network.words.weight *= values.std()
        network.words.weight[known] = values
    print(f"{len(known)} of {len(numbers)} words start with a vector of {path}", flush=True)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of ser.predict."""
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--text", metavar="WORDS", help="transcript of a single FILE, for a system that reads words")
    either.add_argument(
        "--texts",
        type=Path,
        metavar="TABLE",
        help="transcripts of many files, one line per file: its name without the suffix, then the words",
    )


def from_options(args: argparse.Namespace, names: Collection[str]) -> dict[str, str]:
    """The transcript of each recording. Raises UserError if one has none."""
    if args.texts:
        refuse_missing(args.texts, names)
        return read_table(args.texts, names)
    if args.text is None:
        return {}
    if len(names) > 1:
        raise UserError(f"--text: only for a single recording, but there are {len(names)}; use --texts")
    return dict.fromkeys(names, args.text)


def given(run: "Run", values: Mapping[str, str], sizes: Mapping[str, int]) -> Words:
    """Transcripts of recordings, in the vocabulary of the run's network."""
    wrong = [text for text in values.values() if not isinstance(text, str)]
    if wrong:
        raise UserError(f"words: {wrong[0]!r} is not a text; give what is said as one string per recording")
    return Words(values, read_vocabulary(run))


def pieces(run: "Run", utts: Sequence[str]) -> dict[str, list[str]]:
    """The words of some utterances as the network reads them; unknown words are marked."""
    texts = read_table(table_of(run), utts)
    known = set(read_vocabulary(run))
    return {utt: [word if word in known else f"{word} (unknown)" for word in words_of(texts[utt])] for utt in utts}
