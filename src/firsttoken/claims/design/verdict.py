"""What a record of other designs of attention says about the need for a sink."""

from __future__ import annotations

from typing import Any

from firsttoken.records import Record, Status, Verdict

DESIGNS = ("softmax", "gate", "sink_logit", "off_by_one", "sigmoid")  # in the order of a reader
LEAST_ROW = 0.1  # that a row must add up to, away from triggers, to rest anywhere
LEAST_SINK = 0.3  # of what a row adds up to, on the first token away from triggers: a sink from there on


def has_sink(each: dict[str, Any]) -> bool:
    """Whether one trained head has a sink, from its last point; a row that adds up to next to nothing has none."""
    return bool(each["row_away"] >= LEAST_ROW and each["first_away"] > LEAST_SINK * each["row_away"])


def removes(count: dict[str, Any]) -> bool:
    """Whether a design removes the sink: in every seed, all of which learnt the task."""
    return count["learnt"] == count["seeds"] and not any(map(has_sink, count["each"]))


def in_order(record: Record) -> dict[str, Any]:
    """The counts of each design, plain softmax first."""
    return {name: record.values["by_variant"][name] for name in DESIGNS}


def judge(record: Record) -> Verdict:
    """How many of the designs remove the sink, if there is one to remove."""
    counts = in_order(record)
    plain = counts.pop("softmax")
    told = [
        f"{name.replace('_', ' ')}: {sum(map(has_sink, count['each']))} of {count['seeds']} seeds have a sink, "
        f"{count['learnt']} learnt the task"
        for name, count in (("softmax", plain), *counts.items())
    ]
    sentence = "; ".join(told) + "."
    sentence = sentence[0].upper() + sentence[1:]
    if not all(map(has_sink, plain["each"])):
        return Verdict("inconclusive", f"{sentence} Plain softmax has no sink in every seed.")
    removing = sum(map(removes, counts.values()))
    status: Status = "reproduced" if removing == len(counts) else "partly" if removing else "not reproduced"
    return Verdict(status, f"{sentence} {removing} of {len(counts)} designs remove it.")
