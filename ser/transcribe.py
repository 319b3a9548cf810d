"""DATA/wav.scp -> DATA/text_asr: transcribe the recordings with a speech recogniser; print its word error rate.

text_asr has one line per utterance, in the recogniser's spelling; if no words are recognised, the line is only the id,
as in text if nothing is said. An existing table, of any recogniser, is kept and only compared with text. A call that
was interrupted resumes from DATA/text_asr.part.
"""

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from ser import audio, cli
from ser.datadir import read_recordings, read_table, write_table
from ser.files import alone, named, whole
from ser.text import tokens

LOG_EVERY = 60.0  # seconds between progress lines if there is no terminal


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ser.transcribe",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model",
        default="WAV2VEC2_ASR_BASE_960H",
        metavar="NAME",
        help="recogniser of torchaudio.pipelines (default WAV2VEC2_ASR_BASE_960H, for English; for French: "
        "VOXPOPULI_ASR_BASE_10K_FR), or of transformers: a name on the hub, such as openai/whisper-tiny.en, or a "
        "folder (config.json, weights in safetensors, tokenizer)",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="weights of torchaudio's, if already downloaded (default: downloaded once, 0.4 to 4 GB, to torch's cache)",
    )
    parser.add_argument(
        "--language",
        metavar="CODE",
        help="for Whisper in many languages, such as fr (default: what its own settings say, mostly the one it hears)",
    )
    cli.add_device(parser)
    cli.add_allow_pipes(parser)
    parser.add_argument("data", type=Path, metavar="DATA", help="data directory")
    args = parser.parse_args(argv)

    table = args.data / "text_asr"
    wavs = read_recordings(args.data / "wav.scp", args.allow_pipes, "ser.transcribe")
    true = read_table(args.data / "text", wavs)
    if table.exists():
        print(f"{table}: exists already; remove it to transcribe the recordings again")
    else:
        with alone(table.with_name(".text_asr.lock"), str(table)):
            transcribe(wavs, table, args.model, args.weights, args.language, args.device)
    recognised = read_table(table, wavs)
    print(word_error_rate({utt: true[utt] for utt in wavs}, recognised))


def transcribe(
    wavs: Mapping[str, str], table: Path, model: str, weights: Path | None, language: str | None, device: str
) -> None:
    """Write the table of the words recognised in each recording.

    Recordings are processed one at a time: the networks normalise over the whole utterance, so padding would change
    the result.
    """
    from tqdm import tqdm

    from ser import networks, recognisers

    recogniser = recognisers.load(model, weights, language, networks.device(device))
    part = table.with_name(f"{table.name}.part")
    head = f"# {recogniser.content} {content(wavs)}"
    recognised = {utt: words for utt, words in read_part(part, head).items() if utt in wavs}
    with whole(part) as stream:  # without a line cut short by an interruption
        stream.writelines(f"{line}\n" for line in (head, *map(" ".join, recognised.items())))
    left = {utt: wav for utt, wav in wavs.items() if utt not in recognised}
    reported = time.monotonic()
    with named(part), open(part, "a", encoding="utf-8", buffering=1) as stream:  # line-buffered
        for utt, wav in tqdm(left.items(), "transcribing", len(wavs), initial=len(recognised), disable=None):
            samples, _ = audio.read(audio.recording(wav, f"{table.with_name('wav.scp')}: {utt}"), recogniser.rate)
            recognised[utt] = recogniser.hear(samples)
            stream.write(f"{utt} {recognised[utt]}\n")
            if not sys.stderr.isatty() and time.monotonic() - reported >= LOG_EVERY:
                reported = time.monotonic()
                print(f"{table}: {len(recognised)} of {len(wavs)} utterances", file=sys.stderr)
    write_table(table, recognised)
    part.unlink()


def content(wavs: Mapping[str, str]) -> str:
    """Fingerprint of the recordings' files, or commands, by utterance."""
    from ser.identity import fingerprint, md5_of

    return fingerprint(
        {utt: wav if audio.is_pipe(wav) or not Path(wav).is_file() else md5_of(Path(wav)) for utt, wav in wavs.items()}
    )


def read_part(part: Path, head: str) -> dict[str, str]:
    """The transcripts of an interrupted call; none if its head (recogniser and recordings, by content) was different.

    Damaged lines, such as after a power failure, are skipped, and their recordings transcribed again.
    """
    lines = part.read_bytes().split(b"\n")[:-1] if part.exists() else []
    if not lines or lines[0] != head.encode():
        return {}
    texts = (line.decode(errors="replace") for line in lines[1:])
    recognised = (text.partition(" ") for text in texts if text.isprintable() and "\ufffd" not in text)
    return {utt: words for utt, _, words in recognised if words == " ".join(words.split())}


def word_error_rate(true: Mapping[str, str], recognised: Mapping[str, str]) -> str:
    """Report the word error rate against the reference transcripts (utterance -> text): insertions, deletions and
    substitutions."""
    from torchaudio.functional import edit_distance

    pairs = [(tokens(text), tokens(recognised[utt])) for utt, text in true.items()]
    errors = sum(edit_distance(*pair) for pair in pairs)
    words = sum(len(said) for said, _ in pairs)
    if not words:
        return f"no word error rate: no reference transcript of the {len(pairs)} utterances has words"
    empty = sum(not other for _, other in pairs)
    return (
        f"word error rate {100 * errors / words:.2f} % ({errors} errors in {words} words; "
        f"{len(pairs)} utterances, no words recognised in {empty})"
    )


if __name__ == "__main__":
    cli.run(main)
