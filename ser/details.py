"""Filled by another branch."""

from ser.report import Report


def section(report: Report) -> list[str]:
    """Nothing yet."""
    return []
