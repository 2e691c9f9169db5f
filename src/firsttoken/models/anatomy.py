"""Where the parts of a decoder layer are, in any transformers model: the attention module, its output projection.

Names differ between architectures (`o_proj`, `out_proj`, `dense`, `c_proj`), and so does the place of the
normalisation: Gemma 2 and 3, OLMo 2 and GLM 4 normalise what attention adds, the others only what it reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from firsttoken.errors import FirstTokenError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_OUTPUT_NAMES = ("o_proj", "out_proj", "dense", "c_proj", "wo")


@dataclass(frozen=True)
class Block:
    """One decoder layer that has attention."""

    index: int
    layer: nn.Module
    attention: nn.Module
    output: nn.Module  # projects the heads' outputs, side by side, onto the residual stream
    post_norm: nn.Module | None  # normalises the attention's output before it is added, in models that do so


def attention_blocks(model: PreTrainedModel) -> list[Block]:
    """The attention layers of a model in order.

    Raises:
        FirstTokenError: the model's attention modules have no output projection under a known name.
    """
    parts = dict(model.named_modules())
    blocks = {}
    for name, module in parts.items():
        index = getattr(module, "layer_idx", None)
        output = next(
            (getattr(module, n) for n in _OUTPUT_NAMES if isinstance(getattr(module, n, None), nn.Module)), None
        )
        # A layer and its MLP may carry the layer's number too; only attention reads queries.
        reads = any(
            hasattr(module, n) for n in ("q_proj", "qkv_proj", "query_key_value", "c_attn", "q_b_proj", "q_a_proj")
        )
        if index is None or output is None or not reads or getattr(module, "is_cross_attention", False):
            continue
        within, _, own = name.rpartition(".")
        if own.startswith(("encoder_", "cross")):
            continue  # reads another text, where there is one
        layer = parts[within]
        blocks[int(index)] = Block(int(index), layer, module, output, _post_norm(layer))
    if not blocks:
        raise FirstTokenError(
            f"{type(model).__name__} has no attention modules with an output projection under a known name "
            f"({', '.join(_OUTPUT_NAMES)}), so what a head adds cannot be measured; choose another model."
        )
    return [blocks[index] for index in sorted(blocks)]


def _post_norm(layer: nn.Module) -> nn.Module | None:
    if (norm := getattr(layer, "post_self_attn_layernorm", None)) is not None:
        return norm
    # Llama calls the norm before its MLP `post_attention_layernorm`; only where a layer also has a norm after the
    # MLP does the name mean what it says.
    if getattr(layer, "post_feedforward_layernorm", None) is not None:
        return getattr(layer, "post_attention_layernorm", None)
    return None


def keeps_in_out(module: nn.Module) -> bool:
    """Whether a matrix is kept as (in, out), which GPT-2's `Conv1D` does and `Linear` does not."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def output_weight(block: Block, heads: int) -> Tensor:
    """The output projection cut by head, W_O: (head, value_dim, width), in its own dtype.

    Raises:
        FirstTokenError: the weights are stored in a quantised form that cannot be cut.
    """
    weight: Any = getattr(block.output, "weight", None)
    if not isinstance(weight, Tensor) or not weight.is_floating_point() or weight.dim() != 2:
        raise FirstTokenError(
            f"The output projection of layer {block.index} is stored in a quantised form, so it cannot be cut by "
            "head; load the model without quantisation."
        )
    rows = weight if keeps_in_out(block.output) else weight.T  # (head * value_dim, width)
    return rows.reshape(heads, -1, rows.shape[1])


def head_outputs(block: Block, mixed: Tensor, total: Tensor, heads: int) -> Tensor:
    """What each head adds to the residual stream.

    Where a norm stands between attention and residual stream, its gain at that token is applied to each head, so
    that the heads still add up to what the layer adds (a bias of the projection apart).

    Args:
        mixed: sum_j A_ij v_j of the heads side by side, (batch, query, head * value_dim).
        total: the projection's output for `mixed`, (batch, query, width).

    Returns:
        added  # (batch, query, head, width), float32
    """
    weight = output_weight(block, heads).float()
    by_head = mixed.float().unflatten(-1, (heads, -1))
    added = torch.einsum("bqhd,hdw->bqhw", by_head, weight)
    if block.post_norm is None:
        return added
    total = total.float()
    # Root-mean-square norms multiply each component by a number of that token; x / x is that number.
    gain = torch.where(total == 0, torch.zeros_like(total), block.post_norm(total).float() / total)
    return added * gain[:, :, None]


def decoder_of(model: PreTrainedModel) -> nn.Module:
    """The stack that gives the last hidden states, without the output head. Some classes call their head `decoder`,
    which transformers then takes for it; some have none of their own.
    """
    from transformers import PreTrainedModel

    try:
        decoder: nn.Module | None = model.get_decoder()
    except (AttributeError, NotImplementedError):
        decoder = None
    if decoder is None or decoder is model or decoder is model.get_output_embeddings():
        decoder = model.base_model
    # The base of a part of a larger model is sought under the name that it has in the whole, and not found.
    inner = [part for part in model.children() if isinstance(part, PreTrainedModel)]
    return inner[0] if decoder is model and len(inner) == 1 else decoder


def find_layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The stack of decoder layers and its name: the outermost list with as many modules as the model has layers.

    Of the decoder, if it has one: the tower of another modality may have as many layers.
    """
    count = config_value(model.config, "num_hidden_layers")
    names = {module: name for name, module in model.named_modules()}
    for part in (decoder_of(model), model):
        for module in part.modules() if part in names else ():  # outer modules come first
            if isinstance(module, nn.ModuleList) and len(module) == count:
                return names[module], module
    raise FirstTokenError(f"{type(model).__name__} is no stack of layers, so they cannot be taken one by one.")


def config_value(config: Any, name: str) -> Any:
    """An entry of the text model's configuration; None where there is none, or where layers differ in it."""
    try:
        return getattr(config.get_text_config(), name, None)
    except (RuntimeError, ValueError):
        # Layers that differ refuse to speak for all; several text models refuse to be one.
        return None


