"""Records: every number in the book is read from one, and each says where it came from."""

from firsttoken.estimates import JSON, Estimate, interval
from firsttoken.files import ROOT, slug, write_atomically
from firsttoken.records.frame import frame
from firsttoken.records.paper_numbers import paper
from firsttoken.records.schema import SCHEMA
from firsttoken.records.store import (
    Record,
    Status,
    Verdict,
    all_records,
    differences,
    filename,
    find,
    local_store,
    read,
    recorded,
    reference_store,
    reusable,
    reuse_or_measure,
    write,
)

__all__ = [
    "JSON",
    "ROOT",
    "SCHEMA",
    "Estimate",
    "Record",
    "Status",
    "Verdict",
    "all_records",
    "differences",
    "filename",
    "find",
    "frame",
    "interval",
    "local_store",
    "paper",
    "read",
    "recorded",
    "reference_store",
    "reusable",
    "reuse_or_measure",
    "slug",
    "write",
    "write_atomically",
]
