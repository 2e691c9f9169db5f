"""The table of estimates against the JSON that it is read from."""

from __future__ import annotations

import io
import json

import pandas as pd
import pytest

from firsttoken import records
from firsttoken.errors import FirstTokenError
from firsttoken.records.frame import COLUMNS, table_of


def at(values: object, path: str) -> object:
    """What stands at a path of a file that was read with `json` alone."""
    if not path:
        return values
    if isinstance(values, list):
        place, _, rest = path.partition(".")
        return at(values[int(place)], rest)
    assert isinstance(values, dict)
    # Some names hold a dot, such as `sink_rate_0.3`.
    name = max((name for name in values if path == name or path.startswith(f"{name}.")), key=len)
    return at(values[name], path[len(name) + 1 :])


@pytest.mark.parametrize("claim", ["sink_rates", "dose", "perturbation"])
def test_every_row_is_an_estimate_of_the_file_and_every_estimate_a_row(claim: str) -> None:
    table = records.frame(claim)
    assert tuple(table.columns) == COLUMNS
    for (model, variant), rows in table.groupby(["model", "variant"]):
        file = records.reference_store() / claim / records.filename(model, variant)
        text = file.read_text(encoding="utf-8")
        stored = json.loads(text)["values"]
        for row in rows.itertuples():
            estimate = at(stored, row.path)
            assert isinstance(estimate, dict)
            assert (row.value, row.low, row.high, row.n) == tuple(estimate[k] for k in ("value", "low", "high", "n"))
        # Nothing else in a record has a lower end.
        assert len(rows) == text.count('"low":')
        assert rows.path.is_unique


def test_a_table_survives_csv() -> None:
    table = records.frame("sink_rates")
    again = pd.read_csv(io.StringIO(table.to_csv(index=False)), keep_default_na=False)
    pd.testing.assert_frame_equal(again, table, check_dtype=False)


def test_a_record_without_estimates_gives_an_empty_table_with_its_columns() -> None:
    table = table_of([records.Record("phenomenon", "m", {}, {"alpha": [[0.1]], "mass": 0.5}, {})])
    assert tuple(table.columns) == COLUMNS
    assert table.empty


def test_a_claim_without_a_record_is_named() -> None:
    with pytest.raises(FirstTokenError, match="no record of 'nothing'"):
        records.frame("nothing")
