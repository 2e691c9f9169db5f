"""Rests of a head against loops and planted ones."""

from __future__ import annotations

import math

import pytest
import torch

from firsttoken.measures.resting import places, rest_at, rest_of, shares


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


def test_shares_add_up() -> None:
    by_rest = shares(["first", "first", "itself", "elsewhere", "first"])
    assert {rest: estimate.value for rest, estimate in by_rest.items()} == pytest.approx(
        {"first": 0.6, "itself": 0.2, "elsewhere": 0.2, "nowhere": 0.0}
    )
    assert {estimate.n for estimate in by_rest.values()} == {5}
