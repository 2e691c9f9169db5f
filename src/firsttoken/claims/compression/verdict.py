"""What a record says about giving less to heads at rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firsttoken.estimates import interval
from firsttoken.records import Record, Verdict

PARTS = {"remove": "removing", "shorten": "shortening", "coarsen": "coarsening"}


def state(differences: list[Mapping[str, Any]]) -> str:
    """`holds` where every difference is surely below zero, `reversed` where one is surely above, else `open`."""
    if all(difference["high"] < 0 for difference in differences):
        return "holds"
    return "reversed" if any(difference["low"] > 0 for difference in differences) else "open"


def measured(record: Record) -> dict[str, str]:
    """The things that heads lost in a record, with their words."""
    return {name: word for name, word in PARTS.items() if name in record.values["deciding"]}


def judge(record: Record) -> Verdict:
    """Three things that heads lose, and one token that a cache keeps exact; see the card's rule."""
    values = record.values
    states, told = [], []
    parts = measured(record)
    for name, word in parts.items():
        both = values["deciding"][name]
        states.append(state([both["random"], both["random, same layers"]]))
        told.append(
            f"{word} heads at rest costs {interval(both['random'], '+.3f')} nats against random heads and "
            f"{interval(both['random, same layers'], '+.3f')} against random heads of their layers ({states[-1]})"
        )
    exact = values["deciding"]["first_exact"]
    states.append(state([exact]))
    told.append(
        f"at {values['deciding']['bits']} bits a cache with the first token exact costs {interval(exact, '+.2f')} "
        f"nats against one with another token exact ({states[-1]})"
    )
    sentence = f"At {values['deciding']['share']:.0%} of the heads: " + "; ".join(told) + "."
    holds = [one == "holds" for one in states]
    if any(holds) and not all(holds):
        return Verdict("partly", sentence)
    if left_out := [word for name, word in PARTS.items() if name not in parts]:
        return Verdict("inconclusive", f"{sentence} Not measured: {' and '.join(left_out)}.")
    if all(holds):
        return Verdict("reproduced", sentence)
    return Verdict("not reproduced" if "reversed" in states else "inconclusive", sentence)
