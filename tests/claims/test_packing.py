"""The chapter on packing: from the records of runs, made up here, to rows and verdicts."""

from __future__ import annotations

from pathlib import Path

import pytest

from firsttoken.claims.packing import measure as packing
from firsttoken.claims.packing.rows import ROWS, Row
from firsttoken.measures.sinks import even_share
from firsttoken.records import Record, Verdict, paper_numbers
from made_runs import ran, stores_below


@pytest.fixture(autouse=True)
def own_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores_below(tmp_path, monkeypatch)


def table(**rates: tuple[float, float, float]) -> Record | None:
    """Runs by `<masking>_<bos>`: rate, rate without BOS, harm."""
    for row in ROWS:
        name = f"{row.masking.split('_')[0]}_{row.bos}"
        if name in rates:
            ran(packing.training("gpu", row), *rates[name])
    return packing.MEASUREMENT.record(packing.Parameters(budget="gpu"))


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
    record = packing.MEASUREMENT.record(packing.Parameters(budget="lab-notes"))
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
