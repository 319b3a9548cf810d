"""Stage 5: score the finished runs of some systems on their test utterances.

Call it in the recipe's folder: it reads exp/<system>/<protocol>/<run> and writes
results/<system>/<protocol>/<run>.txt (and <run>.epochs.jsonl for a network). Up-to-date scores of the same run and
weights are kept. Scores in git that another commit or machine made, such as those that came with the repository, are
not replaced: the run's own scores go beside them, to results/<system>/<protocol>/own/, and the table says which it
shows. With --replace they are replaced.

The speakers of the utterances scored, and their sexes, are added to results/utt2spk and results/spk2gender.
"""

import argparse
import datetime
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ser import cli
from ser.cli import UserError
from ser.files import alone, is_same, whole

if TYPE_CHECKING:
    from ser.scores import Scores


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ser.score", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--systems", nargs="+", required=True, metavar="YAML", help="system files")
    parser.add_argument("--protocols", nargs="+", required=True, metavar="YAML", help="protocol files")
    parser.add_argument(
        "--replace", action="store_true", help="replace scores in git that another commit or machine made"
    )
    cli.add_device(parser)
    args = parser.parse_args(argv)

    from ser.config import read_protocol, read_system
    from ser.identity import differences, settings
    from ser.runs import read_run

    failed: list[UserError] = []
    protocols = [read_protocol(path) for path in args.protocols]
    for system in map(read_system, args.systems):
        for protocol in protocols:
            place = Path(system.name) / protocol.name
            folders = sorted(Path("exp", place).glob("fold*_seed*"))
            if not folders:
                print(f"exp/{place}: no runs; stages 3 and 4 make them")
            for folder in folders:
                try:
                    run = read_run(folder)
                    different = differences(settings(run.system), settings(system))
                    different += differences(settings(run.protocol), settings(protocol))
                    if different:
                        print(f"{folder}: left out, made with different settings: {'; '.join(different[:3])}")
                    elif run.is_done:
                        score(folder, Path("results", place, f"{folder.name}.txt"), args.device, args.replace)
                    else:
                        print(f"{folder}: not done, left out")
                except UserError as error:  # a run that cannot be scored does not stop the others
                    failed.append(error)
    if len(failed) == 1:
        raise failed[0]
    if failed:
        for one in failed:
            print(f"error: {cli.plain(str(one))}", file=sys.stderr, flush=True)
        raise UserError(f"{len(failed)} runs could not be scored (see above)")


