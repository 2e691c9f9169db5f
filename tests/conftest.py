from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest
import torch

from firsttoken import models
from firsttoken.files import cache_folder
from firsttoken.models import LanguageModel

BOOK = "tests/book/"


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several processes the tests of a file stay together, which share models, and so do all of the book, which
    is built once."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return BOOK if file.startswith(BOOK) else file

    return ByFile(config, log)


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


@pytest.fixture
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of records that this test shares with no other."""
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session", autouse=True)
def tokenizers_are_read_once() -> Iterator[None]:
    """Reading that of Gemma takes longer than most of what tests ask it. None of them changes a bundled model's."""
    own = LanguageModel.tokenizer
    read: dict[tuple[str, Path], Any] = {}

    def shared(lm: LanguageModel) -> Any:
        if lm.source != "bundled":
            return own.func(lm)
        key = lm.name, cache_folder()
        if key not in read:
            read[key] = own.func(lm)
        return read[key]

    patch = pytest.MonkeyPatch()
    once = cached_property(shared)
    once.__set_name__(LanguageModel, "tokenizer")
    patch.setattr(LanguageModel, "tokenizer", once)
    yield
    patch.undo()


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
