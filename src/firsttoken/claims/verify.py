"""Measure the committed records of the bundled models again and compare: `firsttoken verify`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from firsttoken import models, records
from firsttoken.claims.jacobian import measure as jacobian
from firsttoken.claims.kv_cache import measure as kv_cache
from firsttoken.claims.no_op import measure as no_op
from firsttoken.claims.perturbation import measure as perturbation
from firsttoken.claims.phenomenon import measure as phenomenon
from firsttoken.claims.quantisation import measure as quantisation
from firsttoken.claims.removal import measure as removal
from firsttoken.claims.robustness import measure as robustness
from firsttoken.claims.scale import measure as scale
from firsttoken.claims.sink_rates import measure as sink_rates
from firsttoken.claims.smoothing import measure as smoothing
from firsttoken.claims.theory import measure as theory
from firsttoken.claims.where import measure as where
from firsttoken.errors import FirstTokenError
from firsttoken.models import LanguageModel
from firsttoken.models.bundled import BUNDLED
from firsttoken.records import Record, store

# Float32 sums come out differently on another processor: about 1e-5 in an attention weight. A rate that counts
# heads above a threshold moves by one head of one passage when that carries a head across.
TOLERANCE = 0.01
# Byte-rounded copies of numbers that are compared in full elsewhere in the same record.
PACKED = frozenset({"maps"})

# Sampled text: on another processor rounding changes one draw, and with it all that follow.
NOT_REPEATABLE = frozenset({("kv_cache", "stream")})

REMEASURE: dict[str, Callable[[LanguageModel, Record], Record]] = {
    "jacobian": jacobian.remeasure,
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
    paths = sorted(store.reference_store().glob(f"{claim}/*.json"))
    found = [records.read(path) for path in paths if path.parent != store.local_store()]
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
