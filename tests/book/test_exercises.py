"""Exercises: every chapter has two, and every hidden solution runs and finds what it says."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import axe_playwright_python
import nbformat
import pytest
import torch
from playwright.sync_api import Page

from firsttoken.book import chapters, exercises
from firsttoken.book.prose import TAG
from firsttoken.errors import FirstTokenError
from firsttoken.models import LanguageModel, loading

CHAPTERS = chapters.chapters()
EXERCISES = {name: exercises.of_notebook(chapters.source(name)) for name in CHAPTERS}
EVERY = [exercise for of_chapter in EXERCISES.values() for exercise in of_chapter]
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
LONGEST_LINE = 100

Visit = Callable[..., Any]  # opens a window, see `visit` in conftest.py


# -- what is written --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_has_two_exercises_before_the_foot_of_the_page(chapter: str) -> None:
    assert len(EXERCISES[chapter]) >= 2
    sources = [cell.source for cell in nbformat.read(chapters.source(chapter), as_version=4).cells]
    of_exercises = next(number for number, source in enumerate(sources) if source.startswith("## Exercises\n"))
    assert "## Where these numbers come from" in sources[of_exercises + 1]
    # What follows begins a section of its own, or it would be read as a part of the exercises.
    assert sources[of_exercises + 1].startswith("## ")


def test_labels_are_unique() -> None:
    labels = [exercise.label for exercise in EVERY]
    assert len(labels) == len(set(labels))


@pytest.mark.parametrize("exercise", EVERY, ids=lambda exercise: exercise.label)
def test_a_solution_can_fail_and_fits_its_box(exercise: exercises.Exercise) -> None:
    statements = ast.parse(exercise.code).body
    last = statements[-1]
    assert isinstance(last, ast.Assert)
    asserted = {node.id for node in ast.walk(last.test) if isinstance(node, ast.Name)}
    computed = {
        node.id
        for statement in statements[:-1]
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    assert asserted & computed, "the assertion is about something that was computed"
    assert max(map(len, exercise.code.splitlines())) <= LONGEST_LINE


# -- what runs --------------------------------------------------------------------------------------------------


@torch.no_grad()
def traces(lm: LanguageModel) -> tuple[Any, ...]:
    """What a solution might leave behind in a model that others use after it."""
    hooks = sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in lm.model.modules())
    weights = sum(float(weight.double().sum()) for weight in lm.model.parameters())
    return hooks, weights, lm.model.config._attn_implementation, lm.model.training


@dataclass
class Loaded:
    """A model that several solutions use, and its traces before the first of them."""

    lm: LanguageModel
    untouched: tuple[Any, ...]


@pytest.fixture(scope="module")
def loaded() -> Iterator[dict[str, Loaded]]:
    """Models that solutions load, each loaded once for all of them."""
    kept: dict[str, Loaded] = {}
    load = loading.load

    def once(name: str) -> LanguageModel:
        if name not in kept:
            lm = load(name)
            kept[name] = Loaded(lm, traces(lm))
        return kept[name].lm

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load", once)
        yield kept


@pytest.mark.parametrize("exercise", EVERY, ids=lambda exercise: exercise.label)
def test_a_solution_finds_what_it_says(
    exercise: exercises.Exercise, loaded: dict[str, Loaded], capsys: pytest.CaptureFixture
) -> None:
    before = torch.get_default_dtype(), torch.is_grad_enabled()
    with torch.random.fork_rng(devices=[]):
        exec(compile(exercise.code, exercise.label, "exec"), {"__name__": "solution"})
    assert capsys.readouterr().out.strip(), "a solution prints what it finds"
    assert (torch.get_default_dtype(), torch.is_grad_enabled()) == before
    for name, model in loaded.items():
        if f'"{name}"' in exercise.code:
            assert traces(model.lm) == model.untouched


def test_a_solution_that_finds_something_else_fails() -> None:
    changed = EXERCISES["phenomenon"][0].code.replace("math.log(others) + ", "")
    assert changed != EXERCISES["phenomenon"][0].code
    with pytest.raises(AssertionError):
        exec(compile(changed, "changed", "exec"), {"__name__": "solution"})


# -- what is refused --------------------------------------------------------------------------------------------

EXERCISE = ":::{exercise} A title\n:label: some-exercise-1\n\nWhat is one and one?\n:::\n"
SOLUTION = """:::{solution} some-exercise-1
:class: dropdown

Two.

