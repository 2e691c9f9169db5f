"""The first things a reader sees: the answer and the board of the front page, the summary of each chapter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator

from book_survey import DESKTOP, PHONE
from firsttoken import claims
from firsttoken.book import chapters
from firsttoken.estimates import interval
from firsttoken.model_names import model_name
from firsttoken.records import Record, all_records

Visit = Callable[..., Any]  # opens a window, see `visit` in conftest.py


def about_claims() -> list[str]:
    return [name for name in chapters.listed() if name in claims.names()]


def main_records(name: str) -> list[Record]:
    return [record for record in all_records(name) if not record.variant]


def edge(element: Locator, side: str) -> float:
    return float(element.evaluate(f"element => element.getBoundingClientRect().{side}"))


def plain(text: str) -> str:
    """Text without the quotation marks that the build makes round."""
    return text.replace("’", "'")


def shown_name(record: Record) -> str:
    return model_name(record.model, record.provenance["model"]["name"]).name


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_the_summary_is_whole_on_the_first_screen(visit: Visit, html: Path, width: int) -> None:
    window = visit(width=width)
    for name in about_claims():
        page = window.open(f"book/chapters/{name}.html")
        summary = page.locator(".claim-summary")
        assert summary.count() == 1, name
        assert edge(page.locator("article h1"), "bottom") <= edge(summary, "top"), name
        assert edge(summary, "bottom") <= 900, name
        inner = summary.evaluate("e => [e.scrollWidth, e.clientWidth, e.scrollHeight, e.clientHeight]")
        assert inner[0] <= inner[1], f"{name}: something in the summary is wider than it"
        assert inner[2] <= inner[3], f"{name}: something in the summary is clipped"


def test_the_summary_says_what_the_card_and_the_records_say(visit: Visit) -> None:
    window = visit()
    for name in about_claims():
        summary = window.open(f"book/chapters/{name}.html").locator(".claim-summary")
        summary.locator("details > summary").click()  # the rule is folded
        text = plain(summary.inner_text())
        card, records = claims.claim(name), main_records(name)
        assert records
        for said in (card.statement, card.shows_not, card.rule_in_full, card.fixed):
            assert said, name
            assert said in text, name
        for record in records:
            verdict = claims.verdict(record)
            assert shown_name(record) in text, name
            assert (verdict.status if verdict else "not run") in text, name
            if card.headline:
                estimate = record.values[card.headline]
                assert interval(estimate, card.format) in text, name


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_the_board_has_every_claim_in_the_order_of_the_contents(visit: Visit, html: Path, width: int) -> None:
    page = visit(width=width).open("book/intro.html")
    entries = page.locator(".verdict-board > li")
    on_it = [name for name in about_claims() if claims.claim(name).headline]
    assert entries.count() == len(on_it) >= 14
    for entry, name in zip(entries.all(), on_it, strict=True):
        link = entry.locator(f"a[href='chapters/{name}.html']")
        title = page.locator(f"nav.bd-links a[href='chapters/{name}.html']").first.text_content() or ""
        assert link.inner_text().strip() == title.strip(), "a claim is linked by the title of its chapter"
        lines = entry.locator(".result-line")
        assert lines.count() == len(main_records(name))
        for line, record in zip(lines.all(), main_records(name), strict=True):
            said = line.inner_text()
            verdict = claims.verdict(record)
            assert (verdict.status if verdict else "not run") in said, "a word, not only a colour"
            assert "[" in said
            assert "n\xa0=\xa0" in said
            assert shown_name(record) in said


def test_thresholds_are_named_wherever_sink_heads_are_counted(visit: Visit) -> None:
    page = visit().open("book/intro.html")
    for name in about_claims():
        if "sink_rate" in claims.claim(name).headline:
            entry = page.locator(".verdict-board > li", has=page.locator(f"a[href='chapters/{name}.html']"))
            heading = entry.locator(".board-here .board-note").inner_text()
            assert "ε = 0." in heading, name
            if epsilon := main_records(name)[0].parameters.get("epsilon"):
                assert f"ε = {epsilon}" in heading


def test_the_board_is_a_table_on_a_wide_screen_and_cards_on_a_phone(visit: Visit) -> None:
    for width, beside in ((DESKTOP, True), (PHONE, False)):
        entry = visit(width=width).open("book/intro.html").locator(".verdict-board > li").first
        said, here = entry.locator(".board-claim"), entry.locator(".board-here")
        assert (edge(said, "right") <= edge(here, "left")) == beside
        assert (edge(said, "bottom") <= edge(here, "top")) != beside
        assert edge(entry, "right") <= width


def test_the_tally_counts_the_verdicts_of_the_board(visit: Visit) -> None:
    page = visit().open("book/intro.html")
    words = [badge.inner_text() for badge in page.locator(".verdict-board .verdict").all()]
    for entry in page.locator(".tally li").all():
        sign, count, word = entry.inner_text().split(maxsplit=2)
        assert words.count(f"{sign} {word}") == int(count)
    counted = sum(int(entry.inner_text().split()[1]) for entry in page.locator(".tally li").all())
    assert counted == len(words)


def test_every_number_of_the_answer_is_measured_and_has_its_interval(visit: Visit) -> None:
    answer = visit().open("book/intro.html").locator(".answer")
    numbers = answer.locator(".result")
    assert numbers.count() >= 6
    assert answer.locator(".not-run").count() == 0
    assert answer.locator(".interval").count() == numbers.count()
    assert "Not run" in answer.inner_text()


def test_the_answer_and_the_drawing_are_on_the_first_screen(visit: Visit) -> None:
    page = visit().open("book/intro.html")
    assert edge(page.locator(".answer > ul > li").last, "bottom") <= 900
    assert edge(page.locator(".drawing svg"), "bottom") <= 900


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_the_drawing_follows_the_theme_and_can_be_read(visit: Visit, width: int) -> None:
    inks = set()
    for theme in ("light", "dark"):
        drawing = visit(width=width, color_scheme=theme).open("book/intro.html").locator(".drawing svg")
        label = drawing.locator("text").first
        ink, size = label.evaluate(
            "e => [getComputedStyle(e).fill, parseFloat(getComputedStyle(e).fontSize) * e.getScreenCTM().a]"
        )
        page_ink = drawing.evaluate("e => getComputedStyle(e.closest('article') ?? document.body).color")
        assert ink == page_ink
        assert size >= 11
        inks.add(ink)
        assert drawing.get_by_role("img").or_(drawing).first.get_attribute("aria-labelledby")
        assert drawing.locator("title").text_content()
        assert drawing.locator("desc").text_content()
    assert len(inks) == 2


def test_the_citation_opens_by_keyboard(visit: Visit) -> None:
    page = visit().open("book/intro.html")
    summary = page.locator("details.folded summary")
    assert not page.locator("details.folded .highlight").is_visible()
    summary.focus()
    page.keyboard.press("Enter")
    text = page.locator("details.folded .highlight").inner_text()
    assert "@software{firsttoken" in text
    assert "2504.02732" in text
    assert "The firsttoken authors" in text


def test_every_open_claim_says_what_would_change_our_mind(visit: Visit) -> None:
    page = visit().open("book/intro.html")
    lines = [plain(line) for line in page.locator(".open-claims > li").all_inner_texts()]
    for name in about_claims():
        card = claims.claim(name)
        statuses = {verdict.status if (verdict := claims.verdict(r)) else None for r in main_records(name)}
        if card.headline and statuses != {"reproduced"}:
            assert card.would_change, name
            assert [line for line in lines if card.would_change in line], name


def test_cards_type_no_number() -> None:
    """Names of models have digits; measured values do not belong into what a result does not show."""
    models = ("LLaMa 3.1", "8B", "70B", "405B", "7B")
    for name in claims.names():
        card = claims.claim(name)
        for text in (card.shows_not, card.would_change):
            for model in models:
                text = text.replace(model, "")
            assert not [letter for letter in text if letter.isdigit()], (name, text)
