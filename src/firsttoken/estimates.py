"""A measured number with its interval, and how it is written out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

JSON = dict[str, Any]


@dataclass(frozen=True)
class Estimate:
    """A measured number with its 95 % bootstrap interval and the number of passages (or seeds) behind it."""

    value: float
    low: float
    high: float
    n: int


def interval(estimate: Mapping[str, float], form: str = ".2f", unit: str = "") -> str:
    """A stored estimate as text: `value unit [low, high]`, each in the format `form`, or a finer one where that is too
    coarse for the interval (`telling`); the ends as `end` has them."""
    form = telling(estimate, form)
    low, high = (end(estimate[name], form) for name in ("low", "high"))
    return f"{number(estimate['value'], form)}{unit} [{low}, {high}]"


def over_seeds(numbers: Sequence[float], form: str = ".2f") -> str:
    """Numbers of models that differ in their seed alone, as text: `median [lowest, highest]`, or the one number that
    all of them have."""
    low, high = min(numbers), max(numbers)
    if low == high:
        return number(low, form)
    return interval({"value": median(numbers), "low": low, "high": high}, form)


def value_of(measured: float | Mapping[str, float]) -> float:
    """A measured number, with whose interval a record holds it or, of an earlier version, alone."""
    return measured["value"] if isinstance(measured, Mapping) else measured


def number(value: float, form: str) -> str:
    """A number as text; one that rounds to zero has no minus."""
    text = format(value, form)
    return text if text.strip("-0.%") else text.lstrip("-")


_DECIDING = (0.0, 1.0)  # no difference, and a ratio of no difference
_DIGITS = re.compile(r"\.(\d+)(?=[f%])")
_MORE_DIGITS = 3


def end(value: float, form: str) -> str:
    """An end of an interval as text. Where rounding would put it onto 0 or 1, and it is beside it, it gets up to three
    more digits: on which side it lies may decide a verdict."""
    text = format(value, form)
    for _ in range(_MORE_DIGITS):
        if not any(text.lstrip("+-") == format(at, form).lstrip("+") and value != at for at in _DECIDING):
            break
        form = _finer(form)
        text = format(value, form)
    return text


def telling(estimate: Mapping[str, float], form: str) -> str:
    """The format, with up to three more digits where both ends of an interval that has a width would read the same and
    these tell them apart."""
    low, high = estimate["low"], estimate["high"]
    finer = form
    for _ in range(1 + _MORE_DIGITS):
        if format(low, finer) != format(high, finer):
            return finer
        finer = _finer(finer)
    return form


def _finer(form: str) -> str:
    return _DIGITS.sub(lambda digits: f".{int(digits[1]) + 1}", form)


def surely_above(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
    """Whether the whole interval of `a` is above that of `b`."""
    return a["low"] > b["high"]
