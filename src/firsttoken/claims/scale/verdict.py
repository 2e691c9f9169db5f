"""What a record of `scale` says about the largest model of the paper."""

from __future__ import annotations

from firsttoken.estimates import interval
from firsttoken.records import Record, Status, Verdict
from firsttoken.records.paper_numbers import PAPER_LENGTH, paper

PAPER_MODEL = "meta-llama-llama-3-1-405b"


def judge(record: Record) -> Verdict:
    """Compare LLaMa 3.1 405B with the paper; no other model, whatever it shows, can confirm or refute it."""
    values = record.values
    mass, theirs = values["mass_first"], paper()["mass_405b"]["value"]
    here = interval(mass, ".1%")
    if record.model != PAPER_MODEL:
        return Verdict(
            "inconclusive",
            f"The claim is about LLaMa 3.1 405B. Here, with {in_words(values['parameters'])} parameters, {here} of "
            f"the attention goes to the first token; the paper has about {theirs:.0%} for 405B, which is disputed.",
        )
    if record.parameters["length"] != PAPER_LENGTH:
        return Verdict("inconclusive", f"The paper used {PAPER_LENGTH} tokens; set length to that.")
    gap = abs(mass["value"] - theirs)
    status: Status = "reproduced" if gap <= 0.1 else "partly" if gap <= 0.2 else "not reproduced"
    return Verdict(status, f"Attention mass on the first token: {here} here, about {theirs:.0%} in the paper.")


def in_words(parameters: float) -> str:
    """A number of parameters as people write it: 135M, 7B, 405B."""
    unit, name = (1e9, "B") if parameters >= 1e9 else (1e6, "M")
    return f"{parameters / unit:.3g}{name}"
