"""Designs of attention on the smallest model: what counts as a sink, and what the counts say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsttoken import records
from firsttoken.claims.design import figures, measure, on_text, verdict
from firsttoken.estimates import value_of
from firsttoken.plots import Display
from firsttoken.pretraining import run_records
from firsttoken.pretraining.run_spec import Training
from firsttoken.pretraining.smallest import ATTENTIONS, BLOCKS, Smallest
from firsttoken.pretraining.smallest_training import Run, Setting
from firsttoken.pretraining.trained import Fixed
from firsttoken.records import Record
from firsttoken.records.provenance import environment


def test_the_order_of_a_reader_is_that_of_the_code() -> None:
    assert verdict.DESIGNS == ATTENTIONS
    assert verdict.BLOCKS == BLOCKS


def run_of(seed: int, first: float, row: float = 1.0, learnt: int | None = 200) -> Run:
    point = {
        "step": 300.0, "first_away": first, "first_at": 0.0, "row_away": row, "row_at": 1.0, "value_norm": 0.2,
        "loss_at": 0.01, "loss_away": 3.0,
    }  # fmt: skip
    return Run(seed=seed, model=Smallest(5, 4, 8), history=[point], learnt=learnt)


TINY = Setting(length=4, symbols=4, triggers=2, width=8)  # of the model of `run_of`


@pytest.mark.parametrize(
    ("first", "row", "sink"),
    [
        (0.9, 1.0, True),
        (0.29, 1.0, False),
        (0.31, 1.0, True),
        (0.3, 0.6, True),
        (0.09, 0.09, False),
        (0.0, 0.0, False),
    ],
)
def test_a_sink_is_a_share_of_what_the_row_adds_up_to(first: float, row: float, sink: bool) -> None:
    (each,) = measure.count([run_of(0, first, row)], TINY)["each"]
    assert verdict.has_sink(each) == sink


def record(shares: dict[str, list[float]], learnt: dict[str, int] | None = None) -> Record:
    counts: dict[Any, Any] = {
        name: measure.count(
            [
                run_of(seed, share, learnt=None if learnt and seed < learnt.get(name, 0) else 200)
                for seed, share in enumerate(shares.get(name, [0.0, 0.0]))
            ],
            TINY,
        )
        for name in verdict.DESIGNS
    }
    return Record("design", "one-head", {}, measure.summary(counts), {})


@pytest.mark.parametrize(
    ("shares", "unlearnt", "status", "words"),
    [
        ({"softmax": [0.9, 0.8]}, {}, "reproduced", "4 of 4 designs remove it"),
        ({"softmax": [0.9, 0.8], "sink_logit": [0.9, 0.0]}, {}, "partly", "3 of 4"),
        ({"softmax": [0.9, 0.8]}, {"gate": 1}, "partly", "3 of 4"),
        ({name: [0.9, 0.8] for name in verdict.DESIGNS}, {}, "not reproduced", "0 of 4"),
        ({"softmax": [0.9, 0.1]}, {}, "inconclusive", "no sink in every seed"),
    ],
)
def test_verdicts_follow_from_the_counts(
    shares: dict[str, list[float]], unlearnt: dict[str, int], status: str, words: str
) -> None:
    made = record(shares, unlearnt)
    judged = verdict.judge(made)
    assert judged.status == status
    assert words in judged.sentence
    others = [share for name in verdict.DESIGNS[1:] for share in shares.get(name, [0.0, 0.0])]
    assert made.values["without_sink"]["value"] == pytest.approx(sum(s < 0.3 for s in others) / len(others))
    for shown in (figures.sinks(made), figures.design_table(made)):
        assert "design" in shown.text


@pytest.mark.parametrize(("slug", "seeds"), [("one-head", 10), ("one-layer", 10), ("lab-budget", 2)])
def test_the_committed_intervals_are_those_of_seeds(slug: str, seeds: int) -> None:
    stored = records.find("design", slug)
    assert stored is not None
    share = stored.values["without_sink"]
    assert share["n"] == seeds
    # The ends of a Wilson interval are where a score test of so many models is just not significant.
    for end in (share["low"], share["high"]):
        if 0 < end < 1:
            assert (share["value"] - end) ** 2 * seeds / (end * (1 - end)) == pytest.approx(1.959964**2, rel=1e-5)


def block_record(shares: dict[str, list[tuple[float, ...]]], learnt: int | None = 200) -> Record:
    """Two seeds of each block, with the share of each head; a plain softmax with a sink beside them."""

    def each(seed: int, of_heads: tuple[float, ...]) -> dict[str, Any]:
        point = {"seed": seed, "learnt": learnt, "loss_at": 0.01, "loss_away": 3.0}
        for head, share in enumerate(of_heads):
            own = f"_{head}" if head else ""
            point |= {f"first_away{own}": share, f"row_away{own}": 1.0}
        return point

    def count(seeds: list[tuple[float, ...]]) -> dict[str, Any]:
        return {
            "seeds": len(seeds),
            "learnt": len(seeds) if learnt else 0,
            "each": [each(seed, of) for seed, of in enumerate(seeds)],
        }

    values = {"by_block": {name: count(of) for name, of in shares.items()}, "softmax": count([(0.9,), (0.8,)])}
    return Record("design", "one-layer", {}, values, {})


ONE_SINK = [(0.9, 0.0), (0.1, 0.9)]  # in either of two heads
NO_SINK = [(0.1, 0.2), (0.0, 0.0)]


@pytest.mark.parametrize(
    ("two", "split", "depth", "learnt", "status", "words"),
    [
        (ONE_SINK, NO_SINK, [(0.1,), (0.0,)], 200, "reproduced", "Split heads and depth gate remove it."),
        (ONE_SINK, NO_SINK, [(0.9,), (0.0,)], 200, "partly", "Two heads: 2 of 2 seeds have a sink"),
        (ONE_SINK, [(0.0, 0.31), (0.0, 0.0)], [(0.1,), (0.0,)], 200, "partly", "Depth gate removes it."),
        (ONE_SINK, ONE_SINK, [(0.9,), (0.0,)], 200, "not reproduced", "Neither removes it."),
        (ONE_SINK, NO_SINK, [(0.1,), (0.0,)], None, "not reproduced", "0 learnt the task"),
        ([(0.9, 0.0), (0.1, 0.1)], NO_SINK, [(0.1,), (0.0,)], 200, "inconclusive", "What split heads is held against"),
    ],
)
def test_blocks_are_held_against_their_own_plain_ones(
    two: list, split: list, depth: list, learnt: int | None, status: str, words: str
) -> None:
    made = block_record({"two_heads": two, "split_heads": split, "depth_gate": depth}, learnt)
    judged = verdict.judge(made)
    assert judged.status == status
    assert words in judged.sentence
    assert "block" in figures.block_table(made).text
    assert "2 with two plain heads" in figures.sinks_of_blocks(made).html


def test_blocks_are_trained_and_stored_each_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path))
    small = measure.Parameters(seeds=2, length=8, steps=3, settle=0)
    made = measure.ONE_LAYER.record(small, train=True)
    assert made is not None
    assert sorted(path.name for path in (tmp_path / "design").iterdir()) == [
        "one-head--softmax.json", "one-layer--depth-gate.json", "one-layer--split-heads.json",
        "one-layer--two-heads.json", "one-layer.json",
    ]  # fmt: skip
    each = made.values["by_block"]["depth_gate"]["each"][0]
    assert 0 < each["depth_away"] < 1
    assert "first_away_1" in made.values["by_block"]["split_heads"]["each"][0]
    assert "first_away_1" not in each
    assert each["spread_over_own"] > 0
    assert each["largest_activation"] > 1
    assert set(made.values["step"]) == {"threads", "softmax", *BLOCKS}
    assert made.values["step"]["softmax"]["value"] == 1
    assert measure.ONE_LAYER.record(small) == made


def over_texts(value: float, reach: float = 0.004) -> dict[str, Any]:
    return {"value": value, "low": value - reach, "high": value + reach, "n": 64}


def text_record(excess: dict[str, Any], loss: dict[str, float] | None = None, spread: float = 0.2) -> Record:
    """Two seeds of each design trained on text; None for one that was not trained."""

    def entry(design: str, value: float | None) -> dict[str, Any] | None:
        if value is None:
            return None
        numbers = {
            "excess": value, "sink_rate": 0.1, "value_norm": 0.7, "missing": 0.05, "row_sum": 1.0,
            "loss": 2.0 + (loss or {}).get(design, 0.0), "spread_over_own": 0.2 if design == "softmax" else spread,
        }  # fmt: skip
        return {**{name: over_texts(number) for name, number in numbers.items()}, "largest_activation": 40.0}

    values = {
        "on_text": {
            design: [entry(design, one) for one in excess.get(design, (0.01, 0.02))] for design in verdict.TEXT_DESIGNS
        },
        "step": {design: {"value": 1.1, "low": 1.05, "high": 1.2, "n": 12} for design in verdict.TEXT_DESIGNS},
        "heads": 16,
    }
    return Record("design", "lab-budget", {}, values, {})


SINK = {"softmax": (0.1, 0.1)}


@pytest.mark.parametrize(
    ("excess", "loss", "spread", "status", "words"),
    [
        (SINK, {}, 0.2, "reproduced", "3 of 3 remove the sink at no higher loss; tokens mix no more"),
        (SINK, {"gate": 0.049}, 0.2, "reproduced", "3 of 3"),
        (SINK, {"gate": 0.051}, 0.22, "partly", "2 of 3 remove the sink at no higher loss; none keeps mixing as low"),
        (SINK | {"gate": (0.02, 0.03)}, {}, 0.2, "partly", "2 of 3"),
        (SINK | dict.fromkeys(verdict.TEXT_DESIGNS[1:], (0.1, 0.0)), {}, 0.2, "not reproduced", "0 of 3"),
        ({"softmax": (0.1, 0.029)}, {}, 0.2, "inconclusive", "no sink in every seed"),
        (SINK | {"sigmoid": (0.01, None)}, {}, 0.2, "inconclusive", "All seeds of all designs decide"),
        (SINK | {"sigmoid": (None, None)}, {}, 0.2, "inconclusive", "All seeds of all designs decide"),
    ],
)  # fmt: skip
def test_verdicts_on_text(
    excess: dict[str, Any], loss: dict[str, float], spread: float, status: str, words: str
) -> None:
    made = text_record(excess, loss, spread)
    judged = verdict.judge(made)
    assert judged.status == status
    assert words in judged.sentence
    assert "design" in figures.sinks_on_text(made).text
    table = figures.text_table(made).text
    assert ("not run" in table) == any(None in of_design for of_design in excess.values())


def rows_of(table: str) -> list[dict[str, str]]:
    """The rows of a table's text by the names of its columns; its caption stands above."""
    columns, *rows = (line.split(" | ") for line in table.splitlines()[1:])
    return [dict(zip(columns, row, strict=True)) for row in rows]


