"""Context length, and where the loss is, with BOS fixed: the question that two cores can answer.

Ten models of the budget `lab`: windows of 64, 256 and 1024 tokens with the loss on all positions, and of 256 and 1024
with the loss on the second half only (the positions that bear loss are what arXiv 2603.05498 varies in its 4.3.3), two
seeds each. Seeds are the unit. The number is what the first token gets beyond an even share of the attention.
"""

from __future__ import annotations

from firsttoken.claims.context_length.grid import LOSSES, SEEDS, grid
from firsttoken.claims.context_length.verdict import judge
from firsttoken.estimates import JSON
from firsttoken.measures.sinks import even_share
from firsttoken.pretraining import run_records
from firsttoken.pretraining.budgets import budget
from firsttoken.pretraining.packing import LossOn, Packing
from firsttoken.pretraining.run_records import Group
from firsttoken.pretraining.run_spec import SHORT, Training
from firsttoken.pretraining.trained import Fixed, TrainedMeasurement
from firsttoken.records import Record

CLAIM = "context_length"
BUDGET = "lab"
VERSION = 1
LENGTHS = {"all": (64, 256, 1024), "second_half": (256, 1024)}  # of windows, by where the loss is


def training(length: int, loss: LossOn, seed: int) -> Training:
    """One of the ten runs."""
    return Training(BUDGET, Packing(length, "causal", "fixed", loss=loss), seed)


def trainings() -> list[Training]:
    """All ten, those of the first seed first."""
    return [training(length, loss, seed) for seed in SEEDS for loss in LOSSES for length in LENGTHS[loss]]


def run(parameters: Fixed, group: Group) -> JSON:
    """The values of `context_length/lab-budget.json`.

    `runs_of` {loss: {length: one entry for each seed, see `entry`, or null}}, `runs`, `weights` of one model,
    `sink_rate_longest` (share of heads above 0.3 at 64 tokens of the longest window with loss everywhere, seeds
    joined).
    """
    trained = group.runs
    everywhere = [one for one in trained if one.packing.loss == "all"]
    longest = max((one.packing.length for one in everywhere), default=0)
    row = run_records.row([trained[one] for one in everywhere if one.packing.length == longest], "BOS+text", SHORT)
    return {
        "runs_of": grid(LENGTHS, training, trained, entry),
        "runs": group.names,
        "weights": next(iter(trained.values())).values["weights"],
        "sink_rate_longest": row and row["sink_rate_0.3"],
    }


def entry(run: Record, length: int) -> JSON:
    """What one model shows: `excess`, mass on the first token minus an even share, on texts of 64 tokens and
    (`excess_own`) of its own length; `late_excess` and `late_loss` on the second half of texts of its own length; the
    same at 64 tokens (`sink_rate`, `loss`); `windows`, how often it saw BOS."""
    short, own = (run.values["final"][str(tokens)]["BOS+text"] for tokens in (SHORT, length))
    late_share = sum(1 / (query + 1) for query in range(length // 2, length)) / (length - length // 2)
    return {
        "excess": short["mass"]["value"] - even_share(SHORT),
        "excess_own": own["mass"]["value"] - even_share(length),
        "late_excess": own["second_half"]["mass"]["value"] - late_share,
        "late_loss": own["second_half"]["loss"]["value"],
        "sink_rate": short["sink_rate_0.3"]["value"],
        "loss": short["loss"]["value"],
        "windows": run.values["tokens"] // length,
        "heads": budget(BUDGET).layers * budget(BUDGET).heads,
    }


MEASUREMENT = TrainedMeasurement(
    claim=CLAIM,
    parameters=Fixed,
    models=lambda _, *how: run_records.group(trainings(), *how),
    run=run,
    judge=judge,
    version=VERSION,
)
