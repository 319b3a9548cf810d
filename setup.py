"""Makes `ser` installable; the recipes do not need it (path.sh puts the repository on PYTHONPATH)."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
version = re.search(r'__version__ = "(.+)"', (ROOT / "ser/__init__.py").read_text()).group(1)
pinned = re.findall(r"^([\w-]+)==", (ROOT / "tools/requirements.txt").read_text(), re.MULTILINE)

setup(
    name="ser",
    version=version,
    description="Recipes for speech emotion recognition, in the manner of Kaldi",
    license="Apache-2.0",
    packages=find_packages(include=["ser", "ser.*"]),
    python_requires=">=3.10",
    install_requires=sorted(set(pinned) - {"pytest"}),  # the versions are the environment's affair
    extras_require={"xvectors": ["speechbrain>=1.1"]},  # for ser.dump_xvectors; 1.0 needs an old torchaudio
)
