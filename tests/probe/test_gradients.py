"""Differentiating under the probe gives the gradients that the model has without it."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from firsttoken.probe import probe
from tiny import tiny_model

# Fused and chunked attention, windows, soft caps, learned sinks, experts, heads of unequal width.
NAMES = ("llama", "gpt2", "gemma3_text", "gemma2-softcap", "gpt_oss-sinks", "qwen3_moe", "deepseek_v3-latent")


def gradients(model: PreTrainedModel, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(ids, labels=ids, use_cache=False).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_the_models_own(name: str) -> None:
    model = tiny_model(name)
    ids = torch.randint(3, 97, (2, 17), generator=torch.Generator().manual_seed(0))
    model.set_attn_implementation("eager")
    expected = gradients(model, ids)
    with probe(model, keys=[0, 3], entropy=True, renyi2=True) as p:
        seen = gradients(model, ids)
    assert seen.keys() == expected.keys()
    assert not p.attention.requires_grad
    for key, value in expected.items():
        torch.testing.assert_close(seen[key], value, atol=1e-5 * max(1.0, float(value.abs().max())), rtol=1e-3)
