"""What a record of collapse, path sums and bounds says about the paper's statements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firsttoken.estimates import interval, surely_above
from firsttoken.measures.bos_arms import ARMS, mass_sentence, sink_survives
from firsttoken.records import Record, Status, Verdict


def collapse_sentence(collapse: Mapping[str, Any]) -> str:
    """In how many states of the residual stream text tokens are surely farther from rank collapse without BOS, and in
    how many surely nearer."""
    pairs = list(zip(collapse["with_bos"]["from_mean_text"], collapse["without_bos"]["from_mean_text"], strict=True))
    farther = sum(surely_above(without, with_bos) for with_bos, without in pairs)
    nearer = sum(surely_above(with_bos, without) for with_bos, without in pairs)
    if not farther and not nearer:
        return ""
    return (
        f"Without BOS, text tokens lie surely farther from their mean, so from rank collapse, in {farther} of "
        f"{len(pairs)} states of the residual stream and surely nearer in {nearer}. "
    )


def judge(record: Record) -> Verdict:
    """Theorems cannot fail, but a derivation or its code can: not reproduced where anything is violated. Partly, where
    the statements hold but the bound is above the measured Jacobian by more than a factor of ten: it then explains
    the direction of the effect and not its size. The same where the bound was not compared, or where path sums from
    text tokens are not surely larger without a sink."""
    values = record.values
    broken = sum(values["collapse"][arm]["broken"] for arm in ARMS)
    ratio, mass = values["path_sum_ratio"], values["first_token_mass"]
    effect = (
        f"Path sums from text tokens are {interval(ratio, '.3g')} times as large without BOS as with it. "
        f"{mass_sentence(mass)}"
    )
    proposition = (
        "The proposition holds in every case tried. "
        if not broken
        else f"The proposition is violated in {broken} cases. "
    )
    proposition += collapse_sentence(values["collapse"])
    if "refused" in values["bound"]:
        status: Status = "not reproduced" if broken else "partly"
        return Verdict(status, f"{proposition}{values['bound']['refused']} {effect}")
    over = values["bound_over_jacobian"]
    sentence = (
        f"{proposition}The over-squashing bound, of which the paper claims no tightness, is violated in "
        f"{values['violations']} of {values['pairs']} cases, and with this book's own estimate of its constant "
        f"lies {interval(over, '.1f')} orders of magnitude above the measured Jacobian at the last layer. {effect}"
    )
    if broken or values["violations"]:
        return Verdict("not reproduced", sentence)
    helps = ratio["low"] > 1 and not sink_survives(mass)
    if over["high"] > 1:
        return Verdict("partly", sentence + " The bound holds and is far too loose to predict a size.")
    return Verdict("reproduced" if helps else "partly", sentence)
