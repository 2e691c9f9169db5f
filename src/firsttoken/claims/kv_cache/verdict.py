"""What a record of bounded caches says about the first tokens being enough to repair a window."""

from __future__ import annotations

from firsttoken.estimates import interval, surely_above
from firsttoken.records import Record, Verdict


def judge(record: Record) -> Verdict:
    """The claim: a window alone ruins the model, and a few first tokens kept in the cache repair it.

    Inconclusive where the window alone does no clear harm (the interval of the increase reaches down to 0): there is
    nothing to repair. Reproduced where four sinks undo more than half of the harm, with the whole interval, and surely
    more than four random tokens do, which are drawn for each text and never the first; partly where they surely undo
    some.
    """
    values = record.values
    harm = values["policies"]["window"]["increase"]
    recovered, control = values["recovered"], values["recovered_random"]
    sentence = (
        f"A window alone costs {interval(harm, '.2f')} nats per token. Four first tokens in it undo "
        f"{interval(recovered, '.0%')} of that, four random ones {interval(control, '.0%')}; the perplexity is then "
        f"{interval(values['perplexity_ratio'])} times that of the full cache."
    )
    if again := values["policies"].get("recomputed"):
        sentence += f" The same window computed anew at every token costs {interval(again['increase'], '.2f')} nats."
    if values.get("positions") == "original":
        sentence += " First tokens keep their own positions here, which this model's do not allow to change."
    if values["sliding_layers"]:
        sentence += f" {values['sliding_layers']} sliding layers keep the window they were trained with."
    if harm["low"] <= 0:
        return Verdict("inconclusive", sentence + " The window does no clear harm, so there is nothing to repair.")
    if recovered["low"] > 0.5 and surely_above(recovered, control):
        return Verdict("reproduced", sentence)
    return Verdict("partly" if recovered["low"] > 0 else "not reproduced", sentence)
