from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def new_cache(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Make a folder a cache that holds nothing but tokenised corpora, and those are shared by all tests: they take
    longer to make than a run of the budget `smoke` takes to train on them."""
    corpora = tmp_path_factory.mktemp("corpora")

    def at(folder: Path) -> Path:
        folder.mkdir(parents=True)
        (folder / "corpora").symlink_to(corpora, target_is_directory=True)
        return folder

    return at


@pytest.fixture
def store(tmp_path: Path, new_cache: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of records and a cache that this test shares with no other, corpora apart; runs take one thread."""
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("FIRSTTOKEN_CACHE", str(new_cache(tmp_path / "cache")))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path
