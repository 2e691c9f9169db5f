"""What a reader meets on the built pages: whole chapters, live links, maths, figures, search, on any screen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import axe_playwright_python
import nbformat
import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import Locator, Page

from firsttoken.book import build, chapters
from firsttoken.book.repository import repository
from firsttoken.records import find
from firsttoken.records.schema import FORMER_CLAIMS

Visit = Callable[..., Any]  # opens a window, see `visit` in conftest.py
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")


def executed(root: Path) -> list[tuple[Path, str]]:
    """Each published notebook with the name of its chapter."""
    own = [(root / "book" / "chapters" / f"{name}.ipynb", name) for name in sorted(chapters.listed(root))]
    others = [(page, page.stem.split("-", 1)[1]) for page in sorted((root / "book").glob("models/*/[0-9]*.ipynb"))]
    return own + others


def test_chapters_are_executed_to_the_end_from_their_notebooks(root: Path) -> None:
    assert executed(root)
    for page, chapter in executed(root):
        content = nbformat.read(page, as_version=4)
        code = [cell for cell in content.cells if cell.cell_type == "code" and cell.source.strip()]
        counts = [cell.execution_count for cell in code]
        assert counts == list(range(1, len(code) + 1)), page
        assert not [out for cell in code for out in cell.outputs if out.output_type == "error"], page
        assert not content.metadata.papermill.exception, page
        assert build.is_current(page, chapter, root), f"{page} is older than its notebook"


def test_links_lead_somewhere(html: Path) -> None:
    soups = {
        file: BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser")
        for file in html.rglob("*.html")
        if "_static" not in file.parts
    }
    targets = {file: {tag["id"] for tag in soup.find_all(id=True)} for file, soup in soups.items()}
    broken = []
    for file, soup in soups.items():
        for name, attribute in (("a", "href"), ("img", "src"), ("script", "src"), ("link", "href")):
            for tag in soup.find_all(name, **{attribute: True}):
                link = urlsplit(tag[attribute])
                if link.scheme or link.netloc:
                    continue
                target = (file.parent / unquote(link.path)).resolve() if link.path else file
                anchors = targets.get(target, {unquote(link.fragment)})
                if not target.is_file() or (link.fragment and unquote(link.fragment) not in anchors):
                    broken.append((file.name, tag[attribute]))
    assert not broken


def test_chapter_buttons_lead_to_the_source_notebook(html: Path, root: Path) -> None:
    here = repository(root)
    for page, chapter in executed(root):
        file = html / page.relative_to(root).with_suffix(".html")
        soup = BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser")
        links = [link["href"] for link in soup.select(".bd-header-article a[href]")]
        source = f"notebooks/{chapter}.ipynb"
        binder = [link for link in links if link.startswith("https://mybinder.") and link.endswith(source)]
        assert bool(binder) == (here is not None and here.host != "codeberg.org"), links
        assert [link for link in links if link.endswith(f"_sources/{source}")], links
        assert not [link for link in links if "book/chapters" in link and "issues/new" not in link], links


def test_pages_load_without_errors_or_other_servers(visit: Visit, pages: list[str]) -> None:
    window = visit()
    for path in pages:
        window.open(path)
        window.page.wait_for_timeout(300)


def test_maths_is_typeset(visit: Visit, html: Path, pages: list[str]) -> None:
    window = visit()
    with_maths = [path for path in pages if 'class="math' in (html / path).read_text(encoding="utf-8")]
    assert with_maths
    for path in with_maths:
        page = window.open(path)
        page.wait_for_selector("mjx-container", state="attached")
        assert page.locator("mjx-merror").count() == 0, path
        assert page.locator(".math:not(:has(mjx-container))").count() == 0, path


INK = {"light": "rgb(34, 34, 34)", "dark": "rgb(221, 221, 221)"}
FILLED = """ink => [...document.querySelectorAll(".plotly-lazy")].every(figure => {
  const labels = [...figure.querySelectorAll(".xtick text, .legendtext")];
  return labels.length && labels.every(label => getComputedStyle(label).fill === ink);
})"""


def hover(page: Page, figure: Locator) -> bool:
    """Whether a label appears somewhere over the figure."""
    area = figure.locator(".nsewdrag").first
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box
    for across in (0.5, 0.2, 0.8, 0.35, 0.65):
        for down in (0.5, 0.25, 0.75, 0.1, 0.9):
            page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"], steps=3)
            page.wait_for_timeout(80)
            if figure.locator(".hoverlayer .hovertext").count():
                return True
    return False


def test_interactive_figures_answer_and_follow_the_theme(visit: Visit, html: Path, pages: list[str]) -> None:
    with_figures = [path for path in pages if "plotly-lazy" in (html / path).read_text(encoding="utf-8")]
    assert with_figures
    for path in with_figures:
        page = visit(color_scheme="light").open(path)
        figures = page.locator(".plotly-lazy")
        for figure in figures.all():
            figure.locator(".main-svg").first.wait_for(state="attached")
            assert figure.locator(".plotly-alone").is_hidden(), path
            assert hover(page, figure), f"{path}: no label appears over {figure.get_attribute('aria-label')}"
        seen = set()
        for _ in range(3):
            page.locator(".theme-switch-button:visible").first.click()
            theme = page.evaluate("document.documentElement.dataset.theme")
            page.wait_for_function(FILLED, arg=INK[theme])
            seen.add(theme)
        assert seen == set(INK), path


def test_the_perturbation_map_names_token_layer_and_distance(visit: Visit) -> None:
    page = visit().open("book/chapters/perturbation.html")
    figure = page.locator(".plotly-lazy").first
    figure.locator(".main-svg").first.wait_for(state="attached")
    assert hover(page, figure)
    label = figure.locator(".hoverlayer .hovertext").first.text_content() or ""
    for part in ("token", "after layer", "relative distance"):
        assert part in label


def test_static_figures_show_one_theme_at_a_time(visit: Visit, html: Path, pages: list[str]) -> None:
    for path in [path for path in pages if "only-dark themed" in (html / path).read_text(encoding="utf-8")]:
        for theme, other in (("light", "dark"), ("dark", "light")):
            page = visit(color_scheme=theme).open(path)
            images = page.locator(f"img.themed.only-{theme}")
            assert all(image.is_visible() and image.get_attribute("alt") for image in images.all()), path
            assert not any(image.is_visible() for image in page.locator(f"img.themed.only-{other}").all()), path


def test_the_book_works_opened_as_a_file(visit: Visit, html: Path, root: Path) -> None:
    window = visit(address=html.as_uri() + "/")
    page = window.open("index.html")
    page.wait_for_url("**/book/intro.html")
    for notebook, _ in executed(root)[:1]:
        page = window.open(notebook.relative_to(root).with_suffix(".html").as_posix())
        for figure in page.locator(".plotly-lazy").all():
            figure.locator(".main-svg").first.wait_for(state="attached")


def test_search_finds_chapters(visit: Visit) -> None:
    page = visit().open("search.html?q=sink")
    page.wait_for_selector("#search-results li a")
    assert page.locator("#search-results li a[href*='chapters/']").count()


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
@pytest.mark.parametrize(("former", "present"), FORMER_CLAIMS.items())
def test_a_former_address_leads_to_the_chapter(visit: Visit, former: str, present: str, scripts: bool) -> None:
    window = visit(java_script_enabled=scripts)
    place = "#verdict" if scripts else ""
    window.page.goto(f"{window.base}book/chapters/{former}.html{place}")
    window.page.wait_for_url(f"**/book/chapters/{present}.html{place}")
    assert window.page.locator("h2").count()


@pytest.mark.parametrize("former", FORMER_CLAIMS)
def test_the_page_at_a_former_address_can_be_read_by_everyone(visit: Visit, html: Path, former: str) -> None:
    text = (html / "book" / "chapters" / f"{former}.html").read_text(encoding="utf-8")
    soup = BeautifulSoup(text, "html.parser")
    for hurry in soup.find_all(["script", "noscript"]):
        hurry.decompose()
    page = visit().page
    page.set_content(str(soup))
    page.add_script_tag(path=str(AXE))
    faults = page.evaluate("axe.run({ preload: false })")["violations"]
    assert not faults, [fault["id"] for fault in faults]
    link = page.get_by_role("link", name=FORMER_CLAIMS[former].replace("_", " "))
    assert link.get_attribute("href") == f"{FORMER_CLAIMS[former]}.html"


def test_a_number_without_a_record_is_not_measured_yet(visit: Visit) -> None:
    page = visit().open("book/how-to-read.html")
    assert page.locator(".result.not-run").all_inner_texts() == ["not run"]


@pytest.mark.parametrize(("theme", "rules"), [("light", []), ("dark", ["color-contrast", "link-in-text-block"])])
def test_accessibility(visit: Visit, pages: list[str], theme: str, rules: list[str]) -> None:
    """Every rule in one theme; in the other those that colours can break, since nothing else differs."""
    window = visit(color_scheme=theme)
    options = {"preload": False, **({"runOnly": rules} if rules else {})}
    faults = []
    for path in pages:
        page = window.open(path)
        page.wait_for_timeout(1000)
        page.add_script_tag(path=str(AXE))
        # Preloading resolves the imports of style sheets against the page and asks for files that do not exist.
        result = page.evaluate("(options) => axe.run(options)", options)
        faults += [
            (path, fault["id"], node["html"][:160], node["failureSummary"][:200])
            for fault in result["violations"]
            for node in fault["nodes"][:2]
        ]
    assert not faults, "\n".join(map(str, faults))


@pytest.mark.parametrize("width", [390, 820])
def test_no_page_scrolls_sideways(visit: Visit, pages: list[str], width: int) -> None:
    window = visit(width=width)
    wide = []
    for path in pages:
        page = window.open(path)
        page.wait_for_timeout(500)
        if (got := page.evaluate("document.documentElement.scrollWidth")) > width:
            wide.append((path, got))
    assert not wide


def test_head_map_opens_the_chosen_head(visit: Visit) -> None:
    page = visit().open("book/chapters/phenomenon.html")
    first = page.locator(".head-map.alive").first
    first.wait_for()
    assert page.locator(".head-map-static").count() == 0, "the still picture is replaced"
    status, canvas = first.locator(".head-map-status"), first.locator("canvas")
    drawn = "(canvas) => canvas.toDataURL()"

    before = canvas.evaluate(drawn)
    first.get_by_role("gridcell", name="layer 3, head 1:").click()
    assert status.inner_text().startswith("Layer 3, head 1:")
    after = canvas.evaluate(drawn)
    assert after != before, "another head has another map"

    page.keyboard.press("ArrowRight")
    assert status.inner_text().startswith("Layer 4, head 1:")
    page.keyboard.press("ArrowDown")
    assert status.inner_text().startswith("Layer 4, head 2:")
    assert first.locator("[aria-selected=true]").count() == 1

    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    # The last token looking at the first: beyond the labels, in the lower left corner of the map.
    labels = min(90, 0.24 * box["width"])
    cell = (box["width"] - labels) / 24
    page.mouse.move(box["x"] + labels + cell / 2, box["y"] + box["height"] - cell / 2)
    assert "(token 0)" in first.locator(".head-map-hint").inner_text()
    assert "(token 23)" in first.locator(".head-map-hint").inner_text()


def test_head_map_says_what_the_record_says(visit: Visit) -> None:
    page = visit().open("book/chapters/phenomenon.html")
    for name in ("smollm2-135m", "gemma3-270m"):
        record = find("phenomenon", name)
        assert record is not None
        grid = page.get_by_role("grid", name=name)
        alpha = record.values["alpha"]
        assert grid.get_by_role("gridcell").count() == len(alpha) * len(alpha[0])
        share = 100 * alpha[5][1]
        expected = f"layer 5, head 1: {share:.0f} %" if share >= 10 else f"layer 5, head 1: {share:.1f} %"
        assert grid.get_by_role("gridcell", name=expected).count() == 1
