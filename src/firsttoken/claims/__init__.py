"""The claims that this book tests, a folder each, found by looking.

`claims/<name>/__init__.py` says what is claimed (`CLAIM`), `measure.py` measures it (`MEASUREMENTS` of a given model,
or `TRAINED` of models that are trained for it), `verdict.py` judges a record (`judge`), `figures.py` draws. Only
measuring needs torch.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from importlib import util
from typing import TYPE_CHECKING, Any

from firsttoken.claims.base import Claim
from firsttoken.errors import FirstTokenError
from firsttoken.records import Record, Verdict
from firsttoken.records.record import QUICK
from firsttoken.records.schema import FORMER_CLAIMS

if TYPE_CHECKING:
    from firsttoken.measures.measurement import Measurement
    from firsttoken.pretraining.trained import TrainedMeasurement


# Of a record that lacks what today's rule or board asks for.
EARLIER = "measured by an earlier version; run the chapter again"


@cache
def names() -> tuple[str, ...]:
    """The claims that have a folder, in alphabetical order; `_toc.yml` has the order of a reader."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg))


def present_names(asked: Iterable[str]) -> list[str]:
    """Claims, or their chapters, by today's names; a line is printed for each former name."""
    for name in (asked := list(asked)):
        if name in FORMER_CLAIMS:
            print(f"{name} is called {FORMER_CLAIMS[name]} now.")
    return [FORMER_CLAIMS.get(name, name) for name in asked]


def claim(name: str) -> Claim:
    """The card of a claim.

    Raises:
        FirstTokenError: there is no such claim.
    """
    if name not in names():
        raise FirstTokenError(f"There is no claim {name}; there are {', '.join(names())}.")
    card: Claim = importlib.import_module(f"{__name__}.{name}").CLAIM
    return card


def verdict(record: Record) -> Verdict | None:
    """What today's rule says about a record; None for variants, for first looks, and for records about no claim."""
    if (
        record.variant
        or record.provenance.get(QUICK)
        or record.claim not in names()
        or util.find_spec(f"{__name__}.{record.claim}.verdict") is None
    ):
        return None
    try:
        judged: Verdict | None = importlib.import_module(f"{__name__}.{record.claim}.verdict").judge(record)
    except KeyError as missing:
        return Verdict("inconclusive", f"The record has no {missing}: {EARLIER}.")
    return judged


def measurements(name: str) -> tuple[Measurement, ...]:
    """Every measurement of a claim that can be repeated on a model; empty where models must first be trained."""
    of_claim: tuple[Measurement, ...] = _listed(name, "MEASUREMENTS")
    return of_claim


def trained(name: str) -> tuple[TrainedMeasurement, ...]:
    """Every measurement of a claim about models that are trained for it; empty where models are given."""
    of_claim: tuple[TrainedMeasurement, ...] = _listed(name, "TRAINED")
    return of_claim


def _listed(name: str, kind: str) -> Any:
    return getattr(importlib.import_module(f"{__name__}.{name}.measure"), kind, ())
