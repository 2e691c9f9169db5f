"""Build the book: check the chapters, put scripts beside it, run jupyter-book, make the pages light."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from firsttoken.book.chapters import chapters, listed, read_notebook, source
from firsttoken.book.lean import slim
from firsttoken.errors import FirstTokenError
from firsttoken.files import ROOT, write_atomically


def build(root: Path = ROOT, quiet: bool = False) -> Path:
    """Build the static book from the executed chapters and return its front page.

    Always a full build: an incremental one hides warnings and can leave numbers of an older record behind.
    """
    _needs_jupyter_book()
    check_chapters(root)
    shutil.rmtree(root / "_build" / "html", ignore_errors=True)
    vendor(root / "book" / "_static" / "vendor", (root / "book").rglob("*.ipynb"))
    if _jupyter_book(root, "-W", "--keep-going", "-n", *(["-q"] if quiet else [])):
        raise FirstTokenError("The book was not built: jupyter-book's warnings above count as errors.")
    slim(root / "_build" / "html")
    return root / "_build" / "html" / "index.html"


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def print_book(root: Path = ROOT, quiet: bool = False) -> Path:
    """Print the whole book into one PDF: jupyter-book puts it on a single page, and a browser prints that.

    Raises:
        FirstTokenError: chapters are missing, or there is no Chromium.
    """
    _needs_jupyter_book()
    check_chapters(root)
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise FirstTokenError(f"Printing needs a browser, one of {', '.join(BROWSERS)}; `make browser` installs one.")
    folder = root / "_build" / "singlehtml"
    shutil.rmtree(folder, ignore_errors=True)
    if _jupyter_book(root, "--builder", "singlehtml", *(["-q"] if quiet else [])):
        raise FirstTokenError("The book was not put on one page; see the lines above.")
    # It is named and placed after the first page of the book, but asks for its styles as from the folder itself.
    page = folder / "whole.html"
    max(folder.rglob("*.html"), key=lambda file: file.stat().st_size).rename(page)
    file = root / "_build" / "book.pdf"
    file.unlink(missing_ok=True)
    told = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer",
         "--virtual-time-budget=60000", f"--print-to-pdf={file}", page.as_uri()],
        capture_output=True, text=True,
    )  # fmt: skip
    if not file.is_file():
        raise FirstTokenError(
            f"The browser printed nothing: {(told.stderr.strip().splitlines() or ['it is silent'])[-1]}"
        )
    return file


def _needs_jupyter_book() -> None:
    """It runs in a process of its own, so that nothing here would miss it before the old book is gone."""
    if find_spec("jupyter_book") is None:
        raise ModuleNotFoundError("No module named 'jupyter_book'", name="jupyter_book")


def _jupyter_book(root: Path, *options: str) -> int:
    contents = root / "_build" / "toc.yml"
    write_atomically(contents, yaml.safe_dump(table_of_contents(root), sort_keys=False))
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(root)]
    return subprocess.run([*command, "--toc", str(contents), "--all", *options], cwd=root).returncode


def check_chapters(root: Path = ROOT) -> None:
    """Refuse to build from chapters that were never executed or whose notebook changed since."""
    wanted = listed(root)
    missing = [name for name in wanted if not (root / "book" / "chapters" / f"{name}.ipynb").exists()]
    if missing:
        names = " ".join(missing)
        raise FirstTokenError(f"Not executed yet: {', '.join(missing)}; run `firsttoken run {names}` first.")
    stale = [name for name in wanted if not is_current(root / "book" / "chapters" / f"{name}.ipynb", name, root)]
    if stale:
        names = " ".join(stale)
        raise FirstTokenError(f"Changed since they were executed: {', '.join(stale)}; run `firsttoken run {names}`.")


def is_current(page: Path, chapter: str, root: Path = ROOT) -> bool:
    """Whether an executed page has the cells of its notebook, apart from the injected parameters."""
    return _cells(page) == _cells(source(chapter, root))


def _cells(notebook: Path) -> list[tuple[str, str]]:
    return [
        (cell.cell_type, cell.source)
        for cell in read_notebook(notebook).cells
        if "injected-parameters" not in cell.metadata.get("tags", [])
    ]


def table_of_contents(root: Path = ROOT) -> dict[str, Any]:
    """The committed `_toc.yml` and, behind the part with the claims, one with the reports of other models, if any."""
    contents: dict[str, Any] = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    reports = []
    for index in sorted((root / "book" / "models").glob("*/index.md")):
        pages = sorted(index.parent.glob("[0-9]*.ipynb"))
        sections = [{"file": page.relative_to(root).with_suffix("").as_posix()} for page in pages]
        reports.append({"file": index.relative_to(root).with_suffix("").as_posix(), "sections": sections})
    if reports:
        of_claims = [
            number
            for number, part in enumerate(contents["parts"])
            if any(page["file"].startswith("book/chapters/") for page in part["chapters"])
        ]
        contents["parts"].insert(max(of_claims) + 1, {"caption": "Models", "chapters": reports})
    return contents


def vendor(folder: Path, pages: Iterable[Path]) -> None:
    """Copy plotly.js out of its installed package if a page draws with it, so that the book asks no other server."""
    target = folder / "plotly.min.js"
    if not any("plotly-lazy" in page.read_text(encoding="utf-8") for page in pages):
        shutil.rmtree(folder, ignore_errors=True)
        return
    import plotly

    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(plotly.__file__).parent / "package_data" / "plotly.min.js", target)


def summary(root: Path = ROOT) -> str:
    """Which chapters there are, one line each, with whether they are executed and current."""
    lines = []
    for name in chapters(root):
        page = root / "book" / "chapters" / f"{name}.ipynb"
        state = "not executed" if not page.exists() else "current" if is_current(page, name, root) else "out of date"
        lines.append(f"{name} ({state})")
    return "\n".join(lines)
