"""A chapter's `parameters` cell and the dataclasses of its claim ask for the same under the same names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

import pytest

from firsttoken import claims
from firsttoken.book import chapters

# How a model is loaded, and what is done with records: no part of a question.
AROUND = {"model", "dtype", "device", "device_map", "trust_remote_code", "quick", "fresh"}
# What a chapter shows beside its records.
SHOWN = {
    "scale": {"ram", "gpus", "gpu_memory", "disk_rate", "tflops"},  # of the machine whose costs are predicted
    "smallest": {"shown_seeds", "shown_steps", "length"},  # of the models that are trained while one reads
    "design": {"train_on_text"},
    "context_length": {"tflops"},
}
# 0 in the notebook: a long measurement, which is made only for those who ask for it with a number.
ON_DEMAND = {"gains", "longest", "longest_text_tokens", "stream"}
# Fields that a chapter does not offer.
FIXED = {
    "scale": {"epsilon"},  # the paper's
    # When a seed counts as having learnt its task, which was fixed before any was trained.
    "design": {"settle", "enough"},
    "recipes": {"enough"},
    "smallest": {"settle", "enough"},
}


def kinds(claim: str) -> list[type]:
    """The dataclasses of a claim's measurements."""
    given = [measurement.parameters for measurement in claims.measurements(claim)]
    return given + [measurement.parameters for measurement in claims.trained(claim)]


def defaults(kind: type) -> dict[str, Any]:
    return {field.name: field.default for field in fields(kind)}


def faults(claim: str, declared: Mapping[str, Any], asked: list[type]) -> Iterator[str]:
    """What a cell, as name to default, has otherwise than the dataclasses."""
    known = {name for kind in asked for name in defaults(kind)}
    for name in sorted(set(declared) - known - AROUND - SHOWN.get(claim, set())):
        yield f"{name} is a parameter of the notebook and of no dataclass"
    for kind in asked:
        for name, default in defaults(kind).items():
            if name not in declared:
                if name not in FIXED.get(claim, set()):
                    yield f"{kind.__name__}.{name} is no parameter of the notebook"
            elif not _same(declared[name], default) and not (name in ON_DEMAND and declared[name] == 0):
                yield f"{name} is {declared[name]!r} in the notebook and {default!r} in {kind.__name__}"


def _same(one: Any, other: Any) -> bool:
    return other is not MISSING and type(one) is type(other) and one == other


def cell(claim: str) -> dict[str, Any]:
    return {name: parameter.value for name, parameter in chapters.parameters(claim).items()}


@pytest.mark.parametrize("claim", claims.names())
def test_the_cell_is_the_dataclass(claim: str) -> None:
    assert kinds(claim)
    assert list(faults(claim, cell(claim), kinds(claim))) == []


def test_exceptions_are_needed() -> None:
    """Each would be a fault if it were not listed."""
    for claim, names in SHOWN.items():
        assert names <= set(cell(claim)) - {name for kind in kinds(claim) for name in defaults(kind)}
    for claim, names in FIXED.items():
        assert names <= {name for kind in kinds(claim) for name in defaults(kind)} - set(cell(claim))
    assert {name for claim in claims.names() for name, value in cell(claim).items() if value == 0} >= ON_DEMAND


@dataclass(frozen=True, kw_only=True)
class Asked:
    length: int = 64
    batch_tokens: int = 4096
    longest: int = 8192


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({}, None),
        ({"longest": 0}, None),
        ({"model": "m"}, None),
        ({"batch_tokens": 2048}, "batch_tokens is 2048 in the notebook and 4096 in Asked"),
        ({"length": 64.0}, "length is 64.0 in the notebook"),
        ({"longest": 4096}, "longest is 4096"),
        ({"seed": 0}, "seed is a parameter of the notebook and of no dataclass"),
    ],
)
def test_a_difference_is_told(changed: dict[str, Any], fault: str | None) -> None:
    told = list(faults("none", defaults(Asked) | changed, [Asked]))
    assert len(told) == (fault is not None)
    assert fault is None or told[0].startswith(fault)
    assert list(faults("none", {"length": 64, "longest": 0}, [Asked])) == [
        "Asked.batch_tokens is no parameter of the notebook"
    ]
