"""Pages that load: what the style sheets and icons of a build keep, and what a browser on a slow line waits for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, TimeoutError

from book_survey import Survey
from firsttoken.book import first_paint, lean, styles
from firsttoken.errors import FirstTokenError

BUDGET = 1_100_000  # bytes of everything that a page asks for, from a host that compresses nothing
AT_FIRST = 110_000  # bytes that a browser must have before it draws, whatever the machine
# A slow line, as bytes a second and milliseconds, and how many seconds a reader waits on it.
LINE = {"offline": False, "latency": 150, "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 750e3 / 8}
PAINT, COMPLETE = 2.0, 6.0

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
    assert styles.used_rules(css, frozenset({"used", "fa-used"})) == kept


def test_a_page_loads_the_search_only_where_one_searches() -> None:
    page = '<script src="../_static/searchtools.js"></script><script src="../searchindex.js"></script><p>'
    assert lean.light_page(page, "book/a.html") == "<p>"
    assert lean.light_page(page, "search.html") == page


def test_rules_for_what_scripts_add_are_told_from_those_of_the_page() -> None:
    css = "p{a:b}.here{a:b}.here.added,.here p{c:d}@media print{.added{a:b}}@keyframes spin{from{a:b}}.nowhere{a:b}"
    here, all_names = frozenset({"here"}), frozenset({"here", "added"})
    assert styles.used_rules(css, here) == "p{a:b}.here{a:b}.here p{c:d}@keyframes spin{from{a:b}}"
    assert styles.used_rules(css, all_names, without=here) == ".here.added{c:d}@media print{.added{a:b}}"


def test_properties_that_nothing_reads_are_left_out() -> None:
    css = ':root{--a:1;--b:var(--c);--c:url("x;y");--d:2}p{color:var(--a)}'
    assert styles.used_properties(css, []) == ":root{--a:1;}p{color:var(--a)}"
    assert (
        styles.used_properties(css, ["set('--b', 1)"]) == ':root{--a:1;--b:var(--c);--c:url("x;y");}p{color:var(--a)}'
    )


HEAD = """<html data-theme="auto"><head>
<script>first()</script>
<link rel="stylesheet" href="../_static/one.css?v=1" /><link rel="preload" as="script" href="../_static/late.js" />
<script src="../_static/documentation_options.js?v=2"></script>
<script data-key="x" src="../_static/a.js"></script><link href="../_static/sub/two.css" rel="stylesheet" />
<script defer="defer" src="../_static/b.js"></script></head><body><p class="here">Text</p></body></html>"""


def test_scripts_come_at_the_end_in_their_order() -> None:
    page = first_paint.light_head(HEAD, "const OPTIONS = {};")
    head, body = page.split("</head>")
    assert "src=" not in head
    assert "preload" not in head
    assert "<script>const OPTIONS = {};</script>" in head
    assert body.index('<script defer="defer" data-key="x" src="../_static/a.js">') < body.index("b.js")
    assert body.index("Text") < body.index("a.js")
    assert first_paint.light_head(page, "const OPTIONS = {};") == page


def test_sheets_become_one_for_the_page_and_one_for_what_scripts_add(tmp_path: Path) -> None:
    files = {
        "_static/one.css": '@charset "utf-8";@import url(sub/base.css);.here{background:url(dot.png)}',
        "_static/sub/base.css": "p{--kept:1;margin:var(--kept)}",
        "_static/sub/two.css": ".added{background:url('../dot.png')}.nowhere{a:b}",
        "_static/a.js": 'element.classList.add("added")',
        "book/page.html": HEAD,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    page = tmp_path / "book" / "page.html"
    for _ in range(2):  # a second time nothing is left to do
        first_paint.merge_sheets(tmp_path, [page])
        head, body = page.read_text(encoding="utf-8").split("</head>")
        (first,), (later,) = first_paint.sheets(head), first_paint.sheets(body)
        dot = 'background:url("../dot.png")'
        assert (tmp_path / first).read_text() == f"p{{--kept:1;margin:var(--kept)}}.here{{{dot}}}"
        assert (tmp_path / later).read_text() == f".added{{{dot}}}"
        assert {file.name for file in tmp_path.rglob("*.css")} == {Path(first).name, Path(later).name}
    assert f'href="../{first}"' in head, "as the page sees it"


def asked(browser: Browser, address: str, line: dict[str, Any]) -> tuple[float, float]:
    """Seconds to the first paint of a page and until everything is there, on a line."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    devtools = context.new_cdp_session(page)
    devtools.send("Network.enable")
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
    return paint / 1000, complete / 1000


def test_every_page_is_light(survey: Survey) -> None:
    sizes = {path: read["bytes"] for path, read in survey("desktop").items()}
    assert min(sizes.values()) > 10_000, "what a page asks for was counted"
    assert not {path: size for path, size in sizes.items() if size > BUDGET}


def test_little_is_needed_before_a_page_is_drawn(html: Path, pages: list[str]) -> None:
    for path in pages:
        head, _, _ = (html / path).read_text(encoding="utf-8").partition("</head>")
        assert "<script src" not in head, path
        sheets = first_paint.sheets(head)
        assert len(sheets) <= 1, path  # a page that only leads to another has none
        assert len(head.encode()) + sum((html / sheet).stat().st_size for sheet in sheets) <= AT_FIRST, path


def test_pages_are_there_soon_on_a_slow_line(browser: Browser, base: str, html: Path, pages: list[str]) -> None:
    """The front page, the search and the heaviest pages; the others wait for the same, and have less to come."""
    heaviest = sorted(pages, key=lambda path: (html / path).stat().st_size, reverse=True)[:6]
    slow = []
    for path in ("book/intro.html", "search.html", *heaviest):
        # A busy machine draws late; the best of three is what the page allows.
        paint, complete = 0.0, 0.0
        for _ in range(3):
            try:
                paint, complete = asked(browser, base + path, LINE)
            except TimeoutError:
                continue
            if 0 < paint <= PAINT and complete <= COMPLETE:
                break
        else:
            slow.append(f"{path}: paint {paint:.1f} s, complete {complete:.1f} s")
    assert not slow


@pytest.mark.parametrize(
    ("scheme", "chosen", "shown"), [("dark", "", "dark"), ("light", "", "light"), ("dark", "light", "light")]
)
def test_a_page_has_its_colours_before_any_script_arrives(
    browser: Browser, base: str, scheme: Any, chosen: str, shown: str
) -> None:
    """So that a dark page is never white first."""
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.route("**/*.js*", lambda route: route.abort())
    page.goto(base + "book/intro.html")
    if chosen:
        page.evaluate("chosen => { localStorage.mode = chosen; localStorage.theme = chosen; }", chosen)
        page.reload()
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    ink = page.evaluate("getComputedStyle(document.querySelector('article p')).color")
    context.close()
    light = {
        name: sum(int(part) for part in colour[4:-1].split(",")) for name, colour in (("paper", paper), ("ink", ink))
    }
    assert (light["paper"] < light["ink"]) == (shown == "dark")


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
