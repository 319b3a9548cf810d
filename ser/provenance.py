"""What a run was made with, for the record: command line, git commit, machine, versions."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ser.identity import ROOT

PACKAGES = ("torch", "torchaudio", "librosa", "numpy", "scipy", "scikit-learn", "kaldiio", "soundfile")


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
    """The git commit of the repository, with -dirty where files were changed since; or why there is none."""

    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, errors="replace")
        except OSError:
            return "unknown: no git here"
        return done.stdout.strip() or f"unknown: {' '.join(done.stderr.split()) or 'no commit'}"

    top = git("rev-parse", "--show-toplevel")
    if top.startswith("unknown"):
        return "unknown: not a git checkout" if "not a git repository" in top else top[:200]
    if Path(top).resolve() != root.resolve():  # unpacked inside another repository
        return "unknown: not a git checkout"
    return git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
