"""Records of an earlier schema: the same numbers under today's names, found, shown and used where they lie."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from firsttoken import claims, files, records
from firsttoken.claims import verify
from firsttoken.claims.sink_position import measure as sink_position
from firsttoken.records import Record, numbers, schema, store
from firsttoken.records.record import normal
from firsttoken.records.reuse import hash_of_texts

RATE = {"value": 0.97, "low": 0.9, "high": 1.0, "n": 16}


class Model:
    """A model, as far as a record knows it."""

    slug = "tiny"

    def provenance(self) -> dict[str, Any]:
        return {"name": "tiny", "fingerprint": "f1", "dtype": "float32", "quantisation": "", "device": "cpu"}


def old_record(claim: str, variant: str, parameters: Mapping[str, Any], texts_hash: str = "abc") -> dict[str, Any]:
    """A record's file as it was written until November 2026."""
    return {
        "claim": claim, "model": "tiny", "parameters": dict(parameters), "schema": 1, "variant": variant, "version": 1,
        "provenance": {"model": Model().provenance(), "texts": texts_hash, "time": "2026-11-25T11:50:18Z"},
        "values": {"first_token_kept": RATE, "texts": 16}, "verdict": {"status": "partly", "sentence": "So so."},
    }  # fmt: skip


# (claim, variant): the parameters that a record of it had, and those that it has.
CASES: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {
    ("removal", "long"): (
        {
            "bos": "auto", "epsilon": 0.3, "length": 4096, "needle_length": 512, "passages": 2, "seed": 0,
            "texts": "long text",
        },
        {"bos": "auto", "epsilon": 0.3, "longest": 4096, "windows": 2, "seed": 0},
    ),
    ("removal", ""): (
        {"bos": "auto", "length": 96, "needle_length": 512, "passages": 16, "texts": "passages"},
        {
            "bos": "auto", "length": 96, "needle_length": 512, "passages": 16, "task_questions": 64,
            "text_source": "passages",
        },
    ),
    ("sink_rates", "length"): (
        {"bos": "auto", "epsilon": 0.8, "length": 8192, "passages": None, "seed": 0, "texts": "long text"},
        {"bos": "auto", "epsilon": 0.8, "longest": 8192, "seed": 0, "sweep_tokens": 8192},
    ),
    ("sink_rates", "bos"): (
        {"bos": "all", "epsilon": 0.8, "length": 64, "passages": 170, "seed": 0, "texts": "passages"},
        {"bos": "auto", "epsilon": 0.8, "length": 64, "passages": 170, "seed": 0, "text_source": "passages"},
    ),
    ("smoothing", ""): (
        {
            "length": 64, "longest": None, "maps": 3, "passages": 24, "seed": 0, "texts": "mine.txt", "windows": None,
        },
        {"text_tokens": 64, "maps": 3, "passages": 24, "seed": 0, "text_source": "mine.txt"},
    ),
    ("smoothing", "length"): (
        {"longest": 4096, "seed": 0, "windows": 4},
        {"longest_text_tokens": 4096, "seed": 0, "windows": 4},
    ),
    ("kv_cache", ""): (
        {"bos": "auto", "length": 640, "needle_length": 512, "seed": 0, "stream": None, "window": 128, "windows": 6},
        {"bos": "auto", "length": 640, "needle_length": 512, "seed": 0, "window": 128, "windows": 6},
    ),
    ("kv_cache", "stream"): (
        {"bos": "auto", "seed": 0, "stream": 10000, "window": 128},
        {"bos": "auto", "seed": 0, "stream": 10000, "window": 128},
    ),
    ("perturbation", ""): (
        {"bos": "both", "length": 64, "text": "", "texts": "passages"},
        {"bos": "both", "text_tokens": 64, "text": "", "text_source": "passages"},
    ),
    ("jacobian", ""): (
        {"length": 96, "sources": 2, "texts": "passages"}, {"text_tokens": 96, "sources": 2, "text_source": "passages"}
    ),
    ("theory", ""): (
        {"bound_length": 32, "length": 64, "texts": "passages"},
        {"bound_text_tokens": 32, "text_tokens": 64, "text_source": "passages"},
    ),
    ("robustness", ""): (
        {"length": 64, "suffix": 3, "texts": "passages"},
        {"text_tokens": 64, "noise_seeds": 3, "suffix": 3, "text_source": "passages"},
    ),
    ("phenomenon", ""): ({"length": 24, "text": "A text."}, {"length": 24, "text": "A text."}),
    ("where", ""): (
        {"epsilon": 0.3, "length": 64, "passages": 16, "seed": 0, "texts": "passages"},
        {"epsilon": 0.3, "length": 64, "passages": 16, "seed": 0, "text_source": "passages"},
    ),
    ("context_length", ""): ({"budget": "cpu", "texts": 64}, {"budget": "cpu", "texts": 64}),
    ("pretraining", ""): ({"packing": {"length": 64}, "seed": 0}, {"packing": {"length": 64}, "seed": 0}),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "parameters"), CASES.items(), ids=["--".join(kind).strip("-") for kind in CASES])
