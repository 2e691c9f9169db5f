"""Ranges of the numbers that a user gives."""

from __future__ import annotations

from firsttoken.errors import FirstTokenError


def at_least(least: float, **given: float) -> None:
    """Check numbers, each under its parameter's name: `at_least(2, passages=passages)`.

    Raises:
        FirstTokenError: one of them is smaller, or no number.
    """
    for name, value in given.items():
        if not value >= least:
            raise FirstTokenError(f"{name} must be at least {least}, not {value}.")
