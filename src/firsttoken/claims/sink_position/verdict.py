"""Does a sink belong to BOS or to the first place? What a record says."""

from __future__ import annotations

from firsttoken.estimates import interval
from firsttoken.records import Record, Status, Verdict


def judge(record: Record) -> Verdict:
    """Paper and related work: the sink belongs to the first place whatever stands there, unless BOS was always there
    in training; then it belongs to BOS in first place. Decided by half of the mass staying or going."""
    values = record.values
    kept, readings = values["first_token_kept"], values["readings"]
    swapped = readings["swapped"]
    sentence = f"With a random token in first place, {interval(kept, '.0%')} of the attention mass on it remains"
    if values["prepends_bos"]:
        without = readings["without BOS"]["first"]["value"] / readings["as it is"]["first"]["value"]
        sentence += (
            f", without BOS {without:.0%}. BOS moved into the middle of the text draws "
            f"{swapped['second']['value']:.0%} of the attention there, a second BOS there "
            f"{readings['BOS inside']['second']['value']:.0%}."
        )
        checks = (kept["high"] < 0.5, without < 0.5)
        sentence += " The sink belongs to BOS." if all(checks) else " The sink is not tied to BOS alone."
    else:
        sentence += f"; moved into the middle, the former first token draws {swapped['second']['value']:.0%}. "
        checks = (kept["low"] > 0.5, swapped["second"]["value"] < swapped["first"]["value"] / 2)
        sentence += (
            "The sink belongs to the place, for tokens of a text."
            if all(checks)
            else "The sink is not tied to its place alone."
        )
    status: Status = "reproduced" if all(checks) else "partly" if any(checks) else "not reproduced"
    return Verdict(status, sentence)
