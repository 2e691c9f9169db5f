from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from firsttoken import models
from firsttoken.models import LanguageModel


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several processes the tests of a file stay together, which share models, and so do those of the book."""
    for item in items:
        group = "book" if "html" in getattr(item, "fixturenames", ()) else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Waking threads for matrices this small takes longer than the products."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache folder that this test shares with no other."""
    monkeypatch.setenv("FIRSTTOKEN_CACHE", str(tmp_path / "cache"))


@cache
def _loaded(name: str) -> LanguageModel:
    return models.load(name, device="cpu")


@pytest.fixture
def bundled() -> Iterator[Callable[[str], LanguageModel]]:
    """A bundled model by its name, loaded once for all tests; each must leave it without hooks."""
    asked: list[LanguageModel] = []

    def one(name: str) -> LanguageModel:
        asked.append(_loaded(name))
        return asked[-1]

    yield one
    for lm in asked:
        if "model" in vars(lm):
            left = [name for name, part in lm.model.named_modules() if part._forward_hooks or part._forward_pre_hooks]
            assert not left, f"hooks left on {lm.name}"
