"""DATA/wav.scp -> DATA/text_asr: transcribe the recordings with a torchaudio recogniser; print its word error rate.

text_asr has one line per utterance, in the recogniser's spelling; if no words are recognised, the line is only the id,
as in text if nothing is said. An existing table, of any recogniser, is kept and only compared with text. A call that
was interrupted resumes from DATA/text_asr.part.
"""

import argparse
import difflib
import hashlib
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from ser import audio, cli
from ser.cli import UserError
from ser.datadir import read_recordings, read_table, write_table
from ser.files import alone, named, whole
from ser.text import tokens

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

URL = "https://download.pytorch.org/torchaudio/models/"  # torchaudio's weights
SHORTEST = 0.1  # seconds; shorter recordings are padded with silence, since the networks need 25 ms
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
        "VOXPOPULI_ASR_BASE_10K_FR)",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="its weights, if already downloaded (default: downloaded once, 0.4 to 4 GB, to torch's cache)",
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
            transcribe(wavs, table, args.model, args.weights, args.device)
    recognised = read_table(table, wavs)
    print(word_error_rate({utt: true[utt] for utt in wavs}, recognised))


def transcribe(wavs: Mapping[str, str], table: Path, model: str, weights: Path | None, device: str) -> None:
    """Write the table of the words recognised in each recording.

    Recordings are processed one at a time: the networks normalise over the whole utterance, so padding would change
    the result.
    """
    from tqdm import tqdm

    from ser import networks

    place = networks.device(device)
    network, labels, rate, weights = recogniser(model, weights)
    network.to(place)
    part = table.with_name(f"{table.name}.part")
    recordings = hashlib.md5("\n".join(map(" ".join, wavs.items())).encode(), usedforsecurity=False)
    head = f"# {model} {weights.resolve()} {recordings.hexdigest()}"
    recognised = {utt: words for utt, words in read_part(part, head).items() if utt in wavs}
    with whole(part) as stream:  # without a line cut short by an interruption
        stream.writelines(f"{line}\n" for line in (head, *map(" ".join, recognised.items())))
    left = {utt: wav for utt, wav in wavs.items() if utt not in recognised}
    reported = time.monotonic()
    with named(part), open(part, "a", encoding="utf-8", buffering=1) as stream:  # line-buffered
        for utt, wav in tqdm(left.items(), "transcribing", len(wavs), initial=len(recognised), disable=None):
            samples, _ = audio.read(audio.recording(wav, f"{table.with_name('wav.scp')}: {utt}"), rate)
            recognised[utt] = recognise(network, labels, samples, rate)
            stream.write(f"{utt} {recognised[utt]}\n")
            if not sys.stderr.isatty() and time.monotonic() - reported >= LOG_EVERY:
                reported = time.monotonic()
                print(f"{table}: {len(recognised)} of {len(wavs)} utterances", file=sys.stderr)
    write_table(table, recognised)
    part.unlink()


def recogniser(name: str, weights: Path | None) -> "tuple[nn.Module, tuple[str, ...], int, Path]":
    """Load a recogniser of torchaudio.pipelines.

    weights: a file; None: the file in torch's cache, downloaded if it is not there. Returns the network on the
    CPU, in evaluation mode; the letter of each output, "" for CTC's blank, which comes first; the sampling rate in
    Hz; and the file. Raises UserError if there is no such recogniser, or the weights cannot be downloaded, are
    missing, or belong to another network.
    """
    import torch.hub
    from torchaudio import pipelines

    bundles = {key: value for key, value in vars(pipelines).items() if type(value) is pipelines.Wav2Vec2ASRBundle}
    if name not in bundles:
        near = difflib.get_close_matches(name.upper(), bundles, 1, 0.5)
        known = f"did you mean {near[0]}?" if near else f"available: {', '.join(sorted(bundles))}"
        raise UserError(f"--model {name}: torchaudio has no such recogniser; {known}")
    bundle = bundles[name]
    url = URL + bundle._path
    remedy = f"download {url}"
    if weights is None:
        from ser.download import fetch

        weights = Path(torch.hub.get_dir(), "checkpoints", bundle._path)
        remedy = "remove the file and run the same command again"
        try:
            fetch(url, weights, None, None)
        except UserError as error:
            raise UserError(f"{error}, or give it by --weights FILE") from None
    elif not weights.is_file():
        raise UserError(f"{weights}: no such file; {remedy}")
    # an existing file is not downloaded; weights_only: never unpickle arbitrary objects
    place = {"model_dir": str(weights.parent), "file_name": weights.name}
    try:
        network = bundle.get_model(dl_kwargs={**place, "map_location": "cpu", "weights_only": True})
    except Exception as error:  # torch raises various exceptions for a wrong file
        reason = " ".join(str(error).split()).split(". ")[0][:120] or type(error).__name__
        raise UserError(f"{weights}: not the weights of {name} ({reason}); {remedy}") from None
    return network, bundle.get_labels(blank=""), int(bundle.sample_rate), weights


def read_part(part: Path, head: str) -> dict[str, str]:
    """The transcripts of an interrupted call; none if its head (model, weights and recordings) was different.

    Damaged lines, such as after a power failure, are skipped, and their recordings transcribed again.
    """
    lines = part.read_bytes().split(b"\n")[:-1] if part.exists() else []
    if not lines or lines[0] != head.encode():
        return {}
    texts = (line.decode(errors="replace") for line in lines[1:])
    recognised = (text.partition(" ") for text in texts if text.isprintable() and "\ufffd" not in text)
    return {utt: words for utt, _, words in recognised if words == " ".join(words.split())}


def recognise(network: "nn.Module", labels: Sequence[str], samples: "np.ndarray", rate: int) -> str:
    """The words in samples (N,), at the sampling rate of the network, by the best label of each frame."""
    import torch

    shortest = int(SHORTEST * rate)
    waves = torch.zeros(1, max(shortest, len(samples)))
    waves[0, : len(samples)] = torch.from_numpy(samples)
    with torch.inference_mode():
        scores, _ = network(waves.to(next(network.parameters()).device))
    return spell(scores[0].argmax(-1).tolist(), labels)


def spell(path: Iterable[int], labels: Sequence[str]) -> str:
    """Decode a CTC path, one label per frame, into words: repeated labels count once, and `|` ends a word."""
    return " ".join("".join(labels[number] for number, _ in groupby(path)).replace("|", " ").split())


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
