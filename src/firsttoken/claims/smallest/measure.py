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
from firsttoken.pretraining.one_head import OneLayer, alone, of_parts
from firsttoken.pretraining.smallest_training import Run, Setting, train
from firsttoken.pretraining.trained import TrainedMeasurement
from firsttoken.ranges import at_least, between, in_range

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


@dataclass(frozen=True, kw_only=True)
class OfLength(Parameters):
    """What is asked of one length."""

    length: int  # tokens of a text, BOS included
    with_bos: bool

    @property
    def setting(self) -> Setting:
        return Setting(length=self.length, bos=self.with_bos, steps=self.steps, settle=self.settle, enough=self.enough)


def parts(parameters: Parameters) -> list[OfLength]:
    """Every length, and one of them without BOS."""
    arms = [(length, True) for length in LENGTHS] + [(HEADLINE, False)]
    return [OfLength(**asdict(parameters), length=length, with_bos=bos) for length, bos in arms]


def run(parameters: Parameters, models: OneLayer) -> JSON:
    """The values of `smallest/one-head.json`.

    `by_length` {length: `count`}, `without_bos` the same at 64 tokens for models that see no BOS, `rests_on_first`
    (share of the seeds that learnt the task, at 64 tokens), `trend` of that share with log2 of the length (`z`, `p`).
    """
    (without_bos,) = (counted for asked, counted in models.parts.items() if not asked.with_bos)
    by_length = {asked.length: counted for asked, counted in models.parts.items() if asked.with_bos}
    return summary(by_length) | {"without_bos": without_bos}


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


PART = TrainedMeasurement(
    claim=CLAIM,
    parameters=OfLength,
    models=alone,
    run=lambda asked, _: count(train(asked.setting, range(asked.seeds))),
    version=VERSION,
    variant=lambda asked: f"t{asked.length}" + ("" if asked.with_bos else "-no-bos"),
)
MEASUREMENT = TrainedMeasurement(
    claim=CLAIM,
    parameters=Parameters,
    models=lambda asked, *how: of_parts(PART, parts(asked), *how),
    run=run,
    judge=judge,
    version=VERSION,
)
TRAINED = (MEASUREMENT,)
