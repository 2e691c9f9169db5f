"""Measure the committed records of the bundled models again and compare: `firsttoken verify`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from firsttoken import (
    jacobians,
    kv_cache,
    models,
    no_op,
    perturbation,
    phenomenon,
    quantisation,
    records,
    removal,
    robustness,
    scale,
    sink_rates,
    smoothing,
    theory,
    where,
)
from firsttoken.bundled import BUNDLED
from firsttoken.errors import FirstTokenError
from firsttoken.models import LanguageModel
from firsttoken.records import Record

# Float32 sums come out differently on another processor: about 1e-5 in an attention weight. A rate that counts
# heads above a threshold moves by one head of one passage when that carries a head across.
TOLERANCE = 0.01
# Byte-rounded copies of numbers that are compared in full elsewhere in the same record.
PACKED = frozenset({"maps"})

# Sampled text: on another processor rounding changes one draw, and with it all that follow.
NOT_REPEATABLE = frozenset({("kv_cache", "stream")})

REMEASURE: dict[str, Callable[[LanguageModel, Record], Record]] = {
    "jacobian": jacobians.remeasure,
    "kv_cache": kv_cache.remeasure,
    "no_op": no_op.remeasure,
    "perturbation": perturbation.remeasure,
    "phenomenon": phenomenon.remeasure,
    "quantisation": quantisation.remeasure,
    "removal": removal.remeasure,
    "robustness": robustness.remeasure,
    "scale": scale.remeasure,
    "sink_rates": sink_rates.remeasure,
    "smoothing": smoothing.remeasure,
    "theory": theory.remeasure,
    "where": where.remeasure,
}


def committed(claim: str = "*") -> list[Record]:
    """The committed records of bundled models."""
    paths = sorted(records.reference_store().glob(f"{claim}/*.json"))
    found = [records.read(path) for path in paths if path.parent != records.local_store()]
    return [record for record in found if record.model in BUNDLED]


def verify(claims: list[str]) -> Iterator[tuple[Record, list[str]]]:
    """Re-measure committed records one by one.

    Args:
        claims: which ones; all of them if empty.

    Yields:
        the committed record, and every difference above `TOLERANCE` as a readable line (none: it holds)

    Raises:
        FirstTokenError: a claim has no committed record.
    """
    chosen = [record for claim in claims or ["*"] for record in committed(claim)]
    known = sorted({record.claim for record in committed()})
    for claim in claims:
        if claim not in known:
            raise FirstTokenError(f"There is no committed record of {claim}; there are records of {', '.join(known)}.")
    loaded: dict[str, LanguageModel] = {}
    with _scratch_store():
        for record in chosen:
            if record.claim not in REMEASURE or (record.claim, record.variant) in NOT_REPEATABLE:
                continue
            origin = record.provenance["model"]
            lm = loaded.setdefault(record.model, models.load(origin["name"], dtype=origin["dtype"], device="cpu"))
            again = REMEASURE[record.claim](lm, record)
            yield record, list(records.differences(again.values, record.values, TOLERANCE, ignore=PACKED))


@contextmanager
def _scratch_store() -> Iterator[None]:
    before = os.environ.get("FIRSTTOKEN_RESULTS")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FIRSTTOKEN_RESULTS"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["FIRSTTOKEN_RESULTS"]
            else:
                os.environ["FIRSTTOKEN_RESULTS"] = before
