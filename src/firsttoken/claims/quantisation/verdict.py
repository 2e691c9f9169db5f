"""What a record of rounding says about the outliers of the first token, and about keeping it exact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firsttoken.estimates import interval
from firsttoken.records import Record, Verdict

HEADLINE_BITS = 4  # of the cache whose losses the sentence names, one scale for each token
WORKS = 1.0  # nats that rounding may cost with the first token exact, for a model that is not broken
SCALES = {"token": "one scale a token", "tensor": "one scale a text"}  # of rounded activations
CACHES = tuple((grouping, bits) for grouping in ("token", "channel") for bits in (4, 3))  # that decide


def activation_sentence(activations: Mapping[str, Any]) -> str:
    """The setting of rounded activations in which one exact first token saves most, surely more than another does,
    among those in which the model works then."""
    settings = [
        (saved["saved"]["value"], f"{bits} bits and {SCALES[scope]}", saved)
        for scope, of_bits in activations.items()
        for bits, saved in of_bits.items()
        if saved["more_than_control"]["low"] > 0 and works(saved)
    ]
    if not settings:
        return "With rounded activations it surely saves more than another in no setting in which the model works."
    _, name, best = max(settings, key=lambda setting: setting[0])
    return (
        f"With rounded activations, where the model works at all, it helps most at {name}: it saves "
        f"{interval(best['saved'])} of the {best['none']['value']:.2f} nats per token that rounding costs."
    )


def works(setting: Mapping[str, Any]) -> bool:
    """Whether rounding leaves something of the model, with the first token exact."""
    return bool(setting["first"]["value"] <= WORKS)


def judge(record: Record) -> Verdict:
    """The claim has two parts: the first token carries the outliers, and keeping it exact saves more of the loss than
    keeping another does.

    Reproduced where the largest activation is the first token's in most texts, and keeping it beats the control, with
    the whole interval, in caches of 4 and of 3 bits in both groupings. Partly where one part holds, or the second in
    some of these settings only.
    """
    values = record.values
    better = [
        (grouping, bits)
        for grouping, bits in CACHES
        if values["cache"][grouping][str(bits)]["more_than_control"]["low"] > 0
    ]
    share = values["largest_at_first"]["value"]
    named = ", ".join(f"{bits} bits by {grouping}" for grouping, bits in better) or "none"
    sentence = (
        f"The largest activation is the first token's in {share:.0%} of the texts. With a cache of {HEADLINE_BITS} "
        f"bits by token, keeping the first token exact saves {interval(values['loss_saved'], '.3f')} nats per token, "
        f"keeping another {interval(values['loss_saved_control'], '.3f')}. It surely saves more than another in "
        f"{len(better)} of {len(CACHES)} caches ({named})."
    )
    sentence += " " + activation_sentence(values["activations"])
    outliers_there = share > 0.5
    if outliers_there and len(better) == len(CACHES):
        return Verdict("reproduced", sentence)
    return Verdict("partly" if outliers_there or better else "not reproduced", sentence)
