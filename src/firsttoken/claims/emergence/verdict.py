"""When does the sink appear in training? What a record says."""

from __future__ import annotations

from firsttoken.claims.base import of_smoke_run
from firsttoken.estimates import surely_above
from firsttoken.records import Record, Verdict

ONSET = 1.5  # times the attention of an even spread, which the first token must always get from some step on


def judge(record: Record) -> Verdict:
    """Not a claim of the paper's table: when the sink appeared, and which of Gu et al.'s findings hold."""
    if (smoke := of_smoke_run(record)) is not None:
        return smoke
    trained = {name: variant for name, variant in record.values["variants"].items() if variant}
    base = trained.get("as in the budget")
    if base is None:
        return Verdict("inconclusive", "The run that the others are compared with has not been trained.")
    if base["onset"] is None:
        sentence = f"The first token never got {ONSET} times an even share for good."
    else:
        sentence = (
            f"The first token gets {ONSET} times an even share from step {base['onset']['step']} on, at a loss of "
            f"{base['onset']['loss']:.2f} nats."
        )
    held, asked = 0, 0
    for name, other in trained.items():
        if other["learning_rate"] < base["learning_rate"] or other["weight_decay"] < base["weight_decay"]:
            asked += 1
            held += surely_above(base["sink_rate_0.3"], other["sink_rate_0.3"])
            sentence += (
                f" With {name}, {other['sink_rate_0.3']['value']:.1%} of the heads are sinks at the end instead of "
                f"{base['sink_rate_0.3']['value']:.1%}."
            )
    if not asked:
        return Verdict("inconclusive", sentence + " Nothing was trained to compare it with.")
    return Verdict("reproduced" if held == asked else "partly" if held else "not reproduced", sentence)
