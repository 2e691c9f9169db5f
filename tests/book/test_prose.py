"""Prose about the book's own models does not stand on another model's pages."""

from __future__ import annotations

from typing import Any

import nbformat
import pytest

from firsttoken.book import chapters
from firsttoken.book.prose import NOTE, TAG, leave_out_other_models
from firsttoken.files import slug
from firsttoken.model_names import NAMES


def notebook() -> Any:
    cells = [
        nbformat.v4.new_markdown_cell(
            "# A finding\n\n```{claim-summary} any\n\n```\n\nA general sentence.\n\nIn `gemma3-270m` it is so.\n"
            "On two lines.\n\n| a | b |\n|---|---|\n| 1 | 2 |"
        ),
        nbformat.v4.new_code_cell("model = 'gemma3-270m'"),
        nbformat.v4.new_markdown_cell("The two bundled models differ."),
        nbformat.v4.new_markdown_cell(
            "## A section on one of them\n\nNothing here names it.", metadata={"tags": [TAG]}
        ),
        nbformat.v4.new_markdown_cell("A number of {result}`any.smollm2-135m.value:.2f` nats.\n\nThe end."),
    ]
    return nbformat.v4.new_notebook(cells=cells)


def test_paragraphs_on_other_models_are_left_out() -> None:
    content = notebook()
    assert leave_out_other_models(content, ["tiny-llama"])
    text = "\n\n".join(cell.source for cell in content.cells)
    assert text == (
        f"# A finding\n\n*{NOTE}*\n\n```{{claim-summary}} any\n\n```\n\nA general sentence.\n\n| a | b |\n|---|---|\n"
        "| 1 | 2 |\n\nmodel = 'gemma3-270m'\n\nThe end."
    )


def test_a_page_about_one_of_them_keeps_what_is_about_it() -> None:
    content = notebook()
    leave_out_other_models(content, ["gemma3-270m"])
    text = "\n\n".join(cell.source for cell in content.cells)
    assert "In `gemma3-270m` it is so." in text
    assert "The two bundled models differ." in text
    assert "smollm2" not in text


@pytest.mark.parametrize(
    "paragraph",
    [
        "In `qwen2.5-coder-0.5b` it is so.",
        "In Qwen2.5-Coder it is so.",
        "In Gemma 3 270M and SmolLM2-135M-Instruct it is so.",
        "It is {result}`any.gemma3-270m--variant.value:.2f`.",
        "It is {result}`any.qwen2-5-coder-1-5b.value:.2f`.",
    ],
)
def test_a_model_is_known_by_any_of_its_names(paragraph: str) -> None:
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"# Title\n\n{paragraph}")])
    assert leave_out_other_models(content, ["tiny"])
    assert paragraph not in content.cells[0].source
    of_both = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"# Title\n\n{paragraph}")])
    assert not leave_out_other_models(of_both, list(map(slug, NAMES)))


def test_nothing_is_said_where_nothing_was_taken() -> None:
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title\n\nText on gemma3-270m-it.")])
    assert not leave_out_other_models(content, ["tiny"])
    assert content.cells[0].source == "# Title\n\nText on gemma3-270m-it."


@pytest.mark.parametrize("chapter", chapters.chapters())
def test_no_chapter_speaks_of_the_books_models_on_anothers_page(chapter: str) -> None:
    content = nbformat.read(chapters.source(chapter), as_version=4)
    if "model" not in chapters.parameters(chapter):
        return
    leave_out_other_models(content, ["some-model"])
    prose = "\n".join(cell.source for cell in content.cells if cell.cell_type == "markdown")
    left = [name for name in map(slug, NAMES) if name in prose]
    assert not left
    assert "bundled" not in prose.replace("the bundled name", "")
    assert "{exercise}" not in prose
    assert "{solution}" not in prose
