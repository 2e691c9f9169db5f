"""What a record knows of its own values."""

from __future__ import annotations

from dataclasses import replace

from firsttoken.records import Record

RECORD = Record("claim", "tiny", {}, {}, {})


def test_rows_belong_to_the_layers_that_the_check_saw() -> None:
    hybrid = replace(RECORD, provenance={"check": {"layers": [1, 3]}})
    assert hybrid.layer_numbers(2) == [1, 3]
    assert hybrid.layer_numbers(4) == [0, 1, 2, 3], "a value with a row for every layer"
    assert replace(RECORD, provenance={}).layer_numbers(3) == [0, 1, 2]
    assert replace(RECORD, provenance={"check": {"layers": None}}).layer_numbers(2) == [0, 1]
