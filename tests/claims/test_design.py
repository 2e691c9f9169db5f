"""Designs of attention on the smallest model: what counts as a sink, and what the counts say."""

from __future__ import annotations

from typing import Any

import pytest

from firsttoken.claims.design import figures, measure, verdict
from firsttoken.pretraining.smallest import VARIANTS, Smallest
from firsttoken.pretraining.smallest_training import Run
from firsttoken.records import Record


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
        for name in VARIANTS
    }
    return Record("design", "one-head", {}, measure.summary(counts), {})


@pytest.mark.parametrize(
    ("shares", "unlearnt", "status", "words"),
    [
        ({"softmax": [0.9, 0.8]}, {}, "reproduced", "4 of 4 designs remove it"),
        ({"softmax": [0.9, 0.8], "sink_logit": [0.9, 0.0]}, {}, "partly", "3 of 4"),
        ({"softmax": [0.9, 0.8]}, {"gate": 1}, "partly", "3 of 4"),
        ({name: [0.9, 0.8] for name in VARIANTS}, {}, "not reproduced", "0 of 4"),
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
    others = [share for name in VARIANTS[1:] for share in shares.get(name, [0.0, 0.0])]
    assert made.values["without_sink"]["value"] == pytest.approx(sum(s < 0.3 for s in others) / len(others))
    for shown in (figures.sinks(made), figures.design_table(made)):
        assert "design" in shown.text
