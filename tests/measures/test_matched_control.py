"""When a control of equal loss decides: two conditions, each with its edge."""

from __future__ import annotations

import pytest

from firsttoken.measures.matched_control import LEAST_COST, costly, covered, decides


@pytest.mark.parametrize(
    ("cost", "headroom", "enough"),
    [
        (LEAST_COST, 1e-6, True),
        (LEAST_COST - 1e-6, 1e-6, False),  # the weakened sink costs too little
        (LEAST_COST, 0.0, False),  # the strongest noise may cost no more than it
    ],
)
def test_a_control_decides_where_the_damage_costs_and_the_noise_surely_costs_more(
    cost: float, headroom: float, enough: bool
) -> None:
    noise = {"headroom": {"low": headroom, "value": headroom + 1, "high": headroom + 2}}
    values = {"cost": {"value": cost, "low": cost - 1, "high": cost + 1}, "noise": noise}
    assert decides(values) == enough
    assert (costly(values), covered(noise)) == (cost >= LEAST_COST, headroom > 0)
