"""Corpora: files on disk -> labelled utterances. One module a corpus; its name is what `--corpus` and recipes call it,
and nothing outside it knows the corpus's files, speakers or labels.

A module has two functions.

get(downloads: Path) -> Path
    The folder of the corpus, for stage -1: fetched and unpacked under `downloads` where the corpus is free
    (ser.download), which is left alone where it is there already; otherwise a UserError that says where to ask for it
    and where to put it.

utterances(root: Path) -> Found
    What is there below `root`, for stage 0 (ser.corpus.Found, of ser.corpus.Utterance). `root` may be the publisher's
    folder or one that holds it, with other folders between, as copies differ. Every file is accounted for: it is an
    utterance, or it is left out for a reason that `left_out` names. Raises UserError where no utterance is there, or
    where two labels or transcripts contradict each other.

Of Found, `utterances` alone has to be filled. What is left out costs a check: without `expected` and `total` stage 0
cannot say what is missing.

The rest follows from these by itself: the tables of the data directory (utt2spk, utt2emo, text, spk2gender, and
utt2<column> for each of Utterance.more), the checks, and the columns that a protocol may name in `where` and `by`.
ser.corpus also has what several corpora need: files_below finds recordings, read_text reads old texts.
ser/corpora/tess.py is the shortest example.
"""

import importlib
import pkgutil
from types import ModuleType

from ser.cli import UserError


def corpus_module(corpus: str) -> ModuleType:
    """Import ser/corpora/<corpus>.py.

    Raises UserError, listing the corpora that there are, for one that there is not.
    """
    known = sorted(module.name for module in pkgutil.iter_modules(__path__))
    if corpus not in known:
        raise UserError(f"no corpus {corpus!r}; there are: {' '.join(known)}")
    return importlib.import_module(f"ser.corpora.{corpus}")
