"""When does the sink appear? Curves of one training, and the same with another learning rate or weight decay.

Gu et al. (arXiv 2410.10781) report that sinks appear once a model has been trained effectively: later or not at all
with a small learning rate, and more with weight decay, up to a point.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from firsttoken.claims.emergence.verdict import ONSET, judge
from firsttoken.estimates import JSON
from firsttoken.measures.sinks import even_share
from firsttoken.pretraining import run_records
from firsttoken.pretraining.budgets import budget
from firsttoken.pretraining.packing import Packing
from firsttoken.pretraining.run_records import Group
from firsttoken.pretraining.run_spec import SHORT, Training
from firsttoken.pretraining.trained import TrainedMeasurement

CLAIM = "emergence"
VERSION = 2  # 2: every seed by itself
FACTOR = 3.0  # between learning rates
EVEN = even_share(SHORT)


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What is asked."""

    budget: str = ""  # whose models; none where nothing is asked for
    seeds: int = 1  # runs of each kind that differ in the seed only


def variants(budget_name: str) -> dict[str, Training]:
    """The runs by name: BOS fixed, causal packing, one thing changed."""
    settings = budget(budget_name)
    base = Training(budget_name, Packing(settings.length, "causal", "fixed"))
    rate = settings.learning_rate
    return {
        "as in the budget": base,
        f"learning rate {rate / FACTOR:g}": replace(base, learning_rate=rate / FACTOR),
        "weight decay 0": replace(base, weight_decay=0.0),
        f"weight decay {5 * settings.weight_decay:g}": replace(base, weight_decay=5 * settings.weight_decay),
    }


def trainings(parameters: Parameters) -> list[Training]:
    """All runs, variant after variant."""
    seeds = run_records.seeds_from(parameters.seeds)
    return [replace(one, seed=seed) for one in variants(parameters.budget).values() for seed in seeds]


def run(parameters: Parameters, group: Group) -> JSON:
    """The values of `emergence/<budget>-budget.json`.

    `variants` {name: `run`, `learning_rate`, `weight_decay`, the numbers of `run_records.row` over the seeds that were
    trained, and `onset` of the first, or null where none was}, `even` (attention to the first of 64 tokens that an
    even spread would give), `runs`.
    """
    return {
        "variants": {name: _variant(one, group) for name, one in variants(parameters.budget).items()},
        "even": EVEN,
        "runs": group.names,
    }


def _variant(training: Training, group: Group) -> JSON | None:
    of_seeds = [run for one, run in group.runs.items() if replace(one, seed=training.seed) == training]
    if not of_seeds:
        return None
    settings, arm = training.settings(), run_records.own_arm(training.packing.bos)
    return {
        "run": of_seeds[0].model,
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        **(run_records.row(of_seeds, arm, SHORT) or {}),
        "onset": onset(of_seeds[0].values["curve"], arm),
    }


def onset(curve: list[JSON], arm: str) -> JSON | None:
    """The first measured step from which on the first token always gets ONSET times an even share, and the loss there;
    None where it never comes to that."""
    first = None
    for point in curve:
        if point[arm]["mass"] < ONSET * EVEN:
            first = None
        elif first is None:
            first = {"step": point["step"], "loss": point[arm]["loss"]}
    return first


MEASUREMENT = TrainedMeasurement(
    claim=CLAIM,
    parameters=Parameters,
    models=lambda asked, *how: run_records.group(trainings(asked), *how),
    run=run,
    judge=judge,
    version=VERSION,
)
TRAINED = (MEASUREMENT,)
