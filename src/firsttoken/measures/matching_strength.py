"""The strength at which a damage costs as much loss as another: sought by bisection."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Mapping
from math import exp, log
from typing import TypeVar

Kind = TypeVar("Kind", bound=Hashable)


def matching_strength(
    rise: Callable[[float], float], target: float, start: float, *, tolerance: float = 0.02, tries: int = 10
) -> float:
    """The strength at which a loss rises by `target`: doubled or halved until the target is enclosed, then bisected.

    Bisection is of the logarithm, at the place where a straight line between the ends of log rise would put it, kept
    off the ends: rises grow about as a power of the strength, so this takes three or four tries.

    Args:
        rise: strength -> how much the loss rises.
        tries: how often `rise` is called at most; the strength that came nearest is returned then.

    Returns:
        strength  # 0 for a target that is not above 0, which no damage can match
    """
    only = matching_strengths(lambda at: {0: rise(at[0])}, target, {0: start}, tolerance=tolerance, tries=tries)
    return only[0]


def matching_strengths(
    rises: Callable[[dict[Kind, float]], Mapping[Kind, float]],
    target: float,
    starts: Mapping[Kind, float],
    *,
    tolerance: float = 0.02,
    tries: int = 10,
) -> dict[Kind, float]:
    """`matching_strength` of several kinds of damage, which are tried together, so that they can share a pass.

    Args:
        rises: strength of each kind that is still sought -> how much the loss rises under each.
    """
    seeks = {kind: _seek(target, start, tolerance, tries) for kind, start in starts.items()}
    strengths: dict[Kind, float] = {}
    here: Mapping[Kind, float] = {}
    while seeks:
        wanted: dict[Kind, float] = {}
        for kind, seek in list(seeks.items()):
            try:
                wanted[kind] = seek.send(here[kind]) if kind in here else next(seek)
            except StopIteration as end:
                strengths[kind] = end.value
                del seeks[kind]
        here = rises(wanted) if wanted else {}
    return {kind: strengths[kind] for kind in starts}


def _seek(target: float, start: float, tolerance: float, tries: int) -> Generator[float, float, float]:
    """Yields the strength to try next and is sent the rise there; returns the strength that matches."""
    if target <= 0:
        return 0.0
    low: tuple[float, float] | None = None  # strength, rise
    high: tuple[float, float] | None = None
    strength, nearest = start, (start, float("inf"))
    for _ in range(tries):
        here = yield strength
        if abs(here - target) < nearest[1]:
            nearest = strength, abs(here - target)
        if abs(here - target) <= tolerance * target:
            break
        if here < target:
            low = strength, here
        else:
            high = strength, here
        if low is None or high is None:
            strength *= 2 if high is None else 0.5
            continue
        share = 0.5
        if low[1] > 0:
            share = min(max(log(target / low[1]) / log(high[1] / low[1]), 0.1), 0.9)
        strength = exp(log(low[0]) + share * (log(high[0]) - log(low[0])))
    return nearest[0]
