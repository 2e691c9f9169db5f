"""Small GGUF files of a random Llama with a byte-level vocabulary, written as llama.cpp's converter lays them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, quants
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCABULARY = ["<|begin|>", "<|end|>", *sorted(ByteLevel.alphabet()), "th", "the"]
MERGES = ["t h", "th e"]


def small_llama(**settings: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = dict(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **sizes | settings)).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() >= 2 and "embed" not in key:
                parameter.mul_(4.0)
    return model


def _rotary_order(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp pairs neighbours where transformers pairs the halves of a head."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def tensors_of(model: PreTrainedModel) -> dict[str, np.ndarray]:
    config, tensors = model.config, {}
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    outside = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for key, value in model.state_dict().items():
        part, array = key.removesuffix(".weight"), value.numpy()
        if part in outside:
            tensors[f"{outside[part]}.weight"] = array
            continue
        _, _, layer, rest = part.split(".", 3)
        if rest == "self_attn.q_proj":
            array = _rotary_order(array, config.num_attention_heads)
        elif rest == "self_attn.k_proj":
            array = _rotary_order(array, config.num_key_value_heads)
        tensors[f"blk.{layer}.{names[rest]}.weight"] = array
    return tensors


def write_gguf(
    path: Path,
    model: PreTrainedModel,
    tensors: dict[str, np.ndarray] | None = None,
    *,
    pre: str = "llama-bpe",
    keys: Sequence[Callable[[GGUFWriter], None]] = (),
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
    blocks: dict[str, np.ndarray] | None = None,
    vocabulary: Sequence[str] = VOCABULARY,
    merges: Sequence[str] = MERGES,
    tokenizer: Callable[[GGUFWriter], None] | None = None,
) -> Path:
    """
    Args:
        tokenizer: writes the keys of another kind of tokenizer.
        blocks: the bytes of the matrices, for kinds that the `gguf` package reads and does not write.
        kind: of the matrices; vectors are float32 in any case, as llama.cpp has them.
        keys: called with the writer, to add what a test is about.
    """
    config, writer = model.config, GGUFWriter(str(path), "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if tokenizer is not None:
        tokenizer(writer)
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(vocabulary)
        writer.add_token_types([3, 3] + [1] * (len(vocabulary) - 2))
        writer.add_token_merges(merges)
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(1)
    for add in keys:
        add(writer)
    for name, array in (tensors_of(model) if tensors is None else tensors).items():
        plain = np.ascontiguousarray(array, dtype=np.float32)
        if kind == GGMLQuantizationType.F32 or plain.ndim == 1:
            writer.add_tensor(name, plain)
        else:
            writer.add_tensor(name, quants.quantize(plain, kind) if blocks is None else blocks[name], raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
