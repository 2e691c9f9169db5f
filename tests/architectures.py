"""Every causal language model class of the installed transformers as a small random model."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from firsttoken.models.small_copy import random_model, small_config

MODEL_TYPES: dict[str, str] = dict(sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items()))
LARGEST = 20_000_000  # parameters
ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
EXPERTS = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1}
INDEXER = {
    "indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 4,
    "indexer_compress_ratio": 2, "hc_lowrank": 8, "layer_types": ["linear_attention", "full_attention"] * 2,
}  # fmt: skip

# What shrinking a default configuration does not guess.
CHANGES: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1, 3]},
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}},
    "deepseek_v2": EXPERTS,
    "dots1": {**EXPERTS, "n_shared_experts": 1},
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16},
    "gemma3n_text": {"num_kv_shared_layers": 0, "activation_sparsity_pattern": [0.0] * 4},
    "gemma4_assistant": {"hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0},
    "gemma4_unified_assistant": {"hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "ministral": {"head_dim": 8},
    "nemotron": {"head_dim": 8, "num_key_value_heads": 2},
    "qwen4_exp": INDEXER,
    "qwen4_exp_text": INDEXER,
    "reformer": {"is_decoder": True, "axial_pos_embds": False},
    "xlnet": {"d_head": 8},
    "xlstm": {"embedding_dim": 32, "num_blocks": 2},
    "xmod": {"default_language": "en_XX"},
}  # fmt: skip

# Types whose sizes depend on each other, as whole configurations.
_NOTE: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "moe_intermediate_size": 16,
    "shared_experts_intermediate_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 24, "v_head_dim": 8, "head_dim": 32, "swa_head_dim": 32, "sliding_window": 6, "index_topk": 6,
    "index_head_dim": 32, "index_n_heads": 4, "max_position_embeddings": 256,
    "layer_types": ["sliding_attention", "indexed_attention"] * 2, "per_layer_config": {},
    "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"], "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
_TOWER: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4,
    "moe_intermediate_size": 16, "num_local_experts": 2, "adapter_in_dim": 32, "adapter_out_dim": 32,
    "per_layer_config": {},
}  # fmt: skip
_SOUND: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 4, "max_position_embeddings": 64, "downsample_hidden_size": 8, "head_dim": 8,
    "adapter_input_size": 32, "adapter_out_dim": 32,
}  # fmt: skip
_BYTES: dict[str, Any] = {
    "hidden_size": 32, "hidden_size_global": 64, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8, "max_position_embeddings": 256,
    "vocab_size": 260,
}  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "blt": {
        "encoder_hash_byte_group_vocab": 50, "patcher_config": _BYTES, "encoder_config": _BYTES,
        "decoder_config": _BYTES,
        "global_config": {**_BYTES, "hidden_size": 64, "head_dim": 16},
    },
    "dbrx": {
        "d_model": 32, "n_heads": 4, "n_layers": 4, "max_seq_len": 128, "vocab_size": 97,
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10_000.0},
        "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "dots3_note": {"text_config": _NOTE, "vision_config": _TOWER, "audio_config": _SOUND},
    "dots3_note_text": _NOTE,
    "zamba": {
        "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6,
        "num_attention_heads": 4, "num_key_value_heads": 4, "attention_head_dim": 16, "attention_hidden_size": 64,
        "attn_layer_period": 3, "attn_layer_offset": 1, "mamba_d_state": 8, "n_mamba_heads": 2, "mamba_dt_rank": 4,
        "max_position_embeddings": 128,
    },
    "zamba2": {
        "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 4, "layers_block_type": ["mamba", "hybrid"] * 2,
        "hybrid_layer_ids": [1, 3], "num_mem_blocks": 1, "mamba_d_state": 8, "mamba_ngroups": 1, "n_mamba_heads": 4,
        "attention_head_dim": 16, "attention_hidden_size": 64, "max_position_embeddings": 256,
    },
}  # fmt: skip


def small_model(model_type: str) -> PreTrainedModel:
    """A small random model of a type.

    Raises:
        Exception: whatever the architecture raises where it cannot be built so.
    """
    if model_type in SIZES:
        config = AutoConfig.for_model(model_type, **SIZES[model_type])
    else:
        config = small_config(AutoConfig.for_model(model_type), **CHANGES.get(model_type, {}))
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
    if size > LARGEST:
        raise ValueError(f"{size} parameters are too many")
    return random_model(config)


# Types that the loader itself refuses: two draft for other models, two continue sound, and the vision tower of one
# needs another package (its text model is a type of its own).
REFUSED_BY_THE_LOADER = ("gemma3n", "gemma4_assistant", "gemma4_unified_assistant", "musicgen", "musicgen_melody")
