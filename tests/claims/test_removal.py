"""The chapter's numbers and verdicts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from fake import Letters, fake_lm
from firsttoken import models
from firsttoken.claims.removal import measure as removal
from firsttoken.claims.removal import verdict
from firsttoken.claims.removal.measure import LongTexts, Parameters
from firsttoken.errors import FirstTokenError
from firsttoken.measures import task_scores
from firsttoken.models import BosPolicy, LanguageModel
from firsttoken.records import Record
from firsttoken.texts import passages, tokens
from firsttoken.texts.tokens import encode
from tiny import tiny_model

pytestmark = pytest.mark.usefixtures("own_store")

SETTINGS = Parameters(passages=3, length=24, needle_length=256)


@pytest.fixture
def few_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(lm: LanguageModel, bos: BosPolicy, *asked: int) -> list[task_scores.Task]:
        return [task_scores.cloze(lm, bos).shortened(4)]

    monkeypatch.setattr(task_scores, "standard_tasks", short)


@pytest.mark.usefixtures("few_tasks")
@pytest.mark.parametrize("name", ["gemma3-270m", "smollm2-135m"])
def test_deletion_against_plain_losses(name: str, tmp_path: Path) -> None:
    lm = models.load(name)
    record = removal.MEASUREMENT.record(lm, SETTINGS)
    values = record.values
    ids = encode(lm, [p.text for p in passages()[:3]], 24)
    with torch.inference_mode():
        whole, cut = lm.model(ids).logits.log_softmax(-1), lm.model(ids[:, 1:]).logits.log_softmax(-1)
    increases = [
        (whole[t, q, ids[t, q + 1]] - cut[t, q - 1, ids[t, q + 1]]).item()
        for t in range(3)
        for q in range(1, 23, removal.STRIDE)
    ]
    assert values["loss_increase"]["value"] == pytest.approx(sum(increases) / len(increases), abs=1e-4)
    assert values["loss_increase"]["n"] == 3
    arms = values["arms"]
    assert arms["intact"]["top1_agreement"]["value"] == 1
    assert arms["intact"]["loss_increase"]["value"] == 0
    assert arms["mask"]["loss"]["value"] == pytest.approx(arms["delete"]["loss"]["value"], abs=1e-3)
    assert arms["mask"]["mass"]["value"] == pytest.approx(1 / 24, abs=1e-6)  # query 0 has nothing else
    assert ("add_bos" in arms) == (name == "smollm2-135m")
    assert record.verdict == verdict.judge(record)
    again = removal.MEASUREMENT.again(lm, removal.MEASUREMENT.record(lm, SETTINGS), tmp_path / "again")
    assert again.values == values


def test_ranges_of_positions_hold_every_query_once() -> None:
    queries = torch.arange(1, 30)
    loss = {"intact": torch.rand(4, 29, dtype=torch.float64)}
    by_range = removal.by_position(queries, loss, 0)
    edges, ranges = by_range["edges"], by_range["arms"]["intact"]
    assert edges[0] == 2
    assert edges[-1] == 31
    total = 0.0
    for low, high, estimate in zip(edges[:-1], edges[1:], ranges, strict=True):
        total += estimate["value"] * (high - low)
        columns = [q - 1 for q in range(1, 30) if low <= q + 1 < high]
        assert estimate["value"] == pytest.approx(loss["intact"][:, columns].mean().item())
    assert total / 29 == pytest.approx(loss["intact"].mean().item())


@pytest.mark.usefixtures("few_tasks")
def test_long_texts_end_where_short_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = models.load("smollm2-135m")
    monkeypatch.setattr(removal, "LONG_STRIDE", 1)
    values = removal.LONG_TEXTS.record(lm, LongTexts(longest=128)).values
    assert values["length"] == [64, 128]
    ids = encode_windows(lm, 128, values["windows"])
    with torch.inference_mode():
        logits = lm.model(ids).logits.log_softmax(-1)
    losses = -logits[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
    # The loss of the token at position p is that of query p - 1.
    intact = values["arms"]["intact"]["loss"]
    assert intact[0]["value"] == pytest.approx(losses[:, 1:63].mean().item(), abs=1e-4)
    assert intact[1]["value"] == pytest.approx(losses[:, 63:127].mean().item(), abs=1e-4)
    assert values["arms"]["delete"]["loss"][0]["value"] > intact[0]["value"]


def encode_windows(lm: LanguageModel, length: int, count: int) -> torch.Tensor:
    from firsttoken import texts

    return tokens.windows(lm, texts.long_text(), length, count)


def values(increase: float, with_it: float, without: float, prepends: bool = True) -> dict[str, object]:
    def at(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.05, "high": value + 0.05, "n": 16}

    task = {"chance": 0.25, "questions": 20, "arms": {"intact": at(with_it), "delete": at(without)}}
    return {
        "loss_increase": at(increase),
        "undone_by_resting": at(0.4),
        "prepends_bos": prepends,
        "arms": {"mean_residual": {"loss_increase": at(3.0)}},
        "tasks": {"cloze": task},
    }


@pytest.mark.parametrize(
    ("measured", "status"),
    [
        (values(2.0, 0.8, 0.3), "reproduced"),
        (values(2.0, 0.8, 0.7), "partly"),
        (values(2.0, 0.8, 0.5), "partly"),
        (values(0.2, 0.8, 0.3), "partly"),
        (values(0.02, 0.8, 0.8), "not reproduced"),
        (values(2.0, 0.8, 0.3, prepends=False), "inconclusive"),
    ],
)
def test_verdicts_follow_from_the_numbers(measured: dict[str, object], status: str) -> None:
    judged = verdict.judge(Record("removal", "some-model", {}, measured, {}))
    assert judged.status == status
    assert f"{measured['loss_increase']['value']:+.2f}" in judged.sentence  # type: ignore[index]
    assert ("some-model puts none" in judged.sentence) == (status == "inconclusive")


def test_the_interval_of_what_is_left_is_that_of_a_simulation() -> None:
    """Normal estimates of each task in each arm, drawn many times, against the closed form."""
    generator = torch.Generator().manual_seed(0)
    measured = values(2.0, 0.8, 0.5)
    left = verdict.spare(measured, "delete")
    intact, delete = (
        (torch.randn(200_000, generator=generator) * 0.05 / 1.96 + mean - 0.25) / 0.75 for mean in (0.8, 0.5)
    )
    drawn = (delete - intact / 2).quantile(torch.tensor([0.025, 0.5, 0.975])).tolist()
    assert [left.low, left.value, left.high] == pytest.approx(drawn, abs=5e-4)
    assert "20 questions cannot tell" in verdict.judge(Record("removal", "m", {}, values(2.0, 0.8, 0.53), {})).sentence


def test_above_chance_is_0_for_guessing_and_1_for_perfect() -> None:
    assert verdict.above_chance(values(0, 0.25, 1.0), "intact") == pytest.approx(0)
    assert verdict.above_chance(values(0, 0.25, 1.0), "delete") == pytest.approx(1)
    assert math.isclose(verdict.above_chance(values(0, 0.625, 0), "intact"), 0.5)


def test_clear_messages() -> None:
    lm = models.load("smollm2-135m")
    with pytest.raises(FirstTokenError, match="length of 8 or more"):
        Parameters(length=4)
    with pytest.raises(FirstTokenError, match="fewer than passages=100000"):
        removal.MEASUREMENT.record(lm, Parameters(passages=100000))
    with pytest.raises(FirstTokenError, match="fewer than the 5000"):
        removal.MEASUREMENT.record(lm, Parameters(passages=2, length=5000))
    with pytest.raises(FirstTokenError, match="between 0 and 1"):
        Parameters(epsilon=2)
    with pytest.raises(FirstTokenError, match="between 0 and 1"):
        LongTexts(epsilon=0)
    with pytest.raises(FirstTokenError, match="windows must be at least 2, not 1"):
        LongTexts(windows=1)
    with pytest.raises(FirstTokenError, match="task_questions must be at least 2, not 1"):
        Parameters(task_questions=1)
    with pytest.raises(FirstTokenError, match="longest must be at least 128, not 127"):
        LongTexts(longest=127)
    with pytest.raises(FirstTokenError, match="from 128 to 8192 tokens"):
        removal.LONG_TEXTS.record(lm, LongTexts(longest=9000))


def test_questions_that_do_not_fit_are_refused_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "together", lambda *_: pytest.fail("measured first"))
    with pytest.raises(FirstTokenError, match="too short to hide 8 facts"):
        removal.run(models.load("smollm2-135m"), Parameters(passages=2, needle_length=64), ["word " * 200] * 2)


def test_the_least_that_is_accepted_is_measured_to_the_end() -> None:
    least = Parameters(passages=2, length=8, needle_length=256, task_questions=2, batch_tokens=1)
    values = removal.MEASUREMENT.record(models.load("smollm2-135m"), least).values
    assert values["tasks"]["cloze"]["questions"] == 2
    assert "add_bos" in values["arms"]


def test_bos_is_added_only_where_a_position_is_left_for_it() -> None:
    lm = fake_lm(tiny_model("gpt2"), Letters(prepends=False))
    assert lm.longest_input == 256
    assert "add_bos" in removal.arms_for(lm, "auto", 255)
    assert "add_bos" not in removal.arms_for(lm, "auto", 256)
    assert "add_bos" in removal.arms_for(fake_lm(tiny_model("llama"), Letters(prepends=False)), "auto", 256)
