import pytest

from ser.text import tokens


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Kids are talking by the door", "kids are talking by the door"),
        # contractions, as GloVe's tokeniser takes them apart
        ("I don't, you can't, she won't!", "i do n't you ca n't she wo n't"),
        (
            "I'm sure it's what we're told; they've said he'll come, I'd bet.",
            "i 'm sure it 's what we 're told they 've said he 'll come i 'd bet",
        ),
        ("You shouldn't've", "you should n't 've"),
        ("DON'T LET'S", "do n't let 's"),
        ("don’t I‘m it`s", "do n't i 'm it 's"),
        ("the children's, the boys' and James's", "the children 's the boys and james 's"),
        # other apostrophes
        ("at one o'clock, ma'am, c'mon y'all", "at one o'clock ma'am c'mon y'all"),
        ("'Cause I was goin' to say 'no' rock 'n' roll", "cause i was goin to say no rock n roll"),
        ("' '' '''s '", "s"),
        # punctuation and notes
        ('What?! No... well--I mean, wait -- yes; "so".', "what no well i mean wait yes so"),
        ("[LAUGHTER] Yeah. (LAUGHTER) [BREATHING]right<unk>", "yeah right"),
        ("an open [bracket and a ] closed) one", "an open closed one"),
        ("uh-huh, twenty-five, I-I- wh-", "uh huh twenty five i i wh"),
        ("snake_case and/or AT&T", "snake case and or at t"),
        # numbers and abbreviations
        ("At 3:30 I had $10,000, 3.50 and 25% of the 1980s: 2.", "at 3:30 i had 10,000 3.50 and 25 of the 1980s 2"),
        ("Mr. Smith of the U.S.", "mr smith of the u s"),
        # other languages
        ("C'est l'ami qu'il a vu à l'école, Zoé !", "c est l ami qu il a vu à l école zoé"),
        ("Jusqu’à aujourd’hui, j'ai un cœur", "jusqu à aujourd'hui j ai un cœur"),
        ("e\N{COMBINING ACUTE ACCENT}te\N{COMBINING ACUTE ACCENT}", "été"),
        ("STRASSE straße ЁЛКА 日本。", "strasse straße ёлка 日本"),
        ("हिन्दी", "हिन्दी"),
        ("a\N{NO-BREAK SPACE}b\tc\N{LINE SEPARATOR}d", "a b c d"),
    ],
)
def test_words_of_a_transcript(text, words):
    assert tokens(text) == words.split()


@pytest.mark.parametrize("text", ["", " ", "...", "[LAUGHTER]", "-- ?!", "'", "."])
def test_a_transcript_may_have_no_words(text):
    assert tokens(text) == []


@pytest.mark.parametrize(
    ("true", "heard"),
    [
        ("Yes, I did quite a lot.", "YES I DID QUITE A LOT"),
        ("You know what? I'm sick and tired--", "YOU KNOW WHAT I'M SICK AND TIRED"),
        ("[LAUGHTER] Twenty-five? Uh-huh!", "TWENTY FIVE UH HUH"),
        ("L'ami d’Émile.", "l ami d émile"),
    ],
)
def test_true_and_heard_transcripts_have_the_same_words(true, heard):
    assert tokens(true) == tokens(heard)


@pytest.mark.parametrize("text", ["I don't know", "it's John's", "we're not, they'd say I'll", "can't've", "I'm"])
def test_transcripts_that_are_taken_apart_already_stay_so(text):
    assert tokens(" ".join(tokens(text))) == tokens(text)


def test_words_stay_as_they_are():
    words = tokens("C'mon, it is 3:30; l'ami a 10,000 rêves... o'clock")
    assert tokens(" ".join(words)) == words
