"""Record that a change of the code changed no number.

A change that only moves code still gives every feature and model another fingerprint, and scores from before it would
not be averaged with scores from after it. So train the same systems, a few epochs each, in a checkout from before and
in one from after, both committed, and score them (stages 2 to 5, with the same --nj). BEFORE and AFTER are their
folders of one recipe. For each run that is finished in both, the archives of its features, its weights and its
posteriors must be the same. If all are, egs/same_code.txt gets a line for each system: tables then count scores of the
two versions of the code as one, for systems with these settings, whatever their number of epochs. Runs in exp/ and
features in dump/ are still refused as made by different code.
"""

import argparse
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from ser import cli
from ser.cli import UserError
from ser.files import whole

if TYPE_CHECKING:
    from ser.runs import Run

CHANGES = ("code", "trainer")  # the parts of a run that may differ


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ser.same_code",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("before", type=Path, metavar="BEFORE", help="folder of the recipe before the change")
    parser.add_argument("after", type=Path, metavar="AFTER", help="folder of the recipe after the change")
    args = parser.parse_args(argv)

    from ser import identity

    places = [path.parent.relative_to(args.after) for path in sorted(args.after.glob("exp/*/*/*/done"))]
    both = [place for place in places if (args.before / place / "done").exists()]
    if not both:
        raise UserError(f"{args.before}, {args.after}: no run is finished in both; train the same systems in each")
    lines = [compare(args.before, args.after, place) for place in both]
    known = identity.SAME_CODE.read_text(encoding="utf-8").splitlines() if identity.SAME_CODE.exists() else []
    keys = {tuple(line.split()[:3]) for line in known}
    lines = [line for line in dict.fromkeys(lines) if line.split()[0] != line.split()[1]]
    new = [line for line in lines if tuple(line.split()[:3]) not in keys]
    with whole(identity.SAME_CODE) as stream:
        stream.writelines(f"{line}\n" for line in [*known, *new])
    print(f"{len(both)} runs, all the same; {identity.SAME_CODE}: {len(new)} new lines")


def compare(before: Path, after: Path, place: Path) -> str:
    """The line of one run: code before and after, settings of the system and its name, commits, date. Raises UserError
    if something differs."""
    from ser.identity import compared_settings, settings
    from ser.runs import read_run, read_run_yaml

    contents = [read_run_yaml(root / place / "run.yaml") for root in (before, after)]
    parts = [content.get("parts") or {} for content in contents]
    differing = sorted(part for part in {*parts[0], *parts[1]} - {*CHANGES} if parts[0].get(part) != parts[1].get(part))
    if differing:
        raise UserError(f"{place}: made with different {', '.join(differing)} before; train the same systems in both")
    commits = [content["made"]["commit"] for content in contents]
    for root, commit in zip((before, after), commits, strict=True):
        if not commit.isalnum():
            raise UserError(f"{root / place}: made at {commit}; commit the tree and train it again")
    run = read_run(after / place)
    compare_files(run, before, after, place)
    if posteriors_of(before, place) != posteriors_of(after, place):
        raise UserError(f"{place}: its posteriors differ between {before} and {after}, so the change affects results")
    print(f"{place}: the same", flush=True)
    key = compared_settings(settings(run.system))
    return f"{parts[0]['code']} {parts[1]['code']} {key} {run.system.name} {' '.join(commits)} {date.today()}"


def compare_files(run: "Run", before: Path, after: Path, place: Path) -> None:
    """Raise UserError if the archives of a run's features, its weights or what its inputs keep differ. (An estimator's
    file holds the time: its posteriors are compared.)"""
    from ser import identity

    names = (
        "best.safetensors",
        "last.safetensors",
        "normalisation.safetensors",
        *(path.name for path in run.input_files),
    )
    files = {place / name for name in names for root in (before, after) if (root / place / name).exists()}
    for noise in run.noises:
        folder = run.feature_folder(noise)
        for root in (before, after):
            archives = {path.relative_to(root) for path in (root / folder).rglob("*.ark")}
            if not archives:
                raise UserError(f"{root / folder}: no archives; run stage 2")
            files |= archives
    for name in sorted(files):
        for root in (before, after):
            if not (root / name).exists():
                raise UserError(f"{root / name}: missing; run stages 2 to 5 with the same options in both")
        if identity.md5_of(before / name) != identity.md5_of(after / name):
            raise UserError(f"{name}: differs between {before} and {after}, so the change affects results")


def posteriors_of(root: Path, place: Path) -> list[str]:
    """The lines of the scores of this very run, in results/ or, if others are committed there, in own/."""
    from ser.identity import fingerprint
    from ser.runs import read_run, read_run_yaml
    from ser.scores import read_scores

    run = fingerprint(read_run_yaml(root / place / "run.yaml")["parts"])
    result = (root / "results").joinpath(*place.parts[1:]).with_suffix(".txt")
    for path in (result, result.parent / "own" / result.name):
        if path.exists():
            about = read_scores(path).about
            if (about.get("run"), about.get("model")) == (run, read_run(root / place).model):
                return [line for line in path.read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    raise UserError(f"{root / place}: not scored; run stage 5")


if __name__ == "__main__":
    cli.run(main)
