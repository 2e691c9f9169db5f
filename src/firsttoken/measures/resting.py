"""Where a head rests: the place of its attention at queries where it has nothing to do, and how often over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from torch import Tensor

from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON, Estimate

Rest = Literal["first", "itself", "elsewhere", "nowhere"]
RESTS: tuple[Rest, ...] = get_args(Rest)
MOST = 0.5  # of the attention: a head rests on what has more than this, nowhere if its row adds up to less
NORMAL = 1.959964  # 97.5 % of a normal distribution lie below


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


def wilson(yes: int, n: int) -> Estimate:
    """A share with its 95 % interval, which is sensible for few seeds and for none or all of them (Wilson 1927)."""
    if not 0 <= yes <= n or n == 0:
        raise FirstTokenError(f"{yes} of {n} is no share; train at least one seed.")
    return _wilson(yes / n, n)


def share_of_pairs(holds: Iterable[Sequence[bool | None]]) -> JSON | None:
    """The share of yes among kinds of training, each with the same seeds; None where nothing was trained.

    The models of one seed begin with the same weights and read the same texts, so that they may all agree: ten kinds
    of one seed are then worth one model. The 95 % interval is for that case, of a share of as many models as there are
    seeds, and too wide in any other.

    Args:
        holds: for each kind its seeds; None for a model that was not trained.
    """
    pairs = [(seed, answer) for kind in holds for seed, answer in enumerate(kind) if answer is not None]
    if not pairs:
        return None
    return asdict(_wilson(sum(answer for _, answer in pairs) / len(pairs), len({seed for seed, _ in pairs})))


def _wilson(share: float, n: int) -> Estimate:
    z2 = NORMAL**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = NORMAL / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # Exact ends: the formula misses 0 and 1 by a rounding error.
    return Estimate(share, middle - half if share else 0.0, middle + half if share < 1 else 1.0, n)


def shares(rests: Sequence[Rest]) -> dict[Rest, Estimate]:
    """The share of seeds whose head rests in each place, each with its interval."""
    return {rest: wilson(rests.count(rest), len(rests)) for rest in RESTS}


@dataclass(frozen=True)
class Trend:
    """Whether a share changes with a level: positive `z`, it rises."""

    z: float
    p: float  # two-sided


def trend(levels: Sequence[float], yes: Sequence[int], n: Sequence[int]) -> Trend:
    """The Cochran-Armitage test of a linear trend in shares, two-sided, from its normal approximation.

    Args:
        levels: of each group, for instance log2 of a context length.
        yes, n: how many of how many in each group.

    Returns:
        z = 0 and p = 1 where all groups are the same, all yes or all no
    """
    total = sum(n)
    if not total:
        raise FirstTokenError("A trend over groups needs at least one seed; train some.")
    share = sum(yes) / total
    rise = sum(level * (y - m * share) for level, y, m in zip(levels, yes, n, strict=True))
    spread = sum(m * level**2 for level, m in zip(levels, n, strict=True))
    spread -= sum(m * level for level, m in zip(levels, n, strict=True)) ** 2 / total
    variance = share * (1 - share) * spread
    if variance <= 1e-12:
        return Trend(0.0, 1.0)
    z = rise / math.sqrt(variance)
    return Trend(z, math.erfc(abs(z) / math.sqrt(2)))
