"""The smallest sink: counts over seeds, the verdict, a planted rule that the search of another chapter must name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from firsttoken.claims.no_op.search import Discovery, Rule, discover
from firsttoken.claims.smallest import figures, measure, verdict
from firsttoken.errors import FirstTokenError
from firsttoken.measures import resting
from firsttoken.pretraining import backcopy
from firsttoken.pretraining.smallest import Smallest
from firsttoken.pretraining.smallest_training import Run, Setting, train
from firsttoken.records import Record
from firsttoken.texts.token_classes import TokenClasses

LENGTH, TEXTS = 64, 48


# -- a planted truth ----------------------------------------------------------------------------------------


def rules_of(run: Run, setting: Setting) -> tuple[list[Rule], list[str]]:
    """What the search says of the one head, given triggers and each symbol as conditions."""
    task = setting.task(run.seed)
    uniform = torch.rand(1, TEXTS, LENGTH, generator=torch.Generator().manual_seed(77), dtype=torch.float64)
    ids: Tensor = backcopy.texts(task.cumulative()[None], uniform, task)[0]
    with torch.no_grad():
        attention = run.model(ids).attention[:, 0]
    names = ["trigger token", "after a trigger", *(f"symbol {symbol}" for symbol in range(1, setting.symbols + 1))]
    trigger = (ids >= 1) & (ids <= 3)
    after = torch.cat([torch.zeros(TEXTS, 1, dtype=torch.bool), trigger[:, :-1]], dim=1)
    holds = torch.stack([trigger, after, *(ids == symbol for symbol in range(1, setting.symbols + 1))])
    discovery = Discovery(permutations=199)
    return discover(attention[:, None, None, :, 0], TokenClasses(tuple(names), holds), discovery)[1], names


@pytest.mark.usefixtures("one_thread")
def test_the_search_names_the_planted_rule_and_nothing_where_there_is_none() -> None:
    setting = Setting(length=LENGTH, steps=300, every=100)
    (run,) = train(setting, [0])
    rules, _ = rules_of(run, setting)
    assert [(rule.condition, rule.named, rule.off_when_true) for rule in rules] == [("trigger token", True, True)]
    assert rules[0].off_if_condition > 0.95
    assert rules[0].off_otherwise < 0.3

    plain = Setting(length=LENGTH, triggers=0, steps=100, every=100)
    (without,) = train(plain, [0])
    assert not [rule for rule in rules_of(without, plain)[0] if rule.named]


# -- counts and verdict -------------------------------------------------------------------------------------


def run_of(seed: int, learnt: int | None, first: float, itself: float = 0.0, row: float = 1.0) -> Run:
    point = {
        "step": 300.0, "first_away": first, "first_at": 0.0, "itself_away": itself, "row_away": row,
        "value_norm": 0.2, "loss_at": 0.01,
    }  # fmt: skip
    return Run(seed=seed, model=Smallest(5, 4, 8), history=[point], learnt=learnt)


def test_only_seeds_that_learnt_the_task_are_counted() -> None:
    runs = [run_of(0, 200, 0.9), run_of(1, 250, 0.2, 0.7), run_of(2, 250, 0.2, 0.1), run_of(3, None, 0.99)]
    counted = measure.count(runs)
    assert {name: counted[name] for name in ("seeds", "learnt", *resting.RESTS)} == {
        "seeds": 4, "learnt": 3, "first": 1, "itself": 1, "elsewhere": 1, "nowhere": 0,
    }  # fmt: skip
    assert counted["shares"]["first"]["n"] == 3
    assert [each["learnt"] for each in counted["each"]] == [200, 250, 250, None]
    nobody = measure.count([run_of(0, None, 0.9)])
    assert nobody["learnt"] == 0
    assert nobody["shares"] == {}


def record(first: dict[int, int], learnt: int = 10) -> Record:
    by_length = {
        length: measure.count([run_of(seed, 200, 0.9 if seed < yes else 0.1) for seed in range(learnt)])
        for length, yes in first.items()
    }
    values: dict[str, Any] = measure.summary(by_length) | {"without_bos": by_length[64]}
    return Record("smallest", "one-head", {}, values, {})


@pytest.mark.parametrize(
    ("first", "status"),
    [
        ({8: 1, 16: 3, 32: 6, 64: 10, 128: 10}, "reproduced"),
        ({8: 10, 16: 10, 32: 10, 64: 10, 128: 10}, "partly"),
        ({8: 10, 16: 10, 32: 10, 64: 10, 128: 2}, "partly"),
        ({8: 0, 16: 3, 32: 6, 64: 6, 128: 10}, "inconclusive"),
        ({8: 0, 16: 0, 32: 1, 64: 1, 128: 1}, "not reproduced"),
    ],
)
def test_verdicts_follow_from_the_counts(first: dict[int, int], status: str) -> None:
    judged = verdict.judge(record(first))
    assert judged.status == status
    assert f"{first[128]} of 10 at 128 tokens" in judged.sentence
    for shown in (figures.by_length(record(first)), figures.length_table(record(first))):
        assert "first token" in shown.text


@pytest.mark.usefixtures("one_thread")
def test_each_length_is_kept_when_a_later_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTTOKEN_RESULTS", str(tmp_path))
    monkeypatch.setattr(measure, "LENGTHS", (4, 64))
    trained: list[tuple[int, bool]] = []

    def training(setting: Setting, seeds: range) -> list[Run]:
        trained.append((setting.length, setting.bos))
        if trained.count((64, True)) == 1 and setting.length == 64:
            raise FirstTokenError("the machine went away")
        return [run_of(seed, 100, 0.9) for seed in seeds]

    monkeypatch.setattr(measure, "train", training)
    asked = measure.Parameters(seeds=2)
    assert measure.MEASUREMENT.record(asked) is None
    with pytest.raises(FirstTokenError, match="went away"):
        measure.MEASUREMENT.record(asked, train=True)
    assert [path.name for path in (tmp_path / "smallest").iterdir()] == ["one-head--t4.json"]
    trained.append((64, True))
    whole = measure.MEASUREMENT.record(asked, train=True)
    assert whole is not None
    assert trained.count((4, True)) == 1
    assert whole.values["rests_on_first"]["value"] == 1.0
    assert whole.verdict is not None
    before = len(trained)
    assert measure.MEASUREMENT.record(asked, train=True) == whole
    assert len(trained) == before


def test_lengths_are_told_from_the_shortest_on_whatever_their_order_in_the_file() -> None:
    made = record({8: 1, 16: 2, 32: 3, 64: 4, 128: 5})
    shuffled = dict(sorted(made.values["by_length"].items()))
    assert list(shuffled) == ["128", "16", "32", "64", "8"]
    other = Record("smallest", "one-head", {}, {**made.values, "by_length": shuffled}, {})
    assert verdict.judge(other) == verdict.judge(made)
    assert figures.length_table(other).text == figures.length_table(made).text