def score(folder: Path, result: Path, device: str, replace: bool = False) -> None:
    """Score one run, unless its scores are up to date."""
    import numpy as np

    from ser import learners, metrics
    from ser.folds import fold_numbers
    from ser.provenance import is_committed
    from ser.reading import read_inputs, read_run_fold
    from ser.runs import read_run
    from ser.scores import CHECKSUM, Scores, identity_lines, write_scores

    run = read_run(folder)
    run.refuse_changes(ignore=["trainer"])  # newer training code does not change a finished run
    identity = identity_lines(run)
    epochs = folder / "epochs.jsonl"
    own = result.parent / "own" / result.name
    for place in (result,) if replace else (result, own):
        scores = read_or_none(place)
        is_known = scores and all(scores.about.get(key) == identity[key] for key in ("run", "model", "row", "scorer"))
        is_known = is_known and scores and CHECKSUM in scores.about  # which older versions did not write
        if scores and is_known and (not epochs.exists() or is_same(epochs, place.with_suffix(".epochs.jsonl"))):
            add_speakers(scores.utts, run.data)
            tell(place, scores)
            return
    fold = read_run_fold(run)
    inputs = read_inputs(run, fold)
    utts = sorted(fold.test)
    learned = learners.load(run, device, inputs.sizes)
    posteriors = learned.posteriors(inputs, utts)
    if not np.isfinite(posteriors).all():
        raise UserError(f"{run.weights}: gives posteriors that are not finite; remove {folder} and train it again")
    add_speakers(utts, run.data)
    beside = ", ".join(f"{name} {md5 or 'none'}" for name, md5 in run.inputs.items())
    ended = datetime.datetime.fromtimestamp((folder / "done").stat().st_mtime)
    about = {
        "system": run.system.name,
        "corpus": run.corpus,
        "protocol": run.protocol.name,
        "select": run.protocol.select,
        "fold": f"{run.fold} of {len(fold_numbers(run.folds))}",
        "seed": run.seed,
        **identity,
        "utterances": len(utts),
        "overlap": fold.overlap,
        **({"inputs": beside} if beside else {}),
        **learned.about(),
        "date": ended.isoformat(" ", "minutes"),
        "commit": run.made["commit"],
        "machine": run.made["machine"],
        "versions": ", ".join(f"{name} {number}" for name, number in run.made["versions"].items()),
        "command": run.made["command"],
    }
    targets = fold.targets()
    true = np.array([targets[utt] for utt in utts])
    scores = Scores(
        {key: str(value) for key, value in about.items()},
        fold.classes,
        utts,
        true,
        posteriors.argmax(1),
        posteriors,
    )
    before = read_or_none(result)
    others = before and any(before.about.get(key) != scores.about[key] for key in ("commit", "machine"))
    if before and others and not replace and is_committed(result):
        made = f"commit {before.about.get('commit')}, {before.about.get('machine')}"
        print(
            f"{result}: kept, since it is in git and from another commit or machine ({made}); "
            "give run.sh --replace true to replace it"
        )
        result = own
    elif own.exists():  # from an earlier call, now out of date
        for path in (own, own.with_suffix(".epochs.jsonl")):
            path.unlink(missing_ok=True)
    if epochs.exists():
        with whole(result.with_suffix(".epochs.jsonl"), "wb") as stream:
            stream.write(epochs.read_bytes())
    write_scores(result, scores)
    tell(result, scores)
    confusion = metrics.confusion_matrix(scores.true, scores.predicted, len(fold.classes))
    number = metrics.collapse(confusion)
    if number is not None:
        print(f"warning: {folder}: {metrics.COLLAPSE.format(fold.classes[number])}", flush=True)


def add_speakers(utts: list[str], data: Path) -> None:
    """Add the speakers of utterances, and their sexes where these are known, to the tables in results/.

    data: the data directory. Raises UserError if a table in results/ has another speaker or sex.
    """
    from ser.datadir import read_table, write_table
    from ser.results import SEXES, SPEAKERS, read_sexes, read_speakers

    utt2spk = read_table(data / "utt2spk", utts)
    genders = read_table(data / "spk2gender") if (data / "spk2gender").exists() else {}
    speakers = {utt: utt2spk[utt] for utt in utts}
    sexes = {speaker: genders[speaker] for speaker in speakers.values() if speaker in genders}
    with alone(SPEAKERS.with_name(".speakers.lock"), str(SPEAKERS), wait=True):
        for path, known, new in ((SPEAKERS, read_speakers(), speakers), (SEXES, read_sexes(), sexes)):
            for key, value in new.items():
                if known.get(key, value) != value:
                    raise UserError(
                        f"{path}: {key} has {known[key]}, but {value} in {data / path.name}; correct the one that is "
                        "wrong"
                    )
            if new.keys() - known.keys():
                write_table(path, known | new)


def read_or_none(path: Path) -> "Scores | None":
    """The scores in a file; None if it is missing or damaged and has to be written again."""
    from ser.scores import read_scores

    try:
        return read_scores(path) if path.exists() else None
    except UserError as error:
        print(f"{error}: written again")
        return None


def tell(path: Path, scores: "Scores") -> None:
    """Print every metric."""
    from ser import metrics

    confusion = metrics.confusion_matrix(scores.true, scores.predicted, len(scores.classes))
    values = " ".join(f"{metric.title} {metric.of(confusion):.1f}" for metric in metrics.METRICS.values())
    print(f"{path}: {values}", flush=True)


if __name__ == "__main__":
    cli.run(main)
