"""The live map of heads on the front page: by mouse, finger and keys, from a server and from files, without script."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page

from firsttoken.model_names import model_name
from firsttoken.records import Record, find

Visit = Callable[..., Any]  # opens a window, see `visit` in conftest.py
FRONT = "book/intro.html"
MODELS = ("gemma3-270m", "smollm2-135m")


def record_of(model: str) -> Record:
    record = find("phenomenon", model)
    assert record is not None
    return record


def head(page: Page, layer: int, number: int) -> Locator:
    return page.get_by_role("gridcell", name=f"layer {layer}, head {number}:")


def status(page: Page) -> str:
    return page.locator(".head-map-status").inner_text()


def bars(page: Page) -> list[float]:
    """The share that each word of the passage gets, as drawn."""
    return page.locator(".head-map-bar").evaluate_all(
        "all => all.map((e) => Number(getComputedStyle(e).getPropertyValue('--share')))"
    )


def opened(window: Any) -> Page:
    """The front page with the maps of the first model there."""
    page: Page = window.open(FRONT)
    page.wait_for_function("() => document.querySelector('.head-map-share')?.textContent")
    return page


def test_pointing_shows_a_head_and_a_click_keeps_it(visit: Visit) -> None:
    page = opened(visit())
    strongest = record_of(MODELS[0]).values["strongest"]
    chosen = f"Layer {strongest['layer']}, head {strongest['head']}: nearly all of its attention, "
    assert status(page).startswith(chosen)
    before = bars(page)
    head(page, 2, 3).hover()
    assert status(page).startswith("Layer 2, head 3:")
    assert bars(page) != before
    page.locator(".answer").hover()
    assert status(page).startswith(chosen), "the pointer has left"
    head(page, 2, 3).click()
    page.locator(".answer").hover()
    assert status(page).startswith("Layer 2, head 3:")


def test_arrow_keys_choose_heads_and_models(visit: Visit) -> None:
    page = opened(visit())
    head(page, 2, 1).focus()
    head(page, 2, 1).press("Enter")
    page.keyboard.press("ArrowRight")
    assert status(page).startswith("Layer 3, head 1:")
    page.keyboard.press("ArrowDown")
    assert status(page).startswith("Layer 3, head 2:")
    assert page.locator(".head-map [aria-selected=true]").count() == 1
    page.locator(".head-map-models input:checked").first.focus()
    page.keyboard.press("ArrowRight")
    grid = page.get_by_role("grid", name=model_name(MODELS[1]).name)
    alpha = record_of(MODELS[1]).values["alpha"]
    assert grid.get_by_role("gridcell").count() == len(alpha) * len(alpha[0])


def test_a_model_that_is_chosen_again_while_its_maps_load_is_drawn(visit: Visit) -> None:
    """Once everything is there, the maps of the first model are asked for anew and come late."""
    page = opened(visit())
    late = """() => new Promise((done) => {
      const append = document.head.append.bind(document.head);
      document.head.append = (script) => setTimeout(() => append(script), 300);
      const [first, second] = document.querySelectorAll(".head-map-models input");
      for (const input of [second, first, second]) { input.checked = true; input.dispatchEvent(new Event("change")); }
      setTimeout(done, 1500);
    })"""
    page.evaluate(late)
    grid = page.get_by_role("grid", name=model_name(MODELS[1]).name)
    assert grid.count() == 1
    assert sum(bars(page)) > 0.5


@pytest.mark.parametrize("served", [True, False], ids=["from a server", "from files"])
def test_a_finger_chooses_and_the_maps_of_a_model_are_a_file_of_their_own(
    visit: Visit, html: Path, served: bool
) -> None:
    address = {} if served else {"address": html.as_uri() + "/"}
    window = visit(width=390, has_touch=True, is_mobile=True, **address)
    asked: list[str] = []
    window.page.on("request", lambda request: asked.append(request.url))
    page = opened(window)
    assert not [url for url in asked if MODELS[1] in url], "the maps of a model come when it is chosen"
    page.get_by_label(model_name(MODELS[1]).name, exact=True).tap()
    page.wait_for_function("() => document.querySelector('.head-map-share')?.textContent")
    assert [url for url in asked if f"{MODELS[1]}-0.js" in url]
    head(page, 3, 1).tap()
    assert status(page).startswith("Layer 3, head 1:")
    assert abs(sum(bars(page)) - 1) < 0.05, "bytes, so nearly one"
    share = record_of(MODELS[1]).values["alpha"][3][1]
    assert abs(bars(page)[0] - share) < 0.01


@pytest.mark.parametrize("model", MODELS)
def test_words_and_numbers_are_the_records(visit: Visit, model: str) -> None:
    page, record = opened(visit()), record_of(model)
    page.get_by_label(model_name(model).name, exact=True).check()
    words = page.locator(".head-map-passage li").all_inner_texts()
    assert len(words) == len(record.values["tokens"])
    assert f"{record.values['mass']:.0%}" in page.locator(".head-map-caption").inner_text()
    share = 100 * record.values["alpha"][4][0]
    said = f"{share:.0f} %" if share >= 10 else f"{share:.1f} %"
    assert said in (head(page, 4, 0).get_attribute("aria-label") or "")


@pytest.mark.parametrize("served", [True, False], ids=["from a server", "from files"])
def test_the_same_head_on_another_passage(visit: Visit, html: Path, served: bool) -> None:
    """Its words and numbers are those of the record, its maps a file that comes when it is chosen."""
    window = visit(**({} if served else {"address": html.as_uri() + "/"}))
    asked: list[str] = []
    window.page.on("request", lambda request: asked.append(request.url))
    page = opened(window)
    others = find("phenomenon", MODELS[0], "passages")
    assert others is not None
    head(page, 3, 1).click()
    for number, seen in enumerate(others.values["passages"], 1):
        file = f"{MODELS[0]}-{number}.js"
        assert not [url for url in asked if file in url]
        page.get_by_label(seen["title"], exact=True).check()
        page.wait_for_function("() => document.querySelector('.head-map-share')?.textContent")
        assert [url for url in asked if file in url]
        assert status(page).startswith("Layer 3, head 1:")
        assert page.locator(".head-map-passage li").count() == len(seen["tokens"])
        assert f"{seen['mass']:.0%}" in page.locator(".head-map-caption").inner_text()
        assert abs(bars(page)[0] - seen["alpha"][3][1]) < 0.01
    page.get_by_label(model_name(MODELS[1]).name, exact=True).check()
    last = find("phenomenon", MODELS[1], "passages")
    assert last is not None
    assert f"{last.values['passages'][-1]['mass']:.0%}" in page.locator(".head-map-caption").inner_text()


def test_without_a_script_there_is_a_picture(visit: Visit) -> None:
    window = visit(java_script_enabled=False)
    window.page.goto(window.base + FRONT)
    picture = window.page.locator(".head-map-static [role=img]")
    assert picture.is_visible()
    assert "Grid of" in (picture.get_attribute("aria-label") or "")
    caption = window.page.locator(".head-map-static figcaption")
    assert caption.evaluate("e => getComputedStyle(e, '::before').content") == "none", "it is no numbered figure"


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_the_map_leaves_the_first_screen_to_the_answer(visit: Visit, width: int, height: int) -> None:
    page = opened(visit(width=width))
    page.set_viewport_size({"width": width, "height": height})
    answer, live = page.locator(".answer").bounding_box(), page.locator(".head-map").bounding_box()
    assert answer
    assert live
    assert answer["y"] < height / 2
    if width == 390:
        assert live["y"] >= answer["y"] + answer["height"], "below the answer"
        assert live["x"] + live["width"] <= width
    else:
        assert live["x"] >= answer["x"] + answer["width"], "beside the answer"
        assert live["y"] < height, "there to be seen"


def test_heads_can_be_compared_without_words_that_move(visit: Visit) -> None:
    page = opened(visit())
    places = (
        "() => [...document.querySelectorAll('.head-map-passage li')].map((e) => e.getBoundingClientRect().bottom)"
    )
    before = page.evaluate(places)
    head(page, 2, 3).click()
    assert page.evaluate(places) == before


def test_a_word_and_its_bar_follow_the_theme(visit: Visit) -> None:
    inks = set()
    for theme in ("light", "dark"):
        page = opened(visit(color_scheme=theme))
        inks.add(page.locator(".head-map-passage li").first.evaluate("e => getComputedStyle(e).color"))
        bar = page.locator(".head-map-bar").first.evaluate("e => getComputedStyle(e).backgroundColor")
        accent = page.locator(".drawing svg [class*=accent], .drawing svg rect").first.evaluate(
            "e => getComputedStyle(e).fill"
        )
        assert bar == accent, "the colour of the first token in the drawing beside it"
    assert len(inks) == 2