def test_the_table_on_text_has_a_row_for_each_model_with_its_intervals() -> None:
    rows = rows_of(figures.text_table(text_record(SINK | {"sigmoid": (0.01, None)}, {"gate": 0.051})).text)
    assert [(row["design"], row["seed"]) for row in rows] == [
        (figures.NAMES[name], seed) for name in verdict.TEXT_DESIGNS for seed in "01"
    ]
    gate = rows[2]
    assert gate["texts"] == "64"
    assert gate["beyond even"] == "+0.010 [+0.006, +0.014]"
    assert gate["loss"] == "2.051 [2.047, 2.055]"
    assert gate["cost of a missing BOS"] == "+0.050 [+0.046, +0.054]"
    assert gate["spread / own"] == "0.200 [0.196, 0.204]"
    assert gate["time of a step / softmax"] == "1.10 [1.05, 1.20]"
    assert rows[-1]["texts"] == "not run"
    assert rows[-1]["loss"] == "–"


def test_a_record_of_bare_numbers_is_judged_and_shown_as_it_was() -> None:
    """Records of version 1 may lie in a reader's own store."""
    made = text_record(SINK, {"gate": 0.051}, 0.22)
    bare = {
        name: [{key: value_of(measured) for key, measured in one.items()} for one in entries]
        for name, entries in made.values["on_text"].items()
    }
    older = replace(made, values={**made.values, "on_text": bare}, version=1)
    assert verdict.judge(older) == verdict.judge(made)
    shown = rows_of(figures.text_table(older).text)[2]
    assert (shown["texts"], shown["loss"], shown["spread / own"]) == ("–", "2.051", "0.220")


