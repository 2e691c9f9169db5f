"""Does pretraining on longer contexts make sinks stronger? One model for each context length, equal tokens.

The paper's curve begins near zero at 128 tokens. Each length is trained without any BOS token, and once more with one
fixed at the start of every window, because a small model on a small budget forms no sink without it. Two budgets have
rules of their own: see `lab` and `without_bos`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from firsttoken.claims.context_length import lab, without_bos
from firsttoken.claims.context_length.verdict import judge
from firsttoken.estimates import JSON
from firsttoken.pretraining import run_records
from firsttoken.pretraining.budgets import budget
from firsttoken.pretraining.packing import BosInTraining, Packing
from firsttoken.pretraining.run_records import Group
from firsttoken.pretraining.run_spec import SHORT, Training
from firsttoken.pretraining.trained import TrainedMeasurement

CLAIM = "context_length"
VERSION = 2  # 2: without a row on long documents, which tests nothing that the literature claims
BOS_CHOICES: tuple[BosInTraining, ...] = ("never", "fixed")


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What is asked."""

    budget: str = ""  # whose models; none where nothing is asked for
    seeds: int = 1  # runs of each kind that differ in the seed only


def training(budget_name: str, bos: BosInTraining, length: int, seed: int = 0) -> Training:
    """One run of the chapter: plain causal packing."""
    return Training(budget_name, Packing(length, "causal", bos), seed)


def trainings(budget_name: str, seeds: int = 1) -> list[Training]:
    """All runs of the chapter."""
    lengths = budget(budget_name).lengths
    return [
        training(budget_name, bos, length, seed=seed)
        for bos in BOS_CHOICES
        for length in lengths
        for seed in run_records.seeds_from(seeds)
    ]


def run(parameters: Parameters, group: Group) -> JSON:
    """The values of `context_length/<budget>-budget.json`.

    `rows` {bos: {length: numbers of `run_records.row` at T = 64, `trained_length` the same at the trained length, or
    null}}, `sink_rate_longest` (the paper's way, without BOS, epsilon 0.3), `runs`.
    """
    lengths = budget(parameters.budget).lengths

    def row(which: Sequence[Training]) -> JSON | None:
        of_kind = [group.runs[one] for one in which if one in group.runs]
        arm, length = run_records.own_arm(which[0].packing.bos), which[0].packing.length
        short = run_records.row(of_kind, arm, SHORT)
        return short and {**short, "trained_length": run_records.row(of_kind, arm, length)}

    rows = {
        bos: {
            str(length): row([training(parameters.budget, bos, length, seed) for seed in range(parameters.seeds)])
            for length in lengths
        }
        for bos in BOS_CHOICES
    }
    longest = rows["never"][str(max(lengths))]
    return {"sink_rate_longest": longest and longest["sink_rate_0.3"], "rows": rows, "runs": group.names}


MEASUREMENT = TrainedMeasurement(
    claim=CLAIM,
    parameters=Parameters,
    models=lambda asked, *how: run_records.group(trainings(asked.budget, asked.seeds), *how),
    run=run,
    judge=judge,
    version=VERSION,
)
TRAINED = (MEASUREMENT, lab.MEASUREMENT, without_bos.MEASUREMENT)


def of_budget(budget_name: str) -> TrainedMeasurement:
    """What the chapter measures of a budget: two of them have rules of their own."""
    own = {lab.BUDGET: lab.MEASUREMENT, without_bos.BUDGET: without_bos.MEASUREMENT}
    return own.get(budget_name, MEASUREMENT)
