"""What a notebook's parameters become: read once, by keyword, former names included."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from firsttoken import claims
from firsttoken.book import chapters
from firsttoken.book.notebook import Notebook
from firsttoken.claims.dose import measure as dose
from firsttoken.claims.sink_rates import measure as sink_rates
from firsttoken.files import slug
from firsttoken.models.family import FAMILY
from firsttoken.parameters import FORMER


@dataclass(frozen=True, kw_only=True)
class Parameters:
    text_tokens: int = 8
    seed: int = 0
    untouched: float = 0.5


def test_parameters_are_what_the_notebook_has_named_so_far() -> None:
    names = {"text_tokens": 12, "seed": 3, "fresh": True, "_i1": "code", "In": [], "quit": print, "layer": None}
    chapter = Notebook("any", names)
    names["seed"] = 9
    assert chapter.asked == {"text_tokens": 12, "seed": 3, "fresh": True, "layer": None}
    assert chapter.parameters(Parameters) == Parameters(text_tokens=12, seed=3)
    assert chapter.fresh


def test_a_former_name_that_papermill_injected_is_taken(capsys: pytest.CaptureFixture) -> None:
    chapter = Notebook("any", {"text_tokens": 64, "length": 12})
    assert chapter.parameters(Parameters).text_tokens == 12
    assert "length is called text_tokens now" in capsys.readouterr().out
    assert Notebook("any", {"length": 12}).asked == {"length": 12}


def test_a_first_look_asks_for_less_and_never_for_more() -> None:
    asked = {"passages": 170, "longest": 0, "length": 64, "quick": True, "text": "", "layer": None}
    most = claims.claim("sink_rates").quick
    chapter = Notebook("sink_rates", asked)
    assert chapter.asked == asked | {"passages": most["passages"]}
    assert chapter.quick
    assert Notebook("sink_rates", asked | {"quick": False}).asked["passages"] == 170


@pytest.mark.parametrize("name", claims.names())
def test_a_chapter_that_measures_a_model_has_a_first_look(name: str) -> None:
    declared = chapters.parameters(name)
    assert ("quick" in declared) == ("model" in declared) == bool(claims.measurements(name))
    for parameter, most in claims.claim(name).quick.items():
        assert most < declared[parameter].value or declared[parameter].value == 0


@pytest.mark.parametrize("name", claims.names())
def test_every_parameter_of_a_measurement_can_be_chosen_in_its_chapter(name: str) -> None:
    declared = chapters.parameters(name)
    # These count the BOS token elsewhere.
    assert not (set(FORMER) - {"length", "longest"}) & set(declared)
    assert not [former for former, present in FORMER.items() if {former, present} <= set(declared)]
    for measurement in claims.measurements(name):
        asked = set(measurement.parameters.__dataclass_fields__)
        # `scale` reports the two thresholds that papers use, whatever epsilon is.
        asked -= {"epsilon"} if name == "scale" else set()
        assert asked <= set(declared), f"{measurement.variant or 'main'}: {sorted(asked - set(declared))}"


def test_the_published_book_shows_optional_models_beside_those_it_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their committed records, and only where the chapter's own question is asked."""
    declared = {name: one.value for name, one in chapters.parameters("sink_rates").items()}
    chapter = Notebook("sink_rates", declared)
    asked = {lm.slug for lm in chapter.models}
    shown = chapter.records(sink_rates.MEASUREMENT)
    beside = [record for record in shown if record.model not in asked]
    assert [record.model for record in chapter.own(shown)] == [lm.slug for lm in chapter.models]
    assert [record.model for record in beside] == [slug(name) for name in FAMILY]
    assert all(record.provenance["bos_native"] is False for record in beside)
    other = Notebook("sink_rates", declared | {"length": 32})
    assert not other.asks_as_published
    assert Notebook("sink_rates", declared | {"dtype": "bfloat16", "batch_tokens": 64}).asks_as_published
    old = replace(sink_rates.MEASUREMENT, version=sink_rates.MEASUREMENT.version + 1)
    assert chapter.beside(old) == []


def test_what_is_stored_is_shown_without_measuring() -> None:
    declared = {name: one.value for name, one in chapters.parameters("dose").items()}
    models = ["smollm2-135m", "gemma3-270m"]
    shown = Notebook("dose", declared).stored(dose.GAINS)
    assert [record.model for record in shown] == [*models, "qwen2-5-coder-0-5b"]
    assert {record.variant for record in shown} == {"gains"}
    other = Notebook("dose", declared | {"length": 32})
    assert [record.model for record in other.stored(dose.GAINS)] == models
    assert other.stored(replace(dose.GAINS, variant="none")) == []


@pytest.mark.parametrize("chapter", [name for name in claims.names() if claims.measurements(name)])
def test_a_first_look_asks_for_something_that_can_be_measured(chapter: str) -> None:
    declared = {name: one.value for name, one in chapters.parameters(chapter).items()}
    quick = Notebook(chapter, declared | {"quick": True})
    for measurement in claims.measurements(chapter):
        if not measurement.on_demand or quick.asked.get(measurement.on_demand):
            quick.parameters(measurement.parameters)
