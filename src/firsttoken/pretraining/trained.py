"""A measurement of models that are trained for it: what is asked, which models answer, which record that becomes.

The counterpart of `measures.measurement` for claims that are about no model that somebody gives. Its record is reused
where it answers the same question about the same models, and measured anew where it does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from firsttoken.estimates import JSON
from firsttoken.ranges import in_range
from firsttoken.records.record import Record, Verdict, recorded
from firsttoken.records.reuse import reusable, reuse_or_measure, with_verdict


class Models(Protocol):
    """The models that a record is about; they take the place of one that was loaded."""

    @property
    def slug(self) -> str:
        """What their records are called."""

    @property
    def texts_hash(self) -> str:
        """What identifies the texts that they were trained on and read."""

    @property
    def ready(self) -> bool:
        """Whether they are trained; if not, `run` trains them."""

    @property
    def told(self) -> JSON:
        """What they have in common, as the record says it beside what was asked."""

    def provenance(self) -> JSON:
        """What they are, as records say it of a model."""


P = TypeVar("P")
M = TypeVar("M", bound=Models)


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """The parameters of a measurement in which nothing is to be chosen."""


@dataclass(frozen=True, kw_only=True)
class TrainedMeasurement(Generic[P, M]):
    """How one kind of record about models that are trained for it comes about.

    Attributes:
        claim: the folder of the records, and the claim that they are about.
        parameters: a frozen dataclass of what is asked.
        models: the models that answer these parameters, given `train` and `fresh` of `record`; None where they are
            not there and are not to be trained.
        run: computes the values from the parameters and the models.
        judge: what the record says about the claim, from the record alone.
        version: raised when the meaning of a value changes; older records are then measured again.
        variant: the part of the file name after the slug of the models; empty for a main record.
        told: what the record says was asked; the fields of the parameters, if nothing else is given.
        about: more for the record's provenance, asked for before something is measured.
    """

    claim: str
    parameters: type[P]
    models: Callable[[P, bool, bool], M | None]
    run: Callable[[P, M], JSON]
    judge: Callable[[Record], Verdict | None] | None = None
    version: int = 1
    variant: Callable[[P], str] = lambda _: ""
    told: Callable[[P], JSON] = recorded
    about: Callable[[P, M], JSON] = lambda *_: {}

    def record(self, parameters: P, *, train: bool = False, fresh: bool = False) -> Record | None:
        """The record that answers these parameters: an existing one, else measured now and stored; None where it
        would need models that are not trained.

        Args:
            train: train what is missing.
            fresh: measure in any case; with `train`, train in any case.

        Raises:
            FirstTokenError: the parameters are out of range, or a training failed.
        """
        in_range(parameters)
        if (models := self.models(parameters, train, fresh)) is None:
            return None
        told, variant = {**models.told, **self.told(parameters)}, self.variant(parameters)
        if not (train or models.ready):
            old = reusable(self.claim, models, told, models.texts_hash, self.version, variant)
            return old and with_verdict(old, self.judge, None)
        return reuse_or_measure(
            self.claim,
            model=models,
            parameters=told,
            texts_hash=models.texts_hash,
            measure=lambda: self.run(parameters, models),
            judge=self.judge,
            version=self.version,
            variant=variant,
            fresh=fresh,
            about=lambda: self.about(parameters, models),
        )