def test_parameters_get_their_own_names(
    kind: tuple[str, str], parameters: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    before, after = parameters
    old = old_record(*kind, before)
    untouched = json.dumps(old)
    new = schema.to_present(old)
    assert json.dumps(old) == untouched, "what was read is not changed"
    assert new["parameters"] == after
    assert new["schema"] == schema.SCHEMA
    assert new["claim"] == {"where": "sink_position"}.get(kind[0], kind[0])
    assert new["provenance"] == {"texts_hash" if k == "texts" else k: v for k, v in old["provenance"].items()}
    for name in ("model", "values", "variant", "verdict", "version"):
        assert new[name] == old[name], name
    assert schema.to_present(new) == new


@pytest.mark.parametrize("number", [1, 2])
def test_what_could_not_decide_is_called_inconclusive(number: int) -> None:
    old = old_record("scale", "", {}) | {"schema": number}
    for status, now in (("not measured", "inconclusive"), ("not reproduced", "not reproduced")):
        new = schema.to_present(old | {"verdict": {"status": status, "sentence": "Why."}})
        assert new["verdict"] == {"status": now, "sentence": "Why."}
    assert schema.to_present(old | {"verdict": None})["verdict"] is None


@pytest.mark.parametrize("kind", schema.RENAMED, ids=lambda kind: "--".join(kind).strip("-"))
def test_a_length_without_bos_is_called_so(kind: tuple[str, str], tmp_path: Path) -> None:
    """In records of the schema before; of another claim or variant a parameter of that name is another thing."""
    names = schema.RENAMED[kind]
    former = old_record(*kind, dict.fromkeys(names, 32) | {"seed": 0}) | {"schema": 3}
    present = dict.fromkeys(names.values(), 32) | {"seed": 0}
    assert schema.to_present(former) == former | {"parameters": present, "schema": schema.SCHEMA}
    assert store.read(put(tmp_path, former)).parameters == present
    assert schema.to_present(former | {"claim": "no_op"})["parameters"] == former["parameters"]
    (measurement,) = (one for one in claims.measurements(kind[0]) if one.variant == kind[1])
    assert set(names.values()) <= {field.name for field in fields(measurement.parameters)}
    assert all(name.endswith("text_tokens") for name in names.values())


def test_what_is_of_another_schema_stays() -> None:
    for other in (
        {"schema": schema.SCHEMA, "claim": "where"},
        {"schema": 0, "claim": "where"},
        {"claim": "where"},
        {},
    ):
        assert schema.to_present(other) == other


@pytest.mark.parametrize("kind", schema.ADDED, ids="--".join)
def test_a_parameter_that_came_later_has_the_value_of_earlier_records(kind: tuple[str, str], tmp_path: Path) -> None:
    """Its default, under which nothing else is measured than before; a record that says it keeps what it says."""
    claim, variant = kind
    measurement = next(one for one in claims.measurements(claim) if one.variant == variant)
    defaults = {field.name: field.default for field in fields(measurement.parameters)}
    added = schema.ADDED[kind]
    assert added == {name: defaults[name] for name in added}
    earlier = old_record(claim, variant, {"seed": 0}) | {"schema": schema.SCHEMA}
    assert schema.to_present(earlier)["parameters"] == {"seed": 0, **added}
    asked = {**added, next(iter(added)): "as asked"}
    assert schema.to_present(earlier | {"parameters": asked})["parameters"] == asked
    path = put(tmp_path, earlier)
    assert store.read(path).parameters == {"seed": 0, **added}
    assert schema.rewrite(tmp_path) == [path]
    assert schema.rewrite(tmp_path) == []


def test_a_record_that_lacks_a_parameter_can_be_read() -> None:
    new = schema.to_present(old_record("removal", "long", {"length": 4096, "seed": 0}))
    assert new["parameters"] == {"longest": 4096, "seed": 0}


# -- stores -------------------------------------------------------------------------------------------------


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local store of its own beside an empty reference."""
    monkeypatch.setattr(store, "reference_store", lambda: tmp_path / "results")
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path / "local"))
    monkeypatch.delenv("FIRSTTOKEN_MEASURE_HERE", raising=False)
    return tmp_path / "local"


def put(folder: Path, content: dict[str, Any]) -> Path:
    """Write a record's file by hand, as an earlier version did."""
    name = "--".join(filter(None, (content["model"], content["variant"])))
    path = folder / content["claim"] / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_a_local_record_of_a_renamed_claim_is_found_shown_and_reused(local: Path) -> None:
    parameters = sink_position.Parameters()
    old = old_record("where", "", CASES["where", ""][0], hash_of_texts(sink_position.passages(parameters)))
    put(local, {**old, "version": sink_position.MEASUREMENT.version})
    record = records.find("sink_position", "tiny")
    assert record is not None
    assert record.claim == "sink_position"
    assert record.values == old["values"]
    assert records.all_records("sink_position") == records.all_records() == [record]
    assert numbers.quote("sink_position.tiny.first_token_kept:.0%").text == "97%"
    assert sink_position.MEASUREMENT.record(Model(), parameters) == record
    assert not (local / "sink_position").exists(), "nothing was measured"


def test_a_local_record_of_long_texts_is_found_shown_and_reused(local: Path) -> None:
    measurement = next(m for m in claims.measurements("removal") if m.variant == "long")
    parameters = measurement.parameters()
    given = records.recorded(parameters)
    before = {"length": given["longest"], "passages": given["windows"], "needle_length": 512, "texts": "long text"}
    before |= {name: given[name] for name in ("bos", "epsilon", "seed")}
    old = old_record("removal", "long", before, hash_of_texts(measurement.passages(parameters)))
    path = put(local, {**old, "version": measurement.version})
    record = records.find("removal", "tiny", "long")
    assert record is not None
    assert record.parameters == given
    assert records.all_records("removal") == [record]
    assert numbers.quote("removal.tiny--long.first_token_kept:.0%").text == "97%"
    assert measurement.record(Model(), parameters) == record
    assert json.loads(path.read_text())["schema"] == 1, "nothing was measured"


def test_a_newer_record_hides_the_one_of_the_former_name(local: Path) -> None:
    path = put(local, old_record("where", "", CASES["where", ""][0]))
    new = Record("sink_position", "tiny", {}, {"first_token_kept": {**RATE, "value": 0.5}}, {})
    records.write(new)
    assert records.find("sink_position", "tiny") == new
    assert records.all_records() == [new]
    assert schema.rewrite(local) == []
    assert path.exists()
    assert records.find("sink_position", "tiny") == new


def test_a_store_is_rewritten_once(local: Path) -> None:
    for (claim, variant), (before, _) in CASES.items():
        put(local, old_record(claim, variant, before))
    before_it = records.all_records()
    notes = local / "notes" / "list.json"  # not a record
    notes.parent.mkdir()
    notes.write_text("[1]")
    assert {path.parent.name for path in schema.rewrite(local)} == {record.claim for record in before_it}
    assert schema.rewrite(local) == []
    assert notes.read_text() == "[1]"
    assert not (local / "where" / "tiny.json").exists()
    notes.unlink()
    assert records.all_records() == before_it


# -- what is committed --------------------------------------------------------------------------------------


def committed() -> list[Path]:
    return sorted(path for path in (files.ROOT / "results").glob("*/*.json") if path.parent.name != "local")


@pytest.mark.parametrize("path", committed(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_committed_record_is_of_todays_schema_and_asks_what_its_claim_can_ask(path: Path) -> None:
    assert json.loads(path.read_text(encoding="utf-8"))["schema"] == schema.SCHEMA
    record = records.read(path)
    assert (record.claim, record.filename) == (path.parent.name, path.name)
    assert "texts" not in record.provenance
    if (measurement := verify.measurement_of(record)) is not None:
        assert normal(records.recorded(measurement.asked(record))) == record.parameters
