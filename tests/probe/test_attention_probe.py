"""The probe against eager attention, which builds the whole attention matrix."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from firsttoken.errors import FirstTokenError
from firsttoken.probe import probe
from firsttoken.probe.attention import AttentionCall, attend, attend_chunked, plain_scores
from tiny import ARCHITECTURES, OUTSIDE, tiny_model

LENGTH = 17


def run_eager(model: PreTrainedModel, **inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and attention maps (layer, batch, head, query, key) of transformers' own eager attention."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        out = model(**inputs, output_attentions=True, use_cache=False)
    model.set_attn_implementation(before)
    return out.logits, torch.stack(out.attentions)


def inputs(padding: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    ids = torch.randint(3, 97, (3, LENGTH))
    mask = torch.ones_like(ids)
    if padding == "left":
        mask[0, :5], mask[2, :1] = 0, 0
    elif padding == "right":
        mask[0, -5:], mask[2, -1:] = 0, 0
    return {"input_ids": ids} if padding == "none" else {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("padding", ["none", "left", "right"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_equals_eager(name: str, padding: str) -> None:
    model = tiny_model(name)
    batch = inputs(padding)
    real = batch.get("attention_mask", torch.ones(3, LENGTH)).bool()
    logits, maps = run_eager(model, **batch)
    with torch.no_grad(), probe(model, keys=range(LENGTH), entropy=True, renyi2=True) as p:
        out = model(**batch, use_cache=False)

    torch.testing.assert_close(out.logits[real], logits[real], atol=1e-4, rtol=1e-3)
    rows = real[None, :, None, :].expand(maps.shape[:-1])
    assert p.attention_per_key.shape == maps.shape
    torch.testing.assert_close(p.attention_per_key[rows], maps[rows], atol=1e-4, rtol=0)
    torch.testing.assert_close(p.attention[rows], maps[rows].sum(-1), atol=1e-4, rtol=0)

    full = maps
    if p.virtual_sink is not None:
        torch.testing.assert_close(p.virtual_sink[rows], 1 - maps[rows].sum(-1), atol=1e-4, rtol=0)
        full = torch.cat([maps, p.virtual_sink[..., None]], dim=-1)
    entropy = torch.special.entr(full).sum(-1)
    torch.testing.assert_close(p.entropy[rows], entropy[rows], atol=1e-4, rtol=0)
    torch.testing.assert_close(p.renyi2[rows], -full.square().sum(-1).log()[rows], atol=1e-4, rtol=0)
    assert maps[rows].max() > 2 / LENGTH, "attention is too even for this test to mean anything"


def test_keys_may_differ_between_rows() -> None:
    model = tiny_model("llama")
    batch = inputs("left")
    first = batch["attention_mask"].argmax(1, keepdim=True)
    _, maps = run_eager(model, **batch)
    with torch.no_grad(), probe(model, keys=first) as p:
        model(**batch)
    for row, column in enumerate(first[:, 0].tolist()):
        real = batch["attention_mask"][row].bool()
        torch.testing.assert_close(
            p.attention[:, row][..., real], maps[:, row, ..., column][..., real], atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    model = tiny_model("llama").to(dtype)
    batch = inputs("left")
    real = batch["attention_mask"].bool()
    _, maps = run_eager(model, **batch)
    with torch.no_grad(), probe(model, keys=range(LENGTH), entropy=True) as p:
        model(**batch)
    rows = real[None, :, None, :].expand(maps.shape[:-1])
    # Eager attention itself rounds its map to three digits here.
    torch.testing.assert_close(p.attention_per_key[rows], maps[rows].float(), atol=0.05, rtol=0)
    assert (p.attention_per_key[rows].sum(-1) - 1).abs().max() < 0.02


@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_rows_are_exact_for_any_chunk(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AttentionCall.rows, "__defaults__", (chunk,))
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, LENGTH, 8).unbind(0)
    for call in (
        AttentionCall(q, k, v, 0.3, causal=True),
        AttentionCall(q, k, v, 0.3, torch.rand(2, 1, LENGTH, LENGTH) > 0.4),
        AttentionCall(q, k, v, 0.3, torch.randn(1, 4, LENGTH, LENGTH)),
    ):
        weights = plain_scores(call).softmax(-1).nan_to_num()
        for output, lse in (attend(call), attend_chunked(call)):
            torch.testing.assert_close(output, weights @ v, atol=1e-5, rtol=0)
            expected = torch.logsumexp(plain_scores(call), -1)
            torch.testing.assert_close(lse, expected, atol=1e-5, rtol=0)


def test_decoding_with_a_cache() -> None:
    model = tiny_model("llama")
    ids = inputs("none")["input_ids"]
    _, maps = run_eager(model, input_ids=ids)
    with torch.no_grad(), probe(model) as p:
        cache = model(ids[:, :-1], use_cache=True).past_key_values
        assert p.attention.shape == (4, 3, 4, LENGTH - 1)
        model(ids[:, -1:], past_key_values=cache)
    torch.testing.assert_close(p.attention[..., 0], maps[..., -1, 0], atol=1e-5, rtol=0)


def test_hook_forbids_a_key() -> None:
    """Masking key 0 equals the eager map with that column removed and the rows divided by what is left."""
    from dataclasses import replace

    model = tiny_model("llama")
    ids = inputs("none")["input_ids"]

    def forbid_first(module: object, call: AttentionCall) -> AttentionCall:
        if module.layer_idx != 0:  # later layers see other inputs, so only the first can be compared
            return call
        mask = torch.ones(1, 1, LENGTH, LENGTH, dtype=torch.bool).tril()
        mask[..., 1:, 0] = False
        return replace(call, mask=mask, causal=False)

    _, maps = run_eager(model, input_ids=ids)
    with torch.no_grad(), probe(model, keys=range(LENGTH), hook=forbid_first) as p:
        model(ids)
    expected = maps[0].clone()
    expected[..., 1:, 0] = 0
    torch.testing.assert_close(p.attention_per_key[0], expected / expected.sum(-1, keepdim=True), atol=1e-5, rtol=0)


def test_restores_the_model_even_after_an_error() -> None:
    model = tiny_model("llama")
    before = model.config._attn_implementation
    with pytest.raises(ZeroDivisionError), probe(model):
        raise ZeroDivisionError
    assert model.config._attn_implementation == before
    with torch.no_grad():
        model(inputs("none")["input_ids"])


def test_two_models_at_once() -> None:
    a, b = tiny_model("llama", seed=0), tiny_model("llama", seed=1)
    ids = inputs("none")["input_ids"]
    with torch.no_grad():
        with probe(a) as alone:
            a(ids)
        with probe(a) as p, probe(b) as q:
            b(ids)
            a(ids)
    assert torch.equal(p.attention, alone.attention)
    assert not torch.allclose(p.attention, q.attention, atol=1e-3)


@pytest.mark.parametrize("model_type", OUTSIDE)
def test_architectures_outside_the_interface_are_refused(model_type: str) -> None:
    sizes = dict(
        vocab_size=97, hidden_size=32, n_embd=32, n_layer=2, n_head=4, num_layers=2, num_heads=4, rotary_dim=4,
        num_hidden_layers=2, num_attention_heads=4, d_model=32, n_layers=2, n_heads=4,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    if model_type == "gpt_neo":
        sizes["attention_types"] = [[["global", "local"], 1]]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **sizes))
    with pytest.raises(FirstTokenError, match="outside transformers' attention interface"), probe(model):
        pass


def test_clear_messages() -> None:
    model = tiny_model("llama")
    ids = inputs("none")["input_ids"]
    with probe(model) as p:
        pass
    with pytest.raises(FirstTokenError, match="inside the `with` block"):
        _ = p.attention
    with probe(model) as p, torch.no_grad():
        model(ids)
    with pytest.raises(FirstTokenError, match="entropy=True"):
        _ = p.entropy
    with pytest.raises(FirstTokenError, match="key 40, but the input has 17"), probe(model, keys=[40]):
        model(ids)
    with pytest.raises(FirstTokenError, match="key -1, but the input has 17"), probe(model, keys=[-1]):
        model(ids)
    with pytest.raises(FirstTokenError, match="for 1 texts, but the input has 3"), probe(model, keys=[[0]]):
        model(ids)
    for wrong in ([0.0], ["a"], 0, [True], [[[0]]], None):
        with pytest.raises(FirstTokenError, match="Keys are whole numbers"), probe(model, keys=wrong):  # type: ignore[arg-type]
            pass
    with probe(model, keys=[], entropy=True) as p:
        model(ids)
    assert p.entropy.shape[-1] == 17
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.1
    with pytest.raises(FirstTokenError, match=r"model.eval\(\)"), probe(model):
        model.train()(ids)
