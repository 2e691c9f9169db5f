"""When does the sink appear? Curves of one training, and the same with another learning rate or weight decay.

Gu et al. (arXiv 2410.10781) report that sinks appear once a model has been trained effectively: later or not at all
with a small learning rate, and more with weight decay, up to a point.
"""

from __future__ import annotations

from dataclasses import replace

from firsttoken.claims.emergence.verdict import ONSET, judge
from firsttoken.estimates import JSON
from firsttoken.measures.sinks import even_share
from firsttoken.pretraining import run_records
from firsttoken.pretraining.budgets import budget
from firsttoken.pretraining.packing import Packing
from firsttoken.pretraining.run_spec import SHORT, Training
from firsttoken.records import Record

CLAIM = "emergence"
VERSION = 2  # 2: every seed by itself
FACTOR = 3.0  # between learning rates
EVEN = even_share(SHORT)


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


def measure(budget_name: str, seeds: int = 1, train: bool = True, fresh: bool = False) -> Record | None:
    """The record `emergence/<budget>-budget.json`; None where nothing was trained and nothing is to be.

    Its values: `variants` {name: `run`, `learning_rate`, `weight_decay`, the numbers of `run_records.row` over the
    seeds that were trained, and `onset` of the first, or null where none was}, `even` (attention to the first of 64
    tokens that an even spread would give), `runs`.
    """
    every = {
        name: [replace(one, seed=seed) for seed in run_records.seeds_from(seeds)]
        for name, one in variants(budget_name).items()
    }
    trainings = [one for of_variant in every.values() for one in of_variant]
    runs = run_records.runs_of(trainings, train, fresh)

    def values() -> JSON:
        return {
            "variants": {
                name: _variant(of_variant[0], [runs[one] for one in of_variant if one in runs])
                for name, of_variant in every.items()
            },
            "even": EVEN,
            "runs": [record.model for record in runs.values()],
        }

    parameters = {"seeds": seeds, **run_records.settings(trainings)}
    return run_records.record_of(CLAIM, budget_name, parameters, runs, values, judge, VERSION)


def _variant(training: Training, of_seeds: list[Record]) -> JSON | None:
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


MEASUREMENTS = ()  # models must first be trained, which takes too long for `firsttoken verify`
