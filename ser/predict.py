"""What a trained system hears in recordings: a line each, with the probability of every class.

RUN is the folder of a run that has ended (exp/<system>/<protocol>/<run>), or a copy of it: it holds all that is
needed. FILE is a recording, or a folder, whose recordings are taken in the order of their names; hidden files are
passed over. One that cannot be taken is told, and left out: the command then ends with an error, after the others.
"""

import argparse
import math
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ser import audio, cli
from ser.cli import UserError

if TYPE_CHECKING:
    import numpy as np

    from ser.runs import Run

Judge = Callable[[str, "np.ndarray"], "np.ndarray"]
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

    refuse_other_folder(args.run)
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
    run.refuse_other_code()
    judge = judge_of(run, recordings, texts, args.xvectors, args.device)
    classes = list(run.protocol.classes)
    print("file", "class", *classes, sep="\t", flush=True)
    n_told = 0
    for name, matrix in heard(run, recordings):
        shares = judge(name, matrix)
        if math.isnan(shares.sum()):
            raise UserError(f"{recordings[name]}: {args.run} gives no numbers for it; take another run")
        told = (f"{share:.4f}" for share in shares)
        print(recordings[name], classes[shares.argmax()], *told, sep="\t", flush=True)
        n_told += 1
    if n_told < len(recordings):
        n_refused = len(recordings) - n_told
        raise UserError(f"{n_refused} of {len(recordings)} recordings are left out, as said above; mend them")


def find(files: list[Path]) -> dict[str, Path]:
    """Recordings by their names without endings."""
    found: dict[str, Path] = {}
    for place in files:
        inside = sorted(
            path
            for path in place.glob("[!.]*")  # hidden files, such as macOS's `._*`, are no recordings
            if path.suffix.lower() in SUFFIXES
        )
        if place.is_dir() and not inside:
            raise UserError(f"{place}: no recordings in it ({', '.join(SUFFIXES)}); give another folder")
        for path in inside if place.is_dir() else [place]:
            if path.stem in found:
                raise UserError(
                    f"{path}: {found[path.stem]} has that name too; rename one, or ask for one alone"
                )
            found[path.stem] = path
    return found


def refuse_other_folder(folder: Path) -> None:
    """Raise UserError where a folder holds runs and is none."""
    if not (folder / "run.yaml").exists():
        deeper = sorted(run for depth in ("*", "*/*") for run in folder.glob(f"{depth}/run.yaml"))
        done = [run for run in deeper if run.with_name("done").exists()]
        if deeper:
            raise UserError(f"{folder}: holds runs; give the folder of one: {(done or deeper)[0].parent}")


def heard(run: "Run", recordings: Mapping[str, Path]) -> Iterator[tuple[str, "np.ndarray"]]:
    """Each recording's name and features (T, D), one by one; of a system that is normalised by speaker, all are read
    before the first. A recording that cannot be taken is told, and left out; where there is no other, UserError is
    raised.
    """
    from tqdm import tqdm

    from ser.normalisation import normalise, statistics

    def matrices() -> Iterator[tuple[str, "np.ndarray"]]:
        # no bar among the rows of a table on the terminal
        for name, path in tqdm(recordings.items(), "recordings", disable=sys.stdout.isatty() or None):
            try:
                matrix = features_of(run, path)
            except UserError as error:
                if len(recordings) == 1:
                    raise
                tqdm.write(f"error: {error}", file=sys.stderr)
            else:
                yield name, matrix

    if run.system.normalisation != "speaker":
        yield from matrices()
        return
    print("the recordings are taken for one speaker's, and normalised together", file=sys.stderr)
    own = list(matrices())
    if own:
        found = statistics(matrix for _, matrix in own)
        yield from ((name, normalise(matrix, found)) for name, matrix in own)


def features_of(run: "Run", path: Path) -> "np.ndarray":
    """(T, D) of a recording."""
    from ser.extract import extract

    samples, rate = audio.read(path)
    try:
        matrix = extract(samples, rate, run.system.feature)
    except UserError as error:
        raise UserError(f"{path}: {error}; leave it out") from None
    return matrix if run.columns is None else matrix[:, run.columns]


def judge_of(
    run: "Run", names: Collection[str], texts: Mapping[str, str], xvectors: Path | None, device: str
) -> Judge:
    """What gives the posteriors (classes,) of a recording by its name and features, for recordings of these names.
    Raises UserError where something that the system reads is not given, or something that it does not."""
    extras = {
        "words": ("what is said", "--text or --texts", texts),
        "xvectors": ("x-vectors", "--xvectors", xvectors),
    }
    for extra, (noun, option, given) in extras.items():
        if extra in run.system.extras and not given:
            raise UserError(f"{run.folder}: its system reads {noun}; give {option}")
        if given and extra not in run.system.extras:
            raise UserError(f"{run.folder}: its system does not read {noun}; leave {option} out")
    if run.system.training is None:
        return machine_of(run)
    return network_of(run, names, texts, xvectors, device)


def machine_of(run: "Run") -> Judge:
    """The same, of a run of an SVM."""
    from ser.models import svm
    from ser.score import load_machine

    machine = load_machine(run)

    def judge(name: str, matrix: "np.ndarray") -> "np.ndarray":
        pooled = svm.pool(matrix, run.system.model)
        if len(pooled) != machine.n_features_in_:
            raise UserError(
                f"{run.folder / 'model.skops'}: of features of another size than the system's; take another run"
            )
        return svm.posteriors(machine, pooled[None])[0]

    return judge


def network_of(
    run: "Run", names: Collection[str], texts: Mapping[str, str], xvectors: Path | None, device: str
) -> Judge:
    """The same, of a run of a network."""
    import torch

    from ser import batches, networks
    from ser import xvectors as tables
    from ser.inputs import Words, XVectors, read_vocabulary
    from ser.normalisation import normalise

    network, normalisation = networks.trained(run, {"n_classes": len(run.protocol.classes)})
    network.to(networks.device(device))
    extras = []
    if texts:
        extras.append(Words(texts, read_vocabulary(run)))
    if xvectors:
        extras.append(XVectors(tables.read(xvectors, names)))
        sizes = extras[-1].sizes["xvector_size"], len(network.xvector_mean)
        if sizes[0] != sizes[1]:
            raise UserError(
                f"{xvectors}: x-vectors of {sizes[0]} values, and {run.folder} learned from {sizes[1]}; give those of "
                "the same extractor"
            )

    def judge(name: str, matrix: "np.ndarray") -> "np.ndarray":
        given = {key: values for extra in extras for key, values in extra.of([name]).items()}
        batch = batches.stack([name], [normalise(matrix, normalisation)], [0], given)
        with torch.inference_mode():
            logs, _ = networks.forward(network, batch, run.system.training.precision)
        return logs.softmax(1)[0].cpu().numpy()

    return judge


if __name__ == "__main__":
    cli.run(main)
