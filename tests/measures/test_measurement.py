"""A measurement: which record answers it, what is measured anew, and from what."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from firsttoken import records
from firsttoken.errors import FirstTokenError
from firsttoken.measures import measurement
from firsttoken.measures.measurement import Measurement
from firsttoken.records import Record, Verdict


@dataclass
class Model:
    slug: str = "tiny"
    longest: int = 100
    runs: list[str] = field(default_factory=list)
    looks: list[str] = field(default_factory=list)

    def provenance(self) -> dict[str, Any]:
        return {"name": self.slug, "fingerprint": "f", "dtype": "float32", "quantisation": "none"}


@dataclass(frozen=True, kw_only=True)
class Parameters:
    length: int = 8
    batch_tokens: int = 64


def run(lm: Model, parameters: Parameters, passages: list[str]) -> dict[str, Any]:
    lm.runs.append("main")
    return {"length": parameters.length, "letters": sum(map(len, passages))}


def run_after(lm: Model, parameters: Parameters, passages: list[str], before: Record) -> dict[str, Any]:
    lm.runs.append("after")
    return {"twice": 2 * before.values["length"]}


MAIN: Measurement[Parameters] = Measurement(
    claim="any",
    parameters=Parameters,
    passages=lambda parameters: ["a" * parameters.length],
    run=run,
    judge=lambda record: Verdict("partly", f"{record.model} {record.parameters['length']}"),
    fit=lambda lm, parameters: replace(parameters, length=min(parameters.length, lm.longest)),
)
AFTER = replace(MAIN, run=run_after, variant="after", given=MAIN, judge=None)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path / "own"))
    monkeypatch.setattr(measurement, "about", lambda lm, *_: lm.looks.append("look") or {"check": "made"})
    return tmp_path


def test_a_record_says_what_was_asked_and_is_used_again(store: Path) -> None:
    lm = Model()
    first = MAIN.record(lm, Parameters(length=5))
    assert first.parameters == {"length": 5}
    assert first.verdict == Verdict("partly", "tiny 5")
    assert MAIN.record(lm, Parameters(length=5, batch_tokens=2)) == first
    assert lm.runs == ["main"]
    assert lm.looks == ["look"]  # a model is checked where it is measured, not where its record is read
    assert first.provenance["check"] == "made"
    MAIN.record(lm, Parameters(length=6))
    MAIN.record(lm, Parameters(length=6), fresh=True)
    assert lm.runs == ["main"] * 3


def test_what_the_model_allows_is_what_is_recorded(store: Path) -> None:
    lm = Model(longest=7)
    record = MAIN.record(lm, Parameters(length=50))
    assert (record.parameters, record.values) == ({"length": 7}, {"length": 7, "letters": 7})
    MAIN.record(lm, Parameters(length=60))
    assert lm.runs == ["main"]


def test_a_measurement_from_another_has_it_made_first_and_once(store: Path) -> None:
    lm = Model()
    record = AFTER.record(lm, Parameters(length=4))
    assert record.values == {"twice": 8}
    assert record.filename == "tiny--after.json"
    assert lm.runs == ["main", "after"]
    MAIN.record(lm, Parameters(length=4))
    AFTER.record(lm, Parameters(length=4))
    assert lm.runs == ["main", "after"]


def test_a_record_that_another_claim_had_made_gets_its_verdict_from_its_own(store: Path) -> None:
    lm = Model()
    # Another claim, which knows the numbers and not the rule.
    other = replace(AFTER, claim="other", given=replace(MAIN, judge=None))
    other.record(lm, Parameters(length=4))
    path = store / "own" / "any" / "tiny.json"
    unjudged = records.read(path)
    assert unjudged.verdict is None
    mine = replace(MAIN, fit=measurement.as_it_is)
    judged = mine.record(lm, Parameters(length=4))
    assert judged == replace(unjudged, verdict=Verdict("partly", "tiny 4")) == records.read(path)
    assert lm.runs == ["main", "after"]
    other.record(lm, Parameters(length=4), fresh=True)
    assert records.read(path).verdict is None
    assert MAIN.record(lm, Parameters(length=4)).verdict is not None, "also where a model may limit the parameters"


def test_a_first_look_lies_apart_and_has_no_verdict(store: Path) -> None:
    lm = Model()
    whole = MAIN.record(lm, Parameters(length=9))
    look = AFTER.record(lm, Parameters(length=3), quick=True)
    assert look.values == {"twice": 6}
    assert look.provenance["quick"] is True
    first = MAIN.record(lm, Parameters(length=3), quick=True)
    assert first.verdict is None
    assert lm.runs == ["main", "main", "after"]
    assert {path.relative_to(store).as_posix() for path in store.rglob("*.json")} == {
        "own/any/tiny.json", "own/quick/any/tiny.json", "own/quick/any/tiny--after.json",
    }  # fmt: skip
    assert MAIN.record(lm, Parameters(length=9)) == whole
    # Nor does a whole measurement answer for a first look, or the other way round.
    MAIN.record(lm, Parameters(length=9), quick=True)
    MAIN.record(lm, Parameters(length=3))
    assert lm.runs[3:] == ["main", "main"]


def test_measuring_again_uses_no_other_store(store: Path) -> None:
    lm = Model()
    record = AFTER.record(lm, Parameters(length=4))
    again = AFTER.again(lm, record, store / "scratch")
    assert again.values == record.values
    assert lm.runs == ["main", "after"] * 2
    assert sorted(path.name for path in (store / "scratch" / "any").iterdir()) == ["tiny--after.json", "tiny.json"]


def test_a_record_with_unknown_parameters_says_which() -> None:
    record = Record("any", "tiny", {"length": 3, "width": 2}, {}, {})
    with pytest.raises(FirstTokenError, match="width"):
        MAIN.asked(record)
    assert MAIN.asked(replace(record, parameters={"length": 3})) == Parameters(length=3)
