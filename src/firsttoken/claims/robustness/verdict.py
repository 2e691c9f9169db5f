"""What a record of small changes says about the sink as a protection."""

from __future__ import annotations

from firsttoken.estimates import interval
from firsttoken.records import Record, Status, Verdict


def judge(record: Record) -> Verdict:
    """Reproduced if predictions surely move more after a small change both without a sink and with a weakened one;
    partly if in one of the two. Written before the measurement; "surely": the whole 95 % interval is above one."""
    values = record.values
    gone, weak = values["sensitivity_ratio"], values["weakened_ratio"]
    sentence = (
        f"After a small change, predictions move {interval(gone)} times as far when no sink forms, and "
        f"{interval(weak)} times when it is weakened."
    )
    loss = {arm: values["arms"][arm]["loss"]["value"] for arm in ("intact", "no sink")}
    sentence += f" Without a sink the loss itself goes from {loss['intact']:.2f} to {loss['no sink']:.2f} nats."
    agreeing = (gone["low"] > 1) + (weak["low"] > 1)
    status: Status = ("not reproduced", "partly", "reproduced")[agreeing]
    return Verdict(status, sentence)
