"""Records of training runs that were made up, for the tests of the chapters on pretraining."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from firsttoken import files, records
from firsttoken.pretraining import run_records, train
from firsttoken.pretraining.run_spec import Training
from firsttoken.records import Record, store
from firsttoken.records.record import normal


def stores_below(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a test's records below a folder, beside a reference that holds the paper's numbers alone."""
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(folder / "local"))
    monkeypatch.setattr(store, "reference_store", lambda: folder / "reference")
    real = files.ROOT / "results" / "paper.json"
    (folder / "reference").mkdir()
    (folder / "reference" / "paper.json").write_text(real.read_text())


def estimate(value: float, spread: float = 0.01) -> dict[str, Any]:
    """An estimate as a record holds it."""
    return {"value": value, "low": value - spread, "high": value + spread, "n": 64}


def ran(training: Training, rate: float, missing: float | None = None, harm: float = 0.0) -> Record:
    """A run as if it had given this sink rate; `missing` is that without BOS, `harm` what that adds to the loss."""
    missing = rate if missing is None else missing

    def arm(value: float, loss: float) -> dict[str, Any]:
        numbers = {name: estimate(value) for name in run_records.NUMBERS}
        return {**numbers, "loss": estimate(loss, 0.5), "alpha": [[value, 0.0], [0.1, 0.2]]}

    end = {
        "BOS+text": arm(rate, 3.0),
        "text": arm(missing, 3.0 + harm),
        "missing_bos": {
            "sink_rate_0.3": estimate(missing - rate),
            "mass": estimate(missing - rate),
            "loss": estimate(harm, 0.05),
        },
    }
    curve = [
        {
            "step": step,
            **{
                name: {**dict.fromkeys(run_records.NUMBERS, 0.1 * step), "loss": 8.0 - step}
                for name in ("BOS+text", "text")
            },
        }
        for step in range(4)
    ]
    values = {
        "curve": curve,
        "losses": [[1, 8.0], [3, 5.0]],
        "final": dict.fromkeys(("64", str(training.packing.length)), end),
        "tokens": 3000,
        "tokens_per_second": 1000.0,
        "share_of_matmul_rate": 0.25,
        "windows_shared": 0.5,
    }
    provenance = {"model": training.provenance(), "texts_hash": "abc", "time": "2026-01-01T00:00:00Z"}
    parameters = normal(asdict(training))
    record = Record(train.CLAIM, training.slug, parameters, values, provenance)
    records.write(record)
    return record
