"""The chapter that CONTRIBUTING shows, made from that page in a copy of the project, run and built."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from firsttoken.files import ROOT

BLOCK = re.compile(
    r"^```python\n# (?P<path>\S+?)(?P<tagged>, the cell tagged `parameters`)?\n(?P<code>.*?)^```$", re.M | re.S
)
NAME = "second_token"
INTRO = "# A book of one chapter\n\n```{verdict-board}\n```\n"
CONTENTS = f"format: jb-book\nroot: book/intro\nchapters:\n  - file: book/chapters/{NAME}\n"


def make_chapter(root: Path) -> set[Path]:
    """Write the files of the guide's example below `root`; which ones."""
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    cells = [nbformat.v4.new_markdown_cell("# The second token")]
    written = set()
    for block in BLOCK.finditer(guide):
        path = root / block["path"].rstrip(",")
        written.add(path)
        if path.suffix == ".ipynb":
            tags = {"tags": ["parameters"]} if block["tagged"] else {}
            cells.append(nbformat.v4.new_code_cell(block["code"].strip(), metadata=tags))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block["code"], encoding="utf-8")
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), root / "notebooks" / f"{NAME}.ipynb"
    )
    return written


@pytest.mark.book
def test_the_guides_chapter_runs_and_builds(tmp_path: Path) -> None:
    root = tmp_path / "project"
    for folder in ("src", "book/_ext", "book/_static", "results"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__", "local", "vendor"))
    shutil.copy(ROOT / "_config.yml", root)
    shutil.copy(ROOT / "book" / "references.bib", root / "book")
    (root / "notebooks").mkdir()
    (root / "book" / "intro.md").write_text(INTRO)
    (root / "_toc.yml").write_text(CONTENTS)

    places = {path.relative_to(root).parts for path in make_chapter(root)}
    folders = {parts[:-1] if parts[0] == "src" else parts for parts in places}
    # One folder and one notebook; the third place is the line of the contents.
    assert folders == {("src", "firsttoken", "claims", NAME), ("notebooks", f"{NAME}.ipynb")}

    environment = os.environ | {"PYTHONPATH": str(root / "src"), "FIRSTTOKEN_RESULTS": str(root / "results" / "local")}

    def firsttoken(*arguments: str) -> str:
        command = [sys.executable, "-m", "firsttoken.cli", *arguments]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    firsttoken("run", NAME)
    firsttoken("build", "--quiet")
    page = (root / "_build" / "html" / "book" / "chapters" / f"{NAME}.html").read_text(encoding="utf-8")
    assert "Verdict: reproduced (SmolLM2-135M-Instruct)" in page
    assert f"firsttoken run {NAME} -p model smollm2-135m" in page
    board = (root / "_build" / "html" / "book" / "intro.html").read_text(encoding="utf-8")
    assert "share of attention on the second token" in board

    firsttoken("build", "--quiet", "--pdf")
    printed = (root / "_build" / "book.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page[^s]", printed)) >= 2
