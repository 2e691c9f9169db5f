"""Ranges of the numbers that a user gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from firsttoken.errors import FirstTokenError

LARGEST_SEED = 2**63 - 1  # that torch and numpy both take
MOST = 10_000_000  # of anything else that a measurement counts: far beyond what any machine computes
# Parameters by name that are a count of at least one; all others are 0 or more.
_AT_LEAST_ONE = frozenset(
    {
        "batch_tokens",
        "length",
        "longest",
        "longest_text_tokens",
        "noise_seeds",
        "passages",
        "seeds",
        "steps",
        "sweep_tokens",
        "task_questions",
        "text_tokens",
        "window",
        "windows",
    }
)


def at_least(least: float, /, **given: float) -> None:
    """Check numbers, each under its parameter's name: `at_least(2, passages=passages)`.

    Raises:
        FirstTokenError: one of them is smaller, or no number.
    """
    for name, value in given.items():
        if not value >= least:
            raise FirstTokenError(f"{name} must be at least {least}, not {value}.")


def between(least: float, most: float, /, **given: float) -> None:
    """The same with an upper end.

    Raises:
        FirstTokenError: one of them is smaller or larger, or no number.
    """
    for name, value in given.items():
        if not least <= value <= most:
            raise FirstTokenError(f"{name} must be from {least} to {most}, not {value}.")


def in_range(parameters: Any) -> None:
    """Check every value of a dataclass of parameters, before anything is done with it; a range that one measurement
    needs beyond that is its own.

    Raises:
        FirstTokenError: a value is of another type than the dataclass says, such as a number in quotes; a number is
            negative, not finite, or larger than any that can be meant; or a count is 0 whose default is another.
    """
    given = {field.name: getattr(parameters, field.name) for field in fields(parameters)}
    hints = get_type_hints(type(parameters))
    for name, value in given.items():
        if not _is_of(value, hints[name]):
            raise FirstTokenError(f"{name} must be {_spelled(hints[name])}, not {value!r}.")
    none_too_large(given)
    counts = {field.name for field in fields(parameters) if field.default != 0} & _AT_LEAST_ONE
    at_least(1, **{name: value for name, value in given.items() if name in counts})


_WORDS = {
    bool: "true or false",
    int: "a whole number (int)",
    float: "a number",
    str: "a text",
    type(None): "nothing",
}


def _is_of(value: Any, hint: Any) -> bool:
    """Whether a value has the type of a hint, for the types that parameters have; of any other, all are taken."""
    if get_origin(hint) is Literal:
        return any(type(value) is type(one) and value == one for one in get_args(hint))
    if get_origin(hint) in (Union, UnionType):
        return any(_is_of(value, one) for one in get_args(hint))
    if hint in (int, float):
        # Python's own, which a record can hold.
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    return not (hint in _WORDS and not isinstance(value, hint))


def _spelled(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(_spelled, get_args(hint)))
    return _WORDS.get(hint, str(hint))


def none_too_large(given: Mapping[str, Any]) -> None:
    """Check the numbers among some parameters by name, of which any may be 0.

    Raises:
        FirstTokenError: one is negative, not finite, or larger than any that can be meant.
    """
    for name, value in given.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            between(0, LARGEST_SEED if name == "seed" else MOST, **{name: value})
