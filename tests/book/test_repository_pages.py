"""A small book built from a checkout with a made-up remote, and from one without: what its pages say of it.

It also holds a page of another model, whose summary must keep to that model.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup

from firsttoken.book import build
from firsttoken.files import ROOT

ADDRESS = "https://github.com/made-up/sinks"
REMOTES = {"with a remote": "https://reader:s3cret-token@github.com/made-up/sinks.git", "without": ""}
PAGES = ("re-run", "api", "fork")
CONTENTS = "format: jb-book\nroot: book/intro\nparts:\n  - caption: All\n    chapters:\n" + "".join(
    f"      - file: book/{page}\n" for page in ("chapters/sink_rates", *PAGES)
)


def made(root: Path, remote: str) -> Path:
    for folder in ("book/_ext", "book/_static"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__", "vendor"))
    for file in ("_config.yml", "book/references.bib", "pyproject.toml"):
        shutil.copy(ROOT / file, root / file)
    # Their links to pages that this book has not are no matter here.
    for page in PAGES:
        text = (ROOT / "book" / f"{page}.md").read_text(encoding="utf-8")
        text = re.sub(r"\[([^\]]*)\]\((?!https:)[^)]*\)", r"\1", text)
        text = re.sub(r"\{(?:doc|cite|cite:t|cite:p)\}`[^`]*`", "", text)
        (root / "book" / f"{page}.md").write_text(text, encoding="utf-8")
    (root / "book" / "intro.md").write_text("# A book\n\n```{book-facts}\n```\n", encoding="utf-8")
    (root / "_toc.yml").write_text(CONTENTS, encoding="utf-8")
    words = nbformat.v4.new_markdown_cell("# How many?\n\n```{claim-summary} sink_rates\n```\n\nMany.")
    content = nbformat.v4.new_notebook(cells=[words, nbformat.v4.new_code_cell("1 + 1", execution_count=1)])
    content.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    other = root / "book" / "models" / "gemma3-270m"
    for folder in (root / "notebooks", root / "book" / "chapters", other):
        folder.mkdir(parents=True)
        name = "02-sink_rates" if folder == other else "sink_rates"
        nbformat.write(content, folder / f"{name}.ipynb")
    (other / "index.md").write_text("# gemma3-270m\n", encoding="utf-8")
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    if remote:
        subprocess.run(["git", "-C", str(root), "remote", "add", "origin", remote], check=True)
    return build.build(root, quiet=True).parent


@pytest.fixture(scope="module", params=REMOTES)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return REMOTES[request.param], made(tmp_path_factory.mktemp("book"), REMOTES[request.param])


def soup(html: Path, page: str) -> BeautifulSoup:
    return BeautifulSoup((html / "book" / f"{page}.html").read_text(encoding="utf-8"), "html.parser")


def test_addresses_buttons_and_secrets(built: tuple[str, Path]) -> None:
    remote, html = built
    written = {path: path.read_text(encoding="utf-8") for path in html.rglob("book/**/*.html")}
    assert len(written) >= 6
    assert not [path for path, text in written.items() if "s3cret" in text or "reader:" in text]
    naming = [path for path, text in written.items() if "made-up" in text]
    assert bool(naming) == bool(remote)
    buttons = " ".join(str(link.get("href")) for link in soup(html, "chapters/sink_rates").select("a"))
    for place in ("mybinder.org", "colab.research.google.com", f"{ADDRESS}/issues/new"):
        assert (place in buttons) == bool(remote), place
    assert (f"git clone {ADDRESS} " in soup(html, "re-run").get_text()) == bool(remote)
    assert ("git clone" in soup(html, "re-run").get_text()) == bool(remote)
    assert "make book" in soup(html, "re-run").get_text()
    files = [str(link["href"]) for page in ("api", "fork") for link in soup(html, page).select("article a[href]")]
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        assert (f"{ADDRESS}/blob/main/{name}" in files) == bool(remote)
    assert "CONTRIBUTING.md" in soup(html, "fork").get_text()
    assert (ADDRESS in soup(html, "intro").select_one("details.folded").get_text()) == bool(remote)  # type: ignore[union-attr]


def test_a_page_of_another_model_shows_that_model_alone(built: tuple[str, Path]) -> None:
    _, html = built
    of_all = soup(html, "chapters/sink_rates").select_one(".claim-summary")
    of_one = soup(html, "models/gemma3-270m/02-sink_rates").select_one(".claim-summary")
    assert of_all is not None
    assert of_one is not None
    assert "SmolLM2" in of_all.get_text()
    assert "Gemma 3 270M" in of_one.get_text()
    assert "SmolLM2" not in of_one.get_text()
