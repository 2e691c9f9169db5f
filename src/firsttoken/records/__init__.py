"""Records: every number in the book is read from one, and each says where it came from."""

from firsttoken.estimates import JSON, Estimate, interval
from firsttoken.files import ROOT, slug, write_atomically
from firsttoken.records.comparison import differences
from firsttoken.records.frame import frame
from firsttoken.records.paper_numbers import paper
from firsttoken.records.record import Record, Status, Verdict, filename, recorded
from firsttoken.records.reuse import reusable, reuse_or_measure
from firsttoken.records.schema import SCHEMA
from firsttoken.records.store import all_records, find, local_store, read, reference_store, write

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
