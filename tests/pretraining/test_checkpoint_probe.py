"""The probe of a model in training, against eager attention and a plain loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from firsttoken.pretraining import checkpoint_probe
from firsttoken.pretraining.corpora import BOS


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.2,
    )  # fmt: skip
    return LlamaForCausalLM(config)


@pytest.fixture(scope="module")
def texts() -> Tensor:
    return torch.randint(2, 300, (5, 24), generator=torch.Generator().manual_seed(0))


def eager(model: LlamaForCausalLM, ids: Tensor) -> tuple[Tensor, Tensor]:
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            out = model(ids, output_attentions=True, use_cache=False)
    finally:
        model.set_attn_implementation("sdpa")
    return torch.stack(out.attentions)[..., 0].mean(-1).transpose(0, 1), out.logits


@pytest.mark.parametrize("arm", checkpoint_probe.INPUTS)
def test_attention_and_loss_are_those_of_an_eager_pass(model: LlamaForCausalLM, texts: Tensor, arm: str) -> None:
    seen = checkpoint_probe.observe(model, texts, arm, batch_tokens=50)  # type: ignore[arg-type]
    given = texts if arm == "text" else torch.cat([torch.full((5, 1), BOS), texts[:, :-1]], 1)
    alpha, logits = eager(model, given)
    torch.testing.assert_close(seen.alpha, alpha, atol=1e-5, rtol=1e-4)
    log_p = logits.log_softmax(-1)
    start = 0 if arm == "text" else 1
    for row in range(5):
        losses = [-float(log_p[row, start + i - 1, texts[row, i]]) for i in range(1, 23)]
        assert float(seen.loss[row]) == pytest.approx(sum(losses) / 22, abs=1e-5)


@pytest.mark.parametrize("arm", checkpoint_probe.INPUTS)
def test_the_second_half_is_that_of_an_eager_pass(model: LlamaForCausalLM, texts: Tensor, arm: str) -> None:
    given = texts if arm == "text" else torch.cat([torch.full((5, 1), BOS), texts[:, :-1]], 1)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        out = model(given, output_attentions=True, use_cache=False)
    model.set_attn_implementation("sdpa")
    mass = torch.stack(out.attentions)[..., 12:, 0].mean((0, 2, 3))  # (text,)
    log_p = out.logits.log_softmax(-1)
    last = 23 if arm == "BOS+text" else 22  # the query that predicts token 22 of the text
    losses = [
        sum(-float(log_p[row, query, given[row, query + 1]]) for query in range(12, last)) / (last - 12)
        for row in range(5)
    ]
    shown = checkpoint_probe.in_full(model, texts)[arm]["second_half"]
    assert shown["mass"]["value"] == pytest.approx(float(mass.mean()), abs=1e-5)
    assert shown["loss"]["value"] == pytest.approx(sum(losses) / 5, abs=1e-5)


def test_value_norms_are_those_of_the_value_projection(model: LlamaForCausalLM, texts: Tensor) -> None:
    caught: dict[int, Tensor] = {}
    handles = [
        layer.self_attn.v_proj.register_forward_hook(lambda m, a, out, i=i: caught.__setitem__(i, out))
        for i, layer in enumerate(model.model.layers)
    ]
    with torch.no_grad():
        model.model(texts, use_cache=False)
    for handle in handles:
        handle.remove()
    norms = torch.stack(
        [caught[i].reshape(5, 24, 2, 8).norm(dim=-1) for i in range(3)], 1
    )  # (text, layer, token, head)
    expected = (norms[:, :, 0] / norms[:, :, 1:].mean(2)).repeat_interleave(2, dim=2)  # two query heads share a value
    torch.testing.assert_close(
        checkpoint_probe.observe(model, texts, "text").value_ratio, expected, atol=1e-5, rtol=1e-4
    )


def test_mode_and_short_form(model: LlamaForCausalLM, texts: Tensor) -> None:
    model.train()
    short = checkpoint_probe.point(model, texts)
    full = checkpoint_probe.in_full(model, texts)
    assert model.training
    for arm in checkpoint_probe.INPUTS:
        for name, value in short[arm].items():
            assert full[arm][name]["value"] == pytest.approx(value, abs=1e-4)
            assert full[arm][name]["low"] <= full[arm][name]["value"] <= full[arm][name]["high"]


def test_bf16_around_forward_does_not_reach_the_probe(model: LlamaForCausalLM, texts: Tensor) -> None:
    """accelerate puts autocast around `model.forward`; the numbers stay those of float32."""
    before = checkpoint_probe.point(model, texts)
    plain = model.forward
    model.forward = torch.autocast("cpu", torch.bfloat16)(plain)  # type: ignore[method-assign]
    try:
        assert checkpoint_probe.point(model, texts) == before
    finally:
        model.forward = plain  # type: ignore[method-assign]


def test_what_a_missing_bos_changes_is_taken_text_by_text(model: LlamaForCausalLM, texts: Tensor) -> None:
    change = checkpoint_probe.in_full(model, texts)["missing_bos"]
    with_bos, without = (checkpoint_probe.observe(model, texts, arm) for arm in checkpoint_probe.INPUTS)
    differences = [float(without.loss[i] - with_bos.loss[i]) for i in range(5)]
    assert change["loss"]["value"] == pytest.approx(sum(differences) / 5)
    assert min(differences) <= change["loss"]["low"] <= change["loss"]["high"] <= max(differences)
    expected = (without.alpha.mean() - with_bos.alpha.mean()).item()
    assert change["mass"]["value"] == pytest.approx(expected, abs=1e-6)
