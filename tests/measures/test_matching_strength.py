"""The strength that costs a given loss, of rises known in closed form."""

from __future__ import annotations

import pytest

from firsttoken.measures.matching_strength import matching_strength, matching_strengths


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("answer", [0.01, 0.7, 30.0])
def test_the_strength_that_raises_a_loss_by_a_target(power: float, answer: float) -> None:
    tried: list[float] = []

    def rise(strength: float) -> float:
        tried.append(strength)
        return 0.3 * strength**power - 0.001 * strength**power * strength

    target = 0.3 * answer**power - 0.001 * answer**power * answer
    strength = matching_strength(rise, target, 1.0, tolerance=0.01)
    assert abs(rise(strength) / target - 1) <= 0.01
    assert len(tried) <= 11


def test_strengths_that_are_sought_together_are_those_sought_alone() -> None:
    """Kinds that take more tries than others, and one that is asked for nothing more after its last."""
    powers = {"root": 0.5, "line": 1.0, "square": 2.0}
    asked: list[set[str]] = []

    def rises(at: dict[str, float]) -> dict[str, float]:
        asked.append(set(at))
        return {kind: 0.3 * strength ** powers[kind] for kind, strength in at.items()}

    starts = {"root": 1.0, "line": 1.0, "square": 0.1}
    strengths = matching_strengths(rises, 0.3, starts)
    alone = {
        kind: matching_strength(lambda s, power=power: 0.3 * s**power, 0.3, starts[kind])  # type: ignore[misc]
        for kind, power in powers.items()
    }
    assert strengths == alone
    assert asked[0] == set(powers)
    assert len(asked) > 1
    assert all(kinds == {"square"} for kinds in asked[1:])


def test_a_rise_that_jumps_or_stays_ends_with_the_nearest_strength() -> None:
    assert matching_strength(lambda s: 0.0, -0.1, 1.0) == 0.0
    assert matching_strength(lambda s: 0.1, 1.0, 1.0, tries=4) == 1.0
    strength = matching_strength(lambda s: float(s > 3), 0.4, 1.0, tries=12)
    assert strength <= 3
