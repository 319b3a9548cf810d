"""Corpora: files on disk -> labelled utterances. There is one module per corpus; recipes and `--corpus` refer to it by
its name, and only this module knows the files, speakers and labels of the corpus. A corpus that is given as a CSV table
needs none (ser/corpus_table.py).

A module defines two functions:

get(downloads: Path) -> Path
    The folder of the corpus, for stage -1. A free corpus is downloaded and unpacked under `downloads` (ser.download)
    unless it is there already; for any other corpus, get raises a UserError that says where to request it and where
    to put it.

utterances(root: Path) -> Found
    The utterances below `root`, for stage 0, as a ser.corpus.Found with ser.corpus.Utterance items. `root` may be the
    publisher's folder or any folder that contains it, since copies differ in their folders. Every recording must be
    accounted for, either as an utterance or in `left_out` with a reason. Raises UserError if there are no utterances,
    or if labels or transcripts contradict each other.

Only `utterances` of Found is required. The other fields enable more checks: for example, without `expected` and
`total` stage 0 cannot report what is missing.

Everything else is derived: the tables of the data directory (utt2spk, utt2emo, text, spk2gender, and utt2<column> for
each item of Utterance.more), their validation, and the columns available to a protocol in `where` and `by`.
ser.corpus has helpers: files_below finds recordings, and read_text reads text in old encodings.
ser/corpora/tess.py is the shortest example.
"""

import importlib
import pkgutil
from types import ModuleType

from ser.cli import UserError


def corpus_module(corpus: str) -> ModuleType:
    """Import ser/corpora/<corpus>.py.

    Raises UserError, listing the available corpora, if there is no such corpus.
    """
    known = sorted(module.name for module in pkgutil.iter_modules(__path__))
    if corpus not in known:
        raise UserError(f"no corpus {corpus!r}; available: {' '.join(known)}")
    return importlib.import_module(f"ser.corpora.{corpus}")
