"""Every stored verdict is what its claim's rule says of the stored values today."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from firsttoken import records
from firsttoken.claims.context_length import measure as context_length
from firsttoken.claims.emergence import measure as emergence
from firsttoken.claims.jacobian import measure as jacobian
from firsttoken.claims.kv_cache import measure as kv_cache
from firsttoken.claims.no_op import measure as no_op
from firsttoken.claims.packing import measure as packing
from firsttoken.claims.perturbation import measure as perturbation
from firsttoken.claims.phenomenon import measure as phenomenon
from firsttoken.claims.quantisation import measure as quantisation
from firsttoken.claims.removal import measure as removal
from firsttoken.claims.robustness import measure as robustness
from firsttoken.claims.scale import measure as scale
from firsttoken.claims.sink_rates import measure as sink_rates
from firsttoken.claims.smoothing import measure as smoothing
from firsttoken.claims.theory import measure as theory
from firsttoken.claims.where import measure as where
from firsttoken.measures import first_token_summary
from firsttoken.records import Record, Verdict

JUDGES: dict[str, Callable[[Record], Verdict]] = {
    "context_length": lambda record: context_length.judge(record.values),
    "emergence": lambda record: emergence.judge(record.values),
    "jacobian": lambda record: jacobian.judge(record.values),
    "kv_cache": lambda record: kv_cache.judge(record.values),
    "no_op": lambda record: no_op.judge(record.model, record.values),
    "packing": lambda record: packing.judge(record.values),
    "perturbation": lambda record: perturbation.judge(record.values),
    "phenomenon": lambda record: phenomenon.judge(phenomenon.Phenomenon(**record.parameters), record.values),
    "quantisation": lambda record: quantisation.judge(record.values),
    "removal": lambda record: removal.judge(record.model, record.values),
    "robustness": lambda record: robustness.judge(record.values),
    "scale": lambda record: scale.judge(
        record.model, first_token_summary.SinkRates(**record.parameters), record.values
    ),
    "sink_rates": lambda record: sink_rates.judge(
        record.model, first_token_summary.SinkRates(**record.parameters), record.values
    ),
    "smoothing": lambda record: smoothing.judge(record.values),
    "theory": lambda record: theory.judge(record.values),
    "where": lambda record: where.judge(record.values),
}


def judged() -> list[Any]:
    paths = sorted(records.reference_store().glob("*/*.json"))
    found = [records.read(path) for path in paths if path.parent.name != "local"]
    return [pytest.param(r, id=f"{r.claim}/{r.filename}") for r in found if r.verdict is not None]


def test_the_committed_verdicts_are_all_there() -> None:
    assert len(judged()) >= 29
    assert {parameter.values[0].claim for parameter in judged()} == set(JUDGES)


@pytest.mark.parametrize("record", judged())
def test_the_stored_verdict_is_todays(record: Record) -> None:
    assert JUDGES[record.claim](record) == record.verdict
