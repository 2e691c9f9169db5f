"""The guide's table of rooms names every module and package there is, from the top floor down as the linter has it."""

from __future__ import annotations

import itertools
import re
import tomllib

from firsttoken.files import ROOT

SOURCE = ROOT / "src" / "firsttoken"


def rows() -> list[str]:
    """The first cells of the table in CONTRIBUTING.md, and what stands beside the claims."""
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| room \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", guide, re.MULTILINE)
    return list(table.splitlines())


def rooms() -> list[set[str]]:
    """The modules and packages of each row of the table, from the top."""
    first_cells = (row.split("|")[1] for row in rows())
    return [{re.split(r"[/.]", name)[0] for name in re.findall(r"`([^`]+)`", cell)} for cell in first_cells]


def layers() -> list[set[str]]:
    """Those of each layer that import-linter holds to its place, from the top."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (of_rooms,) = (contract for contract in contracts if contract["type"] == "layers")
    return [set(re.split(r"\s*[:|]\s*", layer)) for layer in of_rooms["layers"]]


def test_every_module_is_in_the_table_once() -> None:
    present = {
        path.stem
        for path in SOURCE.iterdir()
        if path.name != "__init__.py" and (path.suffix == ".py" or (path / "__init__.py").exists())
    }
    named = [name for row in rooms() for name in row]
    assert sorted(named) == sorted(present)
    assert set().union(*layers()) == present


def test_the_table_runs_from_the_top_floor_down() -> None:
    floor = {name: number for number, layer in enumerate(layers()) for name in layer}
    of_rows = [[floor[name] for name in row] for row in rooms()]
    assert all(max(above) <= min(below) for above, below in itertools.pairwise(of_rows))


def test_what_claims_share_is_named() -> None:
    (row,) = (row for row in rows() if "`claims/" in row.split("|")[1])
    beside = {path.name for path in (SOURCE / "claims").glob("*.py")} - {"__init__.py"}
    assert beside == set(re.findall(r"`(\w+\.py)`", row))
