"""Key positions while a cache has dropped some, layers that come twice in a pass, names that model code asks for."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel, StaticCache

from firsttoken.errors import FirstTokenError
from firsttoken.measures.sink_window_cache import sink_window_cache
from firsttoken.models.small_copy import random_model
from firsttoken.probe import probe
from firsttoken.probe.interventions import forbid_key, in_every_layer, set_first_value
from tiny import COMMON, MOE, tiny_model

IDS = torch.randint(3, 97, (2, 17), generator=torch.Generator().manual_seed(0))
WINDOWED = ("mistral-sliding", "gemma3_text", "llama")


def small(model_type: str, **extra: object) -> PreTrainedModel:
    return random_model(AutoConfig.for_model(model_type, **{**COMMON, **extra}))


def maps_of(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        out = model(ids, output_attentions=True, use_cache=False)
    model.set_attn_implementation(before)
    return torch.stack(out.attentions)


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize("key", [0, 10, 15])
@pytest.mark.parametrize("name", WINDOWED)
def test_keys_count_tokens_of_the_text(name: str, key: int, at_once: int) -> None:
    model = tiny_model(name)
    expected = maps_of(model, IDS)[..., -at_once:, key]
    first, second, last = IDS.split([17 - 2 * at_once, at_once, at_once], dim=1)
    with torch.no_grad():
        with probe(model):
            cache = model(first, use_cache=True).past_key_values
            model(second, past_key_values=cache)
        with probe(model, keys=[key]) as p:
            model(last, past_key_values=cache)
    torch.testing.assert_close(p.attention, expected, atol=1e-5, rtol=0)


def test_static_cache() -> None:
    model = tiny_model("llama")
    expected = maps_of(model, IDS)
    with torch.no_grad(), probe(model, keys=[0]) as p:
        cache = StaticCache(config=model.config, max_cache_len=32)
        model(IDS[:, :12], past_key_values=cache)
        torch.testing.assert_close(p.attention, expected[..., :12, 0], atol=1e-5, rtol=0)
        model(IDS[:, 12:], past_key_values=cache)
    torch.testing.assert_close(p.attention, expected[..., 12:, 0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", WINDOWED)
@pytest.mark.parametrize(
    "change", [forbid_key, lambda call: set_first_value(call, 0 * call.value[0, :, 0])], ids=["forbid", "value"]
)
def test_interventions_count_tokens_of_the_text(name: str, change: object) -> None:
    """With a cache, token by token, as in one pass."""
    model = tiny_model(name)
    with torch.no_grad(), probe(model, hook=in_every_layer(change)):
        expected = model(IDS, use_cache=False).logits[:, -1]
        cache = model(IDS[:, :9], use_cache=True).past_key_values
        for token in range(9, 17):
            out = model(IDS[:, token : token + 1], past_key_values=cache)
    torch.testing.assert_close(out.logits[:, -1], expected, atol=1e-4, rtol=1e-3)


def test_a_sink_cache_knows_its_tokens() -> None:
    """The cache holds tokens 0, 1 and the newest nine; the others get nothing, and all rows add up to one."""
    model = tiny_model("llama")
    cache = sink_window_cache(model, window=12, sinks=2)
    with torch.no_grad(), probe(model, keys=[0]):
        model(IDS[:, :11], past_key_values=cache)
        for token in range(11, 16):
            model(IDS[:, token : token + 1], past_key_values=cache)
    with torch.no_grad(), probe(model, keys=range(17)) as p:
        model(IDS[:, 16:], past_key_values=cache)
    seen = p.attention_per_key[..., 0, :]
    held = [0, 1, *range(7, 17)]
    assert (seen[..., held] > 0).all()
    assert (seen[..., 2:7] == 0).all()
    torch.testing.assert_close(seen.sum(-1), torch.ones(seen.shape[:-1]))


def test_two_calls_with_one_map_are_one_layer() -> None:
    model = small("diffllama")
    with torch.no_grad(), probe(model, keys=range(17)) as p:
        model(IDS, use_cache=False)
    assert p.layers == [0, 1, 2, 3]
    torch.testing.assert_close(p.attention_per_key, maps_of(model, IDS), atol=1e-5, rtol=0)


def test_loops_are_refused() -> None:
    model = small("hrm_text")
    with torch.no_grad(), probe(model) as p:
        model(IDS, use_cache=False)
    with pytest.raises(FirstTokenError, match="more than once in a pass"):
        _ = p.attention
    with pytest.raises(FirstTokenError, match="more than once in a pass"):
        p.per_layer()


@pytest.mark.parametrize("model_type", ["t5", "bart"])
def test_cross_attention_is_refused(model_type: str) -> None:
    sizes = {
        "t5": dict(d_model=32, d_kv=8, d_ff=48, num_layers=3, num_heads=4, decoder_start_token_id=0),
        "bart": dict(
            d_model=32, decoder_layers=3, encoder_layers=2, decoder_attention_heads=4, encoder_attention_heads=4,
            decoder_ffn_dim=48, encoder_ffn_dim=48, max_position_embeddings=64, decoder_start_token_id=2,
        ),
    }[model_type]  # fmt: skip
    model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(model_type, vocab_size=97, **sizes)).eval()
    with torch.no_grad(), probe(model) as p:
        model(input_ids=IDS, decoder_input_ids=IDS[:, :9], use_cache=False)
    with pytest.raises(FirstTokenError, match=r"more than once in a pass|9 tokens|differ in"):
        _ = p.attention


@pytest.mark.parametrize("topk", [4, 64])
@pytest.mark.parametrize("model_type", ["deepseek_v32", "glm_moe_dsa", "axk2", "hy_v4"])
def test_code_that_asks_for_the_name_keeps_its_mask(model_type: str, topk: int) -> None:
    latent = dict(
        n_routed_experts=4, n_group=1, topk_group=1, first_k_dense_replace=2, kv_lora_rank=16, q_lora_rank=16,
        qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=12, num_key_value_heads=4, index_n_heads=2,
        index_head_dim=16, index_topk=topk,
    )  # fmt: skip
    model = small(model_type, **{**MOE, **latent})
    with torch.no_grad():
        plain = model(IDS, use_cache=False).logits
        with probe(model, keys=range(17)) as p:
            probed = model(IDS, use_cache=False).logits
    torch.testing.assert_close(probed, plain, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(p.attention_per_key, maps_of(model, IDS), atol=1e-5, rtol=0)


@pytest.mark.parametrize("keep", [1, 5])
def test_logits_to_keep_with_shared_keys(keep: int) -> None:
    layers = ["sliding_attention", "full_attention"] * 2
    model = small(
        "gemma4_text", sliding_window=6, layer_types=layers, num_kv_shared_layers=2, hidden_size_per_layer_input=4,
        vocab_size_per_layer_input=97, global_head_dim=16,
    )  # fmt: skip
    with torch.no_grad():
        plain = model(IDS, logits_to_keep=keep, use_cache=False).logits
        with probe(model):
            probed = model(IDS, logits_to_keep=keep, use_cache=False).logits
    torch.testing.assert_close(probed, plain, atol=1e-5, rtol=1e-4)


def test_a_model_of_unknown_arguments_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.llama import modeling_llama

    from firsttoken.probe.arguments import strange_arguments

    original = modeling_llama.eager_attention_forward

    def eager_attention_forward(*args: object, tilt: torch.Tensor | None = None, **kwargs: object) -> object:
        return original(*args, **kwargs)

    monkeypatch.setattr(modeling_llama, "eager_attention_forward", eager_attention_forward)
    strange_arguments.cache_clear()
    model = tiny_model("llama")
    with torch.no_grad(), probe(model):
        model(IDS)
    with pytest.raises(FirstTokenError, match="tilt"), torch.no_grad(), probe(model):
        model(IDS, tilt=torch.ones(1))
    strange_arguments.cache_clear()


def test_parts_keep_their_own_implementation() -> None:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **COMMON)).eval()
    model.set_attn_implementation("eager")
    with torch.no_grad(), probe(model):
        assert model.config._attn_implementation == "sdpa"
        model(IDS)
    assert model.config._attn_implementation == "eager"
