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
