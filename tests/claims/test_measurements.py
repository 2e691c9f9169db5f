"""Every measurement of a claim, of models that are given and of models that are trained for it, beside its committed
records: what they say was asked, what they are judged to say, and that they still answer."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from firsttoken import claims, records
from firsttoken.claims import verify
from firsttoken.claims.context_length import lab
from firsttoken.claims.context_length import measure as context_length
from firsttoken.claims.design import measure as design
from firsttoken.claims.design import on_text as design_on_text
from firsttoken.claims.emergence import measure as emergence
from firsttoken.claims.packing import measure as packing
from firsttoken.claims.recipes import measure as recipes
from firsttoken.claims.recipes import on_text as recipes_on_text
from firsttoken.claims.smallest import measure as smallest
from firsttoken.errors import FirstTokenError
from firsttoken.measures.measurement import Measurement
from firsttoken.pretraining.trained import Fixed, TrainedMeasurement
from firsttoken.records import Record, recorded
from firsttoken.records.record import normal

COMMITTED = {
    f"{path.parent.name}/{path.stem}": records.read(path)
    for claim in claims.names()
    for path in sorted((records.reference_store() / claim).glob("*.json"))
}
GIVEN = {
    name: (measurement, record)
    for name, record in COMMITTED.items()
    for measurement in claims.measurements(record.claim)
    if measurement.variant == record.variant
}
# What has to be asked for each committed record of trained models that is no part of another.
ASKED: dict[str, tuple[TrainedMeasurement[Any, Any], Any]] = {
    "context_length/cpu-budget": (context_length.MEASUREMENT, context_length.Parameters(budget="cpu")),
    "context_length/lab-budget": (lab.MEASUREMENT, Fixed()),
    "emergence/cpu-budget": (emergence.MEASUREMENT, emergence.Parameters(budget="cpu", seeds=2)),
    "packing/cpu-budget": (packing.MEASUREMENT, packing.Parameters(budget="cpu", seeds=2)),
    "packing/lab-notes-budget": (packing.MEASUREMENT, packing.Parameters(budget="lab-notes")),
    "smallest/one-head": (smallest.MEASUREMENT, smallest.Parameters()),
    "design/one-head": (design.ONE_HEAD, design.Parameters()),
    "design/one-layer": (design.ONE_LAYER, design.Parameters()),
    "design/lab-budget": (design_on_text.MEASUREMENT, Fixed()),
    "recipes/one-head": (recipes.MEASUREMENT, recipes.Parameters()),
    "recipes/lab-budget": (recipes_on_text.MEASUREMENT, Fixed()),
}
PARTS: dict[str, tuple[TrainedMeasurement[Any, Any], Any]] = {
    name: (part, part.parameters(**record.parameters))
    for name, record in COMMITTED.items()
    for part in (smallest.PART, design.PART, recipes.PART)
    if part.claim == record.claim and record.variant
}
TRAINED = ASKED | PARTS
# What the record on a budget says beside what was asked.
OF_BUDGET = {
    "activation", "batch_tokens", "budget", "compile", "corpus", "heads", "hidden", "layers", "learning_rate",
    "length", "schedule", "seeds", "short", "texts", "tokens", "tokens_per_step", "warmup", "weight_decay", "width",
}  # fmt: skip


def test_a_claim_measures_given_models_or_trains_its_own() -> None:
    for name in claims.names():
        assert bool(claims.measurements(name)) != bool(claims.trained(name)), name
        assert {one.claim for one in (*claims.measurements(name), *claims.trained(name))} == {name}


def test_every_committed_record_has_its_measurement() -> None:
    assert GIVEN.keys() | TRAINED.keys() == COMMITTED.keys()
    assert not GIVEN.keys() & TRAINED.keys()
    # The budget `lab-gpu` has no committed record.
    listed = {id(one) for name in claims.names() for one in claims.trained(name)}
    assert {id(one) for one, _ in ASKED.values()} == listed - {id(context_length.of_budget("lab-gpu"))}


def says(measurement: Measurement | TrainedMeasurement, record: Record) -> None:
    assert (measurement.judge and measurement.judge(record)) == record.verdict
    assert measurement.version == record.version


@pytest.mark.parametrize("name", GIVEN)
def test_a_record_of_a_given_model(name: str) -> None:
    measurement, record = GIVEN[name]
    says(measurement, record)
    assert normal(recorded(measurement.asked(record))) == record.parameters


@pytest.mark.parametrize("name", TRAINED)
def test_a_record_of_trained_models(name: str) -> None:
    (measurement, asked), record = TRAINED[name], COMMITTED[name]
    says(measurement, record)
    models = measurement.models(asked, False, False)
    assert (models.slug, measurement.variant(asked)) == (record.model, record.variant)
    assert normal({**models.told, **measurement.told(asked)}) == record.parameters
    names = {field.name for field in fields(asked)}
    assert names <= record.parameters.keys()
    assert record.parameters.keys() - names <= (OF_BUDGET if "budget" in record.parameters else set())


@pytest.mark.parametrize("name", TRAINED)
def test_a_committed_record_answers_and_nothing_is_trained(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trains(*_: Any, **__: Any) -> Any:
        raise AssertionError("a model is trained")

    monkeypatch.delenv("FIRSTTOKEN_MEASURE_HERE", raising=False)
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path))
    monkeypatch.setattr("firsttoken.pretraining.train.measure", trains)
    for module in (smallest, design, recipes):
        monkeypatch.setattr(module, "train", trains)
    measurement, asked = TRAINED[name]
    assert measurement.record(asked) == COMMITTED[name]
    if "budget" not in COMMITTED[name].parameters:
        assert measurement.record(asked, train=True) == COMMITTED[name]
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_trained_has_no_record_until_it_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path))
    asked = smallest.Parameters(seeds=1, steps=3, settle=0)
    (part, *_) = smallest.parts(asked)
    assert smallest.PART.record(part) is None
    made = smallest.PART.record(part, train=True)
    assert made is not None
    assert made == smallest.PART.record(part)
    assert smallest.MEASUREMENT.record(asked) is None, "most of its parts are missing"
    with pytest.raises(FirstTokenError, match=r"^seeds must be at least 1, not 0"):
        emergence.MEASUREMENT.record(emergence.Parameters(budget="cpu", seeds=0))
    with pytest.raises(FirstTokenError, match="no budget ''"):
        emergence.MEASUREMENT.record(emergence.Parameters())


@pytest.mark.parametrize(
    ("claim", "command"),
    [
        ("smallest", "`firsttoken run smallest -p fresh true`"),
        ("packing", "`firsttoken run packing -p budget cpu -p fresh true`"),
    ],
)
def test_verify_says_how_models_are_trained_first(claim: str, command: str) -> None:
    with pytest.raises(FirstTokenError, match=f"^The models of {claim} must be trained first") as said:
        list(verify.verify(["phenomenon", claim]))
    assert command in str(said.value)
