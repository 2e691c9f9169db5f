"""A small random model of the same architecture: the same code, layers of every kind, little of everything.

For questions about a model's code rather than its weights: which planes its rotary embeddings turn, whether a token
reads later ones, whether what the probe computes is what the model computes, also beyond a window or a selection of
tokens, which are narrowed with the rest.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

VOCABULARY = 97
LARGEST = 5_000_000  # parameters; a copy with more is not made
WEIGHT_SCALE = 3.0  # initial attention is nearly uniform, and errors in it would not show

# At most so much of what configurations of many architectures call by these names.
AT_MOST: dict[str, int] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "ngram_vocab_size_base"), VOCABULARY),
    **dict.fromkeys(("pronunciation_vocab_size", "shape_vocab_size"), VOCABULARY),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embed_dim", "emb_dim", "dim_model", "dim"), 32),
    **dict.fromkeys(("embedding_size", "word_embed_proj_dim", "lru_width", "attention_hidden_size"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "ffn_hidden_size", "dim_ff", "d_ff", "n_inner"), 48),
    **dict.fromkeys(("decoder_ffn_dim", "encoder_ffn_dim", "intermediate_size_mlp", "ff_dim"), 48),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "mamba_n_heads", "mamba_num_heads", "n_mamba_heads"), 4),
    **dict.fromkeys(("swa_num_attention_heads", "num_kv_heads", "linear_num_heads"), 4),
    **dict.fromkeys(("head_dim", "attention_head_dim", "global_head_dim", "swa_head_dim", "d_kv", "kv_channels"), 8),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "index_head_dim", "mamba_head_dim", "dim_head"), 8),
    **dict.fromkeys(
        ("linear_key_head_dim", "linear_value_head_dim", "linear_head_dim", "rotary_dim", "qk_rope_dim"), 8
    ),
    "v_head_dim": 12,
    "qk_head_dim": 16,
    **dict.fromkeys(("attn_layer_period", "expert_layer_period"), 2),
    **dict.fromkeys(("attn_layer_offset", "expert_layer_offset"), 1),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank", "mamba_d_head", "laurel_rank", "o_lora_rank"), 16),
    **dict.fromkeys(("mamba_d_state", "ssm_state_size", "state_size", "conv_dim"), 8),
    **dict.fromkeys(("mamba_dt_rank", "time_step_rank", "hidden_size_per_layer_input"), 4),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "n_local_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k", "top_k_experts", "num_experts_per_token"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"), 16),
    **dict.fromkeys(("shared_intermediate_size", "moe_shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("n_group", "topk_group", "num_expert_group", "n_groups", "mamba_n_groups", "mamba_ngroups"), 1),
    **dict.fromkeys(("sliding_window", "sliding_window_size", "attention_window_size", "window_size"), 6),
    **dict.fromkeys(("local_attention", "attention_chunk_size", "chunk_size", "rel_extent"), 6),
    "index_n_heads": 32,  # scores of few heads are often all zero, and ties are broken by the length of the text
    **dict.fromkeys(("index_topk", "linear_num_key_heads", "linear_num_value_heads"), 4),
    **dict.fromkeys(("hc_mult", "altup_num_inputs", "query_pre_attn_scalar"), 8),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "seq_length", "max_sequence_length"), 256),
}
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers")
KEY_VALUE_HEADS = ("kv_n_heads", "num_key_value_heads", "num_global_key_value_heads", "swa_num_key_value_heads")
KINDS = ("layer_types", "layers_block_type")


def small_copy(config: PreTrainedConfig, trust_remote_code: bool = False, **changes: Any) -> PreTrainedModel | None:
    """A random model in evaluation mode, float32, on the CPU; None where a configuration cannot be made smaller.

    Args:
        changes: entries of the text model's configuration that shrinking cannot guess.
    """
    from transformers import AutoModelForCausalLM

    try:
        small = small_config(config, **changes)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(small, trust_remote_code=trust_remote_code)
        if sum(parameter.numel() for parameter in model.parameters()) > LARGEST:
            return None
        return random_model(small, trust_remote_code)
    except Exception:
        # Whatever an architecture dislikes about small sizes: it has no copy, which whoever asks must be ready for.
        return None


def random_model(config: PreTrainedConfig, trust_remote_code: bool = False) -> PreTrainedModel:
    """A random model with weights large enough for uneven attention; the generator's state stays what it is."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, trust_remote_code=trust_remote_code
        ).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() >= 2 and not any(part in name for part in ("embed", "conv", "wte", "wpe")):
                    parameter.mul_(WEIGHT_SCALE)
                if "sink" in name:
                    parameter.normal_()
    return model


