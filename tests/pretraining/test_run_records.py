"""What the chapters on pretraining do with the records of runs, made up here; and once in earnest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest

from firsttoken import claims, files, records
from firsttoken.book import chapters
from firsttoken.claims.context_length import measure as context_length
from firsttoken.claims.emergence import measure as emergence
from firsttoken.claims.packing import measure as packing
from firsttoken.errors import FirstTokenError
from firsttoken.pretraining import run_records, train
from firsttoken.pretraining.packing import Packing
from firsttoken.pretraining.run_spec import Training
from firsttoken.records import Record, Verdict, paper_numbers, store
from made_runs import ran, stores_below


@pytest.fixture(autouse=True)
def own_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores_below(tmp_path, monkeypatch)


def test_nothing_trained_is_no_record() -> None:
    for chapter in (context_length, packing, emergence):
        assert chapter.MEASUREMENT.record(chapter.Parameters(budget="gpu")) is None
    assert run_records.shown("context_length") == []


def test_smoke_is_shown_only_to_who_asks_and_has_no_verdict() -> None:
    ran(context_length.training("smoke", "never", 64), 0.1)
    ran(context_length.training("smoke", "never", 128), 0.9)
    record = context_length.MEASUREMENT.record(context_length.Parameters(budget="smoke"))
    assert record is not None
    assert record.verdict == Verdict(
        "inconclusive", "A smoke run tests the machinery; it is too short to say anything."
    )
    assert run_records.shown("context_length") == []
    assert run_records.shown("context_length", "smoke") == [record]
    with pytest.raises(FirstTokenError, match="no budget 'tiny'"):
        run_records.shown("context_length", "tiny")


@pytest.mark.parametrize("claim", ["context_length", "packing", "emergence"])
def test_a_smoke_run_says_nothing_whatever_it_shows(claim: str) -> None:
    committed = records.read(files.ROOT / "results" / claim / "cpu-budget.json")
    said = claims.verdict(committed)
    assert said == committed.verdict
    smoke = claims.verdict(replace(committed, parameters={**committed.parameters, "budget": "smoke"}))
    assert smoke is not None
    assert smoke.sentence.startswith("A smoke run")
    assert smoke != said


@pytest.mark.parametrize("chapter", [context_length, packing, emergence])
def test_the_committed_chapter_is_used_while_its_runs_are_the_same(
    chapter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is put together again from the committed runs, until one of them is another run."""
    monkeypatch.delenv("FIRSTTOKEN_MEASURE_HERE", raising=False)
    monkeypatch.setattr(store, "reference_store", lambda: files.ROOT / "results")
    committed = records.read(files.ROOT / "results" / chapter.CLAIM / "cpu-budget.json")
    asked = chapter.Parameters(budget="cpu", seeds=committed.parameters["seeds"])
    assert chapter.MEASUREMENT.record(asked) == committed
    assert not (tmp_path / "local").exists()
    run = run_records.behind([committed])[0]
    records.write(replace(run, provenance={**run.provenance, "time": "2027-01-01T00:00:00Z"}))
    again = chapter.MEASUREMENT.record(asked)
    assert again is not None
    assert again.values == committed.values
    assert again.provenance["model"]["fingerprint"] != committed.provenance["model"]["fingerprint"]
    assert records.read(tmp_path / "local" / chapter.CLAIM / "cpu-budget.json") == again


def test_a_run_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []

    def measure(training: Training, fresh: bool) -> Record:
        if training.packing.length == 128:
            raise FirstTokenError("Out of memory: give a shorter context.")
        done.append(training.packing.length)
        return ran(training, 0.5)

    monkeypatch.setattr(train, "measure", measure)
    with pytest.raises(FirstTokenError, match=r"smoke-causal-bos-never-t128: Out of memory"):
        run_records.runs_of([Training("smoke", Packing(length)) for length in (64, 128, 256)], train=True)
    assert done == [64, 256]


@pytest.mark.parametrize("chapter", ["context_length", "packing", "emergence"])
def test_a_chapter_runs_from_nothing_at_the_budget_smoke(
    chapter: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In earnest: tokenise, train every run, measure, draw."""
    shared = tmp_path_factory.getbasetemp() / "smoke"
    monkeypatch.setenv("FIRSTTOKEN_CACHE", str(shared))
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path / "local"))
    values = chapters.choose({"budget": "smoke"}, [chapter])[chapter]
    out = chapters.run_chapter(chapter, values, tmp_path / f"{chapter}.ipynb")
    content = nbformat.read(out, as_version=4)
    text = "".join(str(cell.get("outputs", "")) for cell in content.cells)
    assert "inconclusive (smoke-budget)" in text
    assert (tmp_path / "local" / chapter / "smoke-budget.json").exists()
    runs = records.read(tmp_path / "local" / chapter / "smoke-budget.json").values["runs"]
    trained = {path.stem for path in (tmp_path / "local" / "pretraining").glob("*.json")}
    assert trained == set(runs)
    assert len(runs) >= 4


def test_packing_of_the_papers_size_trains_on_as_many_tokens_as_the_paper() -> None:
    of_paper = paper_numbers.paper()
    assert {one.settings().tokens for one in packing.trainings("paper")} == {of_paper["packing_tokens"]["value"]}
    assert {one.settings().tokens for one in context_length.trainings("paper")} == {
        of_paper["context_length"]["tokens"]
    }
    assert all(one.tokens is None for one in packing.trainings("cpu"))
