"""What a record of rounding says in its sentence."""

from __future__ import annotations

from typing import Any

from firsttoken.claims.quantisation.verdict import activation_sentence


def setting(none: float, first: float, sure: bool = True) -> dict[str, Any]:
    def around(value: float, half: float = 0.01) -> dict[str, float]:
        return {"value": value, "low": value - half, "high": value + half, "n": 12}

    saved = none - first
    return {
        "none": around(none), "first": around(first), "saved": around(saved),
        "more_than_control": around(saved, 0.01 if sure else 2 * abs(saved)),
    }  # fmt: skip


def test_a_model_that_rounding_has_broken_is_not_helped() -> None:
    broken, mended, little = setting(15.8, 11.0), setting(8.5, 0.3), setting(0.4, 0.2)
    said = activation_sentence({"token": {"4": broken, "8": little}, "tensor": {"4": broken, "8": mended}})
    assert "at 8 bits and one scale a text" in said
    assert "of the 8.50 nats" in said
    assert "8 bits and one scale a token" in activation_sentence({"token": {"4": broken, "8": little}})


def test_nothing_sure_is_nothing_told() -> None:
    broken, unsure = setting(15.8, 11.0), setting(0.4, 0.2, sure=False)
    assert "in no setting in which the model works" in activation_sentence({"token": {"4": broken, "8": unsure}})
