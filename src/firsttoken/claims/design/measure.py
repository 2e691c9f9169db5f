"""Designs of attention that are said to need no sink, on the smallest model that has one; each stored by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from firsttoken import statistics
from firsttoken.claims.design.verdict import judge, some_head_has_one
from firsttoken.estimates import JSON
from firsttoken.pretraining import smallest_outcomes
from firsttoken.pretraining.one_head import stored
from firsttoken.pretraining.smallest import ATTENTIONS, BLOCKS, Variant
from firsttoken.pretraining.smallest_training import Run, Setting, train
from firsttoken.progress import tracked
from firsttoken.ranges import at_least, between, in_range
from firsttoken.records import Record

CLAIM = "design"
VERSION = 2  # 2: spread / own and the largest activation of each model, the time of a step of each variant


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

    def setting(self, variant: Variant) -> Setting:
        return Setting(length=self.length, variant=variant, steps=self.steps, settle=self.settle, enough=self.enough)


def measure(parameters: Parameters, fresh: bool = False) -> Record:
    """The record `design/one-head.json`.

    Its values: `by_variant` {design: `count`}, `without_sink`, the share of seeds without a sink among all designs but
    softmax, `step` {design: time of a training step over that of softmax}.
    """
    counts: dict[Variant, JSON] = {variant: _part(parameters, variant, fresh) for variant in tracked(ATTENTIONS)}
    settings = [parameters.setting(variant) for variant in ATTENTIONS]

    def values() -> JSON:
        return summary(counts) | {"step": _step_times(parameters, ATTENTIONS)}

    return stored(CLAIM, settings, asdict(parameters), values, VERSION, fresh, judge=judge)


def measure_blocks(parameters: Parameters, fresh: bool = False) -> Record:
    """The record `design/one-layer.json`: what changes the block around attention.

    Its values: `by_block` {block: `count`}, `without_sink`, the share of seeds without a sink in any head among split
    heads and gated depth, `softmax`, what the latter is compared with, `step` {block or softmax: time of a training
    step over that of softmax}.
    """
    blocks = {block: _part(parameters, block, fresh, "one-layer") for block in tracked(BLOCKS)}
    softmax = _part(parameters, "softmax", fresh)
    settings = [*map(parameters.setting, BLOCKS), parameters.setting("softmax")]

    def values() -> JSON:
        changed = [blocks[block] for block in ("split_heads", "depth_gate")]
        return {
            "by_block": blocks,
            "softmax": softmax,
            "without_sink": without_sink(changed),
            "step": _step_times(parameters, ("softmax", *BLOCKS)),
        }

    return stored(CLAIM, settings, asdict(parameters), values, VERSION, fresh, judge=judge, slug="one-layer")


def _part(parameters: Parameters, variant: Variant, fresh: bool, slug: str = "one-head") -> JSON:
    setting = parameters.setting(variant)
    return stored(
        CLAIM,
        [setting],
        {**asdict(parameters), "design": variant},
        lambda: count(train(setting, range(parameters.seeds)), setting),
        VERSION,
        fresh,
        variant=variant.replace("_", "-"),
        slug=slug,
    ).values


def _step_times(parameters: Parameters, variants: Sequence[Variant]) -> JSON:
    settings: dict[str, Setting] = {variant: parameters.setting(variant) for variant in variants}
    return smallest_outcomes.step_times(settings, torch.get_num_threads())


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


MEASUREMENTS = ()  # models must first be trained, which takes too long for `firsttoken verify`
