"""Records as a tidy table, one row for each estimate: for figures, CSV files and whoever asks another question."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from firsttoken.errors import FirstTokenError
from firsttoken.records.record import Record
from firsttoken.records.store import all_records

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("claim", "model", "variant", "path", "value", "low", "high", "n", "version", "measured")


def frame(claim: str) -> pd.DataFrame:
    """Every estimate of a claim's records, this machine's own hiding the committed ones of the same name.

    The columns are those of `COLUMNS`: `path` is where in the record's values the estimate stands, names and places of
    lists joined by dots, as `by_layer.mass.3`; `low` and `high` are the ends of its 95 % interval and `n` is over how
    many units it was taken; `measured` is the day and time in UTC.

    Raises `FirstTokenError` for a claim without a record.
    """
    measured = all_records(claim)
    if not measured:
        raise FirstTokenError(f"There is no record of '{claim}'; run its chapter, or look in results/ for the names.")
    return table_of(measured)


def table_of(records: Iterable[Record]) -> pd.DataFrame:
    """The estimates of these records, in the columns of `frame`."""
    # Whoever only reads or writes records needs no pandas.
    import pandas as pd

    rows = [
        {
            "claim": record.claim,
            "model": record.model,
            "variant": record.variant,
            "path": path,
            **{name: estimate[name] for name in ("value", "low", "high", "n")},
            "version": record.version,
            "measured": record.provenance.get("time", ""),
        }
        for record in records
        for path, estimate in estimates(record.values)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def estimates(values: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each estimate inside the values of a record with its path, in the order of the record."""
    if isinstance(values, Mapping):
        if {"value", "low", "high", "n"} <= values.keys():
            yield path, values
        entries = values.items()
    elif isinstance(values, list):
        entries = {str(place): value for place, value in enumerate(values)}.items()
    else:
        return
    for name, value in entries:
        yield from estimates(value, f"{path}.{name}" if path else name)
