"""What the slider over the doses is given: recorded doses in order, one scale for all models, intervals as text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from firsttoken.claims.dose.slider import drawn, slider
from firsttoken.records import Record


def record(model: str, doses: Sequence[float], highest: float) -> Record:
    """A record in which every outcome grows evenly up to `highest`, its interval a tenth below and above."""
    steps = [highest * (place + 1) / len(doses) for place in range(len(doses))]
    estimates = [{"value": at, "low": 0.9 * at, "high": 1.1 * at, "n": 5} for at in steps]
    at_rest = doses.index(0.0)
    fixed = estimates[at_rest] | {"low": steps[at_rest], "high": steps[at_rest]}
    relative = [fixed if place == at_rest else estimate for place, estimate in enumerate(estimates)]
    by_dose = {"mass": estimates, "outcome": relative, "loss_rise": relative}
    return Record("dose", model, {}, {"doses": list(doses), "by_dose": by_dose}, {})


ONE = record("one", (1.0, 0.0, -2.0), 0.6)
TWO = record("two", (1.0, 0.0, -2.0, -4.0), 2.0)


def test_doses_go_from_the_weakest_sink_to_the_strongest_and_start_untouched() -> None:
    told = drawn([TWO])
    assert [dose["nats"] for dose in told["doses"]] == ["-4", "-2", "0", "+1"]
    assert told["doses"][2]["odds"] == "1"
    assert told["start"] == 2


def test_only_doses_that_all_models_have_are_on_the_slider_and_all_are_in_the_table() -> None:
    assert [dose["nats"] for dose in drawn([ONE, TWO])["doses"]] == ["-2", "0", "+1"]
    assert [dose["nats"] for dose in drawn([TWO, ONE])["doses"]] == ["-2", "0", "+1"]
    assert slider([ONE, TWO]).html.count('<th scope="row">') == 7


def test_bars_of_all_models_have_one_scale_and_stay_within_it() -> None:
    told = drawn([ONE, TWO])
    places = [bar for model in told["models"] for bars in model["bars"] for bar in bars]
    assert all(0 <= bar["low"] <= bar["at"] <= bar["high"] <= 1 for bar in places)
    spread = [[bars[1]["at"] for bars in model["bars"]] for model in told["models"]]
    assert max(spread[0]) < max(spread[1])
    assert told["models"][0]["untouched"][1] == told["models"][0]["bars"][told["start"]][1]["at"]


def test_text_is_the_number_with_its_interval_where_it_has_one() -> None:
    bars = drawn([ONE])["models"][0]["bars"]
    assert [bar["text"] for bar in bars[0]] == ["60.0% [54.0%, 66.0%]", "0.60 [0.54, 0.66]", "+0.60 [+0.54, +0.66]"]
    assert bars[1][1]["text"] == "0.40", "by definition"


def test_the_page_has_the_data_and_a_table_for_where_no_script_runs() -> None:
    shown = slider([ONE, TWO])
    (told,) = re.findall(r'<script type="application/json">(.*?)</script>', shown.html)
    assert json.loads(told) == drawn([ONE, TWO])
    assert "<table" in shown.html.split("<script")[0]
    assert "60.0% [54.0%, 66.0%]" in shown.text
