"""Transcripts -> words, the same from a true transcript and from a recogniser's."""

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
    """Lower-case words of a transcript, in their order; none where it has none.

    GloVe's vectors are of the tokens of Stanford's tokeniser, so that English contractions are taken apart as
    there: don't -> do n't, I'm -> i 'm. In all else what counts is that the true transcript and a
    recogniser's, which has neither punctuation nor capitals, give the same: if they differ, then in what was
    heard. So

    - punctuation is dropped, ? and ! too, which GloVe has: no recogniser hears them, but a person who wrote
      them down heard the emotion;
    - notes in brackets are dropped, [LAUGHTER] and (LAUGHTER), for the same reason;
    - parts between hyphens, dots and French apostrophes are words: uh-huh -> uh huh, l'ami -> l ami; other
      apostrophes stay within a word (o'clock) and go at its ends ('cause -> cause), but for contractions that
      are apart already (it 's);
    - numbers stay as they are written (10,000 and 3:30 are tokens of GloVe's): a recogniser may spell them.

    Letters of all scripts stay, composed (NFC), as GloVe has them: "é" is one character.
    """
    text = unicodedata.normalize("NFC", NOTE.sub(" ", text).lower()).translate(APOSTROPHES)
    text = LONE_POINT.sub(" ", text)
    text = "".join(one if one in ".,:'" or unicodedata.category(one)[0] in "LMN" else " " for one in text)
    text = LONE_APOSTROPHE.sub(" ", text)
    return ELISION.sub(r"\1 ", CONTRACTION.sub(" ", text)).split()