def test_tables_of_seeds_have_medians_and_the_range_of_seeds() -> None:
    made = record({"softmax": [0.9, 0.8, 0.7], "gate": [0.1, 0.2, 0.6]})
    for place, loss in enumerate((0.01, 0.04, 0.025)):
        made.values["by_variant"]["gate"]["each"][place]["loss_at"] = loss
    gate = rows_of(figures.design_table(made).text)[1]
    assert gate["seeds with a sink"] == "1 of 3"
    assert gate["loss at triggers"] == "0.025 [0.010, 0.040]"
    assert gate["row adds up to"] == "1.00"  # in every seed
    assert figures.design_table(made).text.startswith("2 or 3 seeds of each design")


@pytest.mark.parametrize("slug", ["one-head", "one-layer"])
def test_what_is_not_judged_stands_in_a_table_where_a_record_has_it(slug: str) -> None:
    """Records that were made before have none of it."""
    one_head = slug == "one-head"
    first, second = ("softmax", "gate") if one_head else ("softmax", "two_heads")
    made = record({}) if one_head else block_record({name: ONE_SINK for name in verdict.BLOCKS})
    counts = made.values["by_variant"] if one_head else made.values["by_block"] | {"softmax": made.values["softmax"]}
    for count in counts.values():
        for number, each in enumerate(count["each"]):
            each |= {"spread_over_own": 0.01 + 0.02 * number, "largest_activation": 8.0 + number, "value_norm": 0.25}
    step = {first: {"value": 1.0, "low": 1.0, "high": 1.0, "n": 12}, "threads": 1}
    step[second] = {"value": 1.1, "low": 1.05, "high": 1.2, "n": 12}
    made.values["step"] = step | {name: step[second] for name in counts if name not in step}
    names = ("spread / own", "largest activation / median", "time of a step / softmax")
    rows = rows_of(figures.unjudged_table(made).text)
    assert len(rows) == (len(verdict.DESIGNS) if one_head else 1 + len(verdict.BLOCKS))
    assert [rows[1][name] for name in names] == ["0.0200 [0.0100, 0.0300]", "8.5 [8.0, 9.0]", "1.10 [1.05, 1.20]"]
    assert rows[0][names[2]].startswith("1.00")
    assert rows[1]["value norm of the first"] == "0.25"

    del made.values["step"]
    for count in counts.values():
        for each in count["each"]:
            del each["spread_over_own"], each["largest_activation"]
    older = rows_of(figures.unjudged_table(made).text)
    assert {row[name] for row in older for name in names} == {"–"}