def attention_layers(config: Any) -> list[int] | None:
    """The numbers of the layers that have attention to tokens; None where a configuration does not say.

    This is how layers are numbered everywhere: by their place among all layers of the model.
    """
    kinds = config_value(config, "layer_types") or config_value(config, "layers_block_type")
    if not isinstance(kinds, list | tuple) or len(kinds) != config_value(config, "num_hidden_layers"):
        return None
    other = ("conv", "mamba", "mamba2", "recurrent", "moe", "mlp", "linear_attention", "lightning_attention")
    known = ("full_attention", "sliding_attention", "chunked_attention", "attention", *other)
    if any(kind not in known for kind in kinds):
        return None
    return [layer for layer, kind in enumerate(kinds) if kind not in other]


def head_size(config: Any) -> int:
    """Numbers of a query in one head, of a model or of one layer; 0 where there are no heads, or layers differ."""
    heads, width = config_value(config, "num_attention_heads"), config_value(config, "hidden_size")
    return int(config_value(config, "head_dim") or (width // heads if width and heads else 0))


def key_value_heads(config: Any) -> int:
    """Heads that have keys and values of their own; several query heads may share one."""
    return int(config_value(config, "num_key_value_heads") or config_value(config, "num_attention_heads") or 0)


def shared_by(module: nn.Module) -> int:
    """How many query heads of an attention module share the keys and values of one head."""
    return int(getattr(module, "num_key_value_groups", 1))


WINDOWS = ("sliding_window", "sliding_window_size", "attention_window_size", "local_attention", "attention_chunk_size")


def longest_window(config: Any) -> int | None:
    """The longest stretch of tokens, or selection of them, beyond which some layer of a model leaves tokens out."""
    sizes = [config_value(config, name) for name in (*WINDOWS, "index_topk")]
    numbers = [size for size in sizes if isinstance(size, int) and not isinstance(size, bool)]
    return max(numbers, default=None)


def rotation_length(config: Any) -> int | None:
    """The longest text in which every token is turned as in any shorter text; None where length does not matter.

    Longrope changes its factors beyond the length of the first training, dynamic NTK beyond the longest position.
    """
    rope = config_value(config, "rope_parameters") or config_value(config, "rope_scaling") or {}
    parts = [rope, *(part for part in rope.values() if isinstance(part, dict))] if isinstance(rope, dict) else []
    limits: list[int] = []
    for part in parts:
        kind = part.get("rope_type") or part.get("type")
        if kind in ("longrope", "dynamic"):
            original = part.get("original_max_position_embeddings") or config_value(
                config, "original_max_position_embeddings"
            )
            longest = config_value(config, "max_position_embeddings")
            limits.append(int((original if kind == "longrope" else longest) or longest or 0))
    return min(limits, default=None)


def layer_kinds(model: PreTrainedModel) -> list[str]:
    """`full_attention`, `sliding_attention` or another kind for each layer, as transformers calls them."""
    kinds: list[str] | None = config_value(model.config, "layer_types")
    window, switch = (config_value(model.config, name) for name in ("sliding_window", "use_sliding_window"))
    # A window without kinds is that of every layer, unless it is switched off.
    every = "sliding_attention" if window and switch is not False else "full_attention"
    return kinds or [every] * int(config_value(model.config, "num_hidden_layers") or 0)


def full_layers(model: PreTrainedModel) -> list[int]:
    """The layers that see the whole text; those with a sliding window of their own forget already."""
    return [layer for layer, kind in enumerate(layer_kinds(model)) if kind != "sliding_attention"]


def rotate_half(x: Tensor) -> Tensor:
    """(a, b) -> (-b, a) on the two halves of the last dimension, as rotary embeddings pair them."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([-b, a], dim=-1)


def rotations(model: PreTrainedModel, positions: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine by which rotary embeddings of a layer turn each position: (position, dim) each, those of the
    planes once in the first half of `dim` and again in the second, whatever the model's own order.

    Raises:
        FirstTokenError: the model has no rotary positions over the whole head, or scales them.
    """
    kind = type(model).__name__
    rotary = getattr(decoder_of(model), "rotary_emb", None)
    if rotary is None:
        raise FirstTokenError(f"{kind} has no rotary positions, so they cannot be renumbered.")
    refused = FirstTokenError(
        f"{kind} turns only a part of each head, or scales it, so positions cannot be renumbered."
    )
    kinds = config_value(model.config, "layer_types")
    probe_input = torch.zeros(1, device=model.device, dtype=torch.float32)
    arguments: tuple[Any, ...] = (probe_input, positions[None].to(model.device))
    try:
        given = rotary(*arguments)
    except TypeError:
        # Models whose layers differ in their rotary base ask for the kind of layer.
        given = rotary(*arguments, kinds[layer] if kinds else None)
    if not isinstance(given, tuple) or len(given) != 2:
        raise refused
    cos, sin = given
    size = head_size(model.config)
    if cos.dim() != 3 or cos.shape[-1] != size or not torch.allclose(cos**2 + sin**2, torch.ones_like(cos), atol=1e-3):
        raise refused
    half = cos.shape[-1] // 2
    if not torch.allclose(cos[..., :half], cos[..., half:]):
        cos, sin = (torch.cat([part[..., 0::2], part[..., 0::2]], dim=-1) for part in (cos, sin))
    return cos[0], sin[0]
