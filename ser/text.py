"""Transcripts -> words, in the same way for reference transcripts and for those of a recogniser."""

import re
import unicodedata

APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ`´", "'"))
NOTE = re.compile(r"\[[^\]]*\]|\([^)]*\)|<[^>]*>")  # [LAUGHTER], (LAUGHTER), <unk>
LONE_POINT = re.compile(r"(?<!\d)[.,:]|[.,:](?!\d)")
ENDS = r"(?:s|m|d|re|ve|ll)(?!\w)"
LONE_APOSTROPHE = re.compile(rf"(?<!\w)'(?!{ENDS})|(?<=')'|'(?!\w)")
CONTRACTION = re.compile(rf"(?<=\w)(?=n't(?!\w)|'{ENDS})")  # don't -> do n't
ELISION = re.compile(r"(?<!\w)([cdjlmnst]|(?:jus|lors|puis|quoi)?qu)'(?=[aeiouyhàâæéèêëîïôöùûœ])")  # l'ami


def tokens(text: str) -> list[str]:
    """The words of a transcript, in lower case and in order.

    GloVe was trained on tokens of the Stanford tokeniser, so English contractions are split as there:
    don't -> do n't, I'm -> i 'm. Otherwise the goal is that a reference transcript and that of a recogniser, which has
    neither punctuation nor capitals, give the same tokens unless their words differ. Therefore

    - punctuation is dropped, including ? and !, which GloVe has: a recogniser does not output them, and a human
      transcriber may have used them to mark the emotion;
    - notes in brackets, [LAUGHTER] and (LAUGHTER), are dropped for the same reason;
    - words are split at hyphens, dots and French apostrophes: uh-huh -> uh huh, l'ami -> l ami; other apostrophes are
      kept within a word (o'clock) and dropped at its ends ('cause -> cause), except in contractions that are already
      split (it 's);
    - numbers are kept as written (10,000 and 3:30 are tokens in GloVe); a recogniser may spell them out.

    Letters of all scripts are kept, in composed form (NFC) as in GloVe: "é" is one character.
    """
    text = unicodedata.normalize("NFC", NOTE.sub(" ", text).lower()).translate(APOSTROPHES)
    text = LONE_POINT.sub(" ", text)
    text = "".join(one if one in ".,:'" or unicodedata.category(one)[0] in "LMN" else " " for one in text)
    text = LONE_APOSTROPHE.sub(" ", text)
    return ELISION.sub(r"\1 ", CONTRACTION.sub(" ", text)).split()
