"""What a run was made with, for the record: command line, git commit, machine, versions."""

import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

from ser import __version__
from ser.identity import ROOT

UNKNOWN = "unknown"
ARCHIVED = "$Format:%H$"  # `git archive` puts the commit here, since .gitattributes asks for it
OWN = "ser/provenance.py"  # this file, as git lists it in a checkout of the recipes
WRITTEN = [f":(exclude,glob)egs/*/{name}" for name in ("results/**", "figures/**", "RESULTS.md")]  # by stages 5 and 6
PACKAGES = (
    "torch",
    "torchaudio",
    "numpy",
    "scipy",
    "scikit-learn",
    "kaldiio",
    "soundfile",
    "soxr",
    "transformers",
    "peft",
)


def provenance(command: str) -> dict[str, Any]:
    """What a run that is set up now is made with."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "command": command,
        "commit": commit(),
        "machine": f"{platform.machine()}, {platform.system()} {platform.release()}",
        "versions": versions,
    }


def commit(root: Path = ROOT) -> str:
    """The git commit of the code, with -dirty if files other than those that stages 5 and 6 write have changed since.

    Outside a git checkout: the commit that pip or `git archive` recorded, with the package's version; or why there is
    none.
    """
    if reason := no_checkout(root):
        number = recorded(root)
        return f"{number[:12]} (ser {__version__})" if number else f"{reason} (ser {__version__})"
    number = git(root, "rev-parse", "--short=12", "HEAD")
    changed = git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *WRITTEN)
    return f"{number}-dirty" if changed and not number.startswith(UNKNOWN) else number


def recorded(root: Path) -> str:
    """The commit that `git archive` wrote into this file, or that pip recorded when it installed the package in `root`
    from a git repository; "" if neither did."""
    if not ARCHIVED.startswith("$"):
        return ARCHIVED
    package = next(iter(distributions(name="ser", path=[str(root)])), None)
    origin = package.read_text("direct_url.json") if package else None
    return json.loads(origin or "{}").get("vcs_info", {}).get("commit_id", "")


def is_committed(path: Path, root: Path = ROOT) -> bool:
    """Whether git tracks a file of the repository; True outside a git checkout, where it might."""
    if no_checkout(root):
        return True
    return not git(root, "ls-files", "--error-unmatch", str(path.resolve())).startswith(UNKNOWN)


def no_checkout(root: Path) -> str:
    """UNKNOWN, and why a folder is not a git checkout of the recipes; "" if it is one.

    Code that was unpacked or installed inside another repository is not part of that repository's commits.
    """
    listed = git(root, "ls-files", "--full-name", "--error-unmatch", OWN)
    if listed == OWN:
        return ""
    if listed.startswith(UNKNOWN) and not any(why in listed for why in ("not a git repository", "did not match")):
        return listed[:200]
    return f"{UNKNOWN}: not a git checkout"


def git(root: Path, *arguments: str) -> str:
    """The output of a git command; UNKNOWN and the reason if it fails."""
    # Git's hooks set variables that override `root` with their own repository. LC_ALL: untranslated messages.
    hooks = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
    environment = {name: value for name, value in os.environ.items() if name not in hooks} | {"LC_ALL": "C"}
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    except OSError:
        return f"{UNKNOWN}: cannot run git"
    if done.returncode:
        return f"{UNKNOWN}: {' '.join(done.stderr.split())}"
    return done.stdout.strip()
