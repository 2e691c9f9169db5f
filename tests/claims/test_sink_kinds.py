"""The heads of a record of kinds, against the measures one by one; a model without a sink has none."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from fake import LETTERS, fake_lm
from firsttoken.claims.no_op import figures, kinds
from firsttoken.errors import FirstTokenError
from firsttoken.measures import sink_kinds
from firsttoken.measures.sink_kinds import Kinds, Rests
from firsttoken.records import Record
from tiny import tiny_model

PASSAGES = ["".join(LETTERS[3 + (7 * i + 13 * j) % 90] for j in range(60)) for i in range(3)]
PARAMETERS = kinds.Parameters(norm_passages=3, length=24)


def test_values_are_those_of_the_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "SINK", 0.0)  # random models have no sink
    monkeypatch.setattr(kinds, "FEWEST", 1)
    monkeypatch.setattr(sink_kinds, "RESTING", 0.05)
    lm = fake_lm(tiny_model("llama"))
    values = kinds.run(lm, PARAMETERS, PASSAGES)
    assert values["heads"] == len(values["by_head"]) > 2
    for name in ("value_ratio", "stable_rank", "sink_share"):
        median = torch.tensor([head[name] for head in values["by_head"]]).median()
        assert values[name]["value"] == pytest.approx(float(median), abs=1e-4)
        assert values[name]["low"] <= values[name]["value"] <= values[name]["high"]
    assert sum(share["value"] for share in values["kinds"].values()) == pytest.approx(1)
    json.dumps(values, allow_nan=False)
    record = Record("no_op", "some-model", {}, values, {}, variant="kinds")
    assert "sink heads" in figures.kinds_table([record]).text.lower()
    assert "some-model" in figures.kinds([record]).text


def test_a_model_without_a_sink_has_no_kinds() -> None:
    values = kinds.run(fake_lm(tiny_model("llama")), PARAMETERS, PASSAGES)
    assert values == {"heads": 0, "by_head": []}
    record = Record("no_op", "some-model", {}, values, {}, variant="kinds")
    assert "0" in figures.kinds_table([record]).text
    figures.kinds([record])


def test_every_head_is_of_one_kind() -> None:
    heads = Kinds(
        value_ratio=torch.tensor([0.1, 0.1, 0.9, 0.9]),
        stable_rank=torch.tensor([1.1, 5.0, 1.1, 5.0]),
        sink_share=torch.zeros(4),
    )
    of_kind = {kind: kinds.is_of(kind, heads).tolist() for kind in kinds.KINDS}
    assert of_kind == {
        "NOP": [True, True, False, False],
        "broadcast": [False, False, True, False],
        "neither": [False, False, False, True],
    }


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"norm_passages": 1}, "norm_passages must be at least 2, not 1"),
        ({"length": 7}, "length must be at least 8, not 7"),
    ],
)
def test_bad_parameters(asked: dict[str, int], message: str) -> None:
    with pytest.raises(FirstTokenError, match=message):
        kinds.Parameters(**asked)


def test_a_head_that_rests_in_few_texts_spoils_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Head 0 rests in all twelve texts and head 1 in one, so that a third of the draws have no resting query of
    head 1. Head 2 has no values."""
    passages = [PASSAGES[0]] * 12
    generator = torch.Generator().manual_seed(0)
    rests = Rests(
        attention=torch.full((12, 1, 3), 0.8),
        value_first=torch.rand(12, 1, 3, generator=generator) + torch.tensor([1.0, 1.0, 0.0]),
        value_others=torch.ones(12, 1, 3),
        queries=torch.full((12, 1, 3), 60.0),
        gram=torch.zeros(12, 1, 3, 3, 3),
        from_sink=torch.rand(12, 1, 3, generator=generator),
    )
    rests.value_first[..., 2] = rests.value_others[..., 2] = rests.from_sink[..., 2] = 0
    rests.from_sink[1:, 0, 1] = 0
    for text in range(12):
        rests.gram[text, 0, 0] = torch.diag(torch.tensor([2.0 + text, 1.0, 0.0]))
    rests.gram[0, 0, 1] = torch.diag(torch.tensor([3.0, 3.0, 3.0]))
    monkeypatch.setattr(kinds, "together", lambda *_: {"rests": rests})
    values = kinds.run(fake_lm(tiny_model("llama")), PARAMETERS, passages)
    json.dumps(values, allow_nan=False)
    assert [head["head"] for head in values["by_head"]] == [0, 1]

    def draw(rows: list[int]) -> tuple[float, float]:
        """The lower of the stable ranks that are defined, and the share of heads that add nearly one vector."""
        sizes = [torch.diagonal(rests.gram[rows, 0, head].sum(0)).tolist() for head in (0, 1)]
        ranks = [sum(two) / max(two) for two in sizes if sum(two)]
        return min(ranks), sum(rank < 2 for rank in ranks) / len(ranks)

    drawn = torch.randint(12, (kinds.RESAMPLES, 12), generator=torch.Generator().manual_seed(0)).tolist()
    assert 40 < sum(0 not in rows for rows in drawn) < 100
    for at, estimate in enumerate((values["stable_rank"], values["kinds"]["broadcast"])):
        draws = torch.tensor([draw(rows)[at] for rows in drawn]).double()
        low, high = torch.quantile(draws, torch.tensor([0.025, 0.975]).double()).tolist()
        assert (estimate["low"], estimate["high"]) == pytest.approx((low, high), abs=1e-3)
        assert estimate["value"] == pytest.approx(draw(list(range(12)))[at], abs=1e-3)
    every: list[Any] = [values[name] for name in ("value_ratio", "stable_rank", "sink_share")]
    assert all(math.isfinite(one[end]) for one in every for end in ("value", "low", "high"))
