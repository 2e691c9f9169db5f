"""Tiny random models of many architectures, made from their configurations; nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

COMMON: dict[str, Any] = dict(
    vocab_size=97,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=256,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
MOE: dict[str, Any] = dict(num_experts=4, num_local_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
OLD: dict[str, Any] = dict(
    n_embd=32, n_layer=4, n_head=4, n_positions=256, vocab_size=97, bos_token_id=1, eos_token_id=2
)


@dataclass(frozen=True)
class Tiny:
    """One architecture: its `model_type`, what its configuration needs beyond COMMON, and what it has."""

    model_type: str
    extra: dict[str, Any] = field(default_factory=dict)
    base: dict[str, Any] = field(default_factory=lambda: COMMON)
    notes: str = ""


SLIDING = ["sliding_attention", "full_attention"] * 2

ARCHITECTURES: dict[str, Tiny] = {
    tiny.model_type + (f"-{tiny.notes}" if tiny.notes else ""): tiny
    for tiny in (
        Tiny("llama"),
        Tiny("llama", dict(num_key_value_heads=4), notes="mha"),
        Tiny("llama", dict(num_key_value_heads=1), notes="mqa"),
        Tiny("mistral", dict(sliding_window=6), notes="sliding"),
        Tiny("mixtral", MOE),
        Tiny("qwen2"),
        Tiny("qwen2", dict(use_sliding_window=True, sliding_window=6, max_window_layers=1), notes="sliding"),
        Tiny("qwen2_moe", MOE | dict(shared_expert_intermediate_size=16)),
        Tiny("qwen3"),
        Tiny("qwen3_moe", MOE),
        Tiny("gemma"),
        Tiny("gemma2", dict(sliding_window=6, query_pre_attn_scalar=8), notes="softcap"),
        Tiny("gemma3_text", dict(sliding_window=6, layer_types=SLIDING, query_pre_attn_scalar=8)),
        Tiny("gpt_oss", MOE | dict(sliding_window=6, layer_types=SLIDING), notes="sinks"),
        Tiny("gpt2", base=OLD),
        Tiny("gpt_bigcode", base=OLD),
        Tiny("gpt_neox", dict(rotary_pct=0.5)),
        Tiny("opt", dict(ffn_dim=48, word_embed_proj_dim=32)),
        Tiny("phi", dict(partial_rotary_factor=0.5)),
        Tiny("phi3", dict(sliding_window=None)),
        Tiny("stablelm", dict(partial_rotary_factor=0.5)),
        Tiny("starcoder2", dict(sliding_window=None)),
        Tiny("cohere"),
        Tiny("cohere2", dict(sliding_window=6, layer_types=SLIDING)),
        Tiny("olmo"),
        Tiny("olmo2"),
        Tiny("olmo3", dict(sliding_window=6, layer_types=SLIDING)),
        Tiny("olmoe", MOE),
        Tiny("granite"),
        Tiny("granitemoe", MOE),
        Tiny("glm", dict(partial_rotary_factor=0.5)),
        Tiny("glm4", dict(partial_rotary_factor=0.5)),
        Tiny("nemotron"),
        Tiny("persimmon", dict(partial_rotary_factor=0.5)),
        Tiny("helium"),
        Tiny("smollm3", dict(use_sliding_window=False)),
        Tiny("exaone4", dict(sliding_window=6, layer_types=SLIDING)),
        Tiny("seed_oss"),
        Tiny("arcee"),
        Tiny("apertus"),
        Tiny(
            "deepseek_v3",
            MOE
            | dict(
                n_routed_experts=4,
                n_group=1,
                topk_group=1,
                first_k_dense_replace=2,
                kv_lora_rank=16,
                q_lora_rank=16,
                qk_rope_head_dim=8,
                qk_nope_head_dim=8,
                v_head_dim=12,
                num_key_value_heads=4,
            ),
            notes="latent",
        ),
    )
}
# Layers 0 and 2 are convolutions; it is no part of ARCHITECTURES, where every layer has attention.
HYBRID = Tiny("lfm2", dict(layer_types=["conv", "full_attention"] * 2))
OUTSIDE = ("gptj", "falcon", "bloom", "mpt", "gpt_neo", "codegen")


def tiny_model(name: str, seed: int = 0) -> PreTrainedModel:
    """A random model of an architecture in ARCHITECTURES."""
    tiny = ARCHITECTURES[name]
    return sharp_model(AutoConfig.for_model(tiny.model_type, **(tiny.base | tiny.extra)), seed)


def sharp_model(config: PreTrainedConfig, seed: int = 0) -> PreTrainedModel:
    """A random model with weights large enough for uneven attention."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            # Initial attention is nearly uniform and would hide errors; sharper weights show them.
            if parameter.dim() >= 2 and "embed" not in key:
                parameter.mul_(4.0)
            if key.endswith("sinks"):
                parameter.normal_()
    return model
