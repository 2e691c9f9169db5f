"""The chapters on pretraining: from the records of runs, made up here, to rows and verdicts; and once in earnest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import nbformat
import pytest

from firsttoken import claims, files, records
from firsttoken.book import chapters
from firsttoken.claims.context_length import figures as context_figures
from firsttoken.claims.context_length import lab, without_bos
from firsttoken.claims.context_length import measure as context_length
from firsttoken.claims.emergence import measure as emergence
from firsttoken.claims.packing import measure as packing
from firsttoken.claims.packing.rows import ROWS, Row
from firsttoken.errors import FirstTokenError
from firsttoken.measures.sinks import even_share
from firsttoken.pretraining import run_records, train
from firsttoken.pretraining.budgets import budget
from firsttoken.pretraining.packing import Packing
from firsttoken.pretraining.run_spec import Training
from firsttoken.progress import duration
from firsttoken.records import Record, Verdict, paper_numbers, store


@pytest.fixture(autouse=True)
def own_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path / "local"))
    monkeypatch.setattr(store, "reference_store", lambda: tmp_path / "reference")
    real = files.ROOT / "results" / "paper.json"
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference" / "paper.json").write_text(real.read_text())


def estimate(value: float, spread: float = 0.01) -> dict[str, Any]:
    return {"value": value, "low": value - spread, "high": value + spread, "n": 64}


def ran(training: Training, rate: float, missing: float | None = None, harm: float = 0.0) -> Record:
    """A run as if it had given this sink rate; `missing` is that without BOS, `harm` what that adds to the loss."""
    missing = rate if missing is None else missing

    def arm(value: float, loss: float) -> dict[str, Any]:
        numbers = {name: estimate(value) for name in run_records.NUMBERS}
        return {**numbers, "loss": estimate(loss, 0.5), "alpha": [[value, 0.0], [0.1, 0.2]]}

    end = {
        "BOS+text": arm(rate, 3.0),
        "text": arm(missing, 3.0 + harm),
        "missing_bos": {
            "sink_rate_0.3": estimate(missing - rate),
            "mass": estimate(missing - rate),
            "loss": estimate(harm, 0.05),
        },
    }
    curve = [
        {
            "step": step,
            **{
                name: {**dict.fromkeys(run_records.NUMBERS, 0.1 * step), "loss": 8.0 - step}
                for name in ("BOS+text", "text")
            },
        }
        for step in range(4)
    ]
    values = {
        "curve": curve,
        "losses": [[1, 8.0], [3, 5.0]],
        "final": dict.fromkeys(("64", str(training.packing.length)), end),
        "tokens": 3000,
        "tokens_per_second": 1000.0,
        "share_of_matmul_rate": 0.25,
        "windows_shared": 0.5,
    }
    provenance = {"model": training.provenance(), "texts_hash": "abc", "time": "2026-01-01T00:00:00Z"}
    parameters = store._normal(asdict(training))
    record = Record(train.CLAIM, training.slug, parameters, values, provenance)
    records.write(record)
    return record


# -- context length -----------------------------------------------------------------------------------------


def lengths(never: dict[int, float], fixed: dict[int, float] | None = None) -> Record | None:
    for bos, of in (("never", never), ("fixed", fixed or {})):
        for length, rate in of.items():
            ran(context_length.training("gpu", bos, length), rate)  # type: ignore[arg-type]
    return context_length.measure("gpu", train=False)


def test_nothing_trained_is_no_record() -> None:
    assert context_length.measure("gpu", train=False) is None
    assert packing.measure("gpu", train=False) is None
    assert emergence.measure("gpu", train=False) is None
    assert run_records.shown("context_length") == []


def test_rows_hold_what_was_trained_and_no_more() -> None:
    record = lengths({128: 0.1, 2048: 0.6}, {256: 0.7})
    assert record is not None
    rows = record.values["rows"]
    assert {length for length, row in rows["never"].items() if row} == {"128", "2048"}
    assert {length for length, row in rows["fixed"].items() if row} == {"256"}
    assert record.values["sink_rate_longest"]["value"] == 0.6
    assert rows["never"]["2048"]["trained_length"]["sink_rate_0.8"]["value"] == 0.6
    assert [run.model for run in run_records.behind([record])] == sorted(record.values["runs"])


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
    record = context_length.measure("lab-gpu", train=False)
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
    record = context_length.measure("lab", train=False)
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
    record = context_length.measure("gpu", seeds=2, train=False)
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
    assert context_length.measure("gpu", train=False) == first
    second = lengths({512: 0.3})
    assert second is not None
    assert second.values["rows"]["never"]["512"]["mass"]["value"] == 0.3
    assert second.values["rows"]["never"]["128"]["mass"]["value"] == 0.1


# -- packing ------------------------------------------------------------------------------------------------


def table(**rates: tuple[float, float, float]) -> Record | None:
    """Runs by `<masking>_<bos>`: rate, rate without BOS, harm."""
    for row in ROWS:
        name = f"{row.masking.split('_')[0]}_{row.bos}"
        if name in rates:
            ran(packing.training("gpu", row), *rates[name])
    return packing.measure("gpu", train=False)


def test_rows_are_the_papers() -> None:
    paper = paper_numbers.paper()["packing"]["rows"]
    words = {"never": "", "documents": "", "fixed": " + fixed BOS"}
    for row, theirs in zip(ROWS, paper, strict=True):
        assert theirs["masking"] == row.masking.replace("_", "-").removesuffix("-") + words[row.bos]
        assert theirs["inference"] == row.inference
        assert theirs["bos"] == ("no" if row.bos == "never" else "yes")
    assert len(packing.trainings("gpu")) == 5


def test_each_row_reads_its_model_in_its_own_way() -> None:
    record = table(causal_never=(0.2, 0.25, 0.0), causal_fixed=(0.9, 0.1, 2.0), intra_documents=(0.8, 0.5, 0.1))
    assert record is not None
    rows = dict(zip(ROWS, record.values["rows"], strict=True))
    assert rows[Row("causal", "never", "text")]["sink_rate_0.3"]["value"] == 0.25
    assert rows[Row("causal", "fixed", "BOS+text")]["sink_rate_0.3"]["value"] == 0.9
    assert rows[Row("causal", "fixed", "text")]["sink_rate_0.3"]["value"] == 0.1
    assert rows[Row("causal", "fixed", "text")]["loss"]["value"] == 5.0
    assert rows[Row("intra_document", "documents", "text")]["sink_rate_0.3"]["value"] == 0.5
    assert rows[Row("intra_document", "fixed", "text")] is None
    assert record.values["sink_rate_fixed_bos"]["value"] == 0.9
    with_bos = rows[Row("causal", "fixed", "BOS+text")]
    excess = record.values["excess_fixed_bos"]
    assert excess["value"] == pytest.approx(with_bos["each"][0]["excess"], abs=1e-12)
    assert excess["high"] - excess["low"] == pytest.approx(with_bos["mass"]["high"] - with_bos["mass"]["low"])
    assert excess["n"] == with_bos["mass"]["n"]
    assert record.verdict is not None
    assert record.verdict.status == "reproduced"
    assert "Intra" not in record.verdict.sentence


@pytest.mark.parametrize(
    ("rates", "status"),
    [
        ({"causal_never": (0.2, 0.2, 0.0), "causal_fixed": (0.9, 0.1, 0.0)}, "partly"),
        ({"causal_never": (0.0, 0.0, 0.0), "causal_fixed": (0.9, 0.1, 2.0)}, "partly"),
        ({"causal_never": (0.9, 0.9, 0.0), "causal_fixed": (0.9, 0.9, 0.0)}, "not reproduced"),
        ({"causal_fixed": (0.9, 0.1, 2.0)}, "inconclusive"),
        (
            {
                "causal_never": (0.2, 0.2, 0.0), "causal_fixed": (0.9, 0.1, 2.0),
                "intra_never": (0.95, 0.95, 0.0), "intra_fixed": (0.9, 0.1, 2.0),
            },
            "partly",
        ),
    ],
)  # fmt: skip
def test_verdict_on_packing(rates: dict[str, tuple[float, float, float]], status: str) -> None:
    record = table(**rates)
    assert record is not None
    assert record.verdict is not None
    assert record.verdict.status == status


def seeds_table(fixed: list[float], never: list[float], missing: list[float], harm: list[float]) -> Record:
    """Causal packing on the budget with three seeds; the mass on the first token beyond an even share, for each."""
    even = even_share(64)
    for seed, (with_bos, none, without, cost) in enumerate(zip(fixed, never, missing, harm, strict=True), 1):
        ran(packing.training("lab-notes", Row("causal", "fixed", "text"), seed), with_bos + even, without + even, cost)
        ran(packing.training("lab-notes", Row("causal", "never", "text"), seed), none + even)
    record = packing.measure("lab-notes", train=False)
    assert record is not None
    return record


@pytest.mark.parametrize(
    ("numbers", "status", "letters"),
    [
        # fixed, never, missing, harm
        (([0.20, 0.30, 0.10], [0.04, 0.05, 0.04], [0.0, 0.01, 0.02], [0.1, 0.2, 0.06]), "reproduced", "abcd"),
        (([0.20, 0.30, 0.10], [0.04, 0.05, 0.02], [0.0, 0.01, 0.02], [0.1, 0.2, 0.06]), "partly", "abc"),
        (([0.20, 0.30, 0.06], [0.04, 0.05, 0.04], [0.0, 0.01, 0.04], [0.1, 0.2, 0.06]), "partly", "cd"),
        (([0.20, 0.30, 0.10], [0.04, 0.05, 0.04], [0.0, 0.01, 0.08], [0.1, 0.2, 0.04]), "partly", "ad"),
        (([0.20, 0.30, 0.04], [0.04, 0.05, 0.04], [0.2, 0.30, 0.20], [0.1, 0.2, -0.1]), "not reproduced", "d"),
        (([0.02, 0.02, 0.01], [0.00, 0.00, 0.00], [0.0, 0.00, 0.00], [0.1, 0.2, 0.06]), "inconclusive", "c"),
    ],
)
def test_with_three_seeds_each_of_them_must_show_it(
    numbers: tuple[list[float], ...], status: str, letters: str
) -> None:
    verdict = seeds_table(*numbers).verdict
    assert verdict is not None
    assert verdict.status == status
    for letter in "abcd":
        assert f"({letter}) {'holds' if letter in letters else 'does not'}." in verdict.sentence
    assert f"gets {numbers[0][0]:+.3f} / {numbers[0][1]:+.3f} / {numbers[0][2]:+.3f} beyond" in verdict.sentence


def test_a_seed_that_is_missing_decides_nothing() -> None:
    record = seeds_table([0.2, 0.3], [0.0, 0.0], [0.0, 0.0], [0.1, 0.2])
    assert record.verdict == Verdict("inconclusive", "Causal packing lacks a seed: 4 of 15 models are trained.")
    assert record.parameters["seeds"] == 3


def test_the_pilot_is_not_counted_and_what_decides_is_trained_first() -> None:
    runs = packing.trainings("lab-notes")
    assert [run.seed for run in runs] == [1, 1, 2, 2, 3, 3, *[1] * 3, *[2] * 3, *[3] * 3]
    assert [run.packing.masking for run in runs] == ["causal"] * 6 + ["intra_document"] * 9
    assert {run.seed for run in packing.trainings("lab-notes", seeds=1)} == {0}


# -- emergence ----------------------------------------------------------------------------------------------


def curve(*masses: float) -> list[dict[str, Any]]:
    return [{"step": 10 * i, "BOS+text": {"mass": mass, "loss": 8.0 - i}} for i, mass in enumerate(masses)]


def test_onset_is_the_last_crossing_that_holds() -> None:
    high, low = 2 * emergence.EVEN, emergence.EVEN
    assert emergence.onset(curve(low, high, low, high, high), "BOS+text") == {"step": 30, "loss": 5.0}
    assert emergence.onset(curve(high, high), "BOS+text") == {"step": 0, "loss": 8.0}
    assert emergence.onset(curve(low, high, low), "BOS+text") is None


@pytest.mark.parametrize(
    ("rates", "status"),
    [((0.5, 0.2, 0.3), "reproduced"), ((0.5, 0.2, 0.6), "partly"), ((0.5, 0.6, 0.6), "not reproduced")],
)
def test_verdict_on_emergence(rates: tuple[float, ...], status: str) -> None:
    every = emergence.variants("gpu")
    for training, rate in zip(every.values(), rates, strict=False):
        ran(training, rate)
    record = emergence.measure("gpu", train=False)
    assert record is not None
    assert record.verdict is not None
    assert record.verdict.status == status
    missing = [name for name, variant in record.values["variants"].items() if variant is None]
    assert missing == ["weight decay 0.5"]


def test_a_second_seed_of_one_variant_widens_its_row() -> None:
    every = emergence.variants("gpu")
    ran(every["as in the budget"], 0.5)
    ran(every["weight decay 0"], 0.2)
    ran(replace(every["weight decay 0"], seed=1), 0.6)
    record = emergence.measure("gpu", seeds=2, train=False)
    assert record is not None
    base, other = (record.values["variants"][name] for name in ("as in the budget", "weight decay 0"))
    assert (base["seeds"], other["seeds"]) == (1, 2)
    assert other["sink_rate_0.3"]["value"] == pytest.approx(0.4)
    assert other["sink_rate_0.3"]["low"] < 0.25 < 0.55 < other["sink_rate_0.3"]["high"]
    assert other["run"] == every["weight decay 0"].slug


# -- all of them --------------------------------------------------------------------------------------------


def test_smoke_is_shown_only_to_who_asks_and_has_no_verdict() -> None:
    ran(context_length.training("smoke", "never", 64), 0.1)
    ran(context_length.training("smoke", "never", 128), 0.9)
    record = context_length.measure("smoke", train=False)
    assert record is not None
    assert record.verdict == Verdict(
        "inconclusive", "A smoke run tests the machinery; it is too short to say anything."
    )
    assert run_records.shown("context_length") == []
    assert run_records.shown("context_length", "smoke") == [record]
    with pytest.raises(FirstTokenError, match="no budget 'tiny'"):
        run_records.shown("context_length", "tiny")


@pytest.mark.parametrize("claim", ["context_length", "packing", "emergence"])
def test_a_smoke_run_says_nothing_whatever_it_shows(claim: str) -> None:
    committed = records.read(files.ROOT / "results" / claim / "cpu-budget.json")
    said = claims.verdict(committed)
    assert said == committed.verdict
    smoke = claims.verdict(replace(committed, parameters={**committed.parameters, "budget": "smoke"}))
    assert smoke is not None
    assert smoke.sentence.startswith("A smoke run")
    assert smoke != said


@pytest.mark.parametrize(
    ("claim", "measure"),
    [("context_length", context_length.measure), ("packing", packing.measure), ("emergence", emergence.measure)],
)
def test_the_committed_chapter_is_used_while_its_runs_are_the_same(
    claim: str, measure: Callable[..., Record | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is put together again from the committed runs, until one of them is another run."""
    monkeypatch.delenv("FIRSTTOKEN_MEASURE_HERE", raising=False)
    monkeypatch.setattr(store, "reference_store", lambda: files.ROOT / "results")
    committed = records.read(files.ROOT / "results" / claim / "cpu-budget.json")
    seeds = committed.parameters["seeds"]
    assert measure("cpu", seeds, train=False) == committed
    assert not (tmp_path / "local").exists()
    run = run_records.behind([committed])[0]
    records.write(replace(run, provenance={**run.provenance, "time": "2027-01-01T00:00:00Z"}))
    again = measure("cpu", seeds, train=False)
    assert again is not None
    assert again.values == committed.values
    assert again.provenance["model"]["fingerprint"] != committed.provenance["model"]["fingerprint"]
    assert records.read(tmp_path / "local" / claim / "cpu-budget.json") == again


