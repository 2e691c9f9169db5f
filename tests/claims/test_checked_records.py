"""Committed records of real models say what the check of the model showed and which tokens were read first."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from pathlib import Path

import pytest

from firsttoken import claims, models
from firsttoken.book import page
from firsttoken.claims import verify
from firsttoken.models import gguf_conversion
from firsttoken.records import Record, find, reusable


def test_every_committed_record_of_a_bundled_model_was_checked() -> None:
    records = [record for record in verify.committed() if record.claim in claims.names()]
    assert len(records) >= 35
    for record in records:
        assert record.provenance["model"]["weights"] == {"checked": True}, record.filename
        check = record.provenance["check"]
        assert check["logits"] < 1e-3
        assert check["attention"] < 1e-3
        assert check["causal"]
        assert len(record.provenance["first_tokens"]) == 3
        shown = page.provenance(record.claim, {}, [record]).html
        assert "every parameter came from the file" in shown
        assert escape(repr(record.provenance["first_tokens"][1])) in shown


def test_a_record_without_a_check_is_shown_as_unchecked() -> None:
    record = next(iter(verify.committed("sink_rates")))
    bare = {name: value for name, value in record.provenance.items() if name not in ("check", "first_tokens")}
    bare["model"] = {name: value for name, value in bare["model"].items() if name != "weights"}
    shown = page.provenance("sink_rates", {}, [replace(record, provenance=bare)])
    assert "not checked" in shown.text


def test_a_record_made_with_a_models_own_code_says_so() -> None:
    record = next(iter(verify.committed("sink_rates")))
    own = record.provenance["model"] | {"code": "its own"}
    shown = page.provenance("sink_rates", {}, [replace(record, provenance=record.provenance | {"model": own})])
    assert "its own, which came with it" in shown.text
    aside = record.provenance["model"] | {"code_left_aside": "true"}
    shown = page.provenance("sink_rates", {}, [replace(record, provenance=record.provenance | {"model": aside})])
    assert "the code that came with it was not run" in shown.text
    assert "came with it" not in page.provenance("sink_rates", {}, [record]).text


def test_committed_records_answer_for_the_rules_that_gguf_files_are_read_by_now(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path))
    monkeypatch.delenv("FIRSTTOKEN_MEASURE_HERE", raising=False)
    lm = models.load("smollm2-135m")
    assert lm.provenance()["conversion"] == "3"

    def answer() -> Record | None:
        record = find("sink_rates", "smollm2-135m")
        assert record is not None
        return reusable(
            "sink_rates", lm, record.parameters, record.provenance["texts_hash"], record.version, record.variant
        )

    assert answer() is not None
    monkeypatch.setattr(gguf_conversion, "RULES", "4")
    assert answer() is None
