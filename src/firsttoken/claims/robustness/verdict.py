"""What a record of small changes says about the sink as a protection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firsttoken.estimates import interval
from firsttoken.measures.matched_control import LEAST_COST, costly, covered, decides, too_few_seeds
from firsttoken.records import Record, Verdict

BROKEN = 2.0  # times the loss of the intact model, above which an arm has broken it


def judge(record: Record) -> Verdict:
    """Reproduced if predictions surely move more after a small change with a weakened sink, and surely more than under
    noise that costs as much and leaves the sink; not reproduced if surely less than under that noise, or if the
    weakened arm surely does not move them more and no arm is broken; partly if one of two arms surely moves them more.

    "Surely": the whole 95 % interval is on that side.
    """
    values = record.values
    gone, weak = values["sensitivity_ratio"], values["weakened_ratio"]
    loss = {arm: values["arms"][arm]["loss"]["value"] for arm in ("intact", "no sink")}
    broken = loss["no sink"] > BROKEN * loss["intact"]
    ruined = ", a broken model, which shows nothing" if broken else ""
    sentence = (
        f"After a small change, predictions move {interval(weak)} times as far when the sink is weakened by "
        f"{in_nats(values)}, and {interval(gone)} times when none forms (loss {loss['intact']:.2f} → "
        f"{loss['no sink']:.2f} nats{ruined}). {_of_control(values)}"
    )
    if few := too_few_seeds(record.parameters):
        return Verdict("inconclusive", f"{sentence} {few}")
    beyond = values["beyond_control"]
    if (decides(values) and beyond["high"] < 0) or (weak["high"] <= 1 and not broken):
        return Verdict("not reproduced", sentence)
    if weak["low"] > 1 and decides(values) and beyond["low"] > 0:
        return Verdict("reproduced", sentence)
    if weak["low"] > 1 or (gone["low"] > 1 and not broken):
        return Verdict("partly", sentence)
    return Verdict("inconclusive", sentence)


def in_nats(values: Mapping[str, Any]) -> str:
    """By how much the sink is weakened, in words."""
    return f"{values['nats']:g} nat{'s' if values['nats'] != 1 else ''}"


def _of_control(values: Mapping[str, Any]) -> str:
    cost = values["cost"]
    if not costly(values):
        return f"No weakening costs {LEAST_COST} nats of loss (this one costs {interval(cost)}): no control decides."
    at = f"At its cost of {interval(cost)} nats of loss"
    if not decides(values):
        return f"{at} the control is unmatched: the strongest noise does not surely cost as much."
    beside = f"{at} that is {interval(values['beyond_control'], '+.2f')} beyond noise that leaves the sink"
    sharper = values["sharpened"]
    if not covered(sharper):
        return f"{beside}; sharper attention to the other tokens was not surely matched."
    difference = interval(sharper["dose_minus_control"], "+.2f")
    return f"{beside}; from sharper attention to the others it differs by {difference}."
