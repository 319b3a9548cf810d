"""Predict the emotion of recordings with a trained system: one line each, with the probability of every class.

RUN is the folder of a finished run (exp/<system>/<protocol>/<run>), or a copy of it; nothing else is needed. FILE is a
recording, or a folder, whose recordings are read in order of their names; hidden files are skipped. A recording that
cannot be read is reported and left out, and the command ends with an error after the others.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ser import cli, inputs
from ser.cli import UserError

if TYPE_CHECKING:
    import numpy as np

    from ser.trained import Model

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ser.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    of_recordings = {name: module for name, module in inputs.every().items() if hasattr(module, "given")}
    for module in of_recordings.values():
        module.add_options(parser)
    cli.add_device(parser)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="recording, or folder of recordings")
    args = parser.parse_args(argv)

    from ser.trained import Model, refuse_other_folder

    refuse_other_folder(args.run)
    recordings = find(args.files)
    values = {name: module.from_options(args, recordings) for name, module in of_recordings.items()}
    model = Model(args.run, args.device)
    extras = model.extras(values)
    print("file", "class", *model.classes, sep="\t", flush=True)
    n_predicted = 0
    for name, matrix in features_of(model, recordings):
        posteriors = model.posteriors({name: matrix}, extras)[0]
        shares = (f"{share:.4f}" for share in posteriors)
        print(recordings[name], model.classes[posteriors.argmax()], *shares, sep="\t", flush=True)
        n_predicted += 1
    n_left_out = len(recordings) - n_predicted
    if n_left_out:
        raise UserError(
            f"{n_left_out} of {len(recordings)} recordings could not be read (see above); fix or remove them"
        )


def find(files: list[Path]) -> dict[str, Path]:
    """Recordings, keyed by their names without suffixes."""
    found: dict[str, Path] = {}
    for place in files:
        inside = sorted(
            path
            for path in place.glob("[!.]*")  # hidden files, such as macOS's `._*`, are not recordings
            if path.suffix.lower() in SUFFIXES
        )
        if place.is_dir() and not inside:
            raise UserError(f"{place}: contains no recordings ({', '.join(SUFFIXES)}); give another folder")
        for path in inside if place.is_dir() else [place]:
            if path.stem in found:
                raise UserError(f"{path}: {found[path.stem]} has the same name; rename one, or give only one of them")
            found[path.stem] = path
    return found


def features_of(model: "Model", recordings: Mapping[str, Path]) -> Iterator[tuple[str, "np.ndarray"]]:
    """Yield each recording's name and normalised features (T, D). With normalisation by speaker, all recordings are
    read before the first is yielded. A recording that cannot be read is reported and left out; if it is the only one,
    UserError is raised."""
    read = readable(model, recordings)
    if model.is_by_speaker:
        print("all recordings are assumed to be of one speaker and normalised together", file=sys.stderr)
        yield from model.normalised(dict(read)).items()
    else:
        for name, matrix in read:
            yield from model.normalised({name: matrix}).items()


def readable(model: "Model", recordings: Mapping[str, Path]) -> Iterator[tuple[str, "np.ndarray"]]:
    """Name and features (T, D) of each recording that can be read."""
    from tqdm import tqdm

    # no progress bar between the rows that are printed on a terminal
    for name, path in tqdm(recordings.items(), "recordings", disable=sys.stdout.isatty() or None):
        try:
            matrix = model.features(path)
        except UserError as error:
            if len(recordings) == 1:
                raise
            tqdm.write(f"error: {error}", file=sys.stderr)
        else:
            yield name, matrix


if __name__ == "__main__":
    cli.run(main)
