"""Intervals over texts or seeds: percentile bootstraps, on torch; shares of seeds and their trend."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON, Estimate

RESAMPLES = 1000
TAIL = 0.025  # below and above an interval
NORMAL = 1.959964  # 97.5 % of a normal distribution lie below
LEAST_DEFINED = 0.1  # of all draws; an interval over fewer would say little of the texts


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _draws(n: int, generator: torch.Generator, resamples: int = RESAMPLES) -> Tensor:
    """(resample, n): which of n are drawn in each, with replacement."""
    return torch.randint(n, (resamples, n), generator=generator)


def _ends(drawn: Tensor, tail: float = TAIL) -> Tensor:
    """(2, ...): between which all but the tails of what was drawn lies, (resample, ...) in float64.

    A draw of texts may leave a statistic undefined that all of them define: a ratio where none of those drawn has
    anything below. Such draws say nothing and are left out where an end would otherwise be no number. Where hardly
    any other are left, `LEAST_DEFINED`, the ends are none.
    """
    share = torch.tensor([tail, 1 - tail], dtype=torch.float64)
    ends = torch.quantile(drawn, share, dim=0)
    for column in (~ends.isfinite()).any(0).nonzero().tolist():
        of_column = drawn[(slice(None), *column)]
        defined = of_column[of_column.isfinite()]
        if len(defined) >= LEAST_DEFINED * len(drawn):
            ends[(slice(None), *column)] = torch.quantile(defined, share)
    return ends


def known(estimate: Estimate) -> JSON | None:
    """An estimate for a record; None where the texts do not define it, or hardly any draw of them does."""
    finite = all(map(math.isfinite, (estimate.value, estimate.low, estimate.high)))
    return asdict(estimate) if finite else None


def _at_least_two(n: int) -> None:
    # Whoever knows the parameter that is too small refuses it by name, before anything is measured.
    if n < 2:
        raise FirstTokenError(
            f"An interval needs at least two of what it is over (texts, questions, seeds), not {n}; give more of them."
        )


def bootstrap(
    samples: Tensor,
    statistic: Callable[[Tensor], Tensor] | None = None,
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """A statistic with its percentile bootstrap interval over the first dimension (texts, questions, edits or seeds).

    Args:
        samples: (n, ...).
        statistic: a function of resampled samples (n, ...) giving a scalar; the mean if none is given. Draws that
            leave it undefined are left out of the interval, see `_ends`.

    Raises:
        FirstTokenError: fewer than two samples, from which no interval can be had.
    """
    n = samples.shape[0]
    _at_least_two(n)
    choices = _draws(n, _generator(seed), resamples)
    samples = samples.detach().cpu().double()
    if statistic is None:
        samples = samples.reshape(n, -1).mean(1)
        value, draws = samples.mean(), samples[choices].mean(1)
    else:
        value = statistic(samples).double()
        # One by one: a statistic reduces its samples in any way, and sums over a batch of resamples add up in another
        # order, which would change the last digits of the committed records.
        draws = torch.stack([statistic(samples[choice]).double() for choice in choices])
    low, high = _ends(draws, (1 - level) / 2).tolist()
    return Estimate(float(value), low, high, n)


def over_both(samples: Tensor, seed: int = 0) -> Estimate:
    """The mean of a table, (draw, text), with an interval over both: rows and columns are resampled independently.

    For a contrast with something drawn at random, which another draw would change as another text would.

    Raises:
        FirstTokenError: fewer than two rows or columns, from which no interval can be had.
    """
    rows, columns = samples.shape
    if min(rows, columns) < 2:
        raise FirstTokenError(
            f"An interval over both needs at least two random draws, not {rows}, and two texts or questions, not "
            f"{columns}; give more of them."
        )
    generator = _generator(seed)
    row, column = _draws(rows, generator), _draws(columns, generator)
    samples = samples.detach().cpu().double()
    means = samples[row[:, :, None], column[:, None, :]].mean((1, 2))
    low, high = _ends(means).tolist()
    return Estimate(float(samples.mean()), low, high, columns)


def ratio_of_sums(pairs: Tensor, seed: int = 0) -> Estimate:
    """Sum of the first numbers over sum of the second, with a bootstrap interval over the first dimension.

    Args:
        pairs: (n, 2), what is above and what is below for each text.

    Raises:
        FirstTokenError: fewer than two pairs, from which no interval can be had.
    """
    _at_least_two(len(pairs))
    return _ratios_of_sums(pairs.detach().cpu().double()[:, None], seed)[0]


def _ratios_of_sums(pairs: Tensor, seed: int) -> list[Estimate]:
    """One estimate for each column of (n, column, 2), in float64, from the draws that `bootstrap` makes."""
    n = len(pairs)
    drawn = _draws(n, _generator(seed))
    # How often each text is drawn in each resample, so that all columns take one matrix product.
    times = torch.zeros(RESAMPLES, n, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())
    sums = torch.einsum("rt,tcp->rcp", times, pairs)
    ends = _ends(sums[..., 0] / sums[..., 1])
    value = pairs[..., 0].sum(0) / pairs[..., 1].sum(0)
    return [Estimate(v, low, high, n) for v, low, high in zip(value.tolist(), *ends.tolist(), strict=True)]


def mean_where(values: Tensor, where: Tensor, seed: int = 0) -> dict[str, Any] | None:
    """Mean of values (text, query) where `where`, with an interval over texts; None where there are too few."""
    sums = torch.stack([(values * where).sum(1), where.sum(1).double()], dim=1)
    sums = sums[sums[:, 1] > 0]
    return asdict(ratio_of_sums(sums, seed)) if len(sums) >= 2 else None


def rounded(values: Tensor) -> list[float]:
    """A list of numbers, (n,), with the four digits that a figure can show, for a record."""
    return [float(f"{value:.4g}") for value in values.tolist()]


def by_text(samples: Tensor, text_of_edit: Tensor) -> Tensor:
    """Sums of samples over the edits of each text, (text, ...): what is resampled, since the edits of one text are
    not independent. Texts without an edit are left out."""
    _, number = text_of_edit.unique(return_inverse=True)
    sums = torch.zeros(int(number.max()) + 1, *samples.shape[1:], dtype=torch.float64)
    return sums.index_add(0, number, samples.double())


def ratio_estimates(above: Tensor, below: Tensor, text_of_edit: Tensor, seed: int = 0) -> list[Estimate]:
    """mean(above) / mean(below) over edits for each column, with bootstrap intervals over texts.

    Args:
        above, below: (edit, column).
        text_of_edit: (edit,), the text of each edit.

    Raises:
        FirstTokenError: the edits are of one text, from which no interval can be had.
    """
    pairs = by_text(torch.stack([above.double(), below.double()]).movedim(0, -1), text_of_edit)  # (text, column, 2)
    if len(pairs) < 2:
        raise FirstTokenError("An interval needs edits of at least two texts; raise `edits` or give more texts.")
    return _ratios_of_sums(pairs, seed)


def ratio_of_ratios(
    above: tuple[Tensor, Tensor], below: tuple[Tensor, Tensor], text_of_edit: Tensor, seed: int = 0
) -> Estimate:
    """(sum of above[0] / sum of above[1]) / (sum of below[0] / sum of below[1]) over edits, with an interval over
    texts: for example spread over own change in one arm, relative to the other arm.

    Args:
        above, below: (edit,) each.
        text_of_edit: (edit,), the text of each edit.

    Raises:
        FirstTokenError: the edits are of one text, from which no interval can be had.
    """

    def ratio(sums: Tensor) -> Tensor:
        a, b, c, d = sums.sum(0)
        return (a / b) / (c / d)  # in this order exactly 1 where both arms are one

    return bootstrap(by_text(torch.stack([*above, *below], dim=1), text_of_edit), ratio, seed=seed)


def mean_estimates(samples: Tensor, text_of_edit: Tensor, seed: int = 0) -> list[Estimate]:
    """Mean over edits of each column, (edit, column), with bootstrap intervals over texts."""
    return ratio_estimates(samples, torch.ones_like(samples), text_of_edit, seed)


# -- shares ---------------------------------------------------------------------------------------------------


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
