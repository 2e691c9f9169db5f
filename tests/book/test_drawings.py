"""The drawings in chapters: there, named, captioned, and readable in both themes and on a phone."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firsttoken.files import ROOT

Visit = Callable[..., Any]  # opens a window, see `visit` in conftest.py
DRAWN = ("perturbation", "jacobian", "no_op", "kv_cache", "packing")
PHONE, DESKTOP = 390, 1280
SMALLEST = 10  # pixels of text on a phone

# The smallest text in pixels, the texts that leave the drawing, and the colours of text and of the page.
LOOK = """svg => {
  const box = svg.getBoundingClientRect(), texts = [...svg.querySelectorAll("text")];
  const outside = ({left, right, top, bottom}) =>
    left < box.left - 1 || right > box.right + 1 || top < box.top - 1 || bottom > box.bottom + 1;
  return {
    size: Math.min(...texts.map(e => parseFloat(getComputedStyle(e).fontSize) * svg.getScreenCTM().a)),
    outside: texts.filter(e => outside(e.getBoundingClientRect())).map(e => e.textContent),
    inks: [...new Set(texts.map(e => getComputedStyle(e).fill))],
    paper: getComputedStyle(document.body).backgroundColor,
    tint: getComputedStyle(svg).getPropertyValue("--drawing-accent"),
    right: box.right,
    page: document.documentElement.scrollWidth,
  };
}"""


def brightness(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)`, as WCAG has it."""
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted([brightness(one), brightness(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", DRAWN)
def test_a_chapter_has_its_drawing_with_a_name_and_a_caption(visit: Visit, name: str) -> None:
    page = visit().open(f"book/chapters/{name}.html")
    figure = page.locator("figure.drawing")
    assert figure.count() == 1
    svg = figure.locator("svg")
    assert svg.get_attribute("role") == "img"
    named = [page.locator(f"#{part}") for part in (svg.get_attribute("aria-labelledby") or "").split()]
    assert [part.evaluate("e => e.tagName") for part in named] == ["title", "desc"]
    assert all((part.text_content() or "").strip() for part in named)
    assert figure.locator("figcaption p").inner_text().strip()
    first_section = page.locator("article h2").first.evaluate("e => e.getBoundingClientRect().top")
    assert svg.evaluate("e => e.getBoundingClientRect().bottom") < first_section, "it belongs to the introduction"


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
@pytest.mark.parametrize("name", DRAWN)
def test_a_drawing_can_be_read_in_both_themes_and_fits(visit: Visit, name: str, width: int) -> None:
    papers, tints = set(), set()
    for theme in ("light", "dark"):
        page = visit(width=width, color_scheme=theme).open(f"book/chapters/{name}.html")
        look = page.locator("figure.drawing svg").evaluate(LOOK)
        assert look["size"] >= SMALLEST
        assert not look["outside"]
        assert look["right"] <= width
        assert look["page"] <= width
        assert all(contrast(ink, look["paper"]) >= 4.5 for ink in look["inks"]), (theme, look)
        papers.add(look["paper"])
        tints.add(look["tint"])
    assert len(papers) == len(tints) == 2


@pytest.mark.parametrize("file", sorted((ROOT / "book" / "_static").glob("*.svg")), ids=lambda file: file.stem)
def test_a_drawing_is_well_formed_and_asks_for_nothing(file: Path) -> None:
    root = ET.fromstring(file.read_text(encoding="utf-8"))
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert not tags & {"script", "image", "use", "foreignObject", "style", "a"}
    keys = {key for element in root.iter() for key in element.attrib}
    assert not [key for key in keys if key.startswith("on") or "href" in key]
