"""What a record of `dose` says about the sink as a brake on mixing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firsttoken.estimates import interval
from firsttoken.measures.matched_control import LEAST_COST, costly, covered, decides, too_few_seeds
from firsttoken.records import Record, Verdict

LEAST_EFFECT = 0.05  # of the outcome at one nat, either way


def judge(record: Record) -> Verdict:
    """Both parts of the rule, from the estimates alone."""
    values = record.values
    outcome = dict(zip(values["doses"], values["by_dose"]["outcome"], strict=True))
    more, less = outcome[1.0], outcome[-1.0]
    difference = values["beyond_control"]
    decided = decides(values)

    follows = (more["high"] < 1 and more["value"] <= 1 - LEAST_EFFECT) and (
        less["low"] > 1 and less["value"] >= 1 + LEAST_EFFECT
    )
    exceeds = decided and difference["low"] > 0
    contradicted = more["low"] > 1 or less["high"] < 1 or (decided and difference["high"] < 0)
    sentence = (
        f"Spread / own becomes {interval(more)} times the untouched model's with one nat more on the first key and "
        f"{interval(less)} times with one nat less. {_of_control(values)}"
    )
    if few := too_few_seeds(record.parameters):
        return Verdict("inconclusive", f"{sentence} {few}")
    if contradicted:
        return Verdict("not reproduced", sentence)
    if follows and exceeds:
        return Verdict("reproduced", sentence)
    if follows or exceeds:
        held, other = ("the dose", "the control") if follows else ("the control", "the dose")
        return Verdict("partly", f"{sentence} The part of the rule on {held} holds, that on {other} is open.")
    return Verdict("inconclusive", f"{sentence} Neither part of the rule holds or is refuted: it cannot be decided.")


def _of_control(values: Mapping[str, Any]) -> str:
    dose, cost = values["control_dose"], values["cost"]
    if not costly(values):
        return (
            f"No weakening costs {LEAST_COST} nats of loss ({dose:+g} nats cost {interval(cost)}): no control decides."
        )
    at = f"At {dose:+g} nats, which cost {interval(cost)} nats of loss,"
    if not covered(values["noise"]):
        return f"{at} the control is unmatched: the strongest noise does not surely cost as much."
    beside = f"{at} it differs from noise of equal loss by {interval(values['beyond_control'], '+.2f')}"
    sharper = values["sharpened"]
    if not covered(sharper):
        return f"{beside}; sharper attention to the other tokens was not surely matched."
    return (
        f"{beside}, from sharper attention to the other tokens by {interval(sharper['dose_minus_control'], '+.2f')}."
    )
