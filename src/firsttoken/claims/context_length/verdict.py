"""Do longer contexts make stronger sinks? What a record says."""

from __future__ import annotations

from firsttoken.claims.base import of_smoke_run
from firsttoken.estimates import JSON, interval, surely_above
from firsttoken.records import Record, Verdict

LEAST_RATE = 0.05  # below this at every length, there is no sink whose growth could be seen


def judge(record: Record) -> Verdict:
    """Compare the share of sink heads at the longest and at the shortest context, trained without BOS."""
    if (smoke := of_smoke_run(record)) is not None:
        return smoke
    of_bos = record.values["rows"]
    rates = {int(length): row["sink_rate_0.3"] for length, row in of_bos["never"].items() if row}
    fixed = {int(length): row["sink_rate_0.3"] for length, row in of_bos["fixed"].items() if row}
    beside = ""
    if len(fixed) > 1:
        beside = f" With BOS fixed at the start it is {_ends(fixed)}."
    if len(rates) < 2:
        return Verdict("inconclusive", f"Fewer than two context lengths were trained without BOS.{beside}")
    sentence = f"Trained without BOS, the share of sink heads is {_ends(rates)}."
    if max(rate["value"] for rate in rates.values()) < LEAST_RATE:
        return Verdict(
            "inconclusive", f"{sentence} So no sink has formed on this budget, and there is none to compare.{beside}"
        )
    short, long = rates[min(rates)], rates[max(rates)]
    if surely_above(long, short):
        return Verdict("reproduced", sentence + beside)
    return Verdict("partly" if long["value"] > short["value"] else "not reproduced", sentence + beside)


def _ends(rates: dict[int, JSON]) -> str:
    short, long = min(rates), max(rates)
    return f"{interval(rates[short], '.1%')} at {short} tokens and {interval(rates[long], '.1%')} at {long}"
