"""A measured number with its interval, and how it is written out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
    """A stored estimate as text: `value unit [low, high]`, each in the format `form`."""
    value, low, high = (format(estimate[name], form) for name in ("value", "low", "high"))
    return f"{value}{unit} [{low}, {high}]"


def surely_above(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
    """Whether the whole interval of `a` is above that of `b`."""
    return a["low"] > b["high"]
