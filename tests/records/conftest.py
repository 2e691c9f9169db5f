from __future__ import annotations

from pathlib import Path

import pytest

from firsttoken.records import store


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A reference and a local store of their own."""
    reference, local = tmp_path / "results", tmp_path / "results" / "local"
    monkeypatch.setattr(store, "ROOT", tmp_path)
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(local))
    monkeypatch.delenv("FIRSTTOKEN_MEASURE_HERE", raising=False)
    return reference, local
