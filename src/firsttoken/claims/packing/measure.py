"""The paper's table of packing and BOS: five models, nine rows of training and inference."""

from __future__ import annotations

from dataclasses import dataclass

from firsttoken.estimates import JSON, interval, surely_above
from firsttoken.pretraining import run_records
from firsttoken.pretraining.budgets import budget
from firsttoken.pretraining.checkpoint_probe import ARMS, Arm
from firsttoken.pretraining.packing import BosInTraining, Masking, Packing
from firsttoken.pretraining.run_spec import Training
from firsttoken.pretraining.train import SHORT
from firsttoken.records import Record, Status, Verdict

CLAIM = "packing"
VERSION = 1
LEAST_RATE = 0.05  # of sink heads, below which a model counts as one without sinks


@dataclass(frozen=True)
class Row:
    """One row of the table: how a model was trained, and how it is read."""

    masking: Masking
    bos: BosInTraining
    inference: Arm


# In the order of the paper's table, which `results/paper.json` keeps.
ROWS = (
    Row("causal", "never", "BOS+text"),
    Row("causal", "never", "text"),
    Row("causal", "fixed", "BOS+text"),
    Row("causal", "fixed", "text"),
    Row("intra_document", "never", "text"),
    Row("intra_document", "documents", "BOS+text"),
    Row("intra_document", "documents", "text"),
    Row("intra_document", "fixed", "BOS+text"),
    Row("intra_document", "fixed", "text"),
)


def training(budget_name: str, row: Row, seed: int = 0) -> Training:
    """The run behind a row, on documents of which several fit into a window: else masking would change nothing."""
    found = budget(budget_name)
    source = None if found.short == found.corpus.source else found.short
    return Training(budget_name, Packing(found.length, row.masking, row.bos), seed, source=source)


def trainings(budget_name: str, seeds: int = 1) -> list[Training]:
    """All runs of the chapter: five for each seed."""
    return list(
        dict.fromkeys(training(budget_name, row, seed) for seed in run_records.seeds_from(seeds) for row in ROWS)
    )


def measure(budget_name: str, seeds: int = 1, train: bool = True, fresh: bool = False) -> Record | None:
    """The record `packing/<budget>-budget.json`; None where nothing was trained and nothing is to be.

    Its values: `rows`, nine of them in the paper's order, each the numbers of `run_records.row` at T = 64 or null;
    `sink_rate_fixed_bos` (causal, BOS fixed in training and there at inference, epsilon 0.3) and `sink_rate_never_bos`
    {masking: without any BOS, or null}; `alpha` {run: {arm:
    mean attention to the first token of each head, (layer, head)}}; `windows_shared`, the share of windows that hold
    several documents; `runs`.
    """
    found = run_records.runs_of(trainings(budget_name, seeds), train, fresh)

    def values() -> JSON:
        rows = []
        for row in ROWS:
            runs = [found[one] for seed in range(seeds) if (one := training(budget_name, row, seed)) in found]
            rows.append(run_records.row(runs, row.inference, SHORT))
        return {
            "sink_rate_fixed_bos": rows[2] and rows[2]["sink_rate_0.3"],
            "sink_rate_never_bos": {
                row.masking: measured and measured["sink_rate_0.3"]
                for row, measured in zip(ROWS, rows, strict=True)
                if (row.bos, row.inference) == ("never", "text")
            },
            "rows": rows,
            "alpha": {
                record.model: {arm: record.values["final"][str(SHORT)][arm]["alpha"] for arm in ARMS}
                for one, record in found.items()
                if one.seed == 0
            },
            "windows_shared": max(record.values["windows_shared"] for record in found.values()),
            "runs": [record.model for record in found.values()],
        }

    parameters = {"seeds": seeds, "length": budget(budget_name).length, **run_records.settings(trainings(budget_name))}
    return run_records.record_of(CLAIM, budget_name, parameters, found, values, judge, VERSION)


def judge(values: JSON) -> Verdict:
    """Four statements for each masking: a fixed BOS surely gives more sink heads than none (a); without it at
    inference they are surely fewer (b) and the loss surely higher (c), text by text; and a model trained without any
    BOS has sinks too, surely in 5 % of its heads (d). Reproduced if all that were measured hold, partly if some of
    (a) to (c) do, not measured while causal packing lacks a run. (a) to (c) were written before the measurement; (d),
    half of the paper's table, had been forgotten and was added after it, which can only make the verdict worse."""
    rows = dict(zip(ROWS, values["rows"], strict=True))
    held, asked, parts, missing = 0, 0, [], []
    for masking, name in (("causal", "Causal packing"), ("intra_document", "Intra-document masking")):
        never = rows[Row(masking, "never", "text")]  # type: ignore[arg-type]
        with_bos = rows[Row(masking, "fixed", "BOS+text")]  # type: ignore[arg-type]
        without = rows[Row(masking, "fixed", "text")]  # type: ignore[arg-type]
        if not (never and with_bos and without):
            if masking == "causal":
                return Verdict("not measured", "Causal packing with a fixed BOS and without any has not been trained.")
            continue
        rate, loss = "sink_rate_0.3", "loss"
        change = with_bos["missing_bos"]
        checks = (
            surely_above(with_bos[rate], never[rate]),
            change[rate]["high"] < 0,
            change[loss]["low"] > 0,
        )
        held, asked = held + sum(checks), asked + len(checks)
        if never[rate]["low"] <= LEAST_RATE:
            missing.append(name)
        parts.append(
            f"{name}: {interval(with_bos[rate], '.1%')} of the heads are sinks with BOS fixed in training, "
            f"{interval(without[rate], '.1%')} when that BOS is missing at inference (which changes the loss of "
            f"{with_bos[loss]['value']:.2f} nats by {interval(change[loss], '+.3f')}), "
            f"{interval(never[rate], '.1%')} when trained without any."
        )
    if missing:
        parts.append(f"Sinks without any BOS, which the paper finds, did not form ({' and '.join(missing).lower()}).")
    status: Status = "reproduced" if held == asked and not missing else "partly" if held else "not reproduced"
    return Verdict(status, " ".join(parts))
