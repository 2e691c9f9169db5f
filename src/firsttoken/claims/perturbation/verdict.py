"""What a record of edits says about the sink keeping a change local."""

from __future__ import annotations

from firsttoken.estimates import interval
from firsttoken.measures.bos_arms import mass_sentence, sink_survives
from firsttoken.records import Record, Verdict


def judge(record: Record) -> Verdict:
    """The claim is that the sink slows the spread of a change: without BOS, later tokens move further, for the same
    change of the edited token itself.

    Reproduced where that ratio's whole interval is above 1 and removing BOS does weaken the sink; where the sink
    stays on another token, the comparison says nothing about sinks.
    """
    values = record.values
    if "spread_over_own_ratio" not in values:
        return Verdict("inconclusive", "Only one of the two arms was run; set bos to 'both' to compare them.")
    ratio, mass = values["spread_over_own_ratio"], values["first_token_mass"]
    sentence = (
        f"Over {values['edits']} single-token edits, later tokens move {interval(values['spread_ratio'])} times as "
        "far "
        f"without BOS as with it, the edited tokens themselves {interval(values['own_ratio'])} times: for the same "
        f"change of the edited token, later ones move {interval(ratio)} times as far. {mass_sentence(mass)}"
    )
    if sink_survives(mass):
        return Verdict("inconclusive", sentence)
    if ratio["low"] > 1:
        return Verdict(
            "reproduced", sentence + " Without BOS, and so without its sink, the model passes a change on further."
        )
    if ratio["high"] < 1:
        return Verdict(
            "not reproduced",
            sentence + " Without BOS, and so without its sink, the model passes a change on less far.",
        )
    return Verdict("not reproduced", sentence + " The interval contains 1: no difference can be told.")
