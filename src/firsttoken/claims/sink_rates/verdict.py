"""What a record of sink rates says about the paper's table."""

from __future__ import annotations

from firsttoken.estimates import interval
from firsttoken.records import Record, Status, Verdict
from firsttoken.records.paper_numbers import PAPER_EPSILON, PAPER_LENGTH, paper


def judge(record: Record) -> Verdict:
    """Compare with the paper's table where the model is in it; else say what the model does and does not show."""
    table, by_epsilon = paper()["llama"], record.values["by_epsilon"]
    at = dict(zip(by_epsilon["epsilon"], by_epsilon["threshold_first"], strict=True))
    strict, loose = at[PAPER_EPSILON], at[0.3]
    if record.model in table:
        theirs = table[record.model]["sink_rate"]
        if record.parameters["length"] != PAPER_LENGTH:
            return Verdict("inconclusive", f"The paper's table is for {PAPER_LENGTH} tokens; set length to that.")
        gap = abs(strict["value"] - theirs)
        status: Status = "reproduced" if gap <= 0.05 else "partly" if gap <= 0.15 else "not reproduced"
        return Verdict(
            status,
            f"Sink rate at ε = {PAPER_EPSILON}: {interval(strict, '.1%')} here, {theirs:.2%} in the paper's table.",
        )
    sentence = (
        f"{interval(loose, '.1%')} of the heads give the first token more than 0.3 of their attention and "
        f"{interval(strict, '.1%')} more than {PAPER_EPSILON}. "
    )
    smallest = table["meta-llama-llama-3-1-8b"]["sink_rate"]
    more = "fewer" if strict["value"] < smallest else "no fewer"
    there = "Sinks are there" if loose["low"] > 0.25 else "Sinks are no common feature of this model's heads"
    return Verdict(
        "inconclusive",
        f"The claim is about LLaMa 3.1. Here {sentence[0].lower()}{sentence[1:]}{there}, and at the paper's threshold "
        f"{more} heads than in LLaMa 3.1 8B ({smallest:.2%} in the paper).",
    )
