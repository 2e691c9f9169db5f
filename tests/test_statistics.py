"""Ratios of sums against a loop over the same draws, shares and their trend against identities and permutations."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict, astuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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
    with pytest.raises(FirstTokenError, match=r"at least two of what it is over .*, not 1;"):
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


@pytest.mark.parametrize(("yes", "n"), [(0, 10), (3, 10), (10, 10), (17, 200)])
def test_the_ends_of_a_wilson_interval_are_where_the_score_test_is_just_not_significant(yes: int, n: int) -> None:
    estimate = statistics.wilson(yes, n)
    for at in (estimate.low, estimate.high):
        if 0 < at < 1:
            assert abs(yes / n - at) / math.sqrt(at * (1 - at) / n) == pytest.approx(1.959964, rel=1e-6)
    assert estimate.low <= estimate.value <= estimate.high
    assert (estimate.low == 0) == (yes == 0)
    assert (estimate.high == 1) == (yes == n)


@pytest.mark.parametrize("seeds", [1, 2, 10])
def test_many_kinds_of_the_same_seeds_are_worth_as_many_models_as_seeds(seeds: int) -> None:
    """Where all kinds of a seed agree, which is what the interval is for, they say as much as one kind."""
    one_kind = [seed % 2 == 0 for seed in range(seeds)]
    assert statistics.share_of_pairs([one_kind] * 5) == asdict(statistics.wilson(sum(one_kind), seeds))


def test_what_was_not_trained_counts_neither_as_a_pair_nor_as_a_seed() -> None:
    shown = statistics.share_of_pairs([[True, None, None], [False, True, None]])
    assert shown is not None
    assert (shown["value"], shown["n"]) == (2 / 3, 2)
    assert statistics.share_of_pairs([[None, None], []]) is None


def test_trend_is_the_correlation_of_single_answers_with_their_level() -> None:
    levels, yes, n = [3, 4, 5, 6, 7], [1, 2, 6, 5, 9], [10, 11, 10, 9, 10]
    x = torch.tensor([level for level, m in zip(levels, n, strict=True) for _ in range(m)], dtype=torch.float64)
    answers = [1.0] * 0
    for y, m in zip(yes, n, strict=True):
        answers += [1.0] * y + [0.0] * (m - y)
    r = float(torch.corrcoef(torch.stack([x, torch.tensor(answers, dtype=torch.float64)]))[0, 1])
    tested = statistics.trend(levels, yes, n)
    assert tested.z == pytest.approx(r * math.sqrt(len(answers)))
    assert tested.p == pytest.approx(2 * (1 - 0.5 * (1 + math.erf(tested.z / math.sqrt(2)))))


def test_p_of_a_trend_is_near_that_of_all_permutations() -> None:
    yes, n = (8, 12, 15), (20, 22, 18)
    tested = statistics.trend([3, 5, 7], yes, n)
    middle = sum(x * m for x, m in zip((3, 5, 7), n, strict=True)) / sum(n) * sum(yes)
    observed = abs(sum(x * y for x, y in zip((3, 5, 7), yes, strict=True)) - middle)
    # The hypergeometric distribution of the groups' counts given their sum, in full.
    more = total = 0
    for a, b, c in itertools.product(*(range(m + 1) for m in n)):
        if a + b + c == sum(yes):
            ways = math.comb(n[0], a) * math.comb(n[1], b) * math.comb(n[2], c)
            distance = abs(3 * a + 5 * b + 7 * c - middle)
            total += ways
            more += ways * ((distance > observed - 1e-9) + (distance > observed + 1e-9)) / 2  # mid-p
    assert tested.p == pytest.approx(more / total, rel=0.1)


def test_no_trend_where_all_are_the_same() -> None:
    assert statistics.trend([3, 4], [5, 5], [5, 5]).p == 1
    assert statistics.trend([3, 4], [0, 0], [5, 5]).p == 1
    assert statistics.trend([3, 4, 5], [2, 2, 2], [4, 4, 4]).z == pytest.approx(0)
    assert statistics.trend([3, 7], [9, 1], [10, 10]).z < 0


def test_a_share_of_nothing_is_one_sentence() -> None:
    with pytest.raises(FirstTokenError, match="train at least one seed"):
        statistics.wilson(0, 0)
    with pytest.raises(FirstTokenError, match="at least one seed"):
        statistics.trend([3], [0], [0])


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


def sparse(n: int, columns: int, share: float, seed: int) -> torch.Tensor:
    """Numbers of which a text often has none, as sums over its queries of a rare kind are."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.rand(n, columns, generator=generator, dtype=torch.float64)
    return numbers * (torch.rand(n, columns, generator=generator) < share)


