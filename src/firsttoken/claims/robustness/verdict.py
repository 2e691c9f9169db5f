"""What a record of small changes says about the sink as a protection."""

from __future__ import annotations

from firsttoken.estimates import interval
from firsttoken.records import Record, Verdict

BROKEN = 2.0  # times the loss of the intact model, above which an arm has broken it


def judge(record: Record) -> Verdict:
    """Partly if predictions surely move more after a small change without a sink, or with a weakened one; not
    reproduced where neither arm shows it and both could; inconclusive where one of them broke the model.

    "Surely": the whole 95 % interval is above one. Nothing is reproduced before a control that costs as much loss and
    leaves the sink has been run.
    """
    values = record.values
    gone, weak = values["sensitivity_ratio"], values["weakened_ratio"]
    sentence = (
        f"After a small change, predictions move {interval(gone)} times as far when no sink forms, and "
        f"{interval(weak)} times when it is weakened."
    )
    loss = {arm: values["arms"][arm]["loss"]["value"] for arm in ("intact", "no sink")}
    sentence += f" Without a sink the loss itself goes from {loss['intact']:.2f} to {loss['no sink']:.2f} nats."
    broken = loss["no sink"] > BROKEN * loss["intact"]
    if broken:
        sentence += " That model is broken, and how far its predictions move shows nothing."
    if weak["low"] > 1 or (gone["low"] > 1 and not broken):
        return Verdict("partly", sentence + " Damage of the same size that leaves the sink has not been compared.")
    if broken or weak["high"] > 1:
        return Verdict("inconclusive", sentence + " The weakened sink leaves it open.")
    return Verdict("not reproduced", sentence)
