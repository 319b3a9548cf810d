"""Recipes for speech emotion recognition: what the stages of egs/*/run.sh call."""

__version__ = "0.1.0"
