"""What a record of other designs of attention says about the need for a sink."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from firsttoken.estimates import value_of
from firsttoken.records import Record, Status, Verdict

# In the order of a reader.
DESIGNS = ("softmax", "gate", "sink_logit", "off_by_one", "sigmoid")
BLOCKS = ("two_heads", "split_heads", "depth_gate")
LEAST_ROW = 0.1  # that a row must add up to, away from triggers, to rest anywhere
TEXT_DESIGNS = ("softmax", "gate", "sink_logit", "sigmoid")  # that are trained on text
LEAST_EXCESS = 0.03  # of the attention, to the first token beyond an even share: on text, a sink from there on
DEARER = 0.05  # nats of loss above plain softmax that a design on text may cost
MORE = 1.05  # times the spread of plain softmax: a design on text mixes more from there on
LEAST_SINK = 0.3  # of what a row adds up to, on the first token away from triggers: a sink from there on


def heads(each: Mapping[str, Any]) -> range:
    """The heads of a trained model, from its last point."""
    return range(2 if "first_away_1" in each else 1)


def of_head(each: Mapping[str, Any], name: str, head: int) -> float:
    """What a model's last point says of one of its heads; names of the second carry its number."""
    return float(each[f"{name}_{head}" if head else name])


def has_sink(each: Mapping[str, Any], head: int = 0) -> bool:
    """Whether one trained head has a sink, from its model's last point; a row that adds up to next to nothing has
    none."""
    row = of_head(each, "row_away", head)
    return bool(row >= LEAST_ROW and of_head(each, "first_away", head) > LEAST_SINK * row)


def some_head_has_one(each: Mapping[str, Any]) -> bool:
    return any(has_sink(each, head) for head in heads(each))


def removes(count: dict[str, Any]) -> bool:
    """Whether a design removes the sink: from every head, in every seed, all of which learnt the task."""
    return count["learnt"] == count["seeds"] and not any(map(some_head_has_one, count["each"]))


def in_order(record: Record) -> dict[str, Any]:
    """The counts of each design, plain softmax first."""
    return {name: record.values["by_variant"][name] for name in DESIGNS}


def judge(record: Record) -> Verdict:
    """How many of the designs remove the sink, if there is one to remove."""
    if "on_text" in record.values:
        return on_text(record.values["on_text"])
    if "by_block" in record.values:
        return of_blocks(record.values["by_block"], record.values["softmax"])
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


def of_blocks(counts: Mapping[str, Any], softmax: Mapping[str, Any]) -> Verdict:
    """The same of blocks: split heads against two plain ones, gated depth against plain softmax."""
    told = [
        f"{name.replace('_', ' ')}: {sum(map(some_head_has_one, counts[name]['each']))} of {counts[name]['seeds']} "
        f"seeds have a sink, {counts[name]['learnt']} learnt the task"
        for name in BLOCKS
    ]
    sentence = "; ".join(told) + "."
    sentence = sentence[0].upper() + sentence[1:]
    against = {"split_heads": counts["two_heads"], "depth_gate": softmax}
    without = [name for name, plain in against.items() if not all(map(some_head_has_one, plain["each"]))]
    if without:
        names = " and ".join(name.replace("_", " ") for name in without)
        return Verdict("inconclusive", f"{sentence} What {names} is held against has no sink in every seed.")
    removing = [name.replace("_", " ") for name in against if removes(counts[name])]
    status: Status = "reproduced" if len(removing) == len(against) else "partly" if removing else "not reproduced"
    end = f"{' and '.join(removing)} remove{'' if len(removing) > 1 else 's'} it" if removing else "neither removes it"
    return Verdict(status, f"{sentence} {end[0].upper()}{end[1:]}.")


def on_text(entries: Mapping[str, Any]) -> Verdict:
    """The same of models that were trained on text. Seeds are the unit, and each is held against softmax with the same
    seed."""
    numbers = {name: [f"{value_of(seed['excess']):+.3f}" for seed in entries[name] if seed] for name in TEXT_DESIGNS}
    told = "; ".join(f"{name.replace('_', ' ')} {' and '.join(each)}" for name, each in numbers.items() if each)
    sentence = f"On text, attention to the first token beyond an even share, a number for each seed: {told}."
    if not all(all(entries[name]) for name in TEXT_DESIGNS):
        return Verdict("inconclusive", f"{sentence} All seeds of all designs decide.")
    plain = entries["softmax"]
    if not all(value_of(seed["excess"]) >= LEAST_EXCESS for seed in plain):
        return Verdict("inconclusive", f"{sentence} Plain softmax has no sink in every seed.")
    others = [name for name in TEXT_DESIGNS if name != "softmax"]
    removing = [name for name in others if takes_over(entries[name], plain)]
    status: Status = "reproduced" if len(removing) == len(others) else "partly" if removing else "not reproduced"
    mixing = [name.replace("_", " ") for name in others if no_more_mixing(entries[name], plain)]
    beside = f"tokens mix no more than with softmax: {', '.join(mixing)}" if mixing else "none keeps mixing as low"
    return Verdict(
        status,
        f"{sentence} {len(removing)} of {len(others)} remove the sink at no higher loss; {beside}.",
    )


def takes_over(seeds: Sequence[Mapping[str, Any]], plain: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a design removes the sink in every seed, without a higher loss than softmax has with that seed."""
    return all(
        value_of(seed["excess"]) < LEAST_EXCESS and value_of(seed["loss"]) <= value_of(beside["loss"]) + DEARER
        for seed, beside in zip(seeds, plain, strict=True)
    )


def no_more_mixing(seeds: Sequence[Mapping[str, Any]], plain: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a changed token moves the others no farther than under softmax, in every seed."""
    return all(
        value_of(seed["spread_over_own"]) <= MORE * value_of(beside["spread_over_own"])
        for seed, beside in zip(seeds, plain, strict=True)
    )