def test_a_run_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []

    def measure(training: Training, fresh: bool) -> Record:
        if training.packing.length == 128:
            raise FirstTokenError("Out of memory: give a shorter context.")
        done.append(training.packing.length)
        return ran(training, 0.5)

    monkeypatch.setattr(train, "measure", measure)
    with pytest.raises(FirstTokenError, match=r"smoke-causal-bos-never-t128: Out of memory"):
        run_records.runs_of([Training("smoke", Packing(length)) for length in (64, 128, 256)], train=True)
    assert done == [64, 256]


def test_costs_count_what_runs_have_reached() -> None:
    before = {row[0]: row for row in run_records.cost_rows(100.0)}
    assert before["gpu"][5] == "not run"
    ran(context_length.training("gpu", "never", 128), 0.5)
    row = {row[0]: row for row in run_records.cost_rows(100.0)}["gpu"]
    assert row[5] == "1,000"
    settings = budget("gpu")
    seconds = settings.tokens * settings.flops_per_token(settings.length) / 1e14
    assert row[4] == duration(seconds)


@pytest.mark.parametrize("chapter", ["context_length", "packing", "emergence"])
def test_a_chapter_runs_from_nothing_at_the_budget_smoke(
    chapter: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In earnest: tokenise, train every run, measure, draw."""
    shared = tmp_path_factory.getbasetemp() / "smoke"
    monkeypatch.setenv("FIRSTTOKEN_CACHE", str(shared))
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path / "local"))
    values = chapters.choose({"budget": "smoke"}, [chapter])[chapter]
    out = chapters.run_chapter(chapter, values, tmp_path / f"{chapter}.ipynb")
    content = nbformat.read(out, as_version=4)
    text = "".join(str(cell.get("outputs", "")) for cell in content.cells)
    assert "inconclusive (smoke-budget)" in text
    assert (tmp_path / "local" / chapter / "smoke-budget.json").exists()
    runs = records.read(tmp_path / "local" / chapter / "smoke-budget.json").values["runs"]
    trained = {path.stem for path in (tmp_path / "local" / "pretraining").glob("*.json")}
    assert trained == set(runs)
    assert len(runs) >= 4


def test_packing_of_the_papers_size_trains_on_as_many_tokens_as_the_paper() -> None:
    of_paper = paper_numbers.paper()
    assert {one.settings().tokens for one in packing.trainings("paper")} == {of_paper["packing"]["tokens"]}
    assert {one.settings().tokens for one in context_length.trainings("paper")} == {
        of_paper["context_length"]["tokens"]
    }
    assert all(one.tokens is None for one in packing.trainings("cpu"))
