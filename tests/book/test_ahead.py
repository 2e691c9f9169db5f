"""Measuring before the notebooks run: one load for all chapters, records that they find, and what goes wrong."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from firsttoken import models, records
from firsttoken.book import ahead, chapters
from firsttoken.book.ahead import Ahead
from tiny import tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model with the tokenizer of a real one."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tokenizer = models.load("smollm2-135m").tokenizer
    model = tiny_model("llama")
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def values(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path / "results"))
    return {"model": str(folder), "device": "cpu", "quick": True}


def test_a_model_is_loaded_once_for_all_chapters(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    load_all = models.load_all
    monkeypatch.setattr(models, "load_all", lambda *given, **more: loads.append(given) or load_all(*given, **more))
    ahead._loaded.cache_clear()
    for chapter in ("phenomenon", "smoothing"):
        assert ahead._measure(chapter, values, ahead.ROOT)
    assert len(loads) == 1
    assert not ahead._measure("packing", {}, ahead.ROOT), "its models are trained in the chapter"


def test_the_notebook_finds_what_was_measured(values: dict[str, Any], tmp_path: Path) -> None:
    with Ahead() as process:
        assert process.measure("phenomenon", {**values, "fresh": True})
        path, passages = sorted(records.store.quick_store().glob("phenomenon/*.json"), key=lambda one: len(one.name))
        assert passages.stem == f"{path.stem}--passages"
        before = path.stat().st_mtime_ns
        out, following = tmp_path / "page.ipynb", ("smoothing", values)
        page = chapters.run_chapter("phenomenon", {**values, "fresh": True}, out, ahead=process, following=following)
        assert process._begun == following
        assert process.measure(*following)
    assert path.stat().st_mtime_ns > before, "measured anew, because that was asked for"
    assert page.read_text().count("a first look") >= 2  # in the verdict's box and at the foot
    measured = records.read(path)
    assert measured.provenance["quick"]


def test_each_chapter_is_told_which_one_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    monkeypatch.setattr(chapters, "run_chapter", lambda *given: told.append((given[0], given[-1])) or given[2])
    chapters.run_chapters([("one", {"seed": 1}, None), ("two", {"seed": 2}, None)])
    assert told == [("one", ("two", {"seed": 2})), ("two", None)]


def test_what_was_begun_is_waited_for_once_and_no_answer_is_taken_for_another(values: dict[str, Any]) -> None:
    with Ahead() as process:
        process.begin("not_a_claim", values)
        process.begin("phenomenon", {**values, "model": "/no/such/model"})
        assert process.measure("phenomenon", values), "the answer to another question"
        process.begin("phenomenon", {**values, "fresh": True})
        assert process.measure("phenomenon", {**values, "fresh": True})
        (main, *_) = sorted(records.store.quick_store().glob("phenomenon/*.json"), key=lambda one: len(one.name))
        before = main.stat().st_mtime_ns
        process.begin("phenomenon", values)
        os.kill(process._process.pid, signal.SIGKILL)
        assert not process.measure("phenomenon", values)
        assert process.measure("phenomenon", values)
        assert main.stat().st_mtime_ns == before


def test_a_process_that_was_ended_leaves_the_next_chapter_unharmed(values: dict[str, Any]) -> None:
    with Ahead() as process:
        assert process.measure("phenomenon", values)
        os.kill(process._process.pid, signal.SIGKILL)
        process._process.join()
        assert not process.measure("phenomenon", values)
        assert process.measure("phenomenon", values)
        alive = process._process
    assert not alive.is_alive()


def test_what_cannot_be_measured_is_left_to_the_notebook(values: dict[str, Any]) -> None:
    with Ahead() as process:
        assert not process.measure("phenomenon", {**values, "model": "/no/such/model"})
        assert not process.measure("not_a_claim", values)
