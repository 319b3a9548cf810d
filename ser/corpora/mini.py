"""mini: a small emotional corpus spoken by espeak-ng, made on the spot instead of downloaded.

It is synthetic: MANNERS below defines how its emotions differ. Results on it show whether a recipe works
and say nothing about people.

    mini/prompts.txt        sentence and its words: s1 the train to the coast leaves at seven
    mini/speakers.txt       speaker and gender: anna f
    mini/wav/anna/anna-s1-angry-1.wav       <speaker>-<sentence>-<emotion>-<take>, 16 kHz, 16 bit

The same SEED gives the same bytes. espeak-ng alone does not guarantee this: its flutter, noise and random
numbers carry over between utterances, so a sentence depends on those before it. Here every utterance is
spoken in a new fork of a process that has only initialised the library.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import wave
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ser.cli import UserError
from ser.corpus import Found, Utterance, files_below
from ser.datadir import read_table, write_table
from ser.files import named, workplace

if TYPE_CHECKING:
    import numpy as np

SEED = 1
SENTENCES = {
    "s1": "the train to the coast leaves at seven",
    "s2": "my sister put the letter on the table",
    "s3": "we are going to paint the kitchen on monday",
    "s4": "there is a grey coat behind the door",
    "s5": "they moved all the chairs into the garden",
    "s6": "he said the shop would open in the morning",
    "s7": "you can see the river from the window",
    "s8": "she has been waiting since the afternoon",
}
TAKES = ("1", "2")


class Voice(NamedTuple):
    """How a speaker talks before any emotion.

    variant: espeak-ng's voice; rate: words a minute; pitch: semitones relative to the variant;
    level: dB, as if some speakers were closer to the microphone.
    """

    gender: str
    variant: str
    rate: float
    pitch: float
    level: float


VOICES = {
    "anna": Voice("f", "en-us+f1", 165, 0, 0),
    "bella": Voice("f", "en-us+f3", 190, 2, -2),
    "clara": Voice("f", "en-us+f4", 175, -2, 2),
    "david": Voice("m", "en-us+m3", 170, 0, 1),
    "edgar": Voice("m", "en-us+m1", 195, 2, -1),
    "frank": Voice("m", "en-us+m7", 180, -1, 0),
}


class Manner(NamedTuple):
    """How an utterance differs from the plain voice of its speaker.

    rate, pitch_range: change in %; pitch: semitones; level: dB; tilt: dB per octave, positive is
    brighter; breath: level of the noise in dB relative to the voice; roughness: depth of a fast amplitude
    modulation, 0 to 1.
    """

    rate: float
    pitch: float
    pitch_range: float
    level: float
    tilt: float
    breath: float
    roughness: float


# The mean of each emotion, in the directions usual in acted speech, and the standard deviation around it,
# large enough for the emotions to overlap: an SVM gets about four of five right.
MANNERS = {
    "angry": Manner(12, 3, 40, 6, 2, -32, 0.4),
    "happy": Manner(5, 5, 40, 2, 2, -34, 0.05),
    "neutral": Manner(0, 0, 0, 0, 0, -28, 0.1),
    "sad": Manner(-12, -2, -40, -4, -2, -18, 0.1),
}
SPREAD = Manner(7, 1.7, 25, 2.7, 0.8, 3.8, 0.15)
HABIT = 0.5  # of SPREAD: deviation of a speaker's own way of acting an emotion from the mean

SPOKEN_RATE = 22050  # Hz, output of espeak-ng
SAMPLE_RATE = 16000  # Hz, as in most corpora of the other recipes
SPEECH_LEVEL = -30  # dB of full scale (RMS) before voice and manner, low enough for angry not to clip
ROOM_LEVEL = -65  # dB of full scale, background noise: no recording is digitally silent
PEAK = 0.95  # of full scale; louder recordings are scaled down, not clipped


def get(downloads: Path) -> Path:
    """Return downloads/mini; synthesise it first if it does not exist (about 6 s).

    Raises UserError if espeak-ng is missing, or the folder exists but is incomplete.
    """
    root = Path(downloads) / "mini"
    if not root.exists():
        with workplace(root) as made, named(root):
            if not root.exists():  # another process may have just made it
                make(made)
                try:
                    made.rename(root)
                except OSError:
                    if not root.exists():  # another process may have been faster, with the same bytes
                        raise
    missing = [utt for utt in all_utts() if not wav_path(root, utt).is_file()]
    if missing:
        raise UserError(
            f"{root}: {len(missing)} recordings are missing, such as {missing[0]}; "
            "remove the folder and run the same command again"
        )
    return root


def utterances(root: Path) -> Found:
    """Find the recordings below `root`; words and genders come from prompts.txt and speakers.txt.

    Files with other names are left out. Raises UserError if there are no recordings, or a table lacks a
    sentence or speaker.
    """
    files, copies = files_below(root, ".wav")
    expected = frozenset(all_utts())
    prompts, speakers = read_table(root / "prompts.txt"), read_table(root / "speakers.txt")
    found, ill_named = [], []
    for path in files:
        if path.stem not in expected:
            ill_named.append(path)
            continue
        speaker, sentence, emotion, take = path.stem.split("-")
        for key, table, name in ((sentence, prompts, "prompts.txt"), (speaker, speakers, "speakers.txt")):
            if key not in table:
                raise UserError(f"{root / name}: no line for {key}; remove {root} and make it again")
        found.append(
            Utterance(
                utt=path.stem,
                spk=speaker,
                gender=speakers[speaker],
                emo=emotion,
                text=prompts[sentence],
                path=path,
                more={"sent": sentence, "take": take},
            )
        )
    if not found:
        raise UserError(f"{root}: contains no recording of mini, such as wav/anna/anna-s1-angry-1.wav")
    left_out = {"name that is not mini's": ill_named, "second copy of a file of that name": copies}
    return Found(found, left_out, expected, total=len(expected))


def all_utts() -> list[str]:
    """Ids of the whole corpus: speakers x sentences x emotions x takes."""
    return ["-".join(parts) for parts in product(VOICES, SENTENCES, MANNERS, TAKES)]


def wav_path(root: Path, utt: str) -> Path:
    """Where the recording of `utt` lies under `root`."""
    return root / "wav" / utt.split("-", maxsplit=1)[0] / f"{utt}.wav"


def make(root: Path, utts: Iterable[str] | None = None) -> None:
    """Write the corpus, or only `utts` of it, under `root`. Raises UserError without espeak-ng."""
    from tqdm import tqdm

    write_table(root / "prompts.txt", SENTENCES)
    write_table(root / "speakers.txt", {name: voice.gender for name, voice in VOICES.items()})
    for name in VOICES:
        (root / "wav" / name).mkdir(parents=True, exist_ok=True)
    utts = all_utts() if utts is None else list(utts)
    with espeak() as speak:
        for utt in tqdm(utts, desc="espeak-ng", unit="utt", disable=None):  # None: only on a terminal
            with wave.open(str(wav_path(root, utt)), "wb") as stream:
                stream.setnchannels(1)
                stream.setsampwidth(2)
                stream.setframerate(SAMPLE_RATE)
                stream.writeframes(synthesise(utt, speak).astype("<i2").tobytes())


def synthesise(utt: str, speak: Callable[..., bytes]) -> "np.ndarray":
    """Synthesise one utterance with the function from `espeak`.

    Returns int16 samples (N,) at SAMPLE_RATE, which depend only on SEED and `utt`.
    """
    import numpy as np
    import soxr

    speaker, sentence, emotion, _ = utt.split("-")
    voice = VOICES[speaker]
    random = _generator(utt)
    habit = HABIT * _generator(f"{speaker} {emotion}").standard_normal(len(SPREAD))
    departure = np.array(SPREAD) * (habit + random.standard_normal(len(SPREAD)))
    manner = Manner(*np.array(MANNERS[emotion]) + departure)

    pitch = voice.pitch + manner.pitch
    higher = 2 ** (pitch / 12)  # espeak-ng's range is in Hz, ours in semitones

    spoken = speak(
        text=SENTENCES[sentence] + ".",
        variant=voice.variant,
        rate=voice.rate * (1 + manner.rate / 100),
        pitch=50 + 5.7 * pitch,  # 5.7 steps of espeak-ng per semitone
        pitch_range=50 * higher * (1 + manner.pitch_range / 100),
        seed=int(random.integers(2**31)),
    )
    samples = soxr.resample(np.frombuffer(spoken, "<i2") / 2**15, SPOKEN_RATE, SAMPLE_RATE)
    samples = colour(samples, manner, random)
    level = SPEECH_LEVEL + voice.level + manner.level
    samples *= 10 ** (level / 20) / samples.std()
    samples += 10 ** (ROOM_LEVEL / 20) * random.standard_normal(len(samples))
    samples *= min(1, PEAK / np.abs(samples).max())
    return np.round(samples * 2**15).astype(np.int16)


def colour(samples: "np.ndarray", manner: Manner, random: "np.random.Generator") -> "np.ndarray":
    """Give speech, float samples (N,) at SAMPLE_RATE, the manner's roughness, breath and tilt."""
    import numpy as np

    beat = random.uniform(40, 90)  # Hz: too fast for a tremor, slow enough to sound rough
    time = np.arange(len(samples)) / SAMPLE_RATE
    rough = samples * (1 + np.clip(manner.roughness, 0, 0.7) * np.sin(2 * np.pi * beat * time))

    window = np.hanning(SAMPLE_RATE // 50)  # 20 ms
    envelope = np.convolve(np.abs(samples), window / window.sum(), "same")
    breath = 10 ** (manner.breath / 20) * envelope * random.standard_normal(len(samples))

    frequencies = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    octaves = np.log2(np.maximum(frequencies, 100) / 1000)  # constant below 100 Hz, to avoid rumble
    return np.fft.irfft(np.fft.rfft(rough + breath) * 10 ** (manner.tilt * octaves / 20), len(samples))


def _generator(name: str) -> "np.random.Generator":
    """A separate random generator for each name, so that the order of calls does not matter."""
    import numpy as np

    return np.random.default_rng([SEED, zlib.crc32(name.encode())])


@contextmanager
def espeak() -> Iterator[Callable[..., bytes]]:
    """Start espeak-ng; yield a function that takes the arguments of `_say` and returns 16-bit samples.

    espeak-ng runs in a separate process without threads, since only such a process can fork safely, and
    numpy and torch start threads. Raises UserError if it cannot start, or stops.
    """
    try:
        import espeakng_loader

        ctypes.CDLL(espeakng_loader.get_library_path())
    except (ImportError, OSError) as error:
        raise UserError(f"espeak-ng cannot be loaded: {error}; run tools/install.sh") from None
    import_path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
    process = subprocess.Popen(
        [sys.executable, "-c", "from ser.corpora import mini; mini._serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": import_path},
        start_new_session=True,  # Ctrl-C goes to the caller only; this process ends when its input ends
    )

    assert process.stdin and process.stdout  # both are pipes
    stdin, stdout = process.stdin, process.stdout

    def speak(**request: Any) -> bytes:
        with suppress(BrokenPipeError):  # the empty answer is handled below
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
        size = int(stdout.readline() or 0)
        if not size:
            raise UserError(f"espeak-ng could not say {request}; remove tools/venv and run tools/install.sh")
        return stdout.read(size)

    try:
        yield speak
    finally:
        with suppress(BrokenPipeError):
            stdin.close()
        stdout.close()
        process.wait()


def _serve() -> None:
    """Answer each request on standard input with a size in bytes, a newline, and that many bytes."""
    import espeakng_loader

    synchronous, dont_exit = 2, 0x8000  # AUDIO_OUTPUT_SYNCHRONOUS, espeakINITIALIZE_DONT_EXIT
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    os.chdir(espeakng_loader.get_data_path())  # espeak-ng truncates paths after 160 characters
    if library.espeak_Initialize(synchronous, 0, b".", dont_exit) != SPOKEN_RATE:
        sys.exit("espeak-ng does not start")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # no traceback if the caller was interrupted
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            samples = _say(library, **json.loads(line))
            sys.stdout.buffer.write(b"%d\n" % len(samples) + samples)
            sys.stdout.buffer.flush()
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            sys.exit(1)  # the caller notices the missing answer


def _say(
    library: ctypes.CDLL,
    text: str,
    variant: str,
    rate: float,
    pitch: float,
    pitch_range: float,
    seed: int,
) -> bytes:
    """Speak `text`: rate in words per minute, pitch and range from 0 to 99, as in espeak-ng.

    Returns 16-bit samples at SPOKEN_RATE; none if espeak-ng fails.
    """
    pieces = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    def collect(samples: int | None, count: int, _events: int | None) -> int:
        if samples:
            pieces.append(ctypes.string_at(samples, 2 * count))
        return 0

    library.espeak_SetSynthCallback(collect)
    library.espeak_ng_SetRandSeed(ctypes.c_long(seed))  # by default, the time
    if library.espeak_SetVoiceByName(variant.encode()) != 0:
        return b""
    settings = ((1, rate, 80, 450), (3, pitch, 0, 99), (4, pitch_range, 0, 99))
    for parameter, value, least, most in settings:  # espeakRATE, espeakPITCH, espeakRANGE
        library.espeak_SetParameter(parameter, max(least, min(most, round(value))), 0)
    words, utf8 = text.encode(), 1  # espeakCHARS_UTF8
    size, start, end = ctypes.c_size_t(len(words) + 1), 0, 0
    library.espeak_Synth(words, size, start, 1, end, utf8, None, None)
    return b"".join(pieces)
