"""The chapter `scale`: what a record holds, what its verdict says, which models a line joins."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from firsttoken import estimates, files, models, records
from firsttoken.claims.scale import families, figures, pairs, plan_rows, verdict
from firsttoken.claims.scale import measure as scale
from firsttoken.execution.cost import Plan
from firsttoken.measures import first_token_summary
from firsttoken.measures.first_token_summary import Parameters
from firsttoken.records import Record


def estimate(value: float) -> estimates.JSON:
    return {"value": value, "low": value - 0.01, "high": value + 0.01, "n": 170}


def record(name: str, parameters: float, mass: float = 0.5) -> Record:
    values = {
        "mass_first": estimate(mass),
        "sink_rate": estimate(mass / 2),
        "sink_rate_0.3": estimate(mass),
        "by_layer": {"mass": [0.1, mass, mass], "sink_rate_0.3": [0.0, mass, mass]},
        "parameters": int(parameters),
        "layers": 3,
        "width": 64,
        "heads": 4,
    }
    return Record("scale", files.slug(name), records.recorded(Parameters()), values, {"model": {"name": name}})


def test_a_record_of_a_bundled_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path))
    lm = models.load("smollm2-135m", device="cpu")
    measured = scale.MEASUREMENT.record(lm, Parameters(passages=3))
    counted = first_token_summary.MEASUREMENT.record(lm, Parameters(passages=3))
    assert measured.values["mass_first"] == counted.values["mass"]
    assert measured.values["sink_rate"] == counted.values["sink_rate"]
    assert (measured.values["layers"], measured.values["heads"], measured.values["width"]) == (30, 9, 576)
    assert measured.values["parameters"] == sum(p.numel() for p in lm.model.parameters())
    assert measured.verdict is not None
    assert measured.verdict.status == "inconclusive"
    assert "135M parameters" in measured.verdict.sentence
    again = scale.MEASUREMENT.again(lm, measured, tmp_path / "again")
    assert list(records.differences(again.values, measured.values, 1e-6)) == []


@pytest.mark.parametrize(("mass", "status"), [(0.78, "reproduced"), (0.65, "partly"), (0.3, "not reproduced")])
def test_the_verdict_on_the_papers_model(mass: float, status: str) -> None:
    of_paper = record("meta-llama/Llama-3.1-405B", 4e11, mass)
    assert verdict.judge(of_paper).status == status
    longer = replace(of_paper, parameters={**of_paper.parameters, "length": 128})
    assert verdict.judge(longer).status == "inconclusive"


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("EleutherAI/pythia-1.4b", "EleutherAI/pythia"),
        ("EleutherAI/pythia-70m-deduped", "EleutherAI/pythia-deduped"),
        ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5"),
        ("meta-llama/Llama-3.1-405B", "meta-llama/Llama-3.1"),
        ("smollm2-135m", "smollm2"),
        ("gpt2", "gpt2"),
    ],
)
def test_families(name: str, family: str) -> None:
    assert families.family(name) == family


def test_a_family_is_one_line_from_small_to_large() -> None:
    measured = [record("a/x-2b", 2e9), record("b/y-1b", 1e9), record("a/x-500m", 5e8)]
    assert {name: [r.model for r in members] for name, members in families.by_family(measured).items()} == {
        "a/x": ["a-x-500m", "a-x-2b"],
        "b/y": ["b-y-1b"],
    }


def test_the_papers_models_stay_in_the_table() -> None:
    lines = figures.paper_table([record("a/x-2b", 2e9)]).text.splitlines()[-4:]
    rows = [re.split(r"\s{2,}|\s*\|\s*", line.strip(" |")) for line in lines]
    assert [row[0] for row in rows] == ["LLaMa 3.1 8B", "LLaMa 3.1 70B", "LLaMa 3.1 405B", "a-x-2b"]
    assert [row[1] for row in rows] == ["8.03B", "70.6B", "406B", "2B"]
    assert all(row[4] == row[6] == "not run" for row in rows[:3])
    assert rows[2][5] == "about 80% (disputed)"


def test_figures_can_be_drawn_for_one_model_and_for_many() -> None:
    for measured in ([record("m-1b", 1e9)], [record(f"m-{i}b", i * 1e9, 0.1 * i) for i in range(1, 6)]):
        for display in (figures.by_size(measured), figures.by_shape(measured), figures.along_depth(measured)):
            assert "<svg" in display.html


def test_pairs_of_a_family_are_compared_passage_by_passage() -> None:
    """Against differences by hand; models of another family, or on other texts, make no pair."""

    def sized(name: str, size: int, shift: float, texts_hash: str = "t") -> Record:
        mass = [0.3 + 0.01 * n + shift * (2 if n == 1 else 1) for n in range(4)]
        values = {
            "parameters": size,
            "domains": ["fiction", "code", "news", "code"],
            "by_passage": {measure: mass for measure in pairs.MEASURES},
        }
        return Record("scale", name, {}, values, {"texts_hash": texts_hash, "model": {"name": name}})

    records = [sized("org/a-1b", 10, 0.1), sized("org/a-100m", 1, 0.0), sized("org/b-2b", 20, 0.5)]
    made = pairs.differences(records)
    assert {(pair.larger.model, pair.smaller.model) for pair in made} == {("org/a-1b", "org/a-100m")}
    by_text = {pair.kind: pair.difference for pair in made if pair.measure == "mass_first"}
    assert by_text["prose"].value == pytest.approx(0.1, abs=1e-6)
    assert by_text["code"].value == pytest.approx(0.15, abs=1e-6)
    assert (by_text["code"].low, by_text["code"].high) == pytest.approx((0.1, 0.2), abs=1e-6)
    assert by_text["code"].n == 2
    assert pairs.differences([sized("org/a-1b", 10, 0.1, "other"), records[1]]) == []


def test_a_prediction_is_a_row_under_its_headings() -> None:
    fits = Plan("streamed", bytes_read=807e9, memory=6.26e9, seconds=270, fits=True)
    cells = dict(zip(plan_rows.COLUMNS, plan_rows.row("a model", fits), strict=True))
    assert cells == {
        "model": "a model",
        "way": "streamed",
        "read": "807.0 GB",
        "peak memory": "6.3 GB",
        "time": "4.5 min",
        "fits": "yes",
    }
    *_, seconds, fit = plan_rows.row("a model", replace(fits, seconds=59.94, fits=False))
    assert (seconds, fit) == ("(59.9 s)", "no")
