"""What a record of rounding says in its sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fake import LETTERS, fake_lm
from firsttoken.claims.quantisation import measure
from firsttoken.claims.quantisation.verdict import activation_sentence
from firsttoken.errors import FirstTokenError
from tiny import tiny_model


def setting(none: float, first: float, sure: bool = True) -> dict[str, Any]:
    def around(value: float, half: float = 0.01) -> dict[str, float]:
        return {"value": value, "low": value - half, "high": value + half, "n": 12}

    saved = none - first
    return {
        "none": around(none), "first": around(first), "saved": around(saved),
        "more_than_control": around(saved, 0.01 if sure else 2 * abs(saved)),
    }  # fmt: skip


def test_a_model_that_rounding_has_broken_is_not_helped() -> None:
    broken, mended, little = setting(15.8, 11.0), setting(8.5, 0.3), setting(0.4, 0.2)
    said = activation_sentence({"token": {"4": broken, "8": little}, "tensor": {"4": broken, "8": mended}})
    assert "at 8 bits and one scale a text" in said
    assert "of the 8.50 nats" in said
    assert "8 bits and one scale a token" in activation_sentence({"token": {"4": broken, "8": little}})


def test_a_model_that_is_quantised_already_is_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("the model was run")

    monkeypatch.setattr(measure, "losses", never)
    model = tiny_model("llama")
    asked = measure.Parameters(passages=2, length=24)
    passages = ["".join(LETTERS[3:40])] * 2
    with pytest.raises(AssertionError, match="was run"):
        measure.run(fake_lm(model), asked, passages)
    projection = model.model.layers[3].mlp.up_proj
    projection.weight = torch.nn.Parameter(projection.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(FirstTokenError, match="already holds quantised weights"):
        measure.run(fake_lm(model), asked, passages)


def test_nothing_sure_is_nothing_told() -> None:
    broken, unsure = setting(15.8, 11.0), setting(0.4, 0.2, sure=False)
    assert "in no setting in which the model works" in activation_sentence({"token": {"4": broken, "8": unsure}})