def small_config(config: PreTrainedConfig, **changes: Any) -> PreTrainedConfig:
    """A copy of a configuration with small sizes and a layer or more of each kind.

    Raises:
        Exception: whatever the configuration's class raises where the sizes do not suit it.
    """
    whole = config.to_dict()
    text = config.get_text_config()
    name = next((key for key in config.sub_configs if getattr(config, key, None) is text), "")
    if text is config:
        whole = _shrunk(whole, changes)
    for key in config.sub_configs:
        if isinstance(whole.get(key), dict):
            whole[key] = _shrunk(whole[key], changes if key == name else {})
    return type(config).from_dict({**whole, "dtype": None})


def _shrunk(given: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    small = copy.deepcopy(given)
    count = next((small[name] for name in LAYERS if isinstance(small.get(name), int)), 0)
    chosen = _chosen_layers(small, count)
    for key, value in given.items():
        if isinstance(value, bool):
            continue
        if isinstance(value, int) and value > AT_MOST.get(key, value):
            small[key] = AT_MOST[key]
        elif key in LAYERS and isinstance(value, int):
            small[key] = min(value, len(chosen))
        elif isinstance(value, int) and key.endswith(("token_id", "token_index")) and value >= VOCABULARY:
            small[key] = 1
        elif isinstance(value, dict) and not key.startswith("rope") and key != "per_layer_config":
            small[key] = {
                name: AT_MOST[name] if type(entry) is int and entry > AT_MOST.get(name, entry) else entry
                for name, entry in value.items()
            }
        elif isinstance(value, list) and len(value) == count and count > 0:
            small[key] = [value[layer] for layer in chosen]
    heads = given.get("num_attention_heads") or 0
    for key in KEY_VALUE_HEADS:
        if heads and isinstance(shared := given.get(key), int):
            small[key] = small["num_attention_heads"] if shared == heads else min(shared, 2)
    for rope in ("rope_parameters", "rope_scaling"):
        _shrink_factors(small.get(rope), small.get("head_dim") or 8)
    if isinstance(layers := given.get("per_layer_config"), dict):
        numbers = {str(layer): layer for layer in chosen}
        small["per_layer_config"] = {
            chosen.index(numbers[str(layer)]): _shrunk(value, {})
            for layer, value in layers.items()
            if str(layer) in numbers
        }
    for key in ("eos_token_id", "pad_token_id", "bos_token_id"):
        if isinstance(small.get(key), list):
            small[key] = 2
    return {**small, **changes}


def _chosen_layers(given: dict[str, Any], count: int) -> list[int]:
    """The first of each kind of layer and then more from the front, four if there are so many."""
    kinds = next((given[name] for name in KINDS if isinstance(given.get(name), list)), [None] * count)
    if len(kinds) != count:
        return list(range(min(count, 4)))
    first = [kinds.index(kind) for kind in dict.fromkeys(kinds)]
    rest = [layer for layer in range(count) if layer not in first]
    return sorted([*first, *rest[: max(0, min(4, count) - len(first))]])


def _shrink_factors(rope: Any, head_dim: int) -> None:
    if not isinstance(rope, dict):
        return
    for key, value in rope.items():
        if isinstance(value, dict):
            _shrink_factors(value, head_dim)
        elif key in ("short_factor", "long_factor") and isinstance(value, list):
            rope[key] = value[: head_dim // 2]
        elif key == "mrope_section":
            rope[key] = [head_dim // 4, head_dim // 8, head_dim // 2 - head_dim // 4 - head_dim // 8]
