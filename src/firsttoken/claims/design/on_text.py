"""The designs of attention in models that are trained on text: eight layers, BOS fixed, windows of 256 tokens.

Softmax is trained anew in the same way as the others, so that a pair of models with one seed differs in the design
alone: same text in the same order, same initial weights.
"""

from __future__ import annotations

from typing import Any

import torch

from firsttoken import records, statistics
from firsttoken.claims.design.verdict import LEAST_EXCESS, TEXT_DESIGNS, judge
from firsttoken.estimates import JSON, value_of
from firsttoken.pretraining import run_records
from firsttoken.pretraining.budgets import budget
from firsttoken.pretraining.design_outcomes import step_times
from firsttoken.pretraining.packing import Packing
from firsttoken.pretraining.run_records import Group
from firsttoken.pretraining.run_spec import Training
from firsttoken.pretraining.trained import Fixed, TrainedMeasurement
from firsttoken.records.provenance import environment

CLAIM = "design"
BUDGET = "lab"
VERSION = 2  # 2: numbers of each model with their intervals
SEEDS = (0, 1)
TOLD = {"seeds": len(SEEDS), "length": budget(BUDGET).length}  # what the record says was asked


def training(design: str, seed: int) -> Training:
    """One of the runs."""
    return Training(BUDGET, Packing(budget(BUDGET).length, "causal", "fixed"), seed, design=design)


def trainings() -> list[Training]:
    """All of them, those of the first seed first."""
    return [training(design, seed) for seed in SEEDS for design in TEXT_DESIGNS]


def step_known(parameters: JSON) -> tuple[JSON, JSON] | None:
    """The times of a step in an earlier record with these parameters, and where they come from; None if there is none
    or it was made on another machine.

    They depend on the budget, the designs and the machine and not on what was trained, and no two rounds of timing
    agree: a record that is put together anew keeps them.
    """
    record = records.find(CLAIM, BUDGET + run_records.SUFFIX)
    if record is None or record.parameters != parameters or not set(TEXT_DESIGNS) <= record.values["step"].keys():
        return None
    origin = record.provenance.get("step_times") or {
        name: record.provenance[name] for name in ("commit", "dirty", "time", "machine", "threads", "packages")
    }
    here = environment((record.provenance.get("model") or {}).get("device"))
    return (record.values["step"], origin) if _machine(origin) == _machine(here) else None


def _machine(provenance: JSON) -> tuple[Any, ...]:
    return provenance["machine"], provenance["threads"], provenance["packages"]["torch"]


def kept(group: Group) -> tuple[JSON | None, JSON]:
    """Times of a step that need not be measured, and what the provenance says of them."""
    known = None if group.fresh else step_known({**group.told, **TOLD})
    return (known[0], {"step_times": known[1]}) if known else (None, {})


def run(parameters: Fixed, group: Group) -> JSON:
    """The values of `design/lab-budget.json`.

    `on_text` {design: an entry for each seed, see `run_records.end_of`, or null}, `step` {design: time of a training
    step over that of softmax}, `heads` of one model, `without_sink`, the share of models without a sink among all but
    softmax, `runs`. Times that are those of an earlier record have their origin in the provenance, `step_times`.
    """
    settings = budget(BUDGET)
    entries = run_records.ends_of(group.runs, training, TEXT_DESIGNS, SEEDS, settings.length)
    others = [of_design for design, of_design in entries.items() if design != "softmax"]
    without_sink = statistics.share_of_pairs(
        [value_of(one["excess"]) < LEAST_EXCESS if one else None for one in each] for each in others
    )
    return {
        "on_text": entries,
        "step": kept(group)[0] or step_times(settings, TEXT_DESIGNS, torch.get_num_threads()),
        "heads": settings.layers * settings.heads,
        "without_sink": without_sink,
        "runs": group.names,
    }


MEASUREMENT = TrainedMeasurement(
    claim=CLAIM,
    parameters=Fixed,
    models=lambda _, *how: run_records.group(trainings(), *how),
    run=run,
    judge=judge,
    version=VERSION,
    told=lambda _: TOLD,
    about=lambda _, group: kept(group)[1],
)
