"""Record that a code change did not change any results.

Even a change that only moves code gives features and models new fingerprints, so that scores from before and after it
would not be averaged. To prevent this, run the same systems for a few epochs in a checkout from before the change and
in one from after it. BEFORE and AFTER are the folders of one recipe in these checkouts, with dump/, exp/ and results/.
For each run in both, feature archives, weights and posteriors must be byte for byte the same. If they are,
egs/same_code.txt gets a line for each of the systems, and from then on the two fingerprints count as one.
"""

import argparse
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser import cli
from ser.cli import UserError
from ser.files import whole
from ser.identity import SAME_CODE, md5_of

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

    places = [path.parent.relative_to(args.after) for path in sorted(args.after.glob("exp/*/*/*/done"))]
    both = [place for place in places if (args.before / place / "done").exists()]
    if not both:
        raise UserError(f"{args.before}, {args.after}: no run is finished in both; train the same systems in each")
    lines = [compare(args.before, args.after, place) for place in both]
    known = SAME_CODE.read_text(encoding="utf-8").splitlines() if SAME_CODE.exists() else []
    pairs = {tuple(line.split()[:2]) for line in known}
    new = [line for line in lines if tuple(line.split()[:2]) not in pairs and len({*line.split()[:2]}) == 2]
    with whole(SAME_CODE) as stream:
        stream.writelines(f"{line}\n" for line in [*known, *dict.fromkeys(new)])
    print(f"{len(both)} runs, all the same; {SAME_CODE}: {len(new)} new lines")


def compare(before: Path, after: Path, place: Path) -> str:
    """The line of one run: code before and after, feature and model, commits, date. Raises UserError if something
    differs."""
    from ser.config import kind_of
    from ser.runs import read_run, read_run_yaml

    contents = [read_run_yaml(root / place / "run.yaml") for root in (before, after)]
    old, new = (content["parts"] for content in contents)
    differing = sorted(part for part in {*old, *new} - {*CHANGES} if old.get(part) != new.get(part))
    if differing:
        raise UserError(f"{place}: made with different {', '.join(differing)} before; train the same systems in both")
    commits = [content["made"]["commit"] for content in contents]
    for root, commit in zip((before, after), commits, strict=True):
        if not commit.isalnum():
            raise UserError(f"{root / place}: made at {commit}; commit the tree and train it again")
    run = read_run(after / place)
    for name in files_of(run, place, contents[1]):
        if digest(before / name) != digest(after / name):
            raise UserError(f"{name}: differs between {before} and {after}, so the change affects results")
    print(f"{place}: the same", flush=True)
    kinds = f"{kind_of(run.system.feature)}+{kind_of(run.system.model)}"
    return f"{old['code']} {new['code']} {kinds} {' '.join(commits)} {date.today()}"


def files_of(run: "Run", place: Path, content: dict[str, Any]) -> list[Path]:
    """The files of a run that must be the same, as paths in the recipe's folder."""
    names = [
        place / name for name in ("best.safetensors", "last.safetensors", "normalisation.safetensors", "vocabulary")
    ]
    names = [name for name in names if (run.folder / name.name).exists()]
    root = run.folder.parents[len(place.parts) - 1]
    archives = [path for noise in run.noises for path in sorted((root / run.feature_folder(noise)).glob("*.ark"))]
    if not archives:
        raise UserError(f"{root / run.feature_folder()}: no archives; run stage 2")
    return [
        *names,
        *(path.relative_to(root) for path in archives),
        Path("results", *place.parts[1:]).with_suffix(".txt"),
    ]


def digest(path: Path) -> str:
    """MD5 of a file; for scores, their lines without the header."""
    if not path.exists():
        return f"{path}: missing"
    if path.suffix != ".txt":
        return md5_of(path)
    return "".join(line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line[:1] != "#")


if __name__ == "__main__":
    cli.run(main)
