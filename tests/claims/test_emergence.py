"""The chapter on emergence: from the records of runs, made up here, to onsets and verdicts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsttoken.claims.emergence import measure as emergence
from made_runs import ran, stores_below


@pytest.fixture(autouse=True)
def own_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores_below(tmp_path, monkeypatch)


def curve(*masses: float) -> list[dict[str, Any]]:
    return [{"step": 10 * i, "BOS+text": {"mass": mass, "loss": 8.0 - i}} for i, mass in enumerate(masses)]


def test_onset_is_the_last_crossing_that_holds() -> None:
    high, low = 2 * emergence.EVEN, emergence.EVEN
    assert emergence.onset(curve(low, high, low, high, high), "BOS+text") == {"step": 30, "loss": 5.0}
    assert emergence.onset(curve(high, high), "BOS+text") == {"step": 0, "loss": 8.0}
    assert emergence.onset(curve(low, high, low), "BOS+text") is None


@pytest.mark.parametrize(
    ("rates", "status"),
    [((0.5, 0.2, 0.3), "reproduced"), ((0.5, 0.2, 0.6), "partly"), ((0.5, 0.6, 0.6), "not reproduced")],
)
def test_verdict_on_emergence(rates: tuple[float, ...], status: str) -> None:
    every = emergence.variants("gpu")
    for training, rate in zip(every.values(), rates, strict=False):
        ran(training, rate)
    record = emergence.MEASUREMENT.record(emergence.Parameters(budget="gpu"))
    assert record is not None
    assert record.verdict is not None
    assert record.verdict.status == status
    missing = [name for name, variant in record.values["variants"].items() if variant is None]
    assert missing == ["weight decay 0.5"]


def test_a_second_seed_of_one_variant_widens_its_row() -> None:
    every = emergence.variants("gpu")
    ran(every["as in the budget"], 0.5)
    ran(every["weight decay 0"], 0.2)
    ran(replace(every["weight decay 0"], seed=1), 0.6)
    record = emergence.MEASUREMENT.record(emergence.Parameters(budget="gpu", seeds=2))
    assert record is not None
    base, other = (record.values["variants"][name] for name in ("as in the budget", "weight decay 0"))
    assert (base["seeds"], other["seeds"]) == (1, 2)
    assert other["sink_rate_0.3"]["value"] == pytest.approx(0.4)
    assert other["sink_rate_0.3"]["low"] < 0.25 < 0.55 < other["sink_rate_0.3"]["high"]
    assert other["run"] == every["weight decay 0"].slug