```python
total = 1 + 1
assert total == 2
```
:::
"""


def test_an_exercise_is_read() -> None:
    (exercise,) = exercises.of_text(f"## Exercises\n\n{EXERCISE}\n{SOLUTION}", "some")
    assert (exercise.chapter, exercise.label, exercise.title) == ("some", "some-exercise-1", "A title")
    assert exercise.text == "What is one and one?"
    assert exercise.solution.startswith("Two.\n")
    assert exercise.code == "total = 1 + 1\nassert total == 2\n"
    assert exercises.of_text("No exercise, and a word on {exercise} alone.", "some") == []


BROKEN = {
    "there is a solution without an exercise: some-exercise-1": SOLUTION,
    "some-exercise-1 has no solution": EXERCISE,
    "more than one solution": EXERCISE + SOLUTION + SOLUTION,
    "not hidden": EXERCISE + SOLUTION.replace(":class: dropdown\n", ""),
    "has the label 'other-exercise-1'": (EXERCISE + SOLUTION).replace("some-", "other-"),
    "has no title": EXERCISE.replace(" A title", "") + SOLUTION,
    "one block of Python; here are 0": EXERCISE + SOLUTION.replace("```python", "```text"),
    "one block of Python; here are 2": EXERCISE + SOLUTION.replace("Two.\n", "```python\nassert total\n```\n"),
    "the last statement": EXERCISE + SOLUTION.replace("assert total == 2", "print(total)"),
    "the solution is no Python": EXERCISE + SOLUTION.replace("total = 1", "total = = 1"),
    "not closed, or not between colons": EXERCISE + SOLUTION.replace(":::", "```"),
}


@pytest.mark.parametrize(("reason", "text"), BROKEN.items(), ids=BROKEN)
def test_what_is_not_written_as_it_should_be_is_reported(reason: str, text: str) -> None:
    with pytest.raises(FirstTokenError, match=reason):
        exercises.of_text(text, "some")


def test_a_cell_that_reports_would_keep_is_reported(tmp_path: Path) -> None:
    cell = nbformat.v4.new_markdown_cell(f"{EXERCISE}\n{SOLUTION}")
    notebook = tmp_path / "some.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), notebook)
    with pytest.raises(FirstTokenError, match=f"lacks the tag {TAG}"):
        exercises.of_notebook(notebook)
    cell.metadata["tags"] = [TAG]
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), notebook)
    assert len(exercises.of_notebook(notebook)) == 1


# -- what a reader sees -----------------------------------------------------------------------------------------

SHOWN = "book/chapters/quantisation.html"


def is_open(page: Page, number: int) -> bool:
    solution = page.locator("div.solution").nth(number)
    told = solution.locator(".toggle-button").get_attribute("aria-expanded") == "true"
    assert told == solution.locator("pre").is_visible()
    return told


def test_solutions_are_closed_until_they_are_asked_for(visit: Visit) -> None:
    page = visit().open(SHOWN)
    count = page.locator("div.solution").count()
    assert count == len(EXERCISES["quantisation"])
    assert not any(is_open(page, number) for number in range(count))
    button = page.locator("div.solution .toggle-button").first
    button.focus()
    page.keyboard.press("Enter")
    assert is_open(page, 0)
    page.keyboard.press("Space")
    assert not is_open(page, 0)
    page.locator("div.solution > .admonition-title").nth(1).click(position={"x": 30, "y": 15})
    assert is_open(page, 1)
    assert not is_open(page, 0)


def test_code_of_a_solution_scrolls_in_its_own_box_on_a_phone(visit: Visit) -> None:
    page = visit(width=390).open(SHOWN)
    page.locator("div.solution .toggle-button").first.click()
    box = page.locator("div.solution pre").first
    assert box.evaluate("e => e.scrollWidth > e.clientWidth && getComputedStyle(e).overflowX == 'auto'")
    inside = box.bounding_box()
    assert inside
    assert inside["x"] >= 0
    assert inside["x"] + inside["width"] <= 390
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_an_open_solution_can_be_read_by_everyone(visit: Visit, theme: str) -> None:
    page = visit(color_scheme=theme).open(SHOWN)
    for button in page.locator("div.solution .toggle-button").all():
        button.click()
    page.wait_for_timeout(500)
    page.add_script_tag(path=str(AXE))
    options = {"preload": False}
    audit = page.evaluate("(options) => axe.run('#exercises', options)", options)
    assert not [(fault["id"], node["html"][:160]) for fault in audit["violations"] for node in fault["nodes"]]
