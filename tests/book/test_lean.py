"""Pages that load: what the style sheets and icons of a build keep, and what a browser on a slow line waits for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, TimeoutError

from firsttoken.book import lean
from firsttoken.errors import FirstTokenError

BUDGET = 1_100_000  # bytes of everything that a page asks for, from a host that compresses nothing
LINE = 1.6e6 / 8  # bytes a second
# Seconds. The goal for the first paint is two, which a quiet machine keeps on most pages; a busy one draws later.
PAINT, COMPLETE = 4.0, 6.0

CATALOGUE = (
    'var a={"github":[496,512,[],"f09b","M1 2"]},b={"bars":[1,1,[],"f0c9","M0 0"]},'
    'c={"circle-half-stroke":[512,512,[9680,"adjust"],"f042", "M4 5"],bars:[448,512,["navicon"],"f0c9", "M0 96"]}'
)


def test_icons_are_those_that_pages_and_scripts_name() -> None:
    page = '<i class="fa-solid fa-bars fa-lg"></i><span class="fas fa-file"></span>'
    script = 'e.innerHTML = \'<i class="fa-solid fa-xmark"></i>\'; const fa = "fa-none of these"'
    assert lean.icons_used(page + script) == {"bars", "file", "xmark"}


def test_an_icon_is_the_solid_one_in_the_colour_of_the_text() -> None:
    styles = lean.icon_styles({"bars", "github"}, CATALOGUE)
    assert "M0 96" in styles, "the solid one, not the one before it"
    assert "0 0 448 512" in styles
    assert "M1 2" in styles
    assert "currentColor" in styles
    with pytest.raises(FirstTokenError, match="no icon called 'nowhere'"):
        lean.icon_styles({"nowhere"}, CATALOGUE)


@pytest.mark.parametrize(
    ("css", "kept"),
    [
        (".used{a:b}.unused{a:b}", ".used{a:b}"),
        (".used,.unused .used{a:b}", ".used{a:b}"),
        ("p > a:hover{a:b}", "p > a:hover{a:b}"),
        (".used:not(.unused){a:b}", ".used:not(.unused){a:b}"),
        ("#unused .used{a:b}", ""),
        ("@media print{.unused{a:b}}@media print{.used{a:b}}", "@media print{.used{a:b}}"),
        ('.used{a:url("data:x,;}{")}', '.used{a:url("data:x,;}{")}'),
        (".used{a:url(data:x;y)}p{a:b}", ".used{a:url(data:x;y)}p{a:b}"),
        ("@import url(x.css);.unused{}", "@import url(x.css);"),
        ("@keyframes spin{from{a:b}to{a:c}}", "@keyframes spin{from{a:b}to{a:c}}"),
        ("/* .used{ */.used{a:b}", ".used{a:b}"),
        (".fa-used::before{a:b}.used .fa-used{a:b}", ".used .fa-used{a:b}"),
        ('@font-face{font-family:"Font Awesome 6 Free"}@font-face{font-family:x}', "@font-face{font-family:x}"),
    ],
)
def test_rules_are_kept_where_they_can_apply(css: str, kept: str) -> None:
    assert lean.used_rules(css, frozenset({"used", "fa-used"})) == kept


def test_a_page_loads_the_search_only_where_one_searches() -> None:
    page = '<script src="../_static/searchtools.js"></script><script src="../searchindex.js"></script><p>'
    assert lean.light_page(page, "book/a.html") == "<p>"
    assert lean.light_page(page, "search.html") == page


def asked(browser: Browser, address: str) -> tuple[int, float, float]:
    """Bytes that arrive for a page, seconds to the first paint and until everything is there, on a slow line."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    devtools = context.new_cdp_session(page)
    sizes: list[float] = []
    devtools.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    devtools.send("Network.enable")
    line = {"offline": False, "latency": 40, "downloadThroughput": LINE, "uploadThroughput": LINE}
    devtools.send("Network.emulateNetworkConditions", line)
    try:
        page.goto(address, wait_until="load")
        page.wait_for_load_state("networkidle")
        paint, complete = page.evaluate(
            """() => [performance.getEntriesByName("first-contentful-paint")[0].startTime,
            Math.max(performance.getEntriesByType("navigation")[0].loadEventEnd,
                     ...performance.getEntriesByType("resource").map((e) => e.responseEnd))]"""
        )
    finally:
        context.close()
    return int(sum(sizes)), paint / 1000, complete / 1000


def test_every_page_is_light_and_there_soon(browser: Browser, base: str, pages: list[str]) -> None:
    slow = []
    for path in pages:
        # A busy machine draws late; the best of three is what the page allows.
        size, paint, complete = 0, 0.0, 0.0
        for _ in range(3):
            try:
                size, paint, complete = asked(browser, base + path)
            except TimeoutError:
                continue
            if size <= BUDGET and paint <= PAINT and complete <= COMPLETE:
                break
        else:
            slow.append(f"{path}: {size / 1e6:.2f} MB, paint {paint:.1f} s, complete {complete:.1f} s")
    assert not slow


def test_a_build_has_no_file_of_the_vendors_that_no_page_asks_for(html: Path) -> None:
    assert not list(html.rglob("*fontawesome*.js"))
    assert not [path for path in html.rglob("*.woff*") if "fontawesome" in path.parts]
    assert not list(html.rglob("*.css.map"))


def test_slimming_a_build_again_changes_nothing(html: Path, tmp_path: Path) -> None:
    shutil.copytree(html, tmp_path / "html")
    before = {path: path.read_bytes() for path in (tmp_path / "html").rglob("*") if path.is_file()}
    lean.slim(tmp_path / "html")
    assert before == {path: path.read_bytes() for path in (tmp_path / "html").rglob("*") if path.is_file()}


Visit = Callable[..., Any]  # opens a window, see `visit` in conftest.py


def test_icons_are_drawn(visit: Visit) -> None:
    page = visit().open("book/chapters/phenomenon.html")
    icons = page.locator("[class*='fa-']:visible")
    assert icons.count() >= 3
    for icon in icons.all():
        mask = icon.evaluate("e => getComputedStyle(e).maskImage")
        assert mask.startswith("url("), icon.get_attribute("class")
