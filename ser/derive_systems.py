"""Try systems with different settings: write a system file for each, and print its path.

    python -m ser.derive_systems --set "training.learning_rate=1e-3" --systems conf/own/x.yaml

writes exp/systems/x+training.learning_rate=1e-3.yaml, whose base is conf/own/x.yaml. The other commands take it like
any system file: its runs, scores and figures are those of the system x+training.learning_rate=1e-3. Call it in the
recipe's folder. Nothing is written if the settings do not fit one of the systems.
"""

import argparse
import hashlib
import os
import re
from pathlib import Path
from typing import Any

from ser import cli
from ser.cli import UserError
from ser.files import whole

FOLDER = Path("exp/systems")
FIXED = ("name", "description", "base")  # no result depends on these, or they identify the file
LONGEST_NAME = 100  # characters that the settings add to a system's name: it becomes part of longer file names


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ser.derive_systems",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--set",
        required=True,
        metavar="KEY=VALUE...",
        help="settings that replace those of the systems, separated by spaces: keys such as training.epochs, values as "
        "in YAML but without spaces",
    )
    parser.add_argument("--systems", nargs="+", required=True, type=Path, metavar="YAML", help="system files")
    args = parser.parse_args(argv)

    import yaml

    from ser.config import Dumper

    words = sorted(args.set.split())
    changes = read_settings(words)
    files = {
        FOLDER / f"{path.stem}+{safe('+'.join(words))}.yaml": derive(path, words, changes) for path in args.systems
    }
    for file, content in files.items():
        with whole(file) as stream:
            yaml.dump(content, stream, Dumper, sort_keys=False, allow_unicode=True)
        print(file)


def read_settings(words: list[str]) -> dict[str, Any]:
    """Settings written as `training.epochs=3` -> as in a system file: {"training": {"epochs": 3}}."""
    content: dict[str, Any] = {}
    for word in sorted(words):  # "training.epochs=3" before "training={...}", which is then refused
        if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*=.+", word):
            raise UserError(
                f"--set {word}: not KEY=VALUE, such as training.epochs=3; write a list without spaces: model.cost=[1,3]"
            )
        key, _, value = word.partition("=")
        *sections, last = key.split(".")
        if key in FIXED:
            raise UserError(f"--set {word}: {key} cannot be set here; write a system file")
        place = content
        for section in sections:
            place = place.setdefault(section, {})
        if last in place:
            raise UserError(f"--set {word}: {key} is set twice; keep one of the two")
        place[last] = read_value(word, value)
    return content


def read_value(word: str, value: str) -> Any:
    """A value written as in YAML. word: the whole setting, for errors."""
    from ser.config import YAML_FAULTS, load_yaml

    try:
        return load_yaml(value)
    except YAML_FAULTS as error:
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"--set {word}: not valid YAML: {problem}") from None


def derive(path: Path, words: list[str], changes: dict[str, Any]) -> dict[str, Any]:
    """The content of a system file with `path` as its base and these changes; words: the changes as written.

    Raises UserError if the changes do not fit the system.
    """
    from ser.config import change_system, read_system

    place = f"{path} with --set {' '.join(words)}"
    if "training" in changes and read_system(path).training is None:
        raise UserError(f"{place}: training: this system's model is not trained in epochs; leave it out of --systems")
    system = change_system(path, changes, place)
    base = os.path.relpath(path.resolve(), FOLDER.resolve())  # exp may be a link to another disk
    return {"description": f"{system.description}, with {', '.join(words)}", "base": base, **changes}


def safe(text: str) -> str:
    """Text as part of a file's name: unsafe characters become "_", followed by a fingerprint of the whole text."""
    name = re.sub(r"[^A-Za-z0-9_.=+-]+", "_", text)[:LONGEST_NAME]
    return name if name == text else f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


if __name__ == "__main__":
    cli.run(main)
