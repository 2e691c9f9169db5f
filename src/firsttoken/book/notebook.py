"""What a chapter's notebook does besides teaching: read its parameters, load models, get records, say where from.

    chapter = Notebook("sink_rates", globals())
    measured = chapter.records(measure.MEASUREMENT)
    ...
    chapter.verdicts(measured)
    chapter.foot(measured)

Parameters are named in the `parameters` cell alone: their dataclass is built from that cell by keyword.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, TypeVar

from firsttoken import claims, models
from firsttoken.book import chapters, page
from firsttoken.errors import FirstTokenError
from firsttoken.files import slug
from firsttoken.measures.measurement import Measurement
from firsttoken.models import LanguageModel
from firsttoken.models.family import FAMILY
from firsttoken.parameters import FORMER, renamed
from firsttoken.plots import Display
from firsttoken.ranges import in_range, none_too_large
from firsttoken.records import Record, store

P = TypeVar("P")
_LOADING = ("dtype", "device", "device_map", "trust_remote_code")
_SWITCHES = ("trust_remote_code", "fresh", "quick")
# What may differ from a chapter's defaults without asking another question.
_FREE = frozenset({*_LOADING, "fresh", "batch_tokens", "execution"})


@dataclass(frozen=True)
class Notebook:
    """One run of a chapter.

    Attributes:
        chapter: its name, that of the notebook without `.ipynb`.
        names: the notebook's `globals()` right after the `parameters` cell, what papermill injected included.
        load: gives the models of a parameter `model`; see `models.load_all`.
    """

    chapter: str
    names: Mapping[str, Any]
    load: Callable[..., list[LanguageModel]] = models.load_all

    @cached_property
    def asked(self) -> dict[str, Any]:
        """Every parameter with its value in this run: what the notebook has named so far and is text, a number,
        true, false or nothing. A parameter's former name is taken for its present one, and a line says so; with
        `quick`, numbers are at most what the claim allows for a first look."""
        kinds = str | int | float | bool | None
        plain = {n: v for n, v in self.names.items() if isinstance(v, kinds) and not n.startswith("_")}
        asked = renamed(plain, set(plain) - set(FORMER))
        most = claims.claim(self.chapter).quick if asked.get("quick") else {}
        return asked | {name: min(asked[name], number) for name, number in most.items() if name in asked}

    def __post_init__(self) -> None:
        # Now, before the notebook gives names to other things, and before a model is loaded for nothing.
        self._refuse_other_types()
        none_too_large(self.asked)

    def _refuse_other_types(self) -> None:
        """A value that is no plain one would be passed over, and the default measured in its place."""
        for name in _SWITCHES:
            if not isinstance(value := self.asked.get(name, False), bool):
                raise FirstTokenError(f"{name} must be true or false, not {value!r}.")
        # A notebook of another folder may have any name.
        known = self.chapter in claims.names()
        kinds = [one.parameters for one in claims.measurements(self.chapter)] if known else []
        kinds += [one.parameters for one in claims.trained(self.chapter)] if known else []
        asked_of = {field.name for kind in kinds for field in fields(kind)}
        for name in sorted(asked_of.union(_LOADING, _SWITCHES, ("model",)) & set(self.names) - set(self.asked)):
            raise FirstTokenError(
                f"The parameter {name} must be a text, a number, true or false of Python's own, not "
                f"{self.names[name]!r}."
            )

    @property
    def fresh(self) -> bool:
        """Whether to measure again even if a record answers the same question."""
        return bool(self.asked.get("fresh", False))

    @property
    def quick(self) -> bool:
        """Whether this is a first look, with fewer and shorter texts and without a verdict."""
        return bool(self.asked.get("quick", False))

    @cached_property
    def models(self) -> list[LanguageModel]:
        """The models that the parameter `model` names."""
        settings = {name: self.asked[name] for name in _LOADING if name in self.asked}
        return self.load(self.asked["model"], **settings | {"device_map": settings.get("device_map") or None})

    def parameters(self, kind: type[P]) -> P:
        """The parameters of one measurement, by keyword from those of the chapter; what it does not name keeps its
        default.

        Raises:
            FirstTokenError: a number that no measurement takes.
        """
        known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
        parameters = kind(**{name: value for name, value in self.asked.items() if name in known})
        in_range(parameters)
        return parameters

    @cached_property
    def asks_as_published(self) -> bool:
        """Whether the parameters are the chapter's own, those of the published book."""
        try:
            declared = chapters.parameters(self.chapter)
        except (FirstTokenError, OSError):
            return False  # a notebook of another folder
        return all(self.asked.get(name) == one.value for name, one in declared.items() if name not in _FREE)

    def records(self, measurement: Measurement[Any], *, only: Iterable[LanguageModel] | None = None) -> list[Record]:
        """One record for each model: an existing one that answers the parameters, else measured now; in the published
        book, the committed ones of the optional models (`models.family`) behind them.

        Args:
            only: these models instead of all.
        """
        parameters = self.parameters(measurement.parameters)
        measured = [
            measurement.record(lm, parameters, fresh=self.fresh, quick=self.quick)
            for lm in (self.models if only is None else only)
        ]
        return measured + (self.beside(measurement) if only is None and self.asks_as_published else [])

    def stored(self, measurement: Measurement[Any]) -> list[Record]:
        """The records that there are, of the models that `records` would show; nothing is measured. For what is
        measured on demand and was not asked for."""
        there = [store.find(measurement.claim, lm.slug, measurement.variant) for lm in self.models]
        known = [record for record in there if record is not None]
        return known + (self.beside(measurement) if self.asks_as_published else [])

    def own(self, measured: Iterable[Record]) -> list[Record]:
        """The records of the models that the chapter asks for, without the optional ones; for what is shown once for
        each model and is large."""
        asked = {lm.slug for lm in self.models}
        return [record for record in measured if record.model in asked]

    def beside(self, measurement: Measurement[Any]) -> list[Record]:
        """The committed records of optional models that the chapter did not ask for; their models are not needed."""
        asked = {lm.slug for lm in self.models}
        slugs = [slug(name) for name in FAMILY if slug(name) not in asked]
        there = [store.find(measurement.claim, name, measurement.variant) for name in slugs]
        return [record for record in there if record is not None and record.version == measurement.version]

    def verdicts(self, judged: Iterable[Record]) -> Display:
        """A box for each record, and the rule that decided them."""
        return page.verdicts(self.chapter, judged)

    def foot(self, shown: Iterable[Record]) -> Display:
        """Parameters, origin of each record that the chapter shows, and the commands that repeat it."""
        return page.provenance(self.chapter, self.asked, shown)
