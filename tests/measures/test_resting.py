"""Rests against loops, intervals and the trend test against identities and permutations."""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict

import pytest
import torch

from firsttoken.errors import FirstTokenError
from firsttoken.measures.resting import places, rest_at, rest_of, share_of_pairs, shares, trend, wilson


def test_places_are_means_over_the_chosen_queries() -> None:
    generator = torch.Generator().manual_seed(0)
    attention = torch.rand(3, 6, 6, generator=generator).tril()
    where = torch.rand(3, 6, generator=generator) < 0.5
    chosen = [(text, query) for text in range(3) for query in range(1, 6) if where[text, query]]
    assert places(attention, where) == pytest.approx(
        {
            "first": sum(float(attention[t, q, 0]) for t, q in chosen) / len(chosen),
            "itself": sum(float(attention[t, q, q]) for t, q in chosen) / len(chosen),
            "previous": sum(float(attention[t, q, q - 1]) for t, q in chosen) / len(chosen),
            "row": sum(float(attention[t, q].sum()) for t, q in chosen) / len(chosen),
        }
    )
    assert all(math.isnan(mean) for mean in places(attention, torch.zeros(3, 6, dtype=torch.bool)).values())


def test_a_planted_rest_is_named() -> None:
    busy = torch.zeros(2, 8, dtype=torch.bool)
    busy[:, 4] = True
    nothing = torch.zeros(2, 8, 8)
    on_first, on_itself, on_previous = nothing.clone(), nothing.clone(), nothing.clone()
    on_first[:, :, 0] = 1
    for query in range(1, 8):
        on_itself[:, query, query] = 1
        on_previous[:, query, query - 1] = 1
    assert rest_of(on_first, busy) == "first"
    assert rest_of(on_itself, busy) == "itself"
    assert rest_of(on_previous, busy) == "elsewhere"
    assert rest_of(nothing, busy) == "nowhere"
    # What the head does where it is busy does not count.
    on_first[:, 4] = on_itself[:, 4]
    assert rest_of(on_first, busy) == "first"


def test_thresholds() -> None:
    assert rest_at(0.51, 0.3) == "first"
    assert rest_at(0.3, 0.51) == "itself"
    assert rest_at(0.5, 0.5) == "elsewhere"
    assert rest_at(0.2, 0.2, 0.49) == "nowhere"


@pytest.mark.parametrize(("yes", "n"), [(0, 10), (3, 10), (10, 10), (17, 200)])
def test_the_ends_of_a_wilson_interval_are_where_the_score_test_is_just_not_significant(yes: int, n: int) -> None:
    estimate = wilson(yes, n)
    for end in (estimate.low, estimate.high):
        if 0 < end < 1:
            assert abs(yes / n - end) / math.sqrt(end * (1 - end) / n) == pytest.approx(1.959964, rel=1e-6)
    assert estimate.low <= estimate.value <= estimate.high
    assert (estimate.low == 0) == (yes == 0)
    assert (estimate.high == 1) == (yes == n)


@pytest.mark.parametrize("seeds", [1, 2, 10])
def test_many_kinds_of_the_same_seeds_are_worth_as_many_models_as_seeds(seeds: int) -> None:
    """Where all kinds of a seed agree, which is what the interval is for, they say as much as one kind."""
    one_kind = [seed % 2 == 0 for seed in range(seeds)]
    assert share_of_pairs([one_kind] * 5) == asdict(wilson(sum(one_kind), seeds))


def test_what_was_not_trained_counts_neither_as_a_pair_nor_as_a_seed() -> None:
    shown = share_of_pairs([[True, None, None], [False, True, None]])
    assert shown is not None
    assert (shown["value"], shown["n"]) == (2 / 3, 2)
    assert share_of_pairs([[None, None], []]) is None


def test_shares_add_up() -> None:
    by_rest = shares(["first", "first", "itself", "elsewhere", "first"])
    assert {rest: estimate.value for rest, estimate in by_rest.items()} == pytest.approx(
        {"first": 0.6, "itself": 0.2, "elsewhere": 0.2, "nowhere": 0.0}
    )
    assert {estimate.n for estimate in by_rest.values()} == {5}


def test_trend_is_the_correlation_of_single_answers_with_their_level() -> None:
    levels, yes, n = [3, 4, 5, 6, 7], [1, 2, 6, 5, 9], [10, 11, 10, 9, 10]
    x = torch.tensor([level for level, m in zip(levels, n, strict=True) for _ in range(m)], dtype=torch.float64)
    answers = [1.0] * 0
    for y, m in zip(yes, n, strict=True):
        answers += [1.0] * y + [0.0] * (m - y)
    r = float(torch.corrcoef(torch.stack([x, torch.tensor(answers, dtype=torch.float64)]))[0, 1])
    tested = trend(levels, yes, n)
    assert tested.z == pytest.approx(r * math.sqrt(len(answers)))
    assert tested.p == pytest.approx(2 * (1 - 0.5 * (1 + math.erf(tested.z / math.sqrt(2)))))


def test_p_of_a_trend_is_near_that_of_all_permutations() -> None:
    yes, n = (8, 12, 15), (20, 22, 18)
    tested = trend([3, 5, 7], yes, n)
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
    assert trend([3, 4], [5, 5], [5, 5]).p == 1
    assert trend([3, 4], [0, 0], [5, 5]).p == 1
    assert trend([3, 4, 5], [2, 2, 2], [4, 4, 4]).z == pytest.approx(0)
    assert trend([3, 7], [9, 1], [10, 10]).z < 0


def test_bad_input_is_one_sentence() -> None:
    with pytest.raises(FirstTokenError, match="train at least one seed"):
        wilson(0, 0)
    with pytest.raises(FirstTokenError, match="at least one seed"):
        trend([3], [0], [0])
