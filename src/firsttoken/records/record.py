"""What a record is: one measurement of one claim on one model, and what its verdict says."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from firsttoken.estimates import JSON
from firsttoken.records.schema import SCHEMA

Status = Literal["reproduced", "partly", "not reproduced", "inconclusive"]
QUICK = "quick"  # in the provenance of a record with fewer and shorter texts, which gets no verdict

# What changes no number beyond rounding; two records that differ only here answer one question.
UNRECORDED = frozenset({"batch_tokens", "execution"})


def recorded(parameters: Any) -> JSON:
    """The fields of a chapter's frozen dataclass of parameters that belong into its record."""
    return {name: value for name, value in asdict(parameters).items() if name not in UNRECORDED}


def normal(value: Any) -> Any:
    """A value as it is read back once it was written: a tuple as a list, a number that names an entry as text."""
    return json.loads(json.dumps(value))


@dataclass(frozen=True)
class Verdict:
    """What one record says about one claim of the paper, in one sentence."""

    status: Status
    sentence: str


@dataclass(frozen=True)
class Record:
    """One measurement of one claim on one model.

    `parameters` and `version` (of the measurement's code) and `provenance["texts_hash"]` decide whether a record may
    be used again; `values` holds numbers, lists of numbers and estimates as `{"value", "low", "high", "n"}`.
    """

    claim: str
    model: str  # a slug: lower case, digits and hyphens
    parameters: JSON
    values: JSON
    provenance: JSON
    version: int = 1
    variant: str = ""
    verdict: Verdict | None = None
    schema: int = field(default=SCHEMA)

    @property
    def filename(self) -> str:
        return filename(self.model, self.variant)

    def layer_numbers(self, rows: int) -> list[int]:
        """The numbers of the layers that the `rows` of a value belong to: a hybrid's layers that have attention."""
        known = (self.provenance.get("check") or {}).get("layers")
        return list(known) if known and len(known) == rows else list(range(rows))


def filename(model: str, variant: str = "") -> str:
    """The file of a record in its claim's folder; `model` is a slug."""
    return f"{model}--{variant}.json" if variant else f"{model}.json"
