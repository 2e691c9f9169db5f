"""The built book, a server for it, and a real browser that lets no request out.

Set `FIRSTTOKEN_HTML` to the `_build/html` of a finished build to test that one; otherwise the chapters that are
not current are run and the book is built, once for all tests.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright

from book_survey import DESKTOP, SCREENS, Readings, Survey, survey_of
from firsttoken.book import build, chapters
from firsttoken.files import ROOT
from firsttoken.records.schema import FORMER_CLAIMS

# Chromium's own services would ask for things in the background.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.book)


@dataclass
class Watched:
    """A browser page and what went wrong on it: requests to other servers, script errors, missing files."""

    page: Page
    base: str
    wrong: list[str] = field(default_factory=list)

    def open(self, path: str) -> Page:
        self.page.goto(self.base + path, wait_until="load")
        self.page.wait_for_load_state("networkidle")
        return self.page

    def watch(self) -> None:
        def gate(route: Route) -> None:
            url = route.request.url
            if url.startswith((self.base, "data:", "blob:")):
                route.continue_()
            else:
                self.wrong.append(f"asks for {url}")
                route.abort()

        self.page.route("**/*", gate)
        self.page.on("pageerror", lambda error: self.wrong.append(f"{self.page.url}: {error}"))
        self.page.on(
            "console", lambda said: said.type == "error" and self.wrong.append(f"{said.text} {said.location}")
        )


@pytest.fixture(scope="session")
def html() -> Path:
    """The folder of the built book."""
    if given := os.environ.get("FIRSTTOKEN_HTML"):
        return Path(given).resolve()
    pages = ROOT / "book" / "chapters"
    for name in chapters.chapters():
        if not (pages / f"{name}.ipynb").exists() or not build.is_current(pages / f"{name}.ipynb", name):
            chapters.run_chapter(name, {})
    return build.build(quiet=True).parent


@pytest.fixture(scope="session")
def root(html: Path) -> Path:
    """The checkout that the book was built from."""
    return html.parents[1]


@pytest.fixture(scope="session")
def pages(html: Path) -> list[str]:
    """Every page of the book a reader can reach, relative to its folder."""
    paths = [path.relative_to(html).as_posix() for path in (html / "book").rglob("*.html")]
    return [*sorted(paths), "search.html"]


@pytest.fixture(scope="session")
def base(html: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *message: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(html)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.fail("The tests of the built book need Chromium; run `make browser`.", pytrace=False)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield started
        started.close()


def _window(browser: Browser, address: str, width: int, **options: object) -> Watched:
    context = browser.new_context(viewport={"width": width, "height": 900}, **options)  # type: ignore[arg-type]
    watched = Watched(context.new_page(), address)
    watched.watch()
    return watched


@pytest.fixture(scope="session")
def survey(browser: Browser, base: str, pages: list[str]) -> Survey:
    """What every page shows on a screen of `book_survey.SCREENS`: opened at the first question, read by all tests."""

    @functools.cache
    def on(screen: str) -> Readings:
        window = _window(browser, base, **SCREENS[screen])
        # A page that only leads to another would be read twice.
        read = survey_of(screen, window, [path for path in pages if Path(path).stem not in FORMER_CLAIMS])
        window.page.context.close()
        return read

    return on


@pytest.fixture
def visit(browser: Browser, base: str) -> Iterator[Callable[..., Watched]]:
    """Open a new browser window, `visit(width=390, color_scheme="dark")`; it must see nothing wrong by the end."""
    opened: list[Watched] = []

    def new(width: int = DESKTOP, address: str = base, **options: object) -> Watched:
        opened.append(_window(browser, address, width, **options))
        return opened[-1]

    yield new
    for watched in opened:
        watched.page.context.close()
    assert not [line for watched in opened for line in watched.wrong]
