"""When a control of equal loss decides: two conditions, each with its edge."""

from __future__ import annotations

from dataclasses import replace

import pytest

from firsttoken import claims, files, records
from firsttoken.measures.matched_control import LEAST_COST, SEEDS, costly, covered, decides, too_few_seeds


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


def test_fewer_seeds_of_noise_than_rules_ask_for_decide_nothing() -> None:
    assert not too_few_seeds({"noise_seeds": SEEDS})
    assert not too_few_seeds({}), "records of before had three"
    assert "asks for noise of 3 seeds, not 1" in too_few_seeds({"noise_seeds": 1})
    for claim in ("dose", "robustness"):
        committed = records.read(files.ROOT / "results" / claim / "smollm2-135m.json")
        few = claims.verdict(replace(committed, parameters={**committed.parameters, "noise_seeds": 2}))
        assert few is not None
        assert few.status == "inconclusive"
        assert few.sentence.endswith("3 seeds, not 2: it cannot be decided.")
        assert claims.verdict(committed) == committed.verdict
