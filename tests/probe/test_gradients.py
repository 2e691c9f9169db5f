"""Differentiating under the probe gives the gradients that the model has without it."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad
from transformers import PreTrainedModel

from firsttoken.probe import probe
from tiny import tiny_model

# Fused and chunked attention, windows, soft caps, learned sinks, experts, heads of unequal width.
NAMES = ("llama", "gpt2", "gemma3_text", "gemma2-softcap", "gpt_oss-sinks", "qwen3_moe", "deepseek_v3-latent")


def gradients(model: PreTrainedModel, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(ids, labels=ids, use_cache=False).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3_text", "gpt_oss-sinks", "deepseek_v3-latent"])
def test_second_derivatives_are_the_models_own(name: str) -> None:
    """Of a model with eager attention; fused kernels have none, with the probe as without it."""
    model = tiny_model(name)
    model.set_attn_implementation("eager")
    ids = torch.randint(3, 97, (1, 9), generator=torch.Generator().manual_seed(0))
    weight = next(p for key, p in model.named_parameters() if "norm" in key or "ln_" in key)

    def curvature() -> torch.Tensor:
        loss = model(ids, labels=ids, use_cache=False).loss
        (first,) = torch.autograd.grad(loss, weight, create_graph=True)
        return torch.autograd.grad(first.square().sum(), weight)[0]

    expected = curvature()
    with probe(model):
        seen = curvature()
    torch.testing.assert_close(seen, expected, atol=1e-5 * max(1.0, float(expected.abs().max())), rtol=1e-3)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_forward_mode_gives_the_models_own_derivative(implementation: str) -> None:
    """Fused attention has none; under the probe there is one all the same."""
    model = tiny_model("llama")
    ids = torch.randint(3, 97, (1, 9), generator=torch.Generator().manual_seed(0))
    embedded = model.get_input_embeddings()(ids).detach()
    direction = torch.randn(embedded.shape, generator=torch.Generator().manual_seed(1))

    def derivative() -> torch.Tensor:
        with torch.no_grad(), forward_ad.dual_level():
            dual = forward_ad.make_dual(embedded, direction)
            moved = forward_ad.unpack_dual(model(inputs_embeds=dual, use_cache=False).logits).tangent
        assert moved is not None
        return moved

    model.set_attn_implementation("eager")
    expected = derivative()
    model.set_attn_implementation(implementation)
    with probe(model) as p:
        seen = derivative()
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=1e-3)
    assert p.attention.shape == (4, 1, 4, 9)


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
