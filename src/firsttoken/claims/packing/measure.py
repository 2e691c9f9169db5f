"""The paper's table of packing and BOS: five models, nine rows of training and inference."""

from __future__ import annotations

from dataclasses import dataclass

from firsttoken.claims.packing.rows import ROWS, Row
from firsttoken.claims.packing.verdict import judge
from firsttoken.estimates import JSON
from firsttoken.measures.sinks import even_share
from firsttoken.pretraining import run_records
from firsttoken.pretraining.budgets import budget
from firsttoken.pretraining.checkpoint_probe import INPUTS
from firsttoken.pretraining.packing import Packing
from firsttoken.pretraining.run_records import Group
from firsttoken.pretraining.run_spec import SHORT, Training
from firsttoken.pretraining.trained import TrainedMeasurement

CLAIM = "packing"
VERSION = 2  # 2: every seed by itself
NOTES = "lab-notes"  # the budget that two cores can train with three seeds
# Of the budgets whose verdict is one about seeds. Seed 0 of the notes was a pilot, which the rule has seen.
SEEDS = {NOTES: range(1, 4), "lab-gpu": range(3)}


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What is asked."""

    budget: str = ""  # whose models; none where nothing is asked for
    seeds: int = 0  # runs of each kind that differ in the seed only; 0: so many as the budget is meant for


def training(budget_name: str, row: Row, seed: int = 0) -> Training:
    """The run behind a row, on documents of which several fit into a window: else masking would change nothing."""
    settings = budget(budget_name)
    source = None if settings.short == settings.corpus.source else settings.short
    packing = Packing(settings.length, row.masking, row.bos)
    return Training(budget_name, packing, seed, source=source, tokens=settings.packing_tokens)


def seeds_of(budget_name: str, asked: int = 0) -> range:
    """The seeds of each kind of model: so many as were asked for, or as the budget is meant for."""
    return run_records.seeds_from(asked) if asked else SEEDS.get(budget_name, range(1))


def trainings(budget_name: str, seeds: int = 0) -> list[Training]:
    """All runs of the chapter: five for each seed. Those with causal packing, which the verdict needs, come first."""
    each = seeds_of(budget_name, seeds)
    runs = dict.fromkeys(training(budget_name, row, seed) for seed in each for row in ROWS)
    return sorted(runs, key=lambda run: run.packing.masking != "causal")


def told(parameters: Parameters) -> JSON:
    """What the record says was asked: of the seeds, how many there are."""
    seeds = len(seeds_of(parameters.budget, parameters.seeds))
    return {"seeds": seeds, "length": budget(parameters.budget).length}


def run(parameters: Parameters, group: Group) -> JSON:
    """The values of `packing/<budget>-budget.json`.

    `rows`, nine of them in the paper's order, each the numbers of `run_records.row` at T = 64 or null;
    `excess_fixed_bos` (attention to the first token beyond an even share, causal, BOS fixed in training and there at
    inference), `sink_rate_fixed_bos` (sink heads of the same at epsilon 0.3) and `sink_rate_never_bos`
    {masking: without any BOS, or null}; `alpha` {run: {arm: mean attention to the first token of each head, (layer,
    head)}}; `windows_shared`, the share of windows that hold several documents; `runs`.
    """
    runs, each = group.runs, seeds_of(parameters.budget, parameters.seeds)
    rows = []
    for row in ROWS:
        of_row = [runs[one] for seed in each if (one := training(parameters.budget, row, seed)) in runs]
        rows.append(run_records.row(of_row, row.inference, SHORT))
    return {
        "excess_fixed_bos": beyond_even_share(rows[2]),
        "sink_rate_fixed_bos": rows[2] and rows[2]["sink_rate_0.3"],
        "sink_rate_never_bos": {
            row.masking: measured and measured["sink_rate_0.3"]
            for row, measured in zip(ROWS, rows, strict=True)
            if (row.bos, row.inference) == ("never", "text")
        },
        "rows": rows,
        "alpha": {
            record.model: {arm: record.values["final"][str(SHORT)][arm]["alpha"] for arm in INPUTS}
            for one, record in runs.items()
            if one.seed == each[0]
        },
        "windows_shared": max(record.values["windows_shared"] for record in runs.values()),
        "runs": group.names,
    }


def beyond_even_share(row: JSON | None) -> JSON | None:
    """The attention to the first token of a row, less what each of 64 tokens gets where all get as much."""
    if row is None:
        return None
    return row["mass"] | {name: row["mass"][name] - even_share(SHORT) for name in ("value", "low", "high")}


MEASUREMENT = TrainedMeasurement(
    claim=CLAIM,
    parameters=Parameters,
    models=lambda asked, *how: run_records.group(trainings(asked.budget, asked.seeds), *how),
    run=run,
    judge=judge,
    version=VERSION,
    told=told,
)
TRAINED = (MEASUREMENT,)
