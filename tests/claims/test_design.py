"""Designs of attention on the smallest model: what counts as a sink, and what the counts say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from firsttoken import records
from firsttoken.claims.design import figures, measure, on_text, verdict
from firsttoken.pretraining.run_spec import Training
from firsttoken.pretraining.smallest import ATTENTIONS, BLOCKS, Smallest
from firsttoken.pretraining.smallest_training import Run
from firsttoken.records import Record


def test_the_order_of_a_reader_is_that_of_the_code() -> None:
    assert verdict.DESIGNS == ATTENTIONS
    assert verdict.BLOCKS == BLOCKS


def run_of(seed: int, first: float, row: float = 1.0, learnt: int | None = 200) -> Run:
    point = {
        "step": 300.0, "first_away": first, "first_at": 0.0, "row_away": row, "row_at": 1.0, "value_norm": 0.2,
        "loss_at": 0.01, "loss_away": 3.0,
    }  # fmt: skip
    return Run(seed=seed, model=Smallest(5, 4, 8), history=[point], learnt=learnt)


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
    (each,) = measure.count([run_of(0, first, row)])["each"]
    assert verdict.has_sink(each) == sink


def record(shares: dict[str, list[float]], learnt: dict[str, int] | None = None) -> Record:
    counts: dict[Any, Any] = {
        name: measure.count(
            [
                run_of(seed, share, learnt=None if learnt and seed < learnt.get(name, 0) else 200)
                for seed, share in enumerate(shares.get(name, [0.0, 0.0]))
            ]
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
    made = measure.measure_blocks(small)
    assert sorted(path.name for path in (tmp_path / "design").iterdir()) == [
        "one-head--softmax.json", "one-layer--depth-gate.json", "one-layer--split-heads.json",
        "one-layer--two-heads.json", "one-layer.json",
    ]  # fmt: skip
    each = made.values["by_block"]["depth_gate"]["each"][0]
    assert 0 < each["depth_away"] < 1
    assert "first_away_1" in made.values["by_block"]["split_heads"]["each"][0]
    assert "first_away_1" not in each
    assert measure.measure_blocks(small) == made


def text_record(excess: dict[str, Any], loss: dict[str, float] | None = None, spread: float = 0.2) -> Record:
    """Two seeds of each design trained on text; None for one that was not trained."""

    def entry(design: str, value: float | None) -> dict[str, float] | None:
        if value is None:
            return None
        return {
            "excess": value, "sink_rate": 0.1, "value_norm": 0.7, "missing": 0.05, "row_sum": 1.0,
            "loss": 2.0 + (loss or {}).get(design, 0.0), "largest_activation": 40.0,
            "spread_over_own": 0.2 if design == "softmax" else spread,
        }  # fmt: skip

    values = {
        "on_text": {
            design: [entry(design, one) for one in excess.get(design, (0.01, 0.02))] for design in verdict.TEXT_DESIGNS
        },
        "step": {design: {"value": 1.1} for design in verdict.TEXT_DESIGNS},
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


def test_the_record_holds_what_the_runs_show(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From records of runs to the record of the chapter: seeds in their places, shares over an even one."""
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path))

    def run(training: Training) -> Record:
        def arm(mass: float, loss: float) -> dict[str, Any]:
            named = {"mass": mass, "sink_rate_0.3": 0.25, "value_norm_ratio": 0.6, "loss": loss}
            return {name: {"value": value} for name, value in named.items()}

        mass = 0.2 if training.design == "softmax" else 0.1 - 0.02 * training.seed
        beside = {"row_sum": {"value": 1.0}, "spread_over_own": {"value": 0.3}, "largest_activation": 9.0}
        final = {
            "64": {"BOS+text": arm(mass, 2.5), "missing_bos": {"loss": {"value": 0.04}}},
            "256": {"BOS+text": arm(0.05, 2.25), "missing_bos": {"loss": {"value": 0.01}}},
        }
        return Record("pretraining", training.slug, {}, {"final": final, "design": beside}, {})

    monkeypatch.setattr(on_text, "step_times", lambda *_: {})
    trained = {one: run(one) for one in on_text.trainings() if (one.design, one.seed) != ("gate", 1)}
    values = on_text.values(trained)
    even = sum(1 / n for n in range(1, 65)) / 64
    gate, sigmoid = values["on_text"]["gate"], values["on_text"]["sigmoid"]
    assert gate[0]["excess"] == pytest.approx(0.1 - even)
    assert gate[1] is None
    assert sigmoid[1]["excess"] == pytest.approx(0.08 - even)
    assert (sigmoid[0]["loss"], sigmoid[0]["missing"], sigmoid[0]["spread_over_own"]) == (2.25, 0.04, 0.3)
    assert values["heads"] == 16
    others = [entry for name in ("gate", "sink_logit", "sigmoid") for entry in values["on_text"][name] if entry]
    without = [entry["excess"] < 0.03 for entry in others]
    assert values["without_sink"]["value"] == pytest.approx(sum(without) / 5)
    assert len(values["runs"]) == 7
