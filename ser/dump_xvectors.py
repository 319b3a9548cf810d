"""X-vectors of all recordings of a data directory, by a pretrained network of SpeechBrain's.

Writes OUT/xvector.ark and xvector.scp, as Kaldi does, a vector an utterance, and xvector.yaml, which says of
which network they are. What is there already of the same utterances and network is left alone. An xvector.scp
of Kaldi's own extractor does as well as these, and needs no call of this.

SpeechBrain is no part of what tools/install.sh installs: pip install 'speechbrain>=1.1'. The network is that
of its hub unless --model names another: a TDNN that tells the speakers of VoxCeleb apart, 512 values, which is
downloaded once. A folder of your own holds the same files: hyperparams.yaml and those that it names. Such a
folder is a program: SpeechBrain runs what its hyperparams.yaml names. Take none, from the hub or from
elsewhere, of people whose programs you would not run. Recordings are resampled to 16 kHz.
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
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the x-vectors")
    args = parser.parse_args(argv)
    dump(args.data, args.out, args.model, args.device, args.allow_pipes)


def dump(data: Path, out: Path, model: str, device: str, allow_pipes: bool) -> None:
    """Write the x-vectors of the recordings of `data` to `out`, unless they are there. Raises UserError where
    those of another network are."""
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
            raise UserError(f"{scp}: x-vectors of {other} are there; remove them, or give another folder")
        if read_table(scp).keys() == wavs.keys():
            print(f"{scp}: all {len(wavs)} utterances are there")
            return
    network = load(model, device)
    scp.unlink(missing_ok=True)  # it would point into an archive that is made again
    with whole(about) as stream:
        yaml.safe_dump({"model": model}, stream)
    sizes = write_archive(out / "xvector.ark", extract(network, data / "wav.scp", wavs))
    print(f"{scp}: {len(sizes)} x-vectors of {max(sizes.values())} values")


def load(model: str, device: str) -> Any:
    """The network, a SpeechBrain EncoderClassifier, from a folder or the hub. Raises UserError where
    SpeechBrain is not installed, or cannot make a network of what is there."""
    from ser import networks

    place = networks.device(device)
    try:
        from speechbrain.inference.speaker import EncoderClassifier
    except (ImportError, AttributeError) as error:  # AttributeError: of 1.0, with the torchaudio of today
        raise UserError(f"SpeechBrain cannot be imported ({error}); run pip install 'speechbrain>=1.1'") from None
    options: dict[str, Any] = {"run_opts": {"device": "cuda:0" if place.type == "cuda" else "cpu"}}
    if Path(model).is_dir():  # else it fetches the weights from where the folder is a copy of
        options |= {"overrides": {"pretrained_path": model}, "overrides_must_match": False}
    try:
        return EncoderClassifier.from_hparams(source=model, **options)
    except Exception as error:  # whatever the hub, or the code that the folder names, raises
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{model}: cannot load the network ({reason}); give a folder with its hyperparams.yaml, or a name "
            "on https://huggingface.co/speechbrain"
        ) from None


def extract(network: Any, scp: Path, wavs: dict[str, str]) -> Iterator[tuple[str, "np.ndarray"]]:
    """Each utterance's id and x-vector (D,) float32. wavs: what `scp` has."""
    import numpy as np
    import torch
    from tqdm import tqdm

    for utt, place in tqdm(wavs.items(), desc="x-vectors", disable=None):
        samples, _ = audio.read(audio.recording(place, f"{scp}: {utt}"), RATE)
        torch.manual_seed(0)  # SpeechBrain adds a little noise to the mean over time
        try:  # one by one: padding to a batch's longest would change the others
            vector = network.encode_batch(torch.from_numpy(samples)[None]).cpu().numpy().reshape(-1)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{place}: {utt}: too much or too little for the network, {len(samples)} samples ({reason}); "
                "leave out the recording"
            ) from None
        if not np.isfinite(vector).all():
            raise UserError(f"{place}: {utt} gives non-finite values; mend or leave out the recording")
        yield utt, vector


if __name__ == "__main__":
    cli.run(main)
