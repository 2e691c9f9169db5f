"""A damage beside a control that costs as much loss.

A strength that is found on other texts costs something else on these, by as much as half. So a control runs at
several strengths, and its outcome is read off the line through them, drawn over the rise in loss, where the damage
stands. That is done anew in every bootstrap draw, so that the interval holds how uncertain the match is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from torch import Tensor

from firsttoken import statistics
from firsttoken.estimates import JSON


def interpolate(x: Tensor, y: Tensor, at: Tensor) -> Tensor:
    """The height of the line through points, taken in their order, where it first reaches `at`; a scalar.

    Args:
        x, y: (point,). Outside of all points it is that of the first or the last one.
    """
    if at <= x[0]:
        return y[0]
    for left in range(len(x) - 1):
        if x[left] < at <= x[left + 1]:
            share = (at - x[left]) / (x[left + 1] - x[left])
            return y[left] + share * (y[left + 1] - y[left])
    return y[-1]


def compare(samples: Tensor, points: Callable[[Tensor], tuple[Tensor, Tensor]], seed: int) -> JSON:
    """A damage beside a control at several strengths, the same texts drawn for all.

    Args:
        samples: (text, arm, ...), the arms in the order untouched model, control from the weakest to the strongest,
            damage.
        points: of drawn texts (text, arm, ...), the rise in loss and the outcome of every arm, (arm,) each.

    Returns:
        `at_equal_loss`, outcome of the control where its loss rises as the damage's does; `dose_minus_control`,
        outcome of the damage minus that; `headroom`, how much more the strongest control costs than the damage, in
        nats: where it is not surely above 0 there is nothing to read the control off.
    """

    def level(drawn: Tensor) -> Tensor:
        rise, outcome = points(drawn)
        return interpolate(rise[:-1], outcome[:-1], rise[-1])

    def headroom(drawn: Tensor) -> Tensor:
        rise, _ = points(drawn)
        return rise[-2] - rise[-1]

    statistics_of = {
        "at_equal_loss": level,
        "dose_minus_control": lambda drawn: points(drawn)[1][-1] - level(drawn),
        "headroom": headroom,
    }
    return {name: asdict(statistics.bootstrap(samples, of, seed=seed)) for name, of in statistics_of.items()}
