"""The heads of a record of kinds, against the measures one by one; a model without a sink has none."""

from __future__ import annotations

import json

import pytest
import torch

from fake import LETTERS, fake_lm
from firsttoken.claims.no_op import figures, kinds
from firsttoken.errors import FirstTokenError
from firsttoken.measures import sink_kinds
from firsttoken.measures.sink_kinds import Kinds
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
