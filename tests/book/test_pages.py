"""What a reader meets on the built pages: whole chapters, live links, maths, figures, search, on any screen."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import nbformat
import pandas as pd
import plotly.graph_objects as go
import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import Locator, Page, expect

from book_survey import DESKTOP, PHONE, RULES, SCREENS, TABLET, Survey, faults
from firsttoken import plots
from firsttoken.book import build, chapters
from firsttoken.book.repository import repository
from firsttoken.figure_data import COLUMNS as FIGURE_COLUMNS
from firsttoken.model_names import short_name
from firsttoken.records import all_records, find
from firsttoken.records.frame import COLUMNS
from firsttoken.records.schema import FORMER_CLAIMS

Visit = Callable[..., Any]  # opens a window, see `visit` in conftest.py


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


@pytest.mark.parametrize("screen", SCREENS)
def test_pages_load_without_errors_or_other_servers(survey: Survey, screen: str) -> None:
    assert not [(path, line) for path, read in survey(screen).items() for line in read["wrong"]]


def test_maths_is_drawn_without_a_script(visit: Visit, html: Path, pages: list[str]) -> None:
    with_maths = [path for path in pages if 'class="math' in (html / path).read_text(encoding="utf-8")]
    assert with_maths
    window = visit(java_script_enabled=False)
    for path in with_maths:
        window.page.goto(window.base + path)
        assert window.page.locator(".math:not(:has(math))").count() == 0, path
        boxes = window.page.locator(".math math")
        assert boxes.evaluate_all("all => all.every(e => e.getBoundingClientRect().height > 5)"), path
        # A command that was not understood would stand there as it was typed.
        assert not [text for text in boxes.all_text_contents() if "\\" in text], path


INK = {"light": "rgb(34, 34, 34)", "dark": "rgb(221, 221, 221)"}
FILLED = """ink => [...document.querySelectorAll(".plotly-lazy")].every(figure => {
  const labels = [...figure.querySelectorAll(".xtick text, .legendtext")];
  return labels.length && labels.every(label => getComputedStyle(label).fill === ink);
})"""


def point_at(element: Locator, across: float, down: float) -> None:
    """The mouse over a place inside it, as parts of its width and height, once it has come to rest."""
    box = element.bounding_box()
    assert box
    element.hover(position={"x": across * box["width"], "y": down * box["height"]})


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


@pytest.fixture
def plotted(html: Path, tmp_path: Path) -> str:
    """A page with a plotly figure, beside the scripts of the book; no chapter of the book itself has one."""
    figure = go.Figure(go.Scatter(x=[0, 1, 2], y=[0.2, 0.5, 0.4], name="mass"), layout={"showlegend": True})
    shown = plots.interactive(figure, "Mass over layers").html
    shutil.copytree(html / "_static", tmp_path / "_static")
    notebook = tmp_path / "page.ipynb"
    notebook.write_text(shown, encoding="utf-8")
    build.vendor(tmp_path / "_static" / "vendor", [notebook])
    (tmp_path / "page.html").write_text(
        f'<!doctype html><html data-theme="light"><script defer src="_static/plotly-lazy.js"></script>{shown}',
        encoding="utf-8",
    )
    return tmp_path.as_uri() + "/"


@pytest.mark.parametrize("touch", [False, True])
def test_a_plotly_figure_answers_follows_the_theme_and_offers_no_upload(
    visit: Visit, plotted: str, touch: bool
) -> None:
    page = visit(address=plotted, has_touch=touch, is_mobile=touch).open("page.html")
    figure = page.locator(".plotly-lazy")
    figure.locator(".main-svg").first.wait_for(state="attached")
    assert figure.locator(".plotly-alone").is_hidden()
    for theme in INK:
        page.evaluate("theme => document.documentElement.dataset.theme = theme", theme)
        page.wait_for_function(FILLED, arg=INK[theme])
    if touch:
        assert figure.locator(".modebar-btn").count() == 0
    else:
        assert hover(page, figure)
        titles = " ".join(b.get_attribute("data-title") or "" for b in figure.locator(".modebar-btn").all()).lower()
        assert "zoom" in titles
        assert not [word for word in ("share", "cloud", "upload", "studio") if word in titles]


def test_plotly_is_copied_only_where_a_page_draws_with_it(tmp_path: Path) -> None:
    notebook = tmp_path / "page.ipynb"
    for content, copied in (("plotly-lazy", True), ("nothing", False)):
        notebook.write_text(content, encoding="utf-8")
        build.vendor(tmp_path / "vendor", [notebook])
        assert (tmp_path / "vendor" / "plotly.min.js").exists() == copied


def test_a_cell_of_the_perturbation_map_names_token_layer_and_distance(visit: Visit) -> None:
    page = visit().open("book/chapters/perturbation.html")
    record = find("perturbation", "smollm2-135m")
    assert record
    picture = record.values["picture"]
    image = page.locator("figure.drawn svg image").first
    place, layer = picture["position"], 0
    distances = picture["with_bos"]["relative"]  # (layer + 1, token)
    columns, rows = len(distances), len(distances[0])
    point_at(image, (layer + 0.5) / columns, (place + 0.5) / rows)
    said = page.locator(".point-at")
    expect(said).to_contain_text(f"token {place}: {picture['tokens'][place].strip()}")
    expect(said).to_contain_text(f"after layer {layer}")
    expect(said).to_contain_text(f"relative distance {distances[layer][place]:.3g}")
    page.keyboard.press("Escape")
    expect(said).to_be_hidden()
    page.evaluate("dispatchEvent(new Event('scroll'))")
    expect(said).to_be_hidden()


def test_a_heat_map_answers_for_what_scrolls_under_the_pointer(visit: Visit) -> None:
    page = visit().open("book/chapters/perturbation.html")
    image, said = page.locator("figure.drawn svg image").first, page.locator(".point-at")
    point_at(image, 0.5, 0.4)
    before = said.inner_text()
    page.evaluate("dispatchEvent(new Event('scroll'))")  # one that comes late, when the page has come to rest
    assert said.is_visible()
    assert said.inner_text() == before
    box = image.bounding_box()
    assert box
    page.mouse.wheel(0, box["height"] * 0.4)
    page.wait_for_function("before => document.querySelector('.point-at').innerText !== before", arg=before)
    expect(said).to_be_visible()
    page.evaluate("scrollTo(0, 0)")
    expect(said).to_be_hidden()


def test_a_heat_map_answers_a_finger_until_the_page_scrolls(visit: Visit) -> None:
    page = visit(width=390, has_touch=True, is_mobile=True).open("book/chapters/perturbation.html")
    image, said = page.locator("figure.drawn svg image").first, page.locator(".point-at")
    image.scroll_into_view_if_needed()
    page.wait_for_timeout(200)  # until that scrolling has been said
    box = image.bounding_box()
    assert box
    image.tap(position={"x": box["width"] / 2, "y": box["height"] / 2})
    page.wait_for_timeout(200)  # the finger has been lifted
    assert said.is_visible()
    page.evaluate("scrollBy(0, 40)")
    expect(said).to_be_hidden()


def test_every_heat_map_of_a_figure_answers(visit: Visit, html: Path, pages: list[str]) -> None:
    """Also where panels flow and each is a drawing of its own."""
    page, asked = visit(), 0
    for path in [path for path in pages if "application/json" in (html / path).read_text(encoding="utf-8")]:
        opened = page.open(path)
        for figure in opened.locator("figure.drawn:has(> script[type='application/json'], svg image)").all():
            if not figure.locator("script[type='application/json']").count():
                continue
            grids = json.loads(figure.locator("script[type='application/json']").first.text_content() or "[]")
            images = figure.locator("svg image")
            assert images.count() >= len(grids), path
            for number in range(len(grids)):
                point_at(images.nth(number), 0.5, 0.5)
                expect(opened.locator(".point-at"), f"{path}, map {number}").to_contain_text(grids[number]["value"])
                asked += 1
    assert asked > 8


def test_every_figure_has_a_number_a_caption_and_a_name(survey: Survey) -> None:
    counted = 0
    for path, read in survey("desktop").items():
        for figure in read["figures"]:
            counted += 1
            assert figure["name"], path
            assert figure["caption"], path
            assert figure["caption"].rstrip(".") != figure["name"].rstrip("."), path
            assert figure["before"].startswith('"Figure "'), path
        assert not read["repeated"], path
    assert counted > 40


INKS = """() => [...document.querySelectorAll("figure.drawn svg:has(text)")].map(svg => [
  getComputedStyle(svg.querySelector("text") ?? svg).fill, getComputedStyle(svg.closest("figure")).color])"""


def test_captions_do_not_say_on_which_side_a_panel_is(html: Path) -> None:
    """Panels stand below each other where the page is narrow."""
    side = re.compile(r"\((left|right)[;,)]|\bon the (left|right)\b|(^|[.;:] )(left|right)(?! of\b)", re.IGNORECASE)
    said = []
    for page in sorted(html.glob("book/**/*.html")):
        for figure in BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").select("figure.drawn"):
            said += [caption.get_text().strip() for caption in figure.select("figcaption")]
            said += [str(drawn["aria-label"]) for drawn in figure.select("[aria-label]")]
    assert len(said) > 80
    assert [text for text in said if side.search(text)] == []


def test_figures_take_the_ink_of_the_theme(visit: Visit, html: Path, pages: list[str]) -> None:
    for path in [path for path in pages if 'class="drawn' in (html / path).read_text(encoding="utf-8")][:4]:
        seen = []
        for theme in ("light", "dark"):
            inks = visit(color_scheme=theme).open(path).evaluate(INKS)
            assert inks
            assert all(text == around for text, around in inks), path
            seen.append(inks[0][0])
        assert seen[0] != seen[1], path


@pytest.mark.parametrize(("screen", "width"), [("desktop", DESKTOP), ("phone", PHONE)])
def test_nothing_is_clipped_and_no_text_of_a_figure_is_too_small(survey: Survey, screen: str, width: int) -> None:
    faults: list[tuple[str, str]] = []
    for path, read in survey(screen).items():
        faults += [(path, "wider than the screen")] * (read["width"] > width)
        faults += [(path, clipped) for clipped in read["clipped"]]
        faults += [(path, f"text of {size:.1f} px") for size in read["smallest"] if size < 8.9]
    assert not faults


def test_a_page_fits_a_tablet(survey: Survey) -> None:
    wide = {path: read["width of a tablet"] for path, read in survey("phone").items()}
    assert not {path: width for path, width in wide.items() if width > TABLET}


@pytest.mark.parametrize("screen", ["desktop", "phone"])
def test_no_figure_is_wider_than_its_column(survey: Survey, screen: str) -> None:
    read = survey(screen)
    assert sum(len(of_page["smallest"]) for of_page in read.values()) > 40
    assert not {path: of_page["scrolled"] for path, of_page in read.items() if of_page["scrolled"]}


def test_records_can_be_downloaded_as_json_and_csv(html: Path, root: Path) -> None:
    for page, chapter in executed(root):
        soup = BeautifulSoup((html / page.relative_to(root)).with_suffix(".html").read_text("utf-8"), "html.parser")
        links = [link["href"] for link in soup.select(".downloads a[download]")]
        assert links or not all_records(chapter), chapter
        for link in links:
            file = (html / page.relative_to(root)).parent / link
            if file.suffix == ".json":
                assert json.loads(file.read_text("utf-8"))["claim"]
            else:
                assert tuple(pd.read_csv(file).columns) == COLUMNS


def test_every_figure_has_its_numbers_to_download(html: Path, root: Path) -> None:
    for page, chapter in executed(root):
        file = (html / page.relative_to(root)).with_suffix(".html")
        soup = BeautifulSoup(file.read_text("utf-8"), "html.parser")
        assert not soup.select("template.figure-data")
        for figure in soup.select("figure.drawn"):
            (link,) = figure.select("figcaption a[download]")
            numbers = pd.read_csv(file.parent / str(link["href"]))
            assert tuple(numbers.columns) == FIGURE_COLUMNS
            assert len(numbers), (chapter, figure.figcaption)


def test_the_book_works_opened_as_a_file(visit: Visit, html: Path) -> None:
    window = visit(address=html.as_uri() + "/")
    page = window.open("index.html")
    page.wait_for_url("**/book/intro.html")
    page = window.open("book/chapters/phenomenon.html")
    page.locator(".head-map.alive").first.wait_for()


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
    assert not faults(page, [])
    link = page.get_by_role("link", name=FORMER_CLAIMS[former].replace("_", " "))
    assert link.get_attribute("href") == f"{FORMER_CLAIMS[former]}.html"


def test_a_number_without_a_record_is_not_measured_yet(visit: Visit) -> None:
    page = visit().open("book/how-to-read.html")
    assert page.locator(".result.not-run").all_inner_texts() == ["not run"]


@pytest.mark.parametrize("screen", RULES)
def test_accessibility(survey: Survey, screen: str) -> None:
    wrong = [(path, *fault) for path, read in survey(screen).items() for fault in read["faults"]]
    assert not wrong, "\n".join(map(str, wrong))


def test_the_audit_finds_what_is_not_accessible(visit: Visit) -> None:
    page = visit(color_scheme="dark").open("book/intro.html")
    page.evaluate("document.querySelector('article p').style.color = '#333'")
    assert {fault[0] for fault in faults(page, RULES["dark"])} == {"color-contrast"}


def test_nothing_is_drawn_with_a_font_that_is_not_there(survey: Survey) -> None:
    assert not {path: read["boxes"] for path, read in survey("desktop").items() if read["boxes"]}


def test_no_output_is_bright_on_a_dark_page(survey: Survey) -> None:
    assert not {path: read["bright"] for path, read in survey("dark").items() if read["bright"]}


def test_the_left_end_of_a_formula_can_be_seen(survey: Survey) -> None:
    assert not {path: read["lost"] for path, read in survey("phone").items() if read["lost"]}


def test_code_is_closed_and_opens_by_keyboard(visit: Visit, root: Path) -> None:
    window = visit()
    for _, chapter in executed(root)[:3]:
        page = window.open(f"book/chapters/{chapter}.html")
        code = page.locator(".cell_input .highlight, details.hide .highlight")
        assert code.count()
        assert not any(block.is_visible() for block in code.all()), chapter
        summaries = page.locator("details.hide > summary")
        assert summaries.count() >= 3
        parameters = summaries.filter(has_text="parameters").first
        parameters.focus()
        page.keyboard.press("Enter")
        assert parameters.locator("xpath=..").locator(".highlight").is_visible()
        assert not page.locator(".provenance table").first.is_visible()


def test_every_chapter_leads_to_the_next(html: Path, root: Path) -> None:
    names = chapters.listed(root)
    for name, following in zip(names, [*names[1:], None], strict=True):
        soup = BeautifulSoup((html / f"book/chapters/{name}.html").read_text("utf-8"), "html.parser")
        (last,) = soup.select(".next-chapter")
        link = last.find("a")
        assert link is not None
        assert link["href"] == (f"{following}.html" if following else "../serving.html")
        assert len(last.get_text()) > len(link.get_text()) + 20, "it says why"
        told = " ".join(one.get_text() for one in soup.select("p.rule"))
        assert "Another explanation." in told, name
        assert "The rule." in told, name


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

    box = canvas.bounding_box()
    assert box is not None
    # The last token looking at the first: beyond the labels, in the lower left corner of the map.
    labels = min(90, 0.24 * box["width"])
    cell = (box["width"] - labels) / 24
    point_at(canvas, (labels + cell / 2) / box["width"], 1 - cell / 2 / box["height"])
    expect(first.locator(".head-map-hint")).to_contain_text("(token 0)")
    expect(first.locator(".head-map-hint")).to_contain_text("(token 23)")


def test_head_map_says_what_the_record_says(visit: Visit) -> None:
    page = visit().open("book/chapters/phenomenon.html")
    for name in ("smollm2-135m", "gemma3-270m"):
        record = find("phenomenon", name)
        assert record is not None
        grid = page.get_by_role("grid", name=short_name(name))
        alpha = record.values["alpha"]
        assert grid.get_by_role("gridcell").count() == len(alpha) * len(alpha[0])
        share = 100 * alpha[5][1]
        expected = f"layer 5, head 1: {share:.0f} %" if share >= 10 else f"layer 5, head 1: {share:.1f} %"
        assert grid.get_by_role("gridcell", name=expected).count() == 1
