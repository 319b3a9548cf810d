"""For tools that call setup.py; pyproject.toml says everything."""

from setuptools import setup

setup()
