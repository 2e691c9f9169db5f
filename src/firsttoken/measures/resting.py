"""Where a head rests: the place of its attention at queries where it has nothing to do, and how often over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor

from firsttoken.estimates import Estimate
from firsttoken.statistics import wilson

Rest = Literal["first", "itself", "elsewhere", "nowhere"]
RESTS: tuple[Rest, ...] = get_args(Rest)
MOST = 0.5  # of the attention: a head rests on what has more than this, nowhere if its row adds up to less


def places(attention: Tensor, where: Tensor) -> dict[str, float]:
    """Mean attention to the first token, to the query's own, to the one before it, and to all keys (`row`, which is 1
    for a softmax).

    Args:
        attention: (text, query, key), of one head.
        where: (text, query), bool, the queries to average over. The first query is left out, for which the first token
            is its own.

    Returns:
        `first`, `itself`, `previous`, `row`; NaN where no query is left
    """
    chosen = where[:, 1:]
    kinds = {
        "first": attention[:, 1:, 0],
        "itself": attention.diagonal(dim1=1, dim2=2)[:, 1:],
        "previous": attention.diagonal(offset=-1, dim1=1, dim2=2),
        "row": attention[:, 1:].sum(-1),
    }
    return {kind: float(seen[chosen].mean()) for kind, seen in kinds.items()}


def rest_at(first: float, itself: float, row: float = 1.0) -> Rest:
    """The name of the place that these means of attention show."""
    if row < MOST:
        return "nowhere"
    if first > MOST:
        return "first"
    return "itself" if itself > MOST else "elsewhere"


def rest_of(attention: Tensor, busy: Tensor) -> Rest:
    """Where a head rests at the queries where it is not busy; arguments as in `places`."""
    seen = places(attention, ~busy)
    return rest_at(seen["first"], seen["itself"], seen["row"])


def shares(rests: Sequence[Rest]) -> dict[Rest, Estimate]:
    """The share of seeds whose head rests in each place, each with its interval."""
    return {rest: wilson(rests.count(rest), len(rests)) for rest in RESTS}
