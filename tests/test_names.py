"""Names in the code say what they hold, and parameters of the same thing have the same name."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from firsttoken import claims
from firsttoken.book import chapters
from firsttoken.files import ROOT

FOLDERS = ("src", "benchmarks", "book/_ext", "tests")
MYSELF = Path(__file__).resolve()
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def bound(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that a file gives to something, with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                yield name, node.lineno
            case ast.arg(arg=name):
                yield name, node.lineno
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name)):
                yield name, node.lineno
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name, node.lineno
            case ast.MatchMapping(rest=str(name)):
                yield name, node.lineno


# Names that say nothing of what they hold.
EMPTY = {"found", "result", "data"}
# Where `texts` are texts: strings, or a tensor of their tokens. Elsewhere it is the package `firsttoken.texts`.
TEXTS = (
    "src/firsttoken/texts/",
    "src/firsttoken/pretraining/backcopy.py",
    "src/firsttoken/pretraining/budgets.py",  # how many, under a name that records have
    "src/firsttoken/pretraining/checkpoint_probe.py",
    "src/firsttoken/pretraining/corpora.py",
    "src/firsttoken/pretraining/design_outcomes.py",
    "src/firsttoken/pretraining/train.py",
    "src/firsttoken/plots.py",  # strings in the cells of a table
    "tests/pretraining/",
)
# The docutils node `result`, whose name is that of the role in the pages.
NODE = "book/_ext/result_role.py"


def wrong(names: set[str]) -> list[str]:
    """What is wrong with parameters that are declared together."""
    pairs = (("length", "text_tokens"), ("longest", "longest_text_tokens"))
    both = [f"both {one} and {other}" for one, other in pairs if {one, other} <= names]
    return [*both, *(["texts"] if "texts" in names else [])]


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("found = 1", 1),
        ("if (found := 1):\n    pass", 1),
        ("def f(a,\n      found): ...", 2),
        ("lambda found: 1", 1),
        ("{a: found for a, found in []}", 1),
        ("for a, found in []:\n    found += a", 1),
        ("with a as (b, found):\n    pass", 1),
        ("import a as found", 1),
        ("try:\n    a\nexcept B as found:\n    pass", 3),
        ("match a:\n    case [found, *_]:\n        pass", 2),
        ("match a:\n    case {**found}:\n        pass", 2),
    ],
)
def test_every_way_to_bind_a_name_is_seen(code: str, line: int) -> None:
    assert ("found", line) in bound(ast.parse(code))


@cache
def _all_bound() -> list[tuple[str, str, int]]:
    return [
        (path.relative_to(ROOT).as_posix(), name, line)
        for path in FILES
        for name, line in bound(ast.parse(path.read_text(encoding="utf-8")))
    ]


def places(name: str) -> list[str]:
    """Where a name is bound, as file:line."""
    return [f"{path}:{line}" for path, one, line in _all_bound() if one == name]


@pytest.mark.parametrize("name", sorted(EMPTY))
def test_no_variable_has_an_empty_name(name: str) -> None:
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == {"src", "benchmarks", "book", "tests"}
    assert [place for place in places(name) if not place.startswith(NODE)] == []


def test_texts_are_texts() -> None:
    assert [place for place in places("texts") if not place.startswith(TEXTS)] == []
    assert all(any(place.startswith(home) for place in places("texts")) for home in TEXTS)


def test_names_of_declared_parameters() -> None:
    # Also of classes that no measurement of a claim uses.
    faults = [f"{place}: {fault}" for path in FILES for place, names in _classes(path) for fault in wrong(names)]
    for claim in claims.names():
        for measurement in (*claims.measurements(claim), *claims.trained(claim)):
            # With those that a class inherits.
            names = {field.name for field in dataclasses.fields(measurement.parameters)}
            faults += [f"{claim} {measurement.parameters.__name__}: {fault}" for fault in wrong(names)]
    assert faults == []


def _classes(path: Path) -> Iterator[tuple[str, set[str]]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef) and node.name.endswith("Parameters"):
            fields = {ast.unparse(part.target) for part in node.body if isinstance(part, ast.AnnAssign)}
            yield f"{path.relative_to(ROOT)}:{node.lineno}", fields


# -- lengths --------------------------------------------------------------------------------------------------

WITHOUT_BOS = re.compile(r"\btext tokens\b|\bBOS not counted\b")
WITH_BOS = re.compile(r"\bBOS included\b")


def commented_fields(code: str) -> Iterator[tuple[str, str]]:
    """The annotated names of classes, and of a cell of parameters, each with the comment on its line."""
    lines = code.splitlines()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ClassDef | ast.Module):
            for part in node.body:
                if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                    end = (part.end_lineno or 1) - 1
                    yield part.target.id, lines[end].encode()[part.end_col_offset or 0 :].decode()


def misnamed(fields: Iterable[tuple[str, str]]) -> list[str]:
    """Lengths whose comment says the opposite of their name."""
    return [
        name
        for name, comment in fields
        if (WITHOUT_BOS if not name.endswith("text_tokens") else WITH_BOS).search(comment)
    ]


@pytest.mark.parametrize(
    ("line", "wrong_name"),
    [
        ("longest: int = 4  # text tokens of each window", True),
        ("longest: int = 4  # of each window, BOS not counted", True),
        ("longest_text_tokens: int = 4  # of each window, BOS not counted", False),
        ("longest: int = 4  # tokens of a text, BOS included", False),
        ("text_tokens: int = 4  # tokens of a text, BOS included", True),
    ],
)
def test_a_length_that_belies_its_name_is_seen(line: str, wrong_name: bool) -> None:
    assert bool(misnamed(commented_fields(line))) == wrong_name
    assert bool(misnamed(commented_fields(f"class Some:\n    {line}"))) == wrong_name


def test_lengths_without_bos_end_in_text_tokens() -> None:
    fields = {path: list(commented_fields(path.read_text(encoding="utf-8"))) for path in FILES if path != MYSELF}
    assert {path: names for path, named in fields.items() if (names := misnamed(named))} == {}
    assert any(WITHOUT_BOS.search(comment) for named in fields.values() for _, comment in named)


@pytest.mark.parametrize("chapter", chapters.chapters())
def test_lengths_without_bos_end_in_text_tokens_in_a_chapter(chapter: str) -> None:
    declared = chapters.parameters(chapter).values()
    assert misnamed((parameter.name, parameter.help) for parameter in declared) == []


@pytest.mark.parametrize("chapter", chapters.chapters())
def test_names_of_a_chapters_parameters(chapter: str) -> None:
    assert wrong(set(chapters.parameters(chapter))) == []
