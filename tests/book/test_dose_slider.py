"""The slider over the doses in its chapter: keys, mouse and finger, without a script, on a phone, in a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import Page

from firsttoken.claims.dose.slider import OUTCOMES, drawn
from firsttoken.model_names import called
from firsttoken.records import Record, all_records

Visit = Callable[..., Any]  # opens a window, see `visit` in conftest.py
CHAPTER = "book/chapters/dose.html"
ALIVE = ".dose-slider.alive"


@pytest.fixture
def measured(html: Path) -> list[Record]:
    """The records of the models that the page shows."""
    page = BeautifulSoup((html / CHAPTER).read_text(encoding="utf-8"), "html.parser")
    told = json.loads(page.select_one(".dose-slider script").string or "")  # type: ignore[union-attr]
    records = {called(record): record for record in all_records("dose")}
    return [records[model["name"]] for model in told["models"]]


def said(page: Page) -> dict[str, list[str]]:
    """For each model what stands beside its bars."""
    return {
        model.get_attribute("aria-label") or "": model.locator(".dose-text").all_inner_texts()
        for model in page.locator(".dose-model").all()
    }


def expected(measured: list[Record], place: int) -> dict[str, list[str]]:
    return {model["name"]: [bar["text"] for bar in model["bars"][place]] for model in drawn(measured)["models"]}


def test_keys_move_the_dose_and_every_number_is_the_records(visit: Visit, measured: list[Record]) -> None:
    page = visit().open(CHAPTER)
    slider, doses = page.get_by_role("slider"), drawn(measured)["doses"]
    assert slider.count() == 1
    assert page.get_by_label("Nats added").count() >= 1
    assert slider.get_attribute("aria-valuetext") == "0 nats: the untouched model"
    slider.focus()
    page.keyboard.press("Home")
    heights = set()
    for place, dose in enumerate(doses):
        assert (slider.get_attribute("aria-valuetext") or "").startswith(f"{dose['nats']} nats")
        assert page.locator(f"{ALIVE} output").inner_text().startswith(f"{dose['nats']} nats")
        assert said(page) == expected(measured, place)
        heard = page.locator(f"{ALIVE} output").text_content() or ""
        assert all(text in heard for of_model in expected(measured, place).values() for text in of_model)
        assert page.locator(".dose-ticks .chosen").inner_text() == dose["nats"]
        heights.add(page.locator(ALIVE).evaluate("e => e.offsetHeight"))
        page.keyboard.press("ArrowRight")
    assert len(heights) == 1, "nothing moves but the bars"
    assert slider.input_value() == str(len(doses) - 1), "it ends at the last dose"


@pytest.mark.parametrize("served", [True, False], ids=["from a server", "from a file"])
def test_a_finger_moves_the_dose_on_a_phone(visit: Visit, html: Path, measured: list[Record], served: bool) -> None:
    address = {} if served else {"address": html.as_uri() + "/"}
    page = visit(width=390, has_touch=True, is_mobile=True, **address).open(CHAPTER)
    slider = page.get_by_role("slider")
    box = slider.bounding_box()
    assert box
    slider.tap(position={"x": box["width"] - 5, "y": box["height"] / 2})
    assert said(page) == expected(measured, len(drawn(measured)["doses"]) - 1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for text in page.locator(".dose-text, .dose-row > span:first-child, .dose-ticks span").all():
        assert text.evaluate("e => parseFloat(getComputedStyle(e).fontSize)") >= 11
        assert text.evaluate("e => e.getBoundingClientRect().right <= innerWidth")


def test_bars_are_as_long_as_what_they_show(visit: Visit, measured: list[Record]) -> None:
    page = visit(reduced_motion="reduce").open(CHAPTER)
    page.get_by_role("slider").press("End")
    width = "e => e.getBoundingClientRect().width / e.parentElement.getBoundingClientRect().width"
    assert page.locator(".dose-bar").count() == len(OUTCOMES) * len(measured)
    for model in drawn(measured)["models"]:
        bars = page.get_by_role("group", name=model["name"]).locator(".dose-bar").all()
        for bar, wanted in zip(bars, model["bars"][-1], strict=True):
            assert abs(bar.evaluate(width) - wanted["at"]) < 0.01


def test_without_a_script_and_on_demand_there_is_the_table_of_all_doses(visit: Visit, measured: list[Record]) -> None:
    rows = sum(len(record.values["doses"]) for record in measured)
    window = visit(java_script_enabled=False)
    window.page.goto(window.base + CHAPTER)
    table = window.page.locator(".dose-slider table")
    assert table.is_visible()
    assert table.locator("tbody tr").count() == rows
    page = visit().open(CHAPTER)
    assert not page.locator(f"{ALIVE} table").is_visible()
    page.locator(f"{ALIVE} summary").press("Enter")
    assert page.locator(f"{ALIVE} table").is_visible()


def test_the_slider_follows_the_theme(visit: Visit) -> None:
    seen = set()
    for theme in ("light", "dark"):
        page = visit(color_scheme=theme).open(CHAPTER)
        seen.add(page.locator(".dose-text").first.evaluate("e => getComputedStyle(e).color"))
        behind = "e => getComputedStyle(e.closest('.output') ?? e).backgroundColor"
        assert page.locator(ALIVE).evaluate(behind) != "rgb(255, 255, 255)" or theme == "light"
    assert len(seen) == 2
