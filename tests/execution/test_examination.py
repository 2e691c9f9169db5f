"""A model compared with itself under the probe: every way to differ is refused, with its number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, PreTrainedModel

from firsttoken.errors import FirstTokenError
from firsttoken.execution import examination
from firsttoken.models.small_copy import random_model
from firsttoken.probe import attention_probe, probe
from tiny import COMMON, tiny_model

HYBRID = {"layer_types": ["conv", "full_attention"] * 2}


def test_says_by_how_much_logits_change(monkeypatch: pytest.MonkeyPatch) -> None:
    original = attention_probe.attend
    monkeypatch.setattr(
        attention_probe, "attend", lambda call, plain=False: original(replace(call, scale=2 * call.scale))
    )
    with pytest.raises(FirstTokenError, match=r"logits change by \d\.\d+ of the largest one"):
        examination.examine(tiny_model("llama"), "a model")


def test_says_by_how_much_attention_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    original = attention_probe.columns
    monkeypatch.setattr(attention_probe, "columns", lambda call, lse, keys: 0.9 * original(call, lse, keys))
    with pytest.raises(FirstTokenError, match=r"differs from its eager attention by 0\.\d+"):
        examination.examine(tiny_model("llama"), "a model")


def test_says_which_layers_are_missing() -> None:
    model = random_model(AutoConfig.for_model("lfm2", **{**COMMON, **HYBRID}))
    model.config.layer_types = ["full_attention"] * 4
    with pytest.raises(FirstTokenError, match=r"attention in layers \[0, 1, 2, 3\], and the probe sees \[1, 3\]"):
        examination._layers(model, _probed(model), "a model")


def _probed(model: PreTrainedModel) -> attention_probe.Probe:
    model_types, model.config.layer_types = model.config.layer_types, ["conv", "full_attention"] * 2
    with torch.no_grad(), probe(model) as p:
        model(torch.arange(5, 13)[None], use_cache=False)
    model.config.layer_types = model_types
    return p


@pytest.mark.parametrize("place", ["logits", "interventions", "attention"])
def test_a_difference_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """In one row of many; a maximum of Python's would leave it out."""

    def spoilt(tensor: torch.Tensor) -> torch.Tensor:
        flat = tensor.flatten().clone()
        flat[5] = torch.nan
        return flat.view(tensor.shape)

    attend, columns, weakened = attention_probe.attend, attention_probe.columns, examination._without_effect
    if place == "logits":
        monkeypatch.setattr(attention_probe, "attend", lambda call, plain=False: _first(attend(call, plain), spoilt))
    elif place == "interventions":
        monkeypatch.setattr(
            examination, "_without_effect", lambda call: replace(call := weakened(call), value=spoilt(call.value))
        )
    else:
        monkeypatch.setattr(attention_probe, "columns", lambda call, lse, keys: spoilt(columns(call, lse, keys)))
    with pytest.raises(FirstTokenError, match=r"The probe does not measure what a model computes: .* nan"):
        examination.examine(tiny_model("llama"), "a model")


def _first(out: object, change: Callable[[torch.Tensor], torch.Tensor]) -> object:
    if isinstance(out, tuple):
        return (change(out[0]), *out[1:])
    assert isinstance(out, torch.Tensor)
    return change(out)


@pytest.mark.parametrize("vocabulary", [1, 2, 5, 7, 8])
def test_a_small_vocabulary_has_enough_tokens_for_a_check(vocabulary: int) -> None:
    model = random_model(AutoConfig.for_model("llama", **{**COMMON, "vocab_size": vocabulary}))
    assert examination.examine(model, "small").attention is not None
