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
from firsttoken.pretraining.run_spec import Training
from firsttoken.records import Record

CLAIM = "recipes"
BUDGET = "lab"
VERSION = 2  # 2: numbers of each model with their intervals
SEEDS = (0, 1)
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


def measure(train: bool = False, fresh: bool = False) -> Record | None:
    """The record `recipes/lab-budget.json`; None where no recipe was trained and none is to be.

    Its values: `on_text` {recipe: an entry for each seed, see `run_records.end_of`, or null}, `kept`, the share of
    pairs (recipe, seed) in which its promise holds, `heads` of one model, `runs`.
    """
    trained = run_records.runs_of(trainings(), train, fresh)
    if not any(one.first_penalty or one.replaced for one in trained):
        return None  # plain training alone belongs to another chapter
    parameters = {"seeds": len(SEEDS), "length": budget(BUDGET).length, **run_records.settings(trainings())}
    return run_records.record_of(CLAIM, BUDGET, parameters, trained, lambda: values(trained), judge, VERSION)


def values(trained: Mapping[Training, Record]) -> JSON:
    """The values of the record, from those of the runs."""
    settings = budget(BUDGET)
    entries = run_records.ends_of(trained, training, CHANGES, SEEDS, settings.length)
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
        "runs": [record.model for record in trained.values()],
    }
