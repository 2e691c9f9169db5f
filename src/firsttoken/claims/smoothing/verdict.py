"""What a record of attention rows says about smoothness without the sink."""

from __future__ import annotations

from firsttoken.estimates import interval
from firsttoken.measures.bos_arms import mass_sentence, sink_survives
from firsttoken.records import Record, Verdict


def judge(record: Record) -> Verdict:
    """The claim is that attention is smoother without the sink: rows spread over more tokens.

    The paper names no measure. Shannon entropy decides, as the one that counts every token: reproduced where the
    whole interval of its ratio is above 1. Renyi-2, which looks at the largest weights only, is reported beside it
    and decides nothing.
    """
    values = record.values
    shannon, renyi2, rest = (values[f"effective_tokens{name}_ratio"] for name in ("", "_renyi2", "_rest"))
    mass = values["first_token_mass"]
    sentence = (
        f"Without BOS a row attends to {interval(shannon)} times as many tokens in effect as with it by Shannon "
        f"entropy, {interval(renyi2)} times by Rényi-2; what it does not give to the first token is spread over "
        f"{interval(rest)} times as many. {mass_sentence(mass)}"
    )
    if sink_survives(mass):
        return Verdict("inconclusive", sentence)
    return Verdict("reproduced" if shannon["low"] > 1 else "not reproduced", sentence)
