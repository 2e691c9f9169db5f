"""Where two records differ, in lines."""

from __future__ import annotations

from firsttoken import records


def test_differences_are_named() -> None:
    ours = {"rate": {"value": 0.5}, "layers": [1.0, 2.0], "name": "a"}
    assert list(records.differences(ours, ours, 1e-6)) == []
    theirs = {"rate": {"value": 0.6}, "layers": [1.0], "name": "b"}
    lines = list(records.differences(ours, theirs, 1e-3))
    assert [line.split(":")[0] for line in lines] == [".layers", ".name", ".rate.value"]
