"""The results store: every number in the book is read from a record, and every record says where it came from.

A record is one small JSON file, `<store>/<claim>/<model>[--variant].json`. There are two stores:

* `results/`        committed reference records, which the published book shows;
* `results/local/`  what this machine measured (not committed), which wins over the reference when both exist.

Set `FIRSTTOKEN_RESULTS` to put the local store somewhere else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from firsttoken.errors import FirstTokenError
from firsttoken.files import ROOT, local_results, slug, write_atomically
from firsttoken.records.record import QUICK, Record, Status, Verdict, filename
from firsttoken.records.schema import FORMER_CLAIMS, SCHEMA, to_present


def reference_store() -> Path:
    return ROOT / "results"


def local_store() -> Path:
    return local_results(ROOT)


def quick_store() -> Path:
    """Where the records of first looks lie, apart from those that are whole."""
    return local_store() / QUICK


def write(record: Record, store: Path | None = None) -> Path:
    """Write `record` into `store` (the local one by default) and return its path.

    A value that is not a finite number is refused: it would be shown in the book as a result.
    """
    path = (store or local_store()) / record.claim / record.filename
    try:
        text = as_json(record)
    except ValueError as error:
        where = [".".join(map(str, place)) for place in _not_finite(record.values)]
        dtype = (record.provenance.get("model") or {}).get("dtype")
        remedy = (
            "Such a number is the ratio of two that are 0: the model does not react to what is compared here, and "
            "more or longer texts may help."
            if dtype == "float32"
            else "Run it again in float32."
        )
        raise FirstTokenError(
            f"The measurement {record.claim} of {record.model} gave values that are not finite numbers "
            f"({len(where)}: {', '.join(where[:3])}); it was not stored. {remedy}"
        ) from error
    write_atomically(path, text)
    return path


def _not_finite(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all numbers that are not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        yield place
    parts = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    )
    for name, part in parts:
        yield from _not_finite(part, (*place, name))


def as_json(record: Record) -> str:
    """The text of a record's file. Raises `ValueError` for a value that is not a finite number."""
    return json.dumps(asdict(record), indent=1, ensure_ascii=False, allow_nan=False, sort_keys=True) + "\n"


def read(path: Path) -> Record:
    """Read and validate one record.

    Raises `FirstTokenError` where the file is not JSON, lacks a field, or has another schema version.
    """
    remedy = "delete it and run the chapter again"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FirstTokenError(f"The record {path} cannot be read ({error}); {remedy}.") from error
    stored = to_present(stored) if isinstance(stored, dict) else stored
    if not isinstance(stored, dict) or stored.get("schema") != SCHEMA:
        schema = stored.get("schema") if isinstance(stored, dict) else None
        raise FirstTokenError(f"The record {path} has schema {schema}, this version reads schema {SCHEMA}; {remedy}.")
    kinds = {
        "claim": str,
        "model": str,
        "parameters": dict,
        "values": dict,
        "provenance": dict,
        "version": int,
    }
    bad = [name for name, kind in kinds.items() if not isinstance(stored.get(name), kind)]
    unknown = sorted(set(stored) - set(Record.__dataclass_fields__))
    if bad or unknown:
        raise FirstTokenError(f"The record {path} has missing or unknown fields {bad + unknown}; {remedy}.")
    if (told := stored.get("verdict")) is not None:
        if not isinstance(told, dict) or set(told) != {"status", "sentence"} or told["status"] not in get_args(Status):
            raise FirstTokenError(f"The record {path} has a verdict that is none ({told!r}); {remedy}.")
        stored["verdict"] = Verdict(**told)
    if not isinstance(stored["provenance"].get("model", {}), dict):
        raise FirstTokenError(f"The record {path} does not say which model it is about; {remedy}.")
    if not isinstance(stored.get("variant", ""), str):
        raise FirstTokenError(f"The record {path} has a variant that is no name; {remedy}.")
    return Record(**stored)


def find(claim: str, model: str, variant: str = "") -> Record | None:
    """The record to show for a claim and model: this machine's own if it has one, else the committed one."""
    name = filename(slug(model), variant)
    for store in (local_store(), reference_store()):
        for folder in reversed(folders(claim)):
            if (path := store / folder / name).exists():
                return read(path)
    return None


def folders(claim: str) -> list[str]:
    """Where records of a claim may lie: in the folder of its former name too, which its present one hides."""
    return [*(former for former, present in FORMER_CLAIMS.items() if present == claim), claim]


def all_records(claim: str = "*") -> list[Record]:
    """Every record of a claim (or of all), local ones hiding the committed ones of the same name."""
    paths: dict[tuple[str, str], Path] = {}
    for store in (reference_store(), local_store()):
        files = {path for folder in folders(claim) for path in store.glob(f"{folder}/*.json")}
        for path in sorted(files, key=lambda path: (path.parent.name not in FORMER_CLAIMS, path)):
            if path.parent != local_store():
                paths[FORMER_CLAIMS.get(path.parent.name, path.parent.name), path.name] = path
    return [read(path) for _, path in sorted(paths.items())]