def test_the_committed_tables_have_every_variant() -> None:
    def table(slug: str, of: Callable[[Record], Display]) -> list[dict[str, str]]:
        stored = records.find("design", slug)
        assert stored is not None
        return rows_of(of(stored).text)

    assert len(table("one-head", figures.design_table)) == len(verdict.DESIGNS)
    assert len(table("one-layer", figures.block_table)) == 1 + len(verdict.BLOCKS)
    for slug, count in (("one-head", len(verdict.DESIGNS)), ("one-layer", 1 + len(verdict.BLOCKS))):
        unjudged = table(slug, figures.unjudged_table)
        assert len(unjudged) == count
        assert "–" not in {cell for row in unjudged for cell in row.values()}
    on_text = table("lab-budget", figures.text_table)
    assert len(on_text) == 2 * len(verdict.TEXT_DESIGNS)
    for row in on_text:
        assert row["texts"] == "64"
        assert all("[" in row[name] for name in ("beyond even", "loss", "cost of a missing BOS", "spread / own"))


def test_the_record_holds_what_the_runs_show(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From records of runs to the record of the chapter: seeds in their places, shares over an even one."""
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path))

    def run(training: Training) -> Record:
        def arm(mass: float, loss: float) -> dict[str, Any]:
            named = {"mass": mass, "sink_rate_0.3": 0.25, "value_norm_ratio": 0.6, "loss": loss}
            return {name: over_texts(value) for name, value in named.items()}

        mass = 0.2 if training.design == "softmax" else 0.1 - 0.02 * training.seed
        beside = {"row_sum": over_texts(1.0), "spread_over_own": over_texts(0.3), "largest_activation": 9.0}
        final = {
            "64": {"BOS+text": arm(mass, 2.5), "missing_bos": {"loss": over_texts(0.04)}},
            "256": {"BOS+text": arm(0.05, 2.25), "missing_bos": {"loss": over_texts(0.01)}},
        }
        return Record("pretraining", training.slug, {}, {"final": final, "design": beside}, {})

    monkeypatch.setattr(on_text, "step_times", lambda *_: {})
    trained = {one: run(one) for one in on_text.trainings() if (one.design, one.seed) != ("gate", 1)}
    values = on_text.run(Fixed(), run_records.Group(on_text.trainings(), trained, fresh=True))
    even = sum(1 / n for n in range(1, 65)) / 64
    gate, sigmoid = values["on_text"]["gate"], values["on_text"]["sigmoid"]
    assert gate[0]["excess"] == pytest.approx(over_texts(0.1 - even))
    assert gate[1] is None
    assert sigmoid[1]["excess"]["value"] == pytest.approx(0.08 - even)
    assert [sigmoid[0][name] for name in ("loss", "missing", "spread_over_own")] == list(
        map(over_texts, (2.25, 0.04, 0.3))
    )
    assert values["heads"] == 16
    others = [entry for name in ("gate", "sink_logit", "sigmoid") for entry in values["on_text"][name] if entry]
    without = [entry["excess"]["value"] < 0.03 for entry in others]
    assert values["without_sink"]["value"] == pytest.approx(sum(without) / 5)
    assert len(values["runs"]) == 7


def test_the_committed_record_is_that_of_the_committed_runs() -> None:
    """In seed 1 of the gate: numbers and ends of intervals that the file of its run has."""
    stored = records.find("design", "lab-budget")
    run = records.find("pretraining", on_text.training("gate", 1).slug)
    assert stored is not None
    assert run is not None
    gate, final = stored.values["on_text"]["gate"][1], run.values["final"]
    assert gate["loss"] == final["256"]["BOS+text"]["loss"]
    assert gate["missing"] == final["64"]["missing_bos"]["loss"]
    assert gate["spread_over_own"] == run.values["design"]["spread_over_own"]
    mass, even = final["64"]["BOS+text"]["mass"], sum(1 / n for n in range(1, 65)) / 64
    assert gate["excess"]["n"] == mass["n"]
    for name in ("value", "low", "high"):
        assert gate["excess"][name] == pytest.approx(mass[name] - even)


def test_a_record_put_together_anew_keeps_the_times_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """They were measured on such a machine and do not depend on the runs; from another machine they do not count."""
    here = environment()
    measured = {"commit": "abc", "dirty": False, "time": "2026-11-29T05:16:12Z", **here}
    origin = {name: measured[name] for name in ("commit", "dirty", "time", "machine", "threads", "packages")}
    step = text_record(SINK).values["step"]

    def known(provenance: dict[str, Any], asked: dict[str, Any]) -> Any:
        earlier = Record("design", "lab-budget", {"budget": "lab"}, {"step": step}, provenance)
        monkeypatch.setattr(records, "find", lambda *_: earlier)
        return on_text.step_known(asked)

    assert known(measured, {"budget": "lab"}) == (step, origin)
    later = {**measured, "commit": "def", "step_times": origin}
    assert known(later, {"budget": "lab"}) == (step, origin), "not where the record was put together"
    assert known(measured, {"budget": "lab", "seeds": 3}) is None
    assert known({**measured, "threads": here["threads"] + 1}, {"budget": "lab"}) is None
    monkeypatch.setattr(records, "find", lambda *_: None)
    assert on_text.step_known({"budget": "lab"}) is None
