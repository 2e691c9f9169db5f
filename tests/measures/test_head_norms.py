"""Norms of heads against brute force: forward hooks, eager attention and plain loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from fake import fake_lm
from firsttoken.errors import FirstTokenError
from firsttoken.measures.head_norms import (
    HeadTraces,
    added_by_attention,
    first_over_others,
    relative_to_off,
    trace_heads,
)
from firsttoken.models.anatomy import Block, attention_blocks, head_outputs, output_weight
from tiny import ARCHITECTURES, tiny_model

LENGTH = 13
SOME = ("llama", "gemma2-softcap", "gemma3_text", "qwen3", "gpt2", "gpt_neox", "opt", "olmo2", "glm4", "phi3")


def ids() -> Tensor:
    torch.manual_seed(1)
    return torch.randint(3, 97, (3, LENGTH))


def eager_maps(model: PreTrainedModel, batch: Tensor) -> Tensor:
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = torch.stack(model(batch, output_attentions=True, use_cache=False).attentions)
    model.set_attn_implementation(before)
    return maps  # (layer, text, head, query, key)


def projected_values(model: PreTrainedModel, block: Block) -> Tensor:
    """What the value projection gives: (text, token, kv_head * dim)."""
    seen: list[Tensor] = []
    handle = block.attention.v_proj.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        model(ids(), use_cache=False)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "qwen3"])
def test_value_norms_equal_a_forward_hook(name: str) -> None:
    model = tiny_model(name)
    traces = trace_heads(fake_lm(model), ids(), batch_tokens=2 * LENGTH)
    for block in attention_blocks(model):
        values = projected_values(model, block)
        by_head = values.unflatten(-1, (2, 8))  # two key-value heads of eight dimensions
        expected = by_head.square().sum(-1).sqrt().transpose(1, 2)
        torch.testing.assert_close(traces.value_norm[:, block.index], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["llama", "llama-mqa", "qwen3", "granite"])
def test_what_a_head_adds_equals_the_sum_over_keys(name: str) -> None:
    """||sum_j A_ij W_O v_j|| with A from eager attention, key by key."""
    model = tiny_model(name)
    traces = trace_heads(fake_lm(model), ids())
    maps = eager_maps(model, ids())
    for block in attention_blocks(model):
        values = projected_values(model, block)
        for head in range(4):
            kv_heads = values.shape[-1] // 8
            group = head * kv_heads // 4
            value = values[..., group * 8 : (group + 1) * 8]
            weight = block.output.weight[:, head * 8 : (head + 1) * 8]
            added = torch.zeros(3, LENGTH, 32)
            for key in range(LENGTH):
                added += maps[block.index, :, head, :, key, None] * (value[:, key] @ weight.T)[:, None]
            torch.testing.assert_close(
                traces.added_norm[:, block.index, head], added.norm(dim=-1), atol=1e-3, rtol=1e-3
            )


@pytest.mark.parametrize("name", SOME)
def test_heads_add_up_to_what_the_layer_adds(name: str) -> None:
    """With the gain of a norm behind attention (Gemma, OLMo 2, GLM 4) the heads still sum to the attention's part."""
    model = tiny_model(name)
    for block in attention_blocks(model):
        seen: dict[str, Tensor] = {}

        def keep(module: object, inputs: tuple[Tensor, ...], output: Tensor, seen: dict[str, Tensor] = seen) -> None:
            seen["mixed"], seen["total"] = inputs[0], output

        handle = block.output.register_forward_hook(keep)
        with torch.no_grad():
            model(ids(), use_cache=False)
            handle.remove()
            added = head_outputs(block, seen["mixed"], seen["total"], 4).sum(2)
            expected = seen["total"]
            bias = getattr(block.output, "bias", None)
            if bias is not None:
                expected = expected - bias
            if block.post_norm is not None:
                expected = block.post_norm(seen["total"])
        torch.testing.assert_close(added, expected.float(), atol=2e-3, rtol=2e-3)


def test_gain_is_what_gemma_adds_to_its_residual_stream() -> None:
    model = tiny_model("gemma3_text")
    block = attention_blocks(model)[2]
    seen: dict[str, Tensor] = {}
    handles = [
        block.output.register_forward_hook(lambda m, i, o: seen.update(mixed=i[0], total=o)),
        block.layer.register_forward_pre_hook(lambda m, i: seen.update(before=i[0])),
        block.layer.pre_feedforward_layernorm.register_forward_pre_hook(lambda m, i: seen.update(after=i[0])),
    ]
    with torch.no_grad():
        model(ids(), use_cache=False)
        added = head_outputs(block, seen["mixed"], seen["total"], 4).sum(2)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(added, seen["after"] - seen["before"], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_has_its_blocks_found(name: str) -> None:
    blocks = attention_blocks(tiny_model(name))
    assert [block.index for block in blocks] == [0, 1, 2, 3]
    assert output_weight(blocks[0], 4).shape[0] == 4


def test_a_quantised_projection_is_refused() -> None:
    model = tiny_model("llama")
    block = attention_blocks(model)[1]
    block.output.weight = torch.nn.Parameter(torch.zeros(32, 32, dtype=torch.int8), requires_grad=False)
    with pytest.raises(FirstTokenError, match="layer 1 is stored in a quantised form"):
        output_weight(block, 4)


def test_batches_change_nothing() -> None:
    lm = fake_lm(tiny_model("llama"))
    whole, parts = trace_heads(lm, ids(), 4096), trace_heads(lm, ids(), 1)
    for name in HeadTraces.__dataclass_fields__:
        torch.testing.assert_close(getattr(whole, name), getattr(parts, name), atol=1e-5, rtol=1e-4)


def test_largest_and_median_of_the_stream() -> None:
    lm = fake_lm(tiny_model("llama"))
    traces = trace_heads(lm, ids())
    with torch.no_grad():
        hidden = lm.model.model(ids(), output_hidden_states=True).hidden_states
    assert traces.largest.shape == (3, 4, LENGTH)
    torch.testing.assert_close(traces.largest[1, 2, 5], hidden[2][1, 5].abs().max())
    torch.testing.assert_close(traces.median[1, 2], hidden[2][1].abs().flatten().median())


def test_summaries_by_hand() -> None:
    norms = torch.tensor([1.0, 2.0, 4.0, 6.0]).expand(2, 1, 1, 4)
    torch.testing.assert_close(first_over_others(norms), torch.full((2, 1, 1), 0.25))
    # One head adds 4 when off the sink and 1 when on it; the other is always on it and cannot be compared.
    attention = torch.tensor([[1.0, 0.05, 0.95, 0.05, 0.95], [1.0, 0.95, 0.95, 0.95, 0.95]])[None, None]
    added = torch.tensor([[9.0, 4.0, 1.0, 4.0, 1.0], [9.0, 7.0, 7.0, 7.0, 7.0]])[None, None]
    rest = torch.ones(1, 1, 1, 5)
    traces = HeadTraces(attention, rest, rest, added, torch.ones(1, 1, 5), torch.ones(1, 1))
    sums, counts, kept = added_by_attention(traces, (0.0, 0.1, 0.9, 1.0), least=2)
    assert kept.tolist() == [0]
    assert counts[0, 0].tolist() == [2, 0, 2]
    relative = relative_to_off(torch.stack([sums, counts], dim=-1))
    assert relative[0] == 1
    assert relative[2] == 0.25
