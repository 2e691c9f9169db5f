"""Running chapters: typed parameters, and never a page that did not run to its end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from firsttoken import cli, commands
from firsttoken.book import build, chapters
from firsttoken.errors import FirstTokenError
from small_book import notebook


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A book with one chapter that works."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: book/intro\nparts:\n  - caption: The claims\n    chapters:\n"
        "      - file: book/chapters/works\n"
    )
    notebook(tmp_path, "works", "print(type(fresh).__name__, type(model).__name__, model, passages)")
    return tmp_path


def pages(root: Path) -> list[str]:
    """Everything in the chapters folder that is left after a run, the published page and the failed one included."""
    folder = root / "book" / "chapters"
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_chapters_are_listed_in_the_order_of_the_contents(root: Path) -> None:
    notebook(root, "another")
    assert chapters.chapters(root) == ["works", "another"]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("model", "8", "8"),
        ("model", "true", "true"),
        ("passages", "12", 12),
        ("epsilon", "1", 1.0),
        ("epsilon", "2e-1", 0.2),
        ("fresh", "true", True),
        ("fresh", "False", False),
        ("fresh", "0", False),
        ("lengths", "[1, 2]", [1, 2]),
        ("bos", "none", None),
        ("bos", "always", "always"),
        ("seed", "3", 3),
    ],
)
def test_values_are_read_by_the_declared_type(root: Path, name: str, text: str, value: object) -> None:
    parsed = chapters.choose({name: text}, ["works"], root)["works"][name]
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(("name", "text"), [("passages", "many"), ("passages", "2.5"), ("fresh", "maybe")])
def test_a_value_of_another_type_is_refused(root: Path, name: str, text: str) -> None:
    with pytest.raises(FirstTokenError, match=f"{name} is of type"):
        chapters.choose({name: text}, ["works"], root)


def test_unknown_names_offer_the_nearest(root: Path) -> None:
    with pytest.raises(FirstTokenError, match="no chapter work; did you mean works"):
        chapters.run_chapter("work", {}, root=root)
    with pytest.raises(FirstTokenError, match="no parameter passage; did you mean passages"):
        chapters.run_chapter("works", {"passage": 3}, root=root)
    with pytest.raises(FirstTokenError, match="no parameter xyz; known are"):
        chapters.choose({"xyz": "3"}, ["works"], root)


def test_a_run_publishes_the_whole_page_and_nothing_else(root: Path) -> None:
    page = chapters.run_chapter("works", {"fresh": True, "model": "8"}, root=root)
    assert pages(root) == ["works.ipynb"]
    text = page.read_text()
    assert "bool str 8 8" in text
    assert str(root) not in text, "a published page must not tell where it was made"
    assert build.is_current(page, "works", root)
    notebook(root, "works", "print('changed')")
    assert not build.is_current(page, "works", root)


def test_a_failed_run_is_kept_aside_and_the_page_stays(root: Path) -> None:
    page = chapters.run_chapter("works", {}, root=root)
    before = page.read_text()
    notebook(root, "works", "print('this far')", "1 / 0", "print('never')")
    with pytest.raises(FirstTokenError, match="ZeroDivisionError") as caught:
        chapters.run_chapter("works", {}, root=root)
    assert page.read_text() == before
    assert pages(root) == [".failed/works.ipynb", "works.ipynb"]
    assert str(page.parent / ".failed" / "works.ipynb") in str(caught.value)
    assert "this far" in (page.parent / ".failed" / "works.ipynb").read_text()


def test_a_sentence_for_the_user_comes_out_alone(root: Path) -> None:
    sentence = "The passages are shorter than length."
    notebook(root, "works", f"from firsttoken.errors import FirstTokenError\nraise FirstTokenError({sentence!r})")
    with pytest.raises(FirstTokenError, match=f"^works failed: {sentence}") as caught:
        chapters.run_chapter("works", {}, root=root)
    assert "Traceback" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_dead_kernel_is_one_sentence(root: Path) -> None:
    notebook(root, "works", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(FirstTokenError, match="want of memory"):
        chapters.run_chapter("works", {}, root=root)
    assert "works.ipynb" not in pages(root)


def test_a_page_that_cannot_be_written_is_one_sentence_before_the_run(root: Path) -> None:
    notebook(root, "works", "raise ValueError('it ran')")
    page = root / "book" / "chapters" / "works.ipynb"
    page.mkdir(parents=True)
    with pytest.raises(FirstTokenError, match=r"written to .*works\.ipynb is a folder there.*move away"):
        chapters.run_chapter("works", {}, root=root)
    page.rmdir()
    page.parent.rmdir()
    page.parent.write_text("a file")
    with pytest.raises(FirstTokenError, match="Pages cannot be written to "):
        chapters.run_chapter("works", {}, root=root)


@pytest.mark.parametrize("command", [["/nowhere/python"], [sys.executable, "-c", "raise SystemExit(1)"]])
def test_a_kernel_that_does_not_start_is_one_sentence(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    spec = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": command, "display_name": "broken", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    with pytest.raises(FirstTokenError, match=r"works could not be started .* Jupyter kernel python3 starts") as said:
        chapters.run_chapter("works", {}, root=root)
    assert len(str(said.value).splitlines()) == 1
    assert pages(root) == []


def test_one_failing_chapter_leaves_the_others(root: Path) -> None:
    notebook(root, "fails", "raise ValueError('no')")
    with pytest.raises(FirstTokenError, match="fails failed: ValueError: no"):
        chapters.run_chapters([("fails", {}, None), ("works", {}, None)], root)
    assert "works.ipynb" in pages(root)


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_stopped_publishes_nothing(root: Path, kind: signal.Signals) -> None:
    notebook(root, "works", f"open({str(root / 'started')!r}, 'w').close()", "import time\ntime.sleep(120)")
    script = (
        # A test run in the background of a shell is deaf to Ctrl-C, and so would be its children.
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import pathlib\nfrom firsttoken.book import chapters\n"
        f"root = pathlib.Path({str(root)!r})\n"
        "try:\n    chapters.run_chapter('works', {}, root=root)\n"
        "except KeyboardInterrupt:\n    raise SystemExit(130)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONWARNINGS": "ignore"})
    deadline = time.monotonic() + 60
    while not (root / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(kind)
    assert process.wait(timeout=30) == (130 if kind == signal.SIGINT else -signal.SIGKILL)
    assert "works.ipynb" not in pages(root)

    notebook(root, "works", "print('again')")
    chapters.run_chapter("works", {}, root=root)
    assert pages(root) == ["works.ipynb"], "what the killed run left is cleared away"


def test_a_report_is_a_part_of_the_contents(root: Path) -> None:
    notebook(root, "fails", "raise ValueError(model)")
    notebook(root, "theory", "print('no model here')", parameters="depth: int = 3\n")
    with pytest.raises(FirstTokenError, match="ValueError: org/New-1B"):
        chapters.report("org/New-1B", asked={"passages": "3"}, root=root)
    folder = root / "book" / "models" / "org-new-1b"
    assert [page.name for page in sorted(folder.glob("[!.]*"))] == ["01-works.ipynb", "index.md"]
    part = build.table_of_contents(root)["parts"][1]
    assert part["chapters"] == [
        {"file": "book/models/org-new-1b/index", "sections": [{"file": "book/models/org-new-1b/01-works"}]}
    ]


def test_a_report_on_no_model_is_refused(root: Path) -> None:
    with pytest.raises(FirstTokenError, match="about no model"):
        chapters.report(" , ", root=root)
    assert not (root / "book" / "models").exists()


def test_the_build_names_chapters_that_have_no_current_page(root: Path) -> None:
    with pytest.raises(FirstTokenError, match="Not executed yet: works; run `firsttoken run works`"):
        build.build(root)
    chapters.run_chapter("works", {}, root=root)
    build.check_chapters(root)
    notebook(root, "works", "print('changed')")
    with pytest.raises(FirstTokenError, match="Changed since"):
        build.check_chapters(root)


@pytest.mark.parametrize("make", [build.build, build.print_book])
def test_without_jupyter_book_the_old_book_stays(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, make: Callable[[Path], Path]
) -> None:
    chapters.run_chapter("works", {}, root=root)
    old = root / "_build" / "html" / "index.html"
    old.parent.mkdir(parents=True)
    old.touch()
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    monkeypatch.setattr(commands, "command_build", lambda args: make(root))
    assert cli.main(["build"]) == 2
    assert "This needs jupyter_book, of the extra book" in capsys.readouterr().err
    assert old.exists()


NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_between_chapters_survive_a_copy(path: Path) -> None:
    """`firsttoken report` writes copies under other names into other folders, where a relative link leads nowhere."""
    text = "".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    assert not re.findall(r"\]\((?!https?:|#)[^)]*\)", text)
    for target in re.findall(r"\{doc\}`[^<`]*<([^>]+)>`", text):
        assert target.startswith("/book/")
        name = target.removeprefix("/book/")
        assert (NOTEBOOKS[0].parent / f"{Path(name).name}.ipynb").exists() or (
            NOTEBOOKS[0].parents[1] / "book" / f"{name}.md"
        ).exists(), target


def test_a_damaged_notebook_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "broken.ipynb").write_text('{"cells": {doc}')
    with pytest.raises(FirstTokenError, match=r"broken\.ipynb is no notebook .*; restore it from git"):
        chapters.parameters("broken", tmp_path)
