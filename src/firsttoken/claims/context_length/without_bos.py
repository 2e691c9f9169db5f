"""Context length without BOS, the paper's own question, on a budget that a graphics card trains in minutes.

Models of the budget `lab-gpu` on the generated language, 123 million tokens each: windows of 128, 512 and 2048 tokens
with the loss on all positions, and of 2048 with the loss on the second half, two seeds each. The first of them is a
gate: where a window of 2048 tokens brings no sink, nothing shorter will, and the others are not trained.
"""

from __future__ import annotations

from firsttoken.claims.context_length.grid import LOSSES, SEEDS, grid
from firsttoken.claims.context_length.verdict import LEAST_OF_GATE, judge
from firsttoken.estimates import JSON
from firsttoken.pretraining import run_records, run_spec
from firsttoken.pretraining.budgets import budget
from firsttoken.pretraining.packing import LossOn, Packing
from firsttoken.pretraining.run_records import Group
from firsttoken.pretraining.run_spec import SHORT, Training
from firsttoken.pretraining.trained import Fixed, TrainedMeasurement
from firsttoken.records import Record

CLAIM = "context_length"
BUDGET = "lab-gpu"
VERSION = 1
LENGTHS = {"all": (128, 512, 2048), "second_half": (2048,)}  # of windows, by where the loss is


def training(length: int, loss: LossOn, seed: int) -> Training:
    """One of the eight runs."""
    return Training(BUDGET, Packing(length, "causal", "never", loss=loss), seed)


def trainings() -> list[Training]:
    """All eight, the gate first."""
    return [training(length, loss, seed) for loss in LOSSES for seed in SEEDS for length in LENGTHS[loss][::-1]]


def gate() -> Training:
    """The run on which it depends whether the others are trained."""
    return trainings()[0]


def before(training: Training) -> Training | None:
    """The gate, for those behind it."""
    return gate() if training != gate() and training in trainings() else None


def spared(training: Training) -> str:
    """Why a run need not be trained: a clause, for those behind a gate that was not passed."""
    record = run_spec.find(gate()) if before(training) else None
    if record is None or (rate := entry(record, gate().packing.length)["rate"]) >= LEAST_OF_GATE:
        return ""
    return (
        f"without BOS {record.model} has {rate:.1%} sink heads, fewer than {LEAST_OF_GATE:.0%}, so no sink forms on "
        "this budget."
    )


def models(parameters: Fixed, train: bool, fresh: bool) -> Group | None:
    """The gate, and all others if it was passed."""
    trained = run_records.runs_of([gate()], train, fresh)
    others = [one for one in trainings() if one != gate() and not spared(one)]
    trained |= run_records.runs_of(others, train, fresh)
    return Group(trainings(), trained, fresh) if trained else None


def run(parameters: Fixed, group: Group) -> JSON:
    """The values of `context_length/lab-gpu-budget.json`.

    `rates_of` {loss: {length: one entry for each seed, see `entry`, or null}}, `runs`, `heads` of one model,
    `sink_rate_longest` (share of heads above 0.3 at 64 tokens of the longest window with loss everywhere, seeds
    joined).
    """
    trained, most = group.runs, max(LENGTHS["all"])
    longest = [trained[one] for one in trained if one.packing.loss == "all" and one.packing.length == most]
    row = run_records.row(longest, "text", SHORT) if longest else None
    return {
        "rates_of": grid(LENGTHS, training, trained, entry),
        "heads": budget(BUDGET).layers * budget(BUDGET).heads,
        "runs": group.names,
        "sink_rate_longest": row and row["sink_rate_0.3"],
    }


def entry(run: Record, length: int) -> JSON:
    """What one model shows without BOS, on texts of 64 tokens and (`_own`) of its own length."""
    short, own = (run.values["final"][str(tokens)]["text"] for tokens in (SHORT, length))
    return {
        "rate": short["sink_rate_0.3"]["value"],
        "rate_own": own["sink_rate_0.3"]["value"],
        "mass": short["mass"]["value"],
        "loss": short["loss"]["value"],
        "loss_own": own["loss"]["value"],
    }


MEASUREMENT = TrainedMeasurement(claim=CLAIM, parameters=Fixed, models=models, run=run, judge=judge, version=VERSION)
