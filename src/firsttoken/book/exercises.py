"""Exercises of the chapters and their hidden solutions, read out of the notebooks so that tests can run them.

CONTRIBUTING.md says how one is written. In a markdown cell both are directives between colons, one behind the other:

    :::{exercise} A short title
    :label: chapter-exercise-1
    ...
    :::

    :::{solution} chapter-exercise-1
    :class: dropdown
    ...
    :::
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from firsttoken.book.chapters import read_notebook
from firsttoken.book.prose import TAG
from firsttoken.errors import FirstTokenError

_DIRECTIVE = re.compile(
    r"^(?P<fence>:{3,})\{(?P<kind>exercise|solution)\}[ ]*(?P<argument>[^\n]*)\n(?P<body>.*?)^(?P=fence)[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_BEGINNING = re.compile(r"^\s*[:`]{3,}\{(?:exercise|solution)[\w-]*\}", re.MULTILINE)
_OPTION = re.compile(r"^:(\w+):[ ]*(.*)$", re.MULTILINE)
_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Exercise:
    """One exercise with its solution."""

    chapter: str
    label: str
    title: str
    text: str  # what is asked
    solution: str  # words and code
    code: str  # the Python block of the solution


def of_notebook(notebook: Path) -> list[Exercise]:
    """The exercises of a notebook, in order.

    Raises:
        FirstTokenError: the cell that holds them lacks the tag by which reports on other models drop it, or one of
            them breaks a rule of `of_text`.
    """
    exercises: list[Exercise] = []
    for cell in read_notebook(notebook).cells:
        if cell.cell_type == "markdown" and _BEGINNING.search(cell.source):
            if TAG not in cell.metadata.get("tags", []):
                raise FirstTokenError(f"{notebook.stem}: the cell with exercises lacks the tag {TAG}.")
            exercises += of_text(cell.source, notebook.stem)
    return exercises


def of_text(text: str, chapter: str) -> list[Exercise]:
    """The exercises in the source of a markdown cell.

    Raises:
        FirstTokenError: a directive that is written in another way than the one above, an exercise without a title or
            with another label than its chapter and number ask for, not exactly one solution of each, or a solution
            that is open at first or has not exactly one Python block that ends with an assertion.
    """
    directives = list(_DIRECTIVE.finditer(text))
    if len(directives) != len(_BEGINNING.findall(text)):
        raise FirstTokenError(f"{chapter}: an exercise or a solution is not closed, or not between colons.")
    asked = [one for one in directives if one["kind"] == "exercise"]
    solutions: dict[str, str] = {}
    for one in directives:
        if one["kind"] == "solution":
            label = one["argument"].strip()
            if label in solutions:
                raise FirstTokenError(f"{chapter}: {label} has more than one solution.")
            if _options(one["body"]).get("class") != "dropdown":
                raise FirstTokenError(f"{chapter}: the solution of {label} is not hidden; give it :class: dropdown.")
            solutions[label] = _OPTION.sub("", one["body"]).strip()
    exercises = [_exercise(one, number, chapter, solutions) for number, one in enumerate(asked, 1)]
    if solutions:
        raise FirstTokenError(f"{chapter}: there is a solution without an exercise: {', '.join(solutions)}.")
    return exercises


def _options(body: str) -> dict[str, str]:
    return {name: value.strip() for name, value in _OPTION.findall(body)}


def _exercise(directive: re.Match[str], number: int, chapter: str, solutions: dict[str, str]) -> Exercise:
    """The exercise of a directive; its solution is taken out of `solutions`."""
    title, label = directive["argument"].strip(), _options(directive["body"]).get("label", "")
    if not title:
        raise FirstTokenError(f"{chapter}: exercise {number} has no title.")
    if label != f"{chapter}-exercise-{number}":
        raise FirstTokenError(
            f"{chapter}: exercise {number} has the label {label!r}, not {chapter}-exercise-{number}."
        )
    if label not in solutions:
        raise FirstTokenError(f"{chapter}: {label} has no solution.")
    solution = solutions.pop(label)
    return Exercise(
        chapter, label, title, _OPTION.sub("", directive["body"]).strip(), solution, _code(solution, label)
    )


def _code(solution: str, label: str) -> str:
    """The one Python block of a solution.

    Raises `FirstTokenError` where there is none or more than one, or where its last statement asserts nothing.
    """
    blocks: Sequence[str] = _PYTHON.findall(solution)
    if len(blocks) != 1:
        raise FirstTokenError(f"{label}: a solution has one block of Python; here are {len(blocks)}.")
    try:
        statements = ast.parse(blocks[0]).body
    except SyntaxError as error:
        raise FirstTokenError(f"{label}: the solution is no Python ({error}).") from error
    if not statements or not isinstance(statements[-1], ast.Assert):
        raise FirstTokenError(f"{label}: the last statement of a solution is an assertion of what it says.")
    return blocks[0]
