"""Do longer contexts make stronger sinks? What a record says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firsttoken.claims.base import of_smoke_run
from firsttoken.estimates import JSON, interval, surely_above
from firsttoken.records import Record, Status, Verdict

RISES, STAYS = 0.03, 0.02  # of what the first token gets beyond an even share: surely more, and no more
MATCHED = 0.05  # nats by which the losses of two models may differ that are compared
LEAST_OF_GATE = 0.1  # share of sink heads of the first model without BOS, below which no other is trained
FAR, NEAR = 0.1, 0.05  # differences of that share: surely more with a longer window, and no more
ENOUGH = 0.25  # of the heads are sinks in some model: only then does a small difference refute
LEAST_RATE = 0.05  # below this at every length, there is no sink whose growth could be seen


def judge(record: Record) -> Verdict:
    """Compare the share of sink heads at the longest and at the shortest context, trained without BOS."""
    if (smoke := of_smoke_run(record)) is not None:
        return smoke
    if "runs_of" in record.values:
        return with_bos_fixed(record.values["runs_of"])
    if "rates_of" in record.values:
        return without_bos(record.values["rates_of"])
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
            "inconclusive",
            f"{sentence} So no sink has formed without BOS on this budget, and there is none to compare.{beside}",
        )
    short, long = rates[min(rates)], rates[max(rates)]
    if surely_above(long, short):
        return Verdict("reproduced", sentence + beside)
    return Verdict("partly" if long["value"] > short["value"] else "not reproduced", sentence + beside)


def with_bos_fixed(runs_of: Mapping[str, Any]) -> Verdict:
    """Does the number rise with the context length? That decides; whether positions without loss weaken the sink is
    told beside it."""
    missing = sum(run is None for of_loss in runs_of.values() for seeds in of_loss.values() for run in seeds)
    told = f"With BOS fixed, {missing} of the ten models have not been trained yet. " if missing else ""
    everywhere = {int(length): runs_of["all"][length] for length in sorted(runs_of["all"], key=int)}
    parts, ruled = [], []
    for seed in range(len(everywhere[64])):
        of_length = {length: seeds[seed]["excess"] for length, seeds in everywhere.items() if seeds[seed]}
        if of_length:
            numbers = ", ".join(f"{excess:+.3f} at {length}" for length, excess in of_length.items())
            parts.append(f"seed {seed}: {numbers}")
        if len(of_length) == len(everywhere):
            ruled.append((of_length[1024] - of_length[64], of_length[64] <= of_length[256] <= of_length[1024]))
    told += f"What the first token gets beyond an even share ({'; '.join(parts)})"
    if len(ruled) < 2:
        return Verdict("inconclusive", f"{told}; two seeds of every length decide. {positions_sentence(runs_of)}")
    status: Status = "inconclusive"
    if all(rise > RISES and between for rise, between in ruled):
        status = "reproduced"
    elif all(rise < STAYS for rise, _ in ruled):
        status = "not reproduced"
    word = {"reproduced": "rises in both seeds", "not reproduced": "does not rise"}.get(status, "leaves it open")
    return Verdict(status, f"{told} {word} from 64 to 1024. {positions_sentence(runs_of)}")


def without_bos(rates_of: Mapping[str, Any]) -> Verdict:
    """Do windows of 2048 tokens bring more sink heads than those of 128? Seeds are the unit."""
    rates = {int(n): [run and run["rate"] for run in runs] for n, runs in rates_of["all"].items()}
    told = "; ".join(
        f"{' and '.join(f'{rate:.1%}' for rate in of_length if rate is not None)} at {length}"
        for length, of_length in sorted(rates.items())
        if any(rate is not None for rate in of_length)
    )
    sentence = f"Trained without BOS, sink heads, one number a seed: {told}."
    first = rates[2048][0]
    if first is not None and first < LEAST_OF_GATE:
        return Verdict("inconclusive", f"{sentence} The gate, {LEAST_OF_GATE:.0%}, was not passed: no sink forms.")
    if any(rate is None for of_length in rates.values() for rate in of_length):
        return Verdict("inconclusive", f"{sentence} Two seeds of every length decide.")
    rises = [long - short for long in rates[2048] for short in rates[128]]
    low, high = sum(rates[128]) / 2, sum(rates[2048]) / 2
    if min(rises) >= FAR and low <= sum(rates[512]) / 2 <= high:
        return Verdict("reproduced", f"{sentence} Both of the longest windows exceed both of the shortest.")
    if max(rises) < NEAR and max(map(max, rates.values())) > ENOUGH:
        return Verdict("not reproduced", f"{sentence} The longest windows bring no more than the shortest.")
    return Verdict("inconclusive", f"{sentence} The difference leaves it open.")


def positions_sentence(runs_of: Mapping[str, Any]) -> str:
    """Whether a model that bears no loss on the first half of its window has a weaker sink, on late queries."""
    supports, contradicts, unmatched = [], [], 0
    for length, halved in runs_of["second_half"].items():
        for whole, half in zip(runs_of["all"][length], halved, strict=True):
            if not whole or not half:
                return "Where the loss is has not been compared in every pair."
            less = whole["late_excess"] - half["late_excess"]
            unmatched += abs(whole["late_loss"] - half["late_loss"]) > MATCHED
            supports.append(less > RISES)
            contradicts.append(less <= 0)
    if unmatched:
        return (
            f"Loss on the second half only: {unmatched} of {len(supports)} pairs differ by more than {MATCHED} nats."
        )
    if all(supports):
        return "Without loss on the first half the sink is weaker in every pair."
    if all(contradicts):
        return "Without loss on the first half the sink is no weaker in any pair."
    return "Whether the sink is weaker without loss on the first half is left open."


def _ends(rates: dict[int, JSON]) -> str:
    short, long = min(rates), max(rates)
    return f"{interval(rates[short], '.1%')} at {short} tokens and {interval(rates[long], '.1%')} at {long}"
