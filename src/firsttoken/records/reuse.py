"""Whether a record already answers a question, so that nothing is measured twice, and how a new one comes about."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.files import ROOT, refuse_unwritable
from firsttoken.records import store as stores
from firsttoken.records.provenance import environment, git_state
from firsttoken.records.record import Record, Verdict, filename, normal

UNSTAMPED = "3"  # the rules for GGUF files when records did not name them yet; later ones must not change this


def hash_of_texts(passages: Sequence[str]) -> str:
    """A short hash of texts in order; two records with the same hash were measured on the same texts."""
    digest = hashlib.sha256()
    for text in passages:
        digest.update(hashlib.sha256(text.encode("utf-8")).digest())
    return digest.hexdigest()[:16]


def reusable(
    claim: str,
    model: Any,
    parameters: Mapping[str, Any],
    texts_hash: str,
    version: int = 1,
    variant: str = "",
    reference: bool | None = None,
    store: Path | None = None,
) -> Record | None:
    """The record that already answers this question, if any; the arguments are those of `reuse_or_measure`."""
    if reference is None:
        reference = not os.environ.get("FIRSTTOKEN_MEASURE_HERE")
    asked = (normal(parameters), texts_hash, version, _identity(normal(model.provenance())))
    own = store or stores.local_store()
    for place in (own, stores.reference_store()) if reference else (own,):
        names = (place / folder / filename(model.slug, variant) for folder in reversed(stores.folders(claim)))
        if (path := next((name for name in names if name.exists()), None)) is None:
            continue
        try:
            old = stores.read(path)
        except FirstTokenError as error:
            print(f"{error} It is measured again now.")
            continue
        answers = (
            old.parameters,
            old.provenance.get("texts_hash"),
            old.version,
            _identity(old.provenance.get("model", {})),
        )
        if asked == answers:
            return old
    return None


def reuse_or_measure(
    claim: str,
    *,
    model: Any,
    parameters: Mapping[str, Any],
    texts_hash: str,
    measure: Callable[[], JSON],
    judge: Callable[[Record], Verdict | None] | None = None,
    version: int = 1,
    variant: str = "",
    fresh: bool = False,
    reference: bool | None = None,
    store: Path | None = None,
    about: Callable[[], JSON] | None = None,
) -> Record:
    """The record of a measurement: an existing one if it answers the same question, else a new one.

    Args:
        model: what was measured; needs `.slug` and `.provenance()` (see `firsttoken.models.LanguageModel`).
        parameters: everything that the caller chose. A record is reused only if these, `texts_hash` (of the
            passages), the model's fingerprint, dtype and `version` are the same.
        measure: computes the values; called only when nothing can be reused.
        judge: turns the record into a verdict, which is stored with it for whoever opens the file; the book judges
            anew whenever it shows a record.
        fresh: measure again in any case.
        reference: whether a committed record may be reused too. By default yes, unless the environment variable
            `FIRSTTOKEN_MEASURE_HERE` is set, as `make book` does: it shows this machine's own numbers.
        store: where to look first and to write; the local store if none is given.
        about: more for the record's provenance, asked for before something is measured and only then.

    Raises:
        FirstTokenError: the record could not be written; this is found out before anything is measured.
    """
    if (
        not fresh
        and (old := reusable(claim, model, parameters, texts_hash, version, variant, reference, store)) is not None
    ):
        return with_verdict(old, judge, store)

    place = (store or stores.local_store()) / claim / filename(model.slug, variant)
    refuse_unwritable(place, "Records", "put it right, or give another folder in FIRSTTOKEN_RESULTS")
    # The code that measures was loaded before; what is committed while it runs is not what ran.
    state = git_state(ROOT)
    more = about() if about else {}
    start = time.perf_counter()
    values = normal(measure())
    measured = model.provenance()
    provenance = {
        "model": measured,
        "texts_hash": texts_hash,
        **environment(measured.get("device")),
        **state,
        **more,
        "seconds": round(time.perf_counter() - start, 1),
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    record = Record(claim, model.slug, dict(normal(parameters)), values, provenance, version, variant)
    record = replace(record, verdict=judge(record) if judge else None)
    stores.write(record, store)
    return record


def with_verdict(old: Record, judge: Callable[[Record], Verdict | None] | None, store: Path | None) -> Record:
    """A record as its own claim keeps it: one that was first measured for another claim has no verdict yet."""
    if old.verdict is not None or judge is None:
        return old
    judged = replace(old, verdict=judge(old))
    path = (store or stores.local_store()) / old.claim / old.filename
    # A committed record stays as it is.
    if judged != old and path.exists() and stores.read(path) == old:
        stores.write(judged, store)
    return judged


def _identity(provenance: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes two models the same for a record. The fingerprint covers weights, tokenizer and code; where they were
    kept, on which device they ran and what the check of the weights noted does not count. Of GGUF files the rules by
    which they are read count."""
    named = tuple(provenance.get(name) for name in ("fingerprint", "dtype", "quantisation", "code"))
    return (*named, provenance.get("conversion", UNSTAMPED))
