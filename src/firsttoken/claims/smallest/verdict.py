"""What a record of many seeds says about where a head with nothing to do rests."""

from __future__ import annotations

from firsttoken.estimates import interval
from firsttoken.records import Record, Verdict

SURE = 0.05  # two-sided


def judge(record: Record) -> Verdict:
    """Whether heads rest on the first token, and whether longer texts make that likelier."""
    share, trend = record.values["rests_on_first"], record.values["trend"]
    rows = sorted(record.values["by_length"].items(), key=lambda item: int(item[0]))
    learnt = ", ".join(f"{row['first']} of {row['learnt']} at {length}" for length, row in rows)
    sentence = (
        f"At 64 tokens {interval(share, '.0%')} of the seeds that learnt the task rest on the first token. By length "
        "of "
        f"the text: {learnt} tokens; trend z = {trend['z']:.2f}, p = {trend['p']:.2g}."
    )
    if share["high"] < 0.5:
        return Verdict("not reproduced", sentence)
    if share["low"] <= 0.5:
        return Verdict("inconclusive", sentence)
    rises = trend["z"] > 0 and trend["p"] < SURE
    return Verdict("reproduced" if rises else "partly", sentence)
