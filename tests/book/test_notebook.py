"""What a notebook's parameters become: read once, by keyword, former names included."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from firsttoken import claims
from firsttoken.book import chapters
from firsttoken.book.notebook import Notebook
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
    assert not set(FORMER) - {"length"} & set(declared)
    assert not {"length", "text_tokens"} <= set(declared)
    for measurement in claims.measurements(name):
        asked = set(measurement.parameters.__dataclass_fields__)
        # `scale` reports the two thresholds that papers use, whatever epsilon is.
        asked -= {"epsilon"} if name == "scale" else set()
        assert asked <= set(declared), f"{measurement.variant or 'main'}: {sorted(asked - set(declared))}"