def ends_of_defined(draws: list[float]) -> tuple[float, float]:
    """Of the draws that are numbers, by numpy."""
    defined = [draw for draw in draws if math.isfinite(draw)]
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)


@settings(deadline=None, max_examples=30)
@given(n=st.integers(2, 12), share=st.floats(0.1, 1), seed=st.integers(0, 1000))
def test_a_ratio_that_the_texts_define_has_an_interval(n: int, share: float, seed: int) -> None:
    """Also where draws of the texts leave it undefined, 0 / 0. With 1000 draws, by numpy."""
    pairs = sparse(n, 2, share, seed)
    pairs[:, 0] *= pairs[:, 1] > 0
    estimate = statistics.ratio_of_sums(pairs, seed)
    drawn = torch.randint(n, (1000, n), generator=torch.Generator().manual_seed(seed)).numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        above, below = (pairs.numpy()[drawn, column].sum(1) for column in (0, 1))
        ratios = (above / below).tolist()
    if float(pairs[:, 1].sum()) == 0:
        assert statistics.known(estimate) is None
        return
    known = statistics.known(estimate)
    assert known is not None
    json.dumps(known, allow_nan=False)
    assert (known["low"], known["high"]) == pytest.approx(ends_of_defined(ratios), rel=1e-9)


@settings(deadline=None, max_examples=15)
@given(n=st.integers(2, 9), seed=st.integers(0, 1000))
def test_a_ratio_of_ratios_that_the_texts_define_has_an_interval(n: int, seed: int) -> None:
    """Here draws also give x / 0."""
    a, b, c, d = sparse(n, 4, 0.5, seed).unbind(1)
    estimate = statistics.ratio_of_ratios((a, b), (c, d), torch.arange(n), seed)
    assert (statistics.known(estimate) is not None) == math.isfinite(estimate.value)
    if statistics.known(estimate):
        assert estimate.low <= estimate.high
    assert math.isfinite(estimate.value) or not all(float(part.sum()) for part in (b, c, d))


def test_a_median_that_some_draws_do_not_define_is_over_the_others() -> None:
    """Two of twelve texts say something: one draw of nine has neither."""
    samples = torch.full((12,), torch.nan, dtype=torch.float64)
    samples[3], samples[8] = 1.0, 2.0
    estimate = statistics.bootstrap(samples, lambda drawn: drawn.nanmedian(), resamples=200)
    drawn = torch.randint(12, (200, 12), generator=torch.Generator().manual_seed(0))
    draws = [float(samples[one].nanmedian()) for one in drawn]
    assert 5 < sum(map(math.isnan, draws)) < 50
    assert (estimate.low, estimate.high) == pytest.approx(ends_of_defined(draws))


def test_where_hardly_any_draw_defines_a_number_it_has_no_interval() -> None:
    """All eight texts are in one draw of four hundred."""

    def of_all(drawn: torch.Tensor) -> torch.Tensor:
        return drawn.sum() if len(drawn.unique()) == 8 else torch.tensor(torch.nan)

    estimate = statistics.bootstrap(torch.arange(8).double(), of_all)
    assert estimate.value == 28
    assert statistics.known(estimate) is None
    assert statistics.known(statistics.bootstrap(torch.arange(8).double())) is not None


def test_undefined_draws_of_one_column_are_none_of_another() -> None:
    above, below = sparse(6, 2, 1, 0), sparse(6, 2, 1, 1)
    below[1:, 0] = above[1:, 0] = 0
    first, second = statistics.ratio_estimates(above, below, torch.arange(6))
    assert astuple(second) == astuple(statistics.ratio_estimates(above[:, 1:], below[:, 1:], torch.arange(6))[0])
    assert (first.value, first.low, first.high) == pytest.approx((float(above[0, 0] / below[0, 0]),) * 3)
