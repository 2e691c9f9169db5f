"""Three of the recipes in models that are trained on text: eight layers, BOS fixed, windows of 256 tokens.

Each is held against plain training of the same softmax, from the same weights, on the same texts in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from firsttoken import statistics
from firsttoken.claims.recipes.verdict import PLAIN, TEXT_PROMISES, held_on_text, judge
from firsttoken.estimates import JSON
from firsttoken.pretraining import run_records
from firsttoken.pretraining.budgets import budget
from firsttoken.pretraining.packing import Packing
from firsttoken.pretraining.run_records import Group
from firsttoken.pretraining.run_spec import Training
from firsttoken.pretraining.trained import Fixed, TrainedMeasurement

CLAIM = "recipes"
BUDGET = "lab"
VERSION = 2  # 2: numbers of each model with their intervals
SEEDS = (0, 1)
TOLD = {"seeds": len(SEEDS), "length": budget(BUDGET).length}  # what the record says was asked
# What each recipe changes of plain training; the strengths are those on one head.
CHANGES: Mapping[str, JSON] = {
    PLAIN: {},
    "sink_penalised": {"first_penalty": 0.03},
    "sink_rewarded": {"first_penalty": -0.03},
    "tokens_replaced": {"replaced": 0.05},
}


def training(recipe: str, seed: int) -> Training:
    """One of the runs."""
    plain = Training(BUDGET, Packing(budget(BUDGET).length, "causal", "fixed"), seed, design="softmax")
    return replace(plain, **CHANGES[recipe])


def trainings() -> list[Training]:
    """All of them, those of the first seed first."""
    return [training(recipe, seed) for seed in SEEDS for recipe in CHANGES]


def models(parameters: Fixed, train: bool, fresh: bool) -> Group | None:
    """The runs; None where no recipe was trained: plain training alone belongs to another chapter."""
    group = run_records.group(trainings(), train, fresh)
    return group if group and any(one.first_penalty or one.replaced for one in group.runs) else None


def run(parameters: Fixed, group: Group) -> JSON:
    """The values of `recipes/lab-budget.json`.

    `on_text` {recipe: an entry for each seed, see `run_records.end_of`, or null}, `kept`, the share of pairs (recipe,
    seed) in which its promise holds, `heads` of one model, `runs`.
    """
    settings = budget(BUDGET)
    entries = run_records.ends_of(group.runs, training, CHANGES, SEEDS, settings.length)
    holds = [
        [
            held_on_text(name, seed, plain) if seed and plain else None
            for seed, plain in zip(entries[name], entries[PLAIN], strict=True)
        ]
        for name in TEXT_PROMISES
    ]
    return {
        "on_text": entries,
        "kept": statistics.share_of_pairs(holds),
        "heads": settings.layers * settings.heads,
        "runs": group.names,
    }


MEASUREMENT = TrainedMeasurement(
    claim=CLAIM, parameters=Fixed, models=models, run=run, judge=judge, version=VERSION, told=lambda _: TOLD
)
