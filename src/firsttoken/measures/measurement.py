"""A measurement: what is asked, of which texts, how it is computed, and which record it becomes.

One instance for each kind of record. A record is reused where it answers the same question, measured anew where it
does not, and measured again with its own parameters by `firsttoken verify`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Generic, TypeVar, get_args

from firsttoken import texts
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.execution.check import checked
from firsttoken.measures.bos_arms import BOS_IS_NATIVE
from firsttoken.models import BosPolicy, LanguageModel
from firsttoken.progress import measuring
from firsttoken.ranges import in_range
from firsttoken.records.record import QUICK, Record, Verdict, recorded
from firsttoken.records.reuse import hash_of_texts, reusable, reuse_or_measure, with_verdict
from firsttoken.records.store import quick_store

P = TypeVar("P")


def as_it_is(lm: LanguageModel, parameters: P) -> P:
    """The parameters, which no model limits."""
    return parameters


def about(lm: LanguageModel, parameters: P, passages: Sequence[str]) -> JSON:
    """What is made sure of before a model is measured: that the probe sees what the model computes (`check`), and
    which tokens it reads first (`first_tokens`, three of the first text, under the parameters' BOS policy if they have
    one).

    Raises:
        FirstTokenError: the check failed; it says by how much.
    """
    # Some parameters called `bos` choose arms, not a policy.
    named: dict[str, BosPolicy] = {policy: policy for policy in get_args(BosPolicy)}
    bos = named.get(getattr(parameters, "bos", ""), "auto")
    ids = texts.opening(lm, passages[0], bos)
    checks = checked(lm, getattr(parameters, "execution", "auto"))
    return {"check": checks.to_json(), "first_tokens": texts.first_tokens(lm, ids), BOS_IS_NATIVE: lm.prepends_bos}


@dataclass(frozen=True, kw_only=True)
class Measurement(Generic[P]):
    """How one kind of record comes about.

    Attributes:
        claim: the folder of the records, and the claim that they are about.
        parameters: a frozen dataclass; its fields are what the record says was asked. `batch_tokens` and `execution`
            change no number beyond rounding and are left out of it.
        passages: the texts that these parameters choose; their hash is part of the question.
        run: computes the values from a model, the parameters and the texts; where there is `given`, from its record
            too.
        judge: what the record says about the claim, from the record alone.
        variant: the part of the file name after the model; empty for the claim's main record.
        version: raised when the meaning of a value changes; older records are then measured again.
        fit: what the model allows of the parameters, such as a shorter longest text; this is what is recorded. Not
            asked where a record answers the parameters as they are.
        given: a measurement with the same parameters that this one is computed from.
        copies: keys of values that are rounded copies of numbers compared elsewhere.
        on_demand: a parameter of the chapter that is 0 unless this is asked for, because it takes long; empty: always.
        repeatable: false where another processor's rounding changes all that follows, as in sampled text.
    """

    claim: str
    parameters: type[P]
    passages: Callable[[P], Sequence[str]]
    run: Callable[..., JSON]
    judge: Callable[[Record], Verdict | None] | None = None
    variant: str = ""
    version: int = 1
    fit: Callable[[LanguageModel, P], P] = as_it_is
    given: Measurement[P] | None = None
    copies: frozenset[str] = frozenset()
    on_demand: str = ""
    repeatable: bool = True

    def record(
        self,
        lm: LanguageModel,
        parameters: P,
        *,
        fresh: bool = False,
        store: Path | None = None,
        reference: bool | None = None,
        quick: bool = False,
    ) -> Record:
        """The record that answers these parameters for a model: an existing one, else measured now and stored.

        Args:
            fresh: measure in any case.
            store: where to look and to write; this machine's own store if none is given.
            reference: whether a committed record will do; see `records.reuse_or_measure`.
            quick: the parameters are cut for a first look; the record says so, gets no verdict, and lies in a store
                of its own, so that none of a whole measurement is overwritten or answers for it.

        Raises:
            FirstTokenError: the parameters do not fit the model or the texts.
        """
        in_range(parameters)
        if quick:
            store, reference = store or quick_store(), False
        # What a record answers as it was asked needs no fitting, which may have to look at the weights.
        if self.fit is not as_it_is and not fresh:
            of_texts = hash_of_texts(self.passages(parameters))
            asked = (self.claim, lm, recorded(parameters), of_texts, self.version, self.variant)
            if (old := reusable(*asked, reference=reference, store=store)) is not None:
                return with_verdict(old, None if quick else self.judge, store)
        fitted = self.fit(lm, parameters)
        passages = self.passages(fitted)

        def values() -> JSON:
            given: tuple[Record, ...] = ()
            if self.given is not None:
                given = (self.given.record(lm, fitted, fresh=fresh, store=store, reference=reference, quick=quick),)
            with measuring(f"{self.claim}{self.variant and f' {self.variant}'}, {lm.slug}"):
                return self.run(lm, fitted, passages, *given)

        return reuse_or_measure(
            self.claim,
            model=lm,
            parameters=recorded(fitted),
            texts_hash=hash_of_texts(passages),
            measure=values,
            judge=None if quick else self.judge,
            version=self.version,
            variant=self.variant,
            fresh=fresh,
            store=store,
            reference=reference,
            about=lambda: about(lm, fitted, passages) | ({QUICK: True} if quick else {}),
        )

    def asked(self, record: Record) -> P:
        """The parameters that a record was measured with.

        Raises:
            FirstTokenError: it names other parameters than this measurement has.
        """
        known = {field.name for field in fields(self.parameters)}  # type: ignore[arg-type]
        if unknown := sorted(set(record.parameters) - known):
            raise FirstTokenError(
                f"The record {record.claim}/{record.filename} has parameters that this version does not know: "
                f"{', '.join(unknown)}; delete it and run the chapter again."
            )
        return self.parameters(**record.parameters)

    def again(self, lm: LanguageModel, record: Record, store: Path) -> Record:
        """Measure what a record holds once more into `store`, from nothing that another store has."""
        return self.record(lm, self.asked(record), store=store, reference=False)
