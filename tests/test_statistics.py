"""Ratios of sums against a loop over the same draws."""

from __future__ import annotations

from dataclasses import astuple

import pytest
import torch

from firsttoken import statistics
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import end, interval, over_seeds, value_of
from firsttoken.ranges import at_least
from firsttoken.records import numbers


@pytest.mark.parametrize("n", [2, 3, 24])
@pytest.mark.parametrize("seed", [0, 7])
def test_a_ratio_of_sums_is_the_bootstrap_of_that_statistic(n: int, seed: int) -> None:
    pairs = torch.rand(n, 2, generator=torch.Generator().manual_seed(n), dtype=torch.float64) + 0.1
    looped = statistics.bootstrap(pairs, lambda drawn: drawn[:, 0].sum() / drawn[:, 1].sum(), seed=seed)
    assert astuple(statistics.ratio_of_sums(pairs, seed)) == pytest.approx(astuple(looped), rel=1e-12)
    one_each = statistics.ratio_estimates(pairs[:, :1], pairs[:, 1:], torch.arange(n), seed)[0]
    assert astuple(one_each) == pytest.approx(astuple(looped), rel=1e-12)


@pytest.mark.parametrize("seed", [0, 7])
def test_the_draws_are_those_of_the_committed_records(seed: int) -> None:
    """Bit for bit what was written out in three places once, so that old records repeat."""
    samples = torch.rand(24, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn = torch.randint(24, (1000, 24), generator=torch.Generator().manual_seed(seed))
    level = torch.tensor([(1 - 0.95) / 2, 1 - (1 - 0.95) / 2], dtype=torch.float64)
    low, high = torch.quantile(samples.mean(1)[drawn].mean(1), level).tolist()
    mean = statistics.bootstrap(samples, seed=seed)
    assert (mean.low, mean.high) == (low, high)

    def statistic(some: torch.Tensor) -> torch.Tensor:
        return some.median()

    low, high = torch.quantile(torch.stack([samples[one].median() for one in drawn]), level).tolist()
    median = statistics.bootstrap(samples, statistic, seed=seed)
    assert (median.low, median.high) == (low, high)
    generator = torch.Generator().manual_seed(seed)
    row = torch.randint(24, (1000, 24), generator=generator)
    column = torch.randint(3, (1000, 3), generator=generator)
    means = samples[row[:, :, None], column[:, None, :]].mean((1, 2))
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    both = statistics.over_both(samples, seed)
    assert (both.low, both.high) == (low, high)


def test_a_ratio_of_sums_needs_two_pairs() -> None:
    with pytest.raises(FirstTokenError, match="at least two passages"):
        statistics.ratio_of_sums(torch.ones(1, 2))


def test_mean_where_counts_queries_and_draws_texts() -> None:
    values = torch.tensor([[1.0, 2.0, 9.0], [4.0, 9.0, 9.0], [9.0, 9.0, 9.0]])
    where = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    mean = statistics.mean_where(values, where)
    assert mean is not None
    # Draws of two texts from two: both the first (1.5), both the second (4), one of each (7 / 3).
    assert [mean[name] for name in ("value", "low", "high", "n")] == pytest.approx([7 / 3, 1.5, 4.0, 2])
    assert statistics.mean_where(values[1:], where[1:]) is None


def test_numbers_out_of_range_are_named() -> None:
    at_least(2, passages=2, edits=5)
    for number in (1, float("nan")):
        with pytest.raises(FirstTokenError, match=f"edits must be at least 2, not {number}"):
            at_least(2, passages=2, edits=number)


def test_a_ratio_of_ratios_is_that_of_the_sums() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b, c, d = (torch.rand(40, generator=generator) + 0.5 for _ in range(4))
    text_of_edit = torch.arange(40) // 4
    estimate = statistics.ratio_of_ratios((a, b), (c, d), text_of_edit)
    assert estimate.value == pytest.approx(float((a.sum() / b.sum()) / (c.sum() / d.sum())), rel=1e-6)
    assert estimate.n == 10
    assert estimate.low < estimate.value < estimate.high
    same = statistics.ratio_of_ratios((a, b), (a, b), text_of_edit)
    assert (same.low, same.high) == pytest.approx((1.0, 1.0))


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (0.9973, ".2f", "0.997"), (1.0, ".2f", "1.00"), (1.004, ".2f", "1.004"), (1.01, ".2f", "1.01"),
        (-0.0049, ".0%", "-0.5%"), (0.0, "+.2f", "+0.00"), (0.00002, ".1%", "0.002%"), (1e-9, ".2f", "0.00000"),
        (-0.0001, "+.2f", "-0.0001"), (12.0, ".3g", "12"),
    ],
)  # fmt: skip
def test_the_end_of_an_interval_is_not_rounded_onto_where_it_decides(value: float, form: str, text: str) -> None:
    assert end(value, form) == text


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (-0.001, "+.2f", "0.00"),
        (-0.0004, ".1%", "0.0%"),
        (-0.01, "+.2f", "-0.01"),
        (0.001, "+.2f", "+0.00"),
        (-3.0, ".0f", "-3"),
    ],
)
def test_what_rounds_to_zero_has_no_minus(value: float, form: str, text: str) -> None:
    shown = interval({"value": value, "low": -7, "high": 7, "n": 5}, form)
    assert shown.split(" ")[0] == text


@pytest.mark.parametrize(
    ("estimate", "form", "text"),
    [
        ((0.2010, 0.1989, 0.2029), ".2f", "0.201 [0.199, 0.203]"),
        ((0.0307, 0.0264, 0.0347), ".0%", "3.1% [2.6%, 3.5%]"),
        ((0.35, 0.31, 0.37), ".2f", "0.35 [0.31, 0.37]"),
        ((0.5, 0.5, 0.5), ".2f", "0.50 [0.50, 0.50]"),  # it has no width
        ((2e-9, 1e-9, 3e-9), ".2f", "0.00 [0.00000, 0.00000]"),
        ((2e-9, 1e-9, 3e-9), ".2e", "2.00e-09 [1.00e-09, 3.00e-09]"),
    ],
)
def test_an_interval_with_a_width_does_not_read_as_one_number(
    estimate: tuple[float, float, float], form: str, text: str
) -> None:
    stored = dict(zip(("value", "low", "high"), estimate, strict=True))
    assert interval(stored, form) == text
    shown = numbers.estimate({**stored, "n": 4}, form)
    assert f"{shown.text} {shown.bracket}" == text


def test_seeds_are_told_by_their_median_and_their_range() -> None:
    assert over_seeds([0.3, 0.1, 0.2]) == "0.20 [0.10, 0.30]"
    assert over_seeds([275, 200, 975, 225], ".0f") == "250 [200, 975]"
    assert over_seeds([0.07], ".3f") == "0.070"
    assert over_seeds([1.0, 1.0]) == "1.00"
    assert over_seeds([0.002, 9e-7], ".1g") == "0.001 [9e-07, 0.002]"


def test_a_number_is_read_with_its_interval_and_without() -> None:
    assert value_of({"value": 0.4, "low": 0.3, "high": 0.5, "n": 8}) == 0.4
    assert value_of(0.4) == 0.4
