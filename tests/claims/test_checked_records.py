"""Committed records of real models say what the check of the model showed and which tokens were read first."""

from __future__ import annotations

from dataclasses import replace
from html import escape

from firsttoken import claims
from firsttoken.book import page
from firsttoken.claims import verify


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
