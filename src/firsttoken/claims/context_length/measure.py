"""Does pretraining on longer contexts make sinks stronger? One model for each context length, equal tokens.

The paper's curve begins near zero at 128 tokens. Each length is trained without any BOS token, and once more with one
fixed at the start of every window, because a small model on a small budget forms no sink without it. A further row
trains on long documents only (arXiv 2603.05498).
"""

from __future__ import annotations

from collections.abc import Sequence

from firsttoken.estimates import JSON, interval, surely_above
from firsttoken.pretraining import run_records
from firsttoken.pretraining.budgets import budget
from firsttoken.pretraining.packing import BosInTraining, Packing
from firsttoken.pretraining.run_spec import Training
from firsttoken.pretraining.train import SHORT
from firsttoken.records import Record, Verdict

CLAIM = "context_length"
VERSION = 1
BOS_CHOICES: tuple[BosInTraining, ...] = ("never", "fixed")
LONG = 4  # "long documents only" means documents of at least so many windows
LEAST_RATE = 0.05  # below this at every length, there is no sink whose growth could be seen


def training(budget_name: str, bos: BosInTraining, length: int, long: bool = False, seed: int = 0) -> Training:
    """One run of the chapter: plain causal packing."""
    return Training(budget_name, Packing(length, "causal", bos), seed, least=LONG * length if long else 0)


def trainings(budget_name: str, seeds: int = 1) -> list[Training]:
    """All runs of the chapter."""
    found = budget(budget_name)
    every = [
        training(budget_name, bos, length, seed=seed)
        for bos in BOS_CHOICES
        for length in found.lengths
        for seed in run_records.seeds_from(seeds)
    ]
    return every + [training(budget_name, bos, max(found.lengths), long=True) for bos in BOS_CHOICES]


def measure(budget_name: str, seeds: int = 1, train: bool = True, fresh: bool = False) -> Record | None:
    """The record `context_length/<budget>-budget.json`; None where nothing was trained and nothing is to be.

    Its values: `rows` {bos: {length: numbers of `run_records.row` at T = 64, `trained_length` the same at the
    trained length, or null}}, `long` {bos: a row or null}, `sink_rate_longest` (the paper's way, without BOS, epsilon
    0.3), `runs`.
    """
    found = run_records.runs_of(trainings(budget_name, seeds), train, fresh)
    return run_records.record_of(
        CLAIM,
        budget_name,
        {"seeds": seeds, **run_records.settings(trainings(budget_name))},
        found,
        lambda: _values(budget_name, seeds, found),
        judge,
        VERSION,
    )


def _values(budget_name: str, seeds: int, found: dict[Training, Record]) -> JSON:
    lengths = budget(budget_name).lengths

    def row(which: Sequence[Training]) -> JSON | None:
        runs = [found[one] for one in which if one in found]
        arm, length = run_records.own_arm(which[0].packing.bos), which[0].packing.length
        short = run_records.row(runs, arm, SHORT)
        return short and {**short, "trained_length": run_records.row(runs, arm, length)}

    rows = {
        bos: {
            str(length): row([training(budget_name, bos, length, seed=seed) for seed in range(seeds)])
            for length in lengths
        }
        for bos in BOS_CHOICES
    }
    longest = rows["never"][str(max(lengths))]
    return {
        "sink_rate_longest": longest and longest["sink_rate_0.3"],
        "rows": rows,
        "long": {bos: row([training(budget_name, bos, max(lengths), long=True)]) for bos in BOS_CHOICES},
        "runs": [record.model for record in found.values()],
    }


def judge(values: JSON) -> Verdict:
    """Reproduced if, trained without BOS, the longest context surely has more sink heads (epsilon 0.3) than the
    shortest; partly if more but not surely; not measured if fewer than 5 % of the heads are sinks at every length,
    because then there is no sink to compare. Written before the measurement."""
    rows = {int(length): row["sink_rate_0.3"] for length, row in values["rows"]["never"].items() if row}
    fixed = {int(length): row["sink_rate_0.3"] for length, row in values["rows"]["fixed"].items() if row}
    beside = ""
    if len(fixed) > 1:
        beside = f" With BOS fixed at the start it is {_ends(fixed)}."
    if len(rows) < 2:
        return Verdict("not measured", f"Fewer than two context lengths were trained without BOS.{beside}")
    sentence = f"Trained without BOS, the share of sink heads is {_ends(rows)}."
    if max(rate["value"] for rate in rows.values()) < LEAST_RATE:
        return Verdict(
            "not measured", f"{sentence} So no sink has formed on this budget, and there is none to compare.{beside}"
        )
    short, long = rows[min(rows)], rows[max(rows)]
    if surely_above(long, short):
        return Verdict("reproduced", sentence + beside)
    return Verdict("partly" if long["value"] > short["value"] else "not reproduced", sentence + beside)


def _ends(rates: dict[int, JSON]) -> str:
    short, long = min(rates), max(rates)
    return f"{interval(rates[short], '.1%')} at {short} tokens and {interval(rates[long], '.1%')} at {long}"
