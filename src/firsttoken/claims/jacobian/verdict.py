"""What a record of gains says about the sink making tokens less sensitive to each other."""

from __future__ import annotations

from firsttoken.estimates import interval
from firsttoken.measures.bos_arms import mass_sentence, sink_survives
from firsttoken.records import Record, Verdict


def judge(record: Record) -> Verdict:
    """The claim is that the sink makes tokens less sensitive to each other, beyond what it does to each token's own
    sensitivity: the ratio is above 1."""
    values = record.values
    ratio, mass = values["later_over_own_ratio"], values["first_token_mass"]
    sentence = (
        f"Over {values['pairs']} pairs of tokens, a later token is {interval(values['sensitivity_ratio'])} times as "
        f"sensitive to an earlier one without BOS as with it, and a token to itself {interval(values['own_ratio'])} "
        f"times: the first over the second is {interval(ratio)}. {mass_sentence(mass)}"
    )
    if sink_survives(mass):
        return Verdict("inconclusive", sentence)
    if ratio["low"] > 1:
        return Verdict(
            "reproduced", sentence + " Without BOS, and so without its sink, the model mixes its tokens more."
        )
    if ratio["high"] < 1:
        return Verdict(
            "not reproduced", sentence + " Without BOS, and so without its sink, the model mixes its tokens less."
        )
    return Verdict("not reproduced", sentence + " The interval contains 1: no difference can be told.")
