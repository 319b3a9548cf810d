"""What a trained system hears in recordings: a line each, with the probability of every class.

RUN is the folder of a run that has ended (exp/<system>/<protocol>/<run>), or a copy of it: it holds all that is
needed. FILE is a recording, or a folder, whose recordings are taken in the order of their names.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ser import audio, cli
from ser.cli import UserError

if TYPE_CHECKING:
    import numpy as np

    from ser.runs import Run

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ser.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    words = parser.add_mutually_exclusive_group()
    words.add_argument(
        "--text", metavar="WORDS", help="what is said, for a system that reads it; of one FILE"
    )
    words.add_argument(
        "--texts",
        type=Path,
        metavar="TABLE",
        help="the same of many: a line each, the file's name without its ending and the words",
    )
    parser.add_argument(
        "--xvectors",
        type=Path,
        metavar="SCP",
        help="x-vectors, for a system that reads them: Kaldi's index, by the files' names without their endings",
    )
    cli.add_device(parser)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run that has ended")
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="recording, or folder of recordings"
    )
    args = parser.parse_args(argv)

    from ser.datadir import read_table
    from ser.runs import read_run

    recordings = find(args.files)
    for path in filter(None, (args.texts, args.xvectors)):
        missing = sorted(recordings.keys() - read_table(path).keys())
        if missing:
            raise UserError(
                f"{path}: no line for {missing[0]}; lines start with the files' names without their endings"
            )
    texts = read_table(args.texts) if args.texts else {}
    if args.text is not None:
        if len(recordings) > 1:
            raise UserError(f"--text: of one recording, and there are {len(recordings)}; give --texts")
        texts = dict.fromkeys(recordings, args.text)
    run = read_run(args.run)
    if not run.is_done:
        raise UserError(f"{args.run}: not done; run stage 4")
    posteriors = predict(run, recordings, texts, args.xvectors, args.device)
    classes = list(run.protocol.classes)
    print("file", "class", *classes, sep="\t")
    for name, row in zip(recordings, posteriors, strict=True):
        print(recordings[name], classes[row.argmax()], *(f"{share:.4f}" for share in row), sep="\t")


def find(files: list[Path]) -> dict[str, Path]:
    """Recordings by their names without endings."""
    found: dict[str, Path] = {}
    for place in files:
        inside = sorted(path for path in place.glob("*") if path.suffix.lower() in SUFFIXES)
        if place.is_dir() and not inside:
            raise UserError(f"{place}: no recordings in it ({', '.join(SUFFIXES)}); give another folder")
        for path in inside if place.is_dir() else [place]:
            if path.stem in found:
                raise UserError(
                    f"{path}: {found[path.stem]} has that name too; rename one, or ask for one alone"
                )
            found[path.stem] = path
    return found


def predict(
    run: "Run", recordings: Mapping[str, Path], texts: Mapping[str, str], xvectors: Path | None, device: str
) -> "np.ndarray":
    """Posteriors (N, classes) of recordings, in their order. Raises UserError where something that the system reads
    is not given, or something that it does not."""
    import numpy as np

    extras = {
        "words": ("what is said", "--text or --texts", texts),
        "xvectors": ("x-vectors", "--xvectors", xvectors),
    }
    for extra, (noun, option, given) in extras.items():
        if extra in run.system.extras and not given:
            raise UserError(f"{run.folder}: its system reads {noun}; give {option}")
        if given and extra not in run.system.extras:
            raise UserError(f"{run.folder}: its system does not read {noun}; leave {option} out")
    config = run.system.feature
    matrices = {}
    for name, path in recordings.items():
        samples, _ = audio.read(path, config.sample_rate)
        try:
            matrices[name] = run.feature.extract(samples, config)
        except UserError as error:
            raise UserError(f"{path}: {error}; leave it out") from None
    if run.columns is not None:
        matrices = {name: matrix[:, run.columns] for name, matrix in matrices.items()}
    if run.system.training is None:
        from ser.models import svm
        from ser.score import load_machine

        pooled = np.stack([svm.pool(matrix, run.system.model) for matrix in matrices.values()])
        return svm.posteriors(load_machine(run), pooled)
    return predict_by_network(run, matrices, texts, xvectors, device)


def predict_by_network(
    run: "Run",
    matrices: Mapping[str, "np.ndarray"],
    texts: Mapping[str, str],
    xvectors: Path | None,
    device: str,
) -> "np.ndarray":
    """The same by a network, of features (T, D)."""
    import numpy as np
    import torch

    from ser import batches, networks
    from ser import xvectors as tables
    from ser.inputs import Words, XVectors, read_vocabulary
    from ser.normalisation import normalise, statistics

    network, normalisation = networks.trained(run)
    network.to(networks.device(device))
    if run.system.normalisation == "speaker":
        print("the recordings are taken for one speaker's, and normalised together", file=sys.stderr)
        normalisation = statistics(matrices.values())
    extras = []
    if texts:
        extras.append(Words(texts, read_vocabulary(run)))
    if xvectors:
        extras.append(XVectors(tables.read(xvectors, matrices.keys())))
        sizes = extras[-1].sizes["xvector_size"], len(network.xvector_mean)
        if sizes[0] != sizes[1]:
            raise UserError(
                f"{xvectors}: x-vectors of {sizes[0]} values, and {run.folder} learned from {sizes[1]}; give those of "
                "the same extractor"
            )
    rows = []
    with torch.inference_mode():
        for name, matrix in matrices.items():
            given = {key: values for extra in extras for key, values in extra.of([name]).items()}
            batch = batches.stack([name], [normalise(matrix, normalisation)], [0], given)
            logs, _ = networks.forward(network, batch, run.system.training.precision)
            rows.append(logs.softmax(1)[0].cpu().numpy())
    return np.stack(rows)


if __name__ == "__main__":
    cli.run(main)
