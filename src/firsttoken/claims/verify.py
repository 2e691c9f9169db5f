"""Measure the committed records of the bundled models again and compare: `firsttoken verify`."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from dataclasses import fields
from itertools import groupby
from pathlib import Path

from firsttoken import claims, models
from firsttoken.errors import FirstTokenError
from firsttoken.measures.measurement import Measurement
from firsttoken.models.bundled import BUNDLED
from firsttoken.records import Record, differences, read, store

# Float32 sums come out differently on another processor: about 1e-5 in an attention weight. A rate that counts
# heads above a threshold moves by one head of one passage when that carries a head across.
TOLERANCE = 0.01


def committed(claim: str = "*") -> list[Record]:
    """The committed records of bundled models."""
    paths = sorted(store.reference_store().glob(f"{claim}/*.json"))
    records = [read(path) for path in paths if path.parent != store.local_store()]
    return [record for record in records if record.model in BUNDLED]


def measurement_of(record: Record) -> Measurement | None:
    """What measured a record, if it can be repeated."""
    if record.claim not in claims.names():
        return None
    of_claim = claims.measurements(record.claim)
    return next((m for m in of_claim if m.variant == record.variant and m.repeatable), None)


def verify(
    chosen: list[str], *, variants: bool = True, without: Collection[str] = ()
) -> Iterator[tuple[Record, list[str]]]:
    """Measure committed records again, each model loaded once.

    Args:
        chosen: of which claims; all of them if empty.
        variants: also the records with a variant, which take longer.
        without: variants to leave out.

    Yields:
        the committed record, and every difference above `TOLERANCE` as a readable line (none: it holds)

    Raises:
        FirstTokenError: a claim has no committed record, or its models must be trained first; no record has a variant
            that is to be left out.
    """
    for claim in (name for name in chosen if name in claims.names()):
        if trained := claims.trained(claim):
            budget = " -p budget cpu" if "budget" in {field.name for field in fields(trained[0].parameters)} else ""
            raise FirstTokenError(
                f"The models of {claim} must be trained first, which takes too long to verify; `firsttoken run {claim}"
                f"{budget} -p fresh true` trains and measures them again."
            )
    known = sorted({record.claim for record in committed()})
    for claim in chosen:
        if claim not in known:
            raise FirstTokenError(f"There is no committed record of {claim}; there are records of {', '.join(known)}.")
    wanted = [record for claim in chosen or ["*"] for record in committed(claim) if variants or not record.variant]
    there = sorted({record.variant for record in wanted if record.variant})
    for variant in without:
        if variant not in there:
            others = ", ".join(there) or "none"
            raise FirstTokenError(f"No record asked for has a variant {variant}; their variants are: {others}.")
    wanted = [record for record in wanted if record.variant not in without]
    with tempfile.TemporaryDirectory() as scratch:
        for _, of_model in groupby(sorted(wanted, key=_origin), key=_origin):
            records = list(of_model)
            origin = records[0].provenance["model"]
            lm = models.load(origin["name"], dtype=origin["dtype"], device="cpu")
            for record in records:
                if (measurement := measurement_of(record)) is not None:
                    again = measurement.again(lm, record, Path(scratch))
                    yield record, list(differences(again.values, record.values, TOLERANCE, ignore=measurement.copies))


def _origin(record: Record) -> tuple[str, str]:
    origin = record.provenance["model"]
    return origin["name"], origin["dtype"]
