"""What a record of norms, rules and the apostrophe head says about heads that do nothing on the first token."""

from __future__ import annotations

from firsttoken.estimates import interval, surely_above
from firsttoken.files import slug
from firsttoken.records import Record, Status, Verdict
from firsttoken.records.paper_numbers import paper


def judge(record: Record) -> Verdict:
    """Three parts of the claim: the first token's value is short, a head adds less while it rests there, and there
    are heads that leave it by a rule. Reproduced needs the paper's example too: in the paper's model its own head with
    both values in the paper's order, in another model at least one head of that kind. Partly where one of the first
    two parts holds: a rule shows that heads switch, not that they do nothing."""
    values = record.values
    value, quiet = values["value_norm_ratio"], values["quiet_ratio"]
    small = value["high"] < 0.5
    less = quiet is not None and quiet["high"] < 0.5
    ruled = values["search"]["named"] > 0
    parts = [
        f"The first token's value is {interval(value, unit=' times')} as long as the others'.",
        "No head uses both ends of the scale."
        if quiet is None
        else f"A head that rests on the first token adds {interval(quiet, unit=' times')} of what it adds otherwise.",
        f"{values['search']['named']} of {values['search']['heads']} heads leave it by a rule that can be named.",
    ]
    trigger = values["trigger_head"]
    if record.model == slug(paper()["apostrophe_head"]["model"]):
        first, at_trigger, others = (trigger[f"value_{name}"] for name in ("first", "trigger", "others"))
        parts.append(
            f"The paper's head attends to the trigger with {interval(trigger['attention_to_trigger'], '.0%')} right "
            f"after it; its value has norm {at_trigger['value']:.1f}, the first token's {first['value']:.1f}."
        )
        good = trigger["is_one"] and surely_above(others, first) and surely_above(at_trigger, others)
    else:
        number = trigger["heads_of_that_kind"]
        parts.append(
            f"Heads of the paper's kind, which leave it for the trigger {trigger['trigger']} only: {number or 'none'}."
        )
        good = number > 0
    held = sum((small, less, ruled, good))
    status: Status = "reproduced" if held == 4 else "partly" if small or less else "not reproduced"
    return Verdict(status, " ".join(parts))
