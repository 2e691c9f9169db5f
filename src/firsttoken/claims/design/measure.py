"""Designs of attention that are said to need no sink, on the smallest model that has one; each stored by itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import torch

from firsttoken import statistics
from firsttoken.claims.design import on_text
from firsttoken.claims.design.verdict import judge, some_head_has_one
from firsttoken.estimates import JSON
from firsttoken.pretraining import smallest_outcomes
from firsttoken.pretraining.one_head import OneLayer, of_parts
from firsttoken.pretraining.smallest import ATTENTIONS, BLOCKS, Variant
from firsttoken.pretraining.smallest_training import Run, Setting, train
from firsttoken.pretraining.trained import TrainedMeasurement
from firsttoken.ranges import at_least, between, in_range

CLAIM = "design"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What is asked."""

    seeds: int = 10  # models of each design
    length: int = 64  # tokens of a text, BOS included
    steps: int = 1500  # of training at most
    settle: int = 100  # further steps after a seed has learnt the task, before its head is looked at
    enough: float = 0.05  # loss at triggers, in nats, below which a seed has learnt the task

    def __post_init__(self) -> None:
        in_range(self)
        between(1e-9, 1000, enough=self.enough)
        at_least(1, seeds=self.seeds, steps=self.steps)


@dataclass(frozen=True, kw_only=True)
class OfDesign(Parameters):
    """What is asked of one design."""

    design: Variant

    @property
    def setting(self) -> Setting:
        return Setting(
            length=self.length, variant=self.design, steps=self.steps, settle=self.settle, enough=self.enough
        )


def parts(parameters: Parameters, designs: Iterable[Variant]) -> list[OfDesign]:
    """What is asked of each of some designs."""
    return [OfDesign(**asdict(parameters), design=design) for design in designs]


def run_heads(parameters: Parameters, models: OneLayer) -> JSON:
    """The values of `design/one-head.json`.

    `by_variant` {design: `count`}, `without_sink`, the share of seeds without a sink among all designs but softmax,
    `step` {design: time of a training step over that of softmax}.
    """
    return step_times(models) | summary({asked.design: counted for asked, counted in models.parts.items()})


def run_blocks(parameters: Parameters, models: OneLayer) -> JSON:
    """The values of `design/one-layer.json`: what changes the block around attention.

    `by_block` {block: `count`}, `without_sink`, the share of seeds without a sink in any head among split heads and
    gated depth, `softmax`, what the latter is compared with, `step` {block or softmax: time of a training step over
    that of softmax}.
    """
    counts = {asked.design: counted for asked, counted in models.parts.items()}
    changed = [counts[block] for block in ("split_heads", "depth_gate")]
    return step_times(models) | {
        "by_block": {block: counts[block] for block in BLOCKS},
        "softmax": counts["softmax"],
        "without_sink": without_sink(changed),
    }


def step_times(models: OneLayer) -> JSON:
    """`step`, how long a training step takes in each setting, over softmax's."""
    settings: dict[str, Setting] = {
        setting.variant: setting for setting in sorted(models.settings, key=lambda one: one.variant != "softmax")
    }
    return {"step": smallest_outcomes.step_times(settings, torch.get_num_threads())}


def count(runs: Sequence[Run], setting: Setting) -> JSON:
    """`seeds`, `learnt`, and `each`: for every seed its last point of the history, the step at which it had learnt
    the task, and its `smallest_outcomes`."""
    of_head = ("first_away", "first_at", "row_away", "row_at", "value_norm")
    names = [*of_head, *(f"{name}_1" for name in of_head), "loss_at", "loss_away", "depth_at", "depth_away"]
    return {
        "seeds": len(runs),
        "learnt": sum(run.learnt is not None for run in runs),
        "each": [
            {
                "seed": run.seed,
                "learnt": run.learnt,
                **{name: round(run.history[-1][name], 5) for name in names if name in run.history[-1]},
                **{name: round(value, 5) for name, value in smallest_outcomes.of_run(run, setting).items()},
            }
            for run in runs
        ],
    }


def summary(counts: dict[Variant, JSON]) -> JSON:
    """All designs side by side, and the share of seeds without a sink."""
    others = [one for variant, one in counts.items() if variant != "softmax"]
    return {"by_variant": dict(counts), "without_sink": without_sink(others)}


def without_sink(counts: Sequence[JSON]) -> JSON | None:
    """The share of models none of whose heads has a sink, with its interval."""
    return statistics.share_of_pairs([not some_head_has_one(each) for each in one["each"]] for one in counts)


PART = TrainedMeasurement(
    claim=CLAIM,
    parameters=OfDesign,
    models=lambda asked, *_: OneLayer((asked.setting,), "one-layer" if asked.design in BLOCKS else "one-head"),
    run=lambda asked, _: count(train(asked.setting, range(asked.seeds)), asked.setting),
    version=VERSION,
    variant=lambda asked: asked.design.replace("_", "-"),
)
ONE_HEAD = TrainedMeasurement(
    claim=CLAIM,
    parameters=Parameters,
    models=lambda asked, *how: of_parts(PART, parts(asked, ATTENTIONS), *how),
    run=run_heads,
    judge=judge,
    version=VERSION,
)
ONE_LAYER = TrainedMeasurement(
    claim=CLAIM,
    parameters=Parameters,
    models=lambda asked, *how: of_parts(PART, parts(asked, [*BLOCKS, "softmax"]), *how, slug="one-layer"),
    run=run_blocks,
    judge=judge,
    version=VERSION,
)
TRAINED = (ONE_HEAD, ONE_LAYER, on_text.MEASUREMENT)
