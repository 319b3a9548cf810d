"""What a run was made with, for the record: command line, git commit, machine, versions."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ser.identity import ROOT

UNKNOWN = "unknown"
WRITTEN = [f":(exclude,glob)egs/*/{name}" for name in ("results/**", "figures/**", "RESULTS.md")]  # by stages 5 and 6
PACKAGES = ("torch", "torchaudio", "numpy", "scipy", "scikit-learn", "kaldiio", "soundfile", "soxr")


def provenance(command: str) -> dict[str, Any]:
    """What a run that is laid out now is made with."""
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
    """The git commit of the repository, with -dirty where more than what stages 5 and 6 write was changed since; or
    why there is none."""
    if reason := no_checkout(root):
        return reason
    number = git(root, "rev-parse", "--short=12", "HEAD")
    changed = git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *WRITTEN)
    return f"{number}-dirty" if changed and not number.startswith(UNKNOWN) else number


def is_committed(path: Path, root: Path = ROOT) -> bool:
    """Whether git knows a file of the repository; where there is no git to ask, it may well be: True."""
    if no_checkout(root):
        return True
    return not git(root, "ls-files", "--error-unmatch", str(path.resolve())).startswith(UNKNOWN)


def no_checkout(root: Path) -> str:
    """UNKNOWN, and why a folder is no git checkout of its own; "" where it is one."""
    top = git(root, "rev-parse", "--show-toplevel")
    if top.startswith(UNKNOWN) and "not a git repository" not in top:
        return top[:200]
    if top.startswith(UNKNOWN) or Path(top).resolve() != root.resolve():  # unpacked inside another repository
        return f"{UNKNOWN}: not a git checkout"
    return ""


def git(root: Path, *arguments: str) -> str:
    """What a git command prints; where it fails, UNKNOWN and why."""
    try:
        done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, errors="replace")
    except OSError:
        return f"{UNKNOWN}: no git here"
    if done.returncode:
        return f"{UNKNOWN}: {' '.join(done.stderr.split())}"
    return done.stdout.strip()
