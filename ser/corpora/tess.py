"""TESS, the Toronto Emotional Speech Set: two actresses say 200 words with seven emotions.

Pichora-Fuller and Dupuis 2020, https://doi.org/10.5683/SP2/E8H2MF (CC BY-NC-ND 4.0). The file name gives
all labels, regardless of the folders: OAF_back_angry.wav is

    speaker (OAF, aged 64; YAF, aged 26) - word, said in "Say the word back" - emotion

Copies have no folders, or one for each speaker and emotion, with inconsistent names. One file is called
OA_bite_neutral.wav; some files named .wav are AIFF, and one has a sampling rate of 96 kHz.
"""

import re
from pathlib import Path

from ser.cli import UserError
from ser.corpus import Found, Utterance, files_below

PAGE = "https://doi.org/10.5683/SP2/E8H2MF"
SPEAKERS = {"OAF": "oaf", "OA": "oaf", "YAF": "yaf"}
EMOTIONS = {
    "angry": "angry",
    "disgust": "disgust",
    "fear": "fearful",
    "happy": "happy",
    "neutral": "neutral",
    "ps": "surprised",  # pleasant surprise
    "sad": "sad",
}
WORDS = frozenset(
    """
    back bar base bath bean beg bite boat bone book bought burn cab calm came cause chain chair chalk
    chat check cheek chief choice cool dab date dead death deep dime dip ditch dodge dog doll door fail
    fall far fat fit five food gap gas gaze germ get gin goal good goose gun half hall hash hate have
    haze hire hit hole home hurl hush jail jar join judge jug juice keen keep keg kick kill king kite
    knock late laud lean learn lease lid life limb live loaf long lore lose lot love luck make match
    merge mess met mill mob mode mood moon mop mouse nag name near neat nice note numb pad page pain
    pass pearl peg perch phone pick pike pole pool puff rag raid rain raise rat reach read red ring ripe
    road room rose rot rough rush said sail search seize sell shack shall shawl sheep shirt should shout
    size soap soup sour south sub such sure take talk tape team tell thin third thought thumb time tip
    tire ton tool tough turn vine voice void vote wag walk wash week wheat when which whip white wife
    wire witch yearn yes young youth
    """.split()
)


def get(downloads: Path) -> Path:
    """Return downloads/tess, where the user has put the corpus, which has to be downloaded by hand."""
    root = downloads / "tess"
    if not root.exists():
        raise UserError(
            f"{root}: not found; download the archive from {PAGE} and unpack it there, or pass its folder as --corpus"
        )
    return root


def utterances(root: Path) -> Found:
    """Find the recordings below `root`, at any depth.

    Files with other names are left out. Raises UserError if there are no recordings.
    """
    files, copies = files_below(root, ".wav")
    found, ill_named = [], []
    for path in files:
        match = re.fullmatch(r"(OAF?|YAF)_([a-z]+)_([a-z]+)", path.stem, re.IGNORECASE)
        speaker, word, emotion = match.groups() if match else ("", "", "")
        word, emotion = word.lower(), emotion.lower()
        if word not in WORDS or emotion not in EMOTIONS:
            ill_named.append(path)
            continue
        spk = SPEAKERS[speaker.upper()]
        found.append(
            Utterance(
                utt=f"{spk}-{word}-{EMOTIONS[emotion]}",
                spk=spk,
                gender="f",
                emo=EMOTIONS[emotion],
                text=f"say the word {word}",
                path=path,
                more={"word": word},
            )
        )
    if not found:
        raise UserError(f"{root}: contains no recording of TESS, such as OAF_back_angry.wav")
    left_out = {"name that is not TESS's": ill_named, "second copy of a file of that name": copies}
    return Found(found, left_out, EXPECTED, total=len(EXPECTED))


EXPECTED = frozenset(
    f"{spk}-{word}-{emotion}" for spk in set(SPEAKERS.values()) for word in WORDS for emotion in EMOTIONS.values()
)
