"""Every stored verdict is what its claim's rule says of the stored record today."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from firsttoken import claims, records
from firsttoken.records import Record

NO_CLAIM = {
    "benchmark_press",
    "benchmark_pretrain",
    "benchmark_probe",
    "benchmark_skipping",
    "benchmark_streaming",
    "pretraining",
}


def committed() -> list[Record]:
    paths = sorted(records.reference_store().glob("*/*.json"))
    return [records.read(path) for path in paths if path.parent.name != "local"]


def judged() -> list[Any]:
    return [pytest.param(r, id=f"{r.claim}/{r.filename}") for r in committed() if r.verdict is not None]


def test_the_committed_verdicts_are_all_there() -> None:
    assert len(judged()) >= 29
    assert {parameter.values[0].claim for parameter in judged()} == set(claims.names())


@pytest.mark.parametrize("record", judged())
def test_the_stored_verdict_is_todays(record: Record) -> None:
    assert claims.verdict(record) == record.verdict


def test_a_record_without_a_verdict_is_a_variant_or_about_no_claim() -> None:
    for record in committed():
        if record.verdict is None:
            assert record.variant or record.claim in NO_CLAIM, record.filename
            assert claims.verdict(record) is None


def test_judging_needs_no_torch() -> None:
    """The board, and whoever edits a rule, judge every record at once."""
    code = (
        "import sys\nfrom firsttoken import claims, records\n"
        "given = [verdict for record in records.all_records() if (verdict := claims.verdict(record))]\n"
        "print(len(given), 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    count, torch = out.split()
    assert int(count) >= 29
    assert torch == "False"


@pytest.mark.parametrize("name", [name for name in claims.names() if claims.claim(name).headline])
def test_a_record_of_an_earlier_version_is_judged_to_decide_nothing(name: str) -> None:
    """It may lie in a reader's own store, beside a board that asks for more than was measured then."""
    record = Record(name, "some-model", {"budget": "cpu", "length": 64}, {}, {})
    judged = claims.verdict(record)
    assert judged is not None
    assert judged.status == "inconclusive"
