"""A control at the loss of a dose: what it would do at the strength that costs as much on the same texts.

A strength that is found on other texts costs something else on these, by as much as half. So a control runs at
several strengths, and its outcome is read off the line through them, drawn over the rise in loss, where the dose
stands. That is done anew in every bootstrap draw, so that the interval holds how uncertain the match is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from firsttoken import statistics
from firsttoken.claims.dose.runs import Ran
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


def compare(dose: Ran, control: Sequence[Ran], untouched: Ran, seed: int) -> JSON:
    """A dose beside a control at several strengths, the same texts drawn for all.

    Args:
        control: from the weakest to the strongest.

    Returns:
        `at_equal_loss`, outcome of the control where its loss rises as the dose's does; `dose_minus_control`, outcome
        of the dose minus that; `headroom`, how much more the strongest control costs than the dose, in nats: where
        it is not surely above 0 there is nothing to read the control off.
    """
    arms = torch.stack([_sums(ran, untouched) for ran in (untouched, *control, dose)], dim=1)  # (text, arm, 3)

    def points(drawn: Tensor) -> tuple[Tensor, Tensor]:
        """Rise in loss and outcome of each arm."""
        spread, own, rise = drawn.sum(0).unbind(-1)
        return rise / len(drawn), spread / own * own[0] / spread[0]

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
    return {name: asdict(statistics.bootstrap(arms, of, seed=seed)) for name, of in statistics_of.items()}


def _sums(ran: Ran, untouched: Ran) -> Tensor:
    """Spread, own change and rise in loss of each text, (text, 3)."""
    return torch.cat([ran.moved.relative, (ran.seen.loss - untouched.seen.loss)[:, None]], dim=1).double()
