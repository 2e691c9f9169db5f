"""The chapter on context length: from the records of runs, made up here, to rows and verdicts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from firsttoken import records
from firsttoken.claims.context_length import figures as context_figures
from firsttoken.claims.context_length import lab, without_bos
from firsttoken.claims.context_length import measure as context_length
from firsttoken.claims.packing import measure as packing
from firsttoken.errors import FirstTokenError
from firsttoken.measures.sinks import even_share
from firsttoken.pretraining import run_records
from firsttoken.pretraining.budgets import budget
from firsttoken.pretraining.trained import Fixed
from firsttoken.progress import duration
from firsttoken.records import Record
from made_runs import estimate, ran, stores_below


@pytest.fixture(autouse=True)
def own_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores_below(tmp_path, monkeypatch)


def lengths(never: dict[int, float], fixed: dict[int, float] | None = None) -> Record | None:
    for bos, of in (("never", never), ("fixed", fixed or {})):
        for length, rate in of.items():
            ran(context_length.training("gpu", bos, length), rate)  # type: ignore[arg-type]
    return context_length.MEASUREMENT.record(context_length.Parameters(budget="gpu"))


def test_rows_hold_what_was_trained_and_no_more() -> None:
    record = lengths({128: 0.1, 2048: 0.6}, {256: 0.7})
    assert record is not None
    rows = record.values["rows"]
    assert {length for length, row in rows["never"].items() if row} == {"128", "2048"}
    assert {length for length, row in rows["fixed"].items() if row} == {"256"}
    assert record.values["sink_rate_longest"]["value"] == 0.6
    assert rows["never"]["2048"]["trained_length"]["sink_rate_0.8"]["value"] == 0.6
    assert [run.model for run in run_records.behind([record])] == sorted(record.values["runs"])


def test_costs_count_what_runs_have_reached() -> None:
    def of_budget() -> list[str]:
        (line,) = [line for line in context_figures.costs(100.0).text.splitlines() if line.startswith("gpu |")]
        return line.split(" | ")

    assert of_budget()[5] == "not run"
    ran(context_length.training("gpu", "never", 128), 0.5)
    assert of_budget()[5] == "1,000"
    settings = budget("gpu")
    seconds = settings.tokens * settings.flops_per_token(settings.length) / 1e14
    assert of_budget()[4] == duration(seconds)


@pytest.mark.parametrize(
    ("never", "status"),
    [
        ({128: 0.10, 2048: 0.60}, "reproduced"),
        ({128: 0.10, 2048: 0.115}, "partly"),
        ({128: 0.60, 2048: 0.10}, "not reproduced"),
        ({128: 0.01, 2048: 0.04}, "inconclusive"),
        ({2048: 0.60}, "inconclusive"),
    ],
)
def test_verdict_on_context_length(never: dict[int, float], status: str) -> None:
    record = lengths(never, {128: 0.7, 2048: 0.9})
    assert record is not None
    assert record.verdict is not None
    assert record.verdict.status == status
    assert "70.0% [69.0%, 71.0%] at 128 tokens and 90.0%" in record.verdict.sentence


def card_run(length: int, loss: str, seed: int, rate: float) -> None:
    """A run of the budget `lab-gpu`, whose share of sink heads is the same with any text."""
    ran(without_bos.training(length, loss, seed), rate)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rates", "status", "words"),
    [
        ({128: (0.1, 0.2), 512: (0.25, 0.2), 2048: (0.4, 0.35)}, "reproduced", "Both of the longest"),
        ({128: (0.1, 0.2), 512: (0.5, 0.6), 2048: (0.4, 0.35)}, "inconclusive", "leaves it open"),  # 512 not between
        ({128: (0.1, 0.3), 512: (0.25, 0.2), 2048: (0.4, 0.35)}, "inconclusive", "leaves it open"),  # one pair is near
        ({128: (0.4, 0.41), 512: (0.4, 0.4), 2048: (0.42, 0.44)}, "not reproduced", "no more"),
        ({128: (0.1, 0.11), 512: (0.1, 0.1), 2048: (0.12, 0.14)}, "inconclusive", "leaves it open"),  # no sink to lose
        ({2048: (0.3, 0.3)}, "inconclusive", "Two seeds of every length"),
        ({2048: (0.09,)}, "inconclusive", "gate, 10%, was not passed"),
    ],
)
def test_verdict_on_context_length_without_bos(rates: dict[int, tuple[float, ...]], status: str, words: str) -> None:
    for length, of_seed in rates.items():
        for seed, rate in enumerate(of_seed):
            card_run(length, "all", seed, rate)
    record = without_bos.MEASUREMENT.record(Fixed())
    assert record is not None
    assert record.verdict is not None
    assert record.verdict.status == status
    assert words in record.verdict.sentence
    for shown in (context_figures.without_bos(record), context_figures.rates_table(record)):
        assert "without BOS" in shown.text


def test_behind_a_closed_gate_nothing_else_is_trained_for_it() -> None:
    runs, rows = without_bos.trainings(), packing.trainings("lab-gpu")
    assert len(rows) == 15
    assert len(set(runs)) == 8
    assert runs[0] == without_bos.gate()
    assert not any(map(without_bos.spared, [*runs, *rows]))
    card_run(2048, "all", 0, 0.09)
    assert [one for one in runs if not without_bos.spared(one)] == [without_bos.gate()]
    assert "9.0% sink heads, fewer than 10%" in without_bos.spared(runs[1])
    assert not any(map(without_bos.spared, rows))
    card_run(2048, "all", 0, 0.11)
    assert not any(map(without_bos.spared, runs))


def lab_run(
    length: int, loss: str, seed: int, excess: float, late: float | None = None, late_loss: float = 2.0
) -> None:
    """A run of the budget `lab` whose first token gets so much beyond an even share."""
    training = lab.training(length, loss, seed)  # type: ignore[arg-type]
    record = ran(training, 0.1)
    late_share = sum(1 / (query + 1) for query in range(length // 2, length)) / (length / 2)
    ends = {}
    for tokens in {64, length}:
        arm = {
            **record.values["final"]["64"]["BOS+text"],
            "mass": estimate(excess + even_share(tokens)),
            "second_half": {
                "mass": estimate((excess if late is None else late) + late_share), "loss": estimate(late_loss),
            },
        }  # fmt: skip
        ends[str(tokens)] = {**record.values["final"]["64"], "BOS+text": arm}
    records.write(replace(record, values={**record.values, "final": ends, "weights": 1}))


def lab_record(excess: dict[int, tuple[float, float]], late: float | None = None, late_loss: float = 2.0) -> Record:
    for length, of_seed in excess.items():
        for seed, number in enumerate(of_seed):
            lab_run(length, "all", seed, number)
            if late is not None and length in lab.LENGTHS["second_half"]:
                lab_run(length, "second_half", seed, 0.0, late, late_loss)
    record = lab.MEASUREMENT.record(Fixed())
    assert record is not None
    assert record.verdict is not None
    return record


@pytest.mark.parametrize(
    ("excess", "status"),
    [
        ({64: (0.05, 0.06), 256: (0.07, 0.08), 1024: (0.09, 0.10)}, "reproduced"),
        ({64: (0.05, 0.06), 256: (0.12, 0.08), 1024: (0.09, 0.10)}, "inconclusive"),
        ({64: (0.05, 0.06), 256: (0.07, 0.07), 1024: (0.09, 0.08)}, "inconclusive"),
        ({64: (0.05, 0.06), 256: (0.05, 0.06), 1024: (0.06, 0.02)}, "not reproduced"),
        ({64: (0.05,), 256: (0.07,), 1024: (0.09,)}, "inconclusive"),
        ({64: (0.05, 0.06), 1024: (0.09, 0.10)}, "inconclusive"),
    ],
)
def test_verdict_with_bos_fixed(excess: dict[int, tuple[float, ...]], status: str) -> None:
    record = lab_record(excess)  # type: ignore[arg-type]
    assert record.verdict is not None
    assert record.verdict.status == status
    assert "seed 0: +0.050 at 64" in record.verdict.sentence
    missing = 10 - sum(map(len, excess.values()))
    assert f"{missing} of the ten models have not been trained" in record.verdict.sentence


@pytest.mark.parametrize(
    ("late", "late_loss", "words"),
    [
        (0.02, 2.04, "weaker in every pair"),
        (0.12, 2.04, "no weaker in any pair"),
        (0.08, 2.04, "left open"),
        (0.02, 2.06, "4 of 4 pairs differ by more than 0.05 nats"),
        (None, 2.0, "has not been compared in every pair"),
    ],
)
def test_positions_without_loss(late: float | None, late_loss: float, words: str) -> None:
    record = lab_record({256: (0.1, 0.1), 1024: (0.1, 0.1)}, late, late_loss)
    assert record.verdict is not None
    assert words in record.verdict.sentence
    entry = record.values["runs_of"]["all"]["256"][0]
    assert entry["late_excess"] == pytest.approx(0.1)
    assert entry["windows"] == 3000 // 256
    for drawn in (context_figures.with_bos_fixed(record), context_figures.runs_table(record)):
        assert "second half" in drawn.text


def test_seeds_are_joined() -> None:
    ran(context_length.training("gpu", "never", 128), 0.2)
    ran(context_length.training("gpu", "never", 128, seed=1), 0.4)
    record = context_length.MEASUREMENT.record(context_length.Parameters(budget="gpu", seeds=2))
    assert record is not None
    row = record.values["rows"]["never"]["128"]
    assert row["sink_rate_0.3"] == {
        "value": pytest.approx(0.3), "low": pytest.approx(0.19), "high": pytest.approx(0.41), "n": 128,
    }  # fmt: skip
    assert row["seeds"] == 2
    with pytest.raises(FirstTokenError, match="At least one seed"):
        context_length.trainings("gpu", 0)


def test_a_new_run_makes_a_new_record_and_nothing_new_keeps_it() -> None:
    first = lengths({128: 0.1, 2048: 0.6})
    assert context_length.MEASUREMENT.record(context_length.Parameters(budget="gpu")) == first
    second = lengths({512: 0.3})
    assert second is not None
    assert second.values["rows"]["never"]["512"]["mass"]["value"] == 0.3
    assert second.values["rows"]["never"]["128"]["mass"]["value"] == 0.1
