"""Extract x-vectors of all recordings of a data directory, with a pretrained SpeechBrain network.

Writes OUT/xvector.ark and xvector.scp, as Kaldi does, with one vector per utterance, and xvector.yaml, which names
the network. X-vectors that already exist for the same utterances and network are kept. An xvector.scp from Kaldi's
own extractor can be used instead of this command.

tools/install.sh does not install SpeechBrain: pip install 'speechbrain>=1.1'. The default network, from its hub, is a
TDNN trained to recognise the speakers of VoxCeleb; it gives 512 values and is downloaded once. --model may name another
network or a folder with the same files: hyperparams.yaml and the files that it names. Such a folder is a program:
SpeechBrain runs whatever its hyperparams.yaml names. Use only networks, from the hub or elsewhere, whose authors you
trust. Recordings are resampled to 16 kHz.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser import audio, cli
from ser.cli import UserError
from ser.datadir import read_recordings, read_table

if TYPE_CHECKING:
    import numpy as np

HUB = "speechbrain/spkrec-xvect-voxceleb"
RATE = 16000  # Hz


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ser.dump_xvectors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model",
        default=HUB,
        metavar="FOLDER_OR_NAME",
        help=f"folder of a SpeechBrain network, or its name on the hub (default {HUB})",
    )
    cli.add_device(parser)
    cli.add_allow_pipes(parser)
    parser.add_argument("data", type=Path, metavar="DATA", help="data directory")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the x-vectors")
    args = parser.parse_args(argv)
    dump(args.data, args.out, args.model, args.device, args.allow_pipes)


def dump(data: Path, out: Path, model: str, device: str, allow_pipes: bool) -> None:
    """Write the x-vectors of the recordings of `data` to `out`, unless they exist. Raises UserError if `out` has
    those of another network."""
    import yaml

    from ser.archive import write_archive
    from ser.config import read_yaml
    from ser.files import whole

    wavs = read_recordings(data / "wav.scp", allow_pipes, "ser.dump_xvectors")
    model = str(Path(model).resolve()) if Path(model).is_dir() else model
    scp, about = out / "xvector.scp", out / "xvector.yaml"
    if scp.exists():
        other = read_yaml(about).get("model") if about.exists() else "another extractor"
        if other != model:
            raise UserError(f"{scp}: has x-vectors of {other}; remove them, or use another folder")
        if read_table(scp).keys() == wavs.keys():
            print(f"{scp}: all {len(wavs)} utterances are up to date")
            return
    network = load(model, device)
    scp.unlink(missing_ok=True)  # it refers to an archive that is about to be replaced
    with whole(about) as stream:
        yaml.safe_dump({"model": model}, stream)
    sizes = write_archive(out / "xvector.ark", extract(network, data / "wav.scp", wavs))
    print(f"{scp}: {len(sizes)} x-vectors of {max(sizes.values())} values")


def load(model: str, device: str) -> Any:
    """The network, a SpeechBrain EncoderClassifier, from a folder or the hub. Raises UserError if
    SpeechBrain is not installed or cannot load the network."""
    from ser import networks

    place = networks.device(device)
    try:
        from speechbrain.inference.speaker import EncoderClassifier
    except (ImportError, AttributeError) as error:  # AttributeError: SpeechBrain 1.0 with a current torchaudio
        raise UserError(f"SpeechBrain cannot be imported ({error}); run pip install 'speechbrain>=1.1'") from None
    options: dict[str, Any] = {"run_opts": {"device": "cuda:0" if place.type == "cuda" else "cpu"}}
    if Path(model).is_dir():  # otherwise it fetches the weights from the source of the copy
        options |= {"overrides": {"pretrained_path": model}, "overrides_must_match": False}
    try:
        return EncoderClassifier.from_hparams(source=model, **options)
    except Exception as error:  # the hub, or code in the folder, may raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{model}: cannot load the network ({reason}); give a folder with its hyperparams.yaml, or a name "
            "on https://huggingface.co/speechbrain"
        ) from None


def extract(network: Any, scp: Path, wavs: dict[str, str]) -> Iterator[tuple[str, "np.ndarray"]]:
    """Yield the id and x-vector (D,) float32 of each utterance. wavs: content of `scp`."""
    import numpy as np
    import torch
    from tqdm import tqdm

    for utt, place in tqdm(wavs.items(), desc="x-vectors", disable=None):
        samples, _ = audio.read(audio.recording(place, f"{scp}: {utt}"), RATE)
        torch.manual_seed(0)  # SpeechBrain adds a little random noise to the mean over time
        try:  # one by one: padding in a batch would change the results
            vector = network.encode_batch(torch.from_numpy(samples)[None]).cpu().numpy().reshape(-1)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{place}: {utt}: {len(samples)} samples, too many or too few for the network ({reason}); "
                "leave out the recording"
            ) from None
        if not np.isfinite(vector).all():
            raise UserError(f"{place}: {utt} gives non-finite values; fix or leave out the recording")
        yield utt, vector


if __name__ == "__main__":
    cli.run(main)
