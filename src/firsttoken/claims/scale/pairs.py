"""Neighbouring sizes of one family on the same passages: how much more the larger model rests, passage by passage.

One pair of models is one observation about size, however many passages there are: the interval says how sure the
difference between *these two models* is, and nothing about size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from firsttoken import statistics
from firsttoken.claims.scale.families import by_family
from firsttoken.estimates import Estimate
from firsttoken.records import Record

MEASURES = ("mass_first", "sink_rate_0.3", "sink_rate")
NOT_PROSE = ("code", "arithmetic", "lists")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The larger model less the smaller one, in one measure, on one kind of text."""

    smaller: Record
    larger: Record
    kind: str  # prose or code
    measure: str
    difference: Estimate


def differences(records: Sequence[Record], seed: int = 0) -> list[Pair]:
    """Every pair of neighbouring sizes whose records were measured on the same passages and say so one by one."""
    pairs = []
    for members in by_family(records).values():
        for smaller, larger in pairwise(members):
            both = (smaller, larger)
            if any("by_passage" not in record.values or "domains" not in record.values for record in both):
                continue
            if smaller.provenance["texts_hash"] != larger.provenance["texts_hash"]:
                continue
            domains = smaller.values["domains"]
            chosen = {
                "prose": [n for n, domain in enumerate(domains) if domain not in NOT_PROSE],
                "code": [n for n, domain in enumerate(domains) if domain == "code"],
            }
            for kind, numbers in chosen.items():
                for measure in MEASURES:
                    low, high = (torch.tensor(record.values["by_passage"][measure])[numbers] for record in both)
                    if len(numbers) >= 2:
                        difference = statistics.bootstrap(high - low, seed=seed)
                        pairs.append(
                            Pair(smaller=smaller, larger=larger, kind=kind, measure=measure, difference=difference)
                        )
    return pairs
