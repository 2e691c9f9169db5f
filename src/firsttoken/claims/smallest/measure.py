"""Many seeds of the smallest model with a sink, at several text lengths: where does its one head rest?

Each length is measured and stored by itself, so that an interrupted measurement loses one of them at most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from firsttoken import statistics
from firsttoken.claims.smallest.verdict import judge
from firsttoken.estimates import JSON
from firsttoken.measures import resting
from firsttoken.pretraining.one_head import stored
from firsttoken.pretraining.smallest_training import Run, Setting, train
from firsttoken.progress import tracked
from firsttoken.ranges import at_least, between, in_range
from firsttoken.records import Record

CLAIM = "smallest"
VERSION = 1
LENGTHS = (8, 16, 32, 64, 128)
HEADLINE = 64


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What is asked."""

    seeds: int = 10  # models of each length
    steps: int = 1500  # of training at most; a seed that has not learnt the task by then counts as such
    settle: int = 100  # further steps after it has learnt the task, before its head is looked at
    enough: float = 0.05  # loss at triggers, in nats, below which a seed has learnt the task

    def __post_init__(self) -> None:
        in_range(self)
        between(1e-9, 1000, enough=self.enough)
        at_least(1, seeds=self.seeds, steps=self.steps)

    def setting(self, length: int, bos: bool = True) -> Setting:
        return Setting(length=length, bos=bos, steps=self.steps, settle=self.settle, enough=self.enough)


def measure(parameters: Parameters, fresh: bool = False) -> Record:
    """The record `smallest/one-head.json`.

    Its values: `by_length` {length: `count`}, `without_bos` the same at 64 tokens for models that see no BOS,
    `rests_on_first` (share of the seeds that learnt the task, at 64 tokens), `trend` of that share with log2 of the
    length (`z`, `p`).
    """
    arms = [(length, True) for length in LENGTHS] + [(HEADLINE, False)]
    counts = [_part(parameters, length, bos, fresh) for length, bos in tracked(arms)]
    return stored(
        CLAIM,
        [parameters.setting(length, bos) for length, bos in arms],
        asdict(parameters),
        lambda: (
            summary({length: part for (length, bos), part in zip(arms, counts, strict=True) if bos})
            | {"without_bos": counts[-1]}
        ),
        VERSION,
        fresh,
        judge=judge,
    )


def _part(parameters: Parameters, length: int, bos: bool, fresh: bool) -> JSON:
    setting = parameters.setting(length, bos)
    return stored(
        CLAIM,
        [setting],
        {**asdict(parameters), "length": length, "with_bos": bos},
        lambda: count(train(setting, range(parameters.seeds))),
        VERSION,
        fresh,
        variant=f"t{length}" + ("" if bos else "-no-bos"),
    ).values


def count(runs: Sequence[Run]) -> JSON:
    """How many seeds learnt the task, and where the heads of those rest.

    Returns:
        `seeds`, `learnt`, one number for each place of `resting.RESTS`, `shares` of those with intervals (none where
        no seed learnt it), and `each`: for every seed its last point of the history and the step at which it had
        learnt the task
    """
    ends = [run.history[-1] for run in runs]
    learnt = [end for run, end in zip(runs, ends, strict=True) if run.learnt is not None]
    rests = [resting.rest_at(end["first_away"], end["itself_away"], end["row_away"]) for end in learnt]
    names = ("first_away", "first_at", "itself_away", "row_away", "value_norm", "loss_at")
    return {
        "seeds": len(runs),
        "learnt": len(learnt),
        **{rest: rests.count(rest) for rest in resting.RESTS},
        "shares": {rest: asdict(share) for rest, share in resting.shares(rests).items()} if rests else {},
        "each": [
            {"seed": run.seed, "learnt": run.learnt, **{name: round(end[name], 5) for name in names}}
            for run, end in zip(runs, ends, strict=True)
        ],
    }


def summary(by_length: dict[int, JSON]) -> JSON:
    """The trend over lengths and the headline, from the counts of each length."""
    trend = statistics.trend(
        [math.log2(length) for length in by_length],
        [part["first"] for part in by_length.values()],
        [part["learnt"] for part in by_length.values()],
    )
    headline = by_length[HEADLINE]
    return {
        "by_length": {str(length): part for length, part in by_length.items()},
        "trend": asdict(trend),
        "rests_on_first": asdict(statistics.wilson(headline["first"], max(headline["learnt"], 1))),
    }


MEASUREMENTS = ()  # models must first be trained, which takes too long for `firsttoken verify`
