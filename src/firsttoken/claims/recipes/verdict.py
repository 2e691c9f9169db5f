"""Which recipes do what they promise, seed by seed beside plain training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from firsttoken.estimates import value_of
from firsttoken.records import Record, Status, Verdict

Seed = Mapping[str, Any]  # see `outcomes.outcomes`
Fate = Literal["kept", "contradicted", "open"]

PLAIN = "plain"
SINK = 0.3  # of the attention away from triggers, on the first token: a sink above it
NEAR = 0.02  # nats above plain training's loss at triggers that count as learnt as well
LESS = 0.9  # of how far plain training's predictions move: what counts as moving less
LEAST_SEEDS = 8  # that learnt the task by plain training; with fewer nothing is judged


LEAST_EXCESS = 0.03  # of the attention, to the first token beyond an even share: on text, a sink from there on
DEARER = 0.05  # nats of loss above plain training that a recipe on text may cost


def _learnt(seed: Seed) -> bool:
    return seed["learnt"] is not None


def _moves_less(seed: Seed, than: Seed) -> bool:
    return _learnt(seed) and bool(seed["moved"] < LESS * than["moved"])


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What a recipe promises, for one seed beside plain training from the same seed."""

    says: str
    holds: Callable[[Seed, Seed], bool]


PROMISES: Mapping[str, Promise] = {
    "growing_context": Promise(
        says="learns the task as well, with fewer scores to compute",
        holds=lambda seed, plain: _learnt(seed) and bool(seed["loss_at"] <= plain["loss_at"] + NEAR),
    ),
    "sink_penalised": Promise(
        says="learns the task without a sink",
        holds=lambda seed, plain: _learnt(seed) and bool(seed["share"] < SINK),
    ),
    "sink_rewarded": Promise(says="learns the task and noise moves its predictions less", holds=_moves_less),
    "tokens_replaced": Promise(says="learns the task and noise moves its predictions less", holds=_moves_less),
    "bos_in_half": Promise(
        says="learns the task and has a sink with and without BOS",
        holds=lambda seed, plain: _learnt(seed) and bool(min(seed["share"], seed["share_without"]) > SINK),
    ),
}


def pairs(values: Mapping[str, Any], name: str) -> list[tuple[Seed, Seed]]:
    """Each seed of a recipe with the plain one, where plain training learnt the task."""
    both = zip(values["by_recipe"][name], values["by_recipe"][PLAIN], strict=True)
    return [(seed, plain) for seed, plain in both if _learnt(plain)]


def held(values: Mapping[str, Any], name: str) -> int:
    """In how many of these pairs the recipe's promise holds."""
    return sum(PROMISES[name].holds(seed, plain) for seed, plain in pairs(values, name))


def fate(values: Mapping[str, Any], name: str) -> Fate:
    """Kept if the promise holds in every pair, contradicted if it does in none; open without pairs."""
    of = len(pairs(values, name))
    if not of:
        return "open"
    return "kept" if held(values, name) == of else "open" if held(values, name) else "contradicted"


def _spreads_less(seed: Seed, than: Seed) -> bool:
    return value_of(seed["spread_over_own"]) < LESS * value_of(than["spread_over_own"])


# The same on text, of models with one seed: the entries of `run_records.end_of`.
TEXT_PROMISES: Mapping[str, Promise] = {
    "sink_penalised": Promise(
        says="has no sink",
        holds=lambda seed, plain: value_of(seed["excess"]) < LEAST_EXCESS,
    ),
    "sink_rewarded": Promise(
        says="lets a changed token move the others less",
        holds=_spreads_less,
    ),
    "tokens_replaced": Promise(
        says="lets a changed token move the others less",
        holds=_spreads_less,
    ),
}


def held_on_text(name: str, seed: Seed, plain: Seed) -> bool:
    """Whether a recipe keeps its promise on text in one seed, without a loss that is clearly higher."""
    return TEXT_PROMISES[name].holds(seed, plain) and value_of(seed["loss"]) <= value_of(plain["loss"]) + DEARER


def _told(name: str, holds: Sequence[bool]) -> str:
    words = name.replace("_", " ")
    if not holds:
        return f"{words} is not trained"
    return f"{words} {TEXT_PROMISES[name].says}, at no higher loss, in {sum(holds)} of {len(holds)} seeds"


def on_text(entries: Mapping[str, Any]) -> Verdict:
    """Three recipes in models that were trained on text, each seed beside plain training from the same seed."""
    plain = entries[PLAIN]
    complete = all(all(entries[name]) for name in (PLAIN, *TEXT_PROMISES))
    holds = {
        name: [held_on_text(name, seed, of) for seed, of in zip(entries[name], plain, strict=True) if seed and of]
        for name in TEXT_PROMISES
    }
    sentence = f"On text: {'; '.join(_told(name, of) for name, of in holds.items())}."
    if not complete:
        return Verdict("inconclusive", f"{sentence} All seeds of all recipes decide, and some are not trained.")
    if not all(value_of(seed["excess"]) >= LEAST_EXCESS for seed in plain):
        return Verdict("inconclusive", f"{sentence} Plain training leaves no sink in every seed.")
    kept = sum(map(all, holds.values()))
    status: Status = "reproduced" if kept == len(holds) else "partly" if kept else "not reproduced"
    return Verdict(status, f"{sentence} {kept} of {len(holds)} promises are kept in every seed.")


def judge(record: Record) -> Verdict:
    """All five recipes together, each told with its number of seeds."""
    values = record.values
    if "on_text" in values:
        return on_text(values["on_text"])
    counted = len(pairs(values, PLAIN))
    told = "; ".join(
        f"{name.replace('_', ' ')} {promise.says} in {held(values, name)} of {counted} seeds"
        for name, promise in PROMISES.items()
    )
    sentence = f"{told[0].upper()}{told[1:]}."
    if counted < LEAST_SEEDS:
        return Verdict("inconclusive", f"{sentence} Plain training learnt the task in too few seeds.")
    fates = [fate(values, name) for name in PROMISES]
    kept = fates.count("kept")
    status: Status = "reproduced" if kept == len(fates) else "partly" if kept else "not reproduced"
    return Verdict(status, f"{sentence} {kept} of {len(fates)} promises are kept in every seed.")
