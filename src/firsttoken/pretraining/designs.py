"""LLaMa-style models whose heads attend in another way than by plain softmax, and how their attention is read.

The forms of attention are those of `smallest.weights`, put into transformers' own Llama as an attention function with
at most one small module or parameter in each layer. Softmax is among them, computed in the same way as the others, so
that their speed can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from firsttoken.errors import FirstTokenError
from firsttoken.measures.head_norms import first_over_others
from firsttoken.pretraining.smallest import ATTENTIONS, Attention, weights
from firsttoken.probe.forward import run_decoder

if TYPE_CHECKING:
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

NAME = "firsttoken_design"  # of the attention function


def check(design: str) -> None:
    """Raises `FirstTokenError` if there is no such design."""
    if design not in ATTENTIONS:
        raise FirstTokenError(f"There is no design {design!r} of attention; there are {', '.join(ATTENTIONS)}.")


def attend(
    layer: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, scaling: float, **options: Any
) -> tuple[Tensor, Tensor]:
    """Attention of one layer as its `design` has it; causal, and without any other mask.

    Args:
        query, key, value: (text, head, token, size).

    Returns:
        mixed  # (text, token, head, size)
        attention  # (text, head, query, key), float32; rows need not add up to 1
    """
    attention = weights((query @ key.mT * scaling).float(), layer.design, layer.sink_logit)
    mixed = (attention.to(value.dtype) @ value).transpose(1, 2)
    if layer.gate is not None:
        mixed = mixed * layer.gate(layer.reads).sigmoid().view(mixed.shape)
    return mixed, attention


def build(config: LlamaConfig, design: str) -> LlamaForCausalLM:
    """A model with random weights and this design of attention; but for what the design adds, the same weights as
    another design has for the same random seed.

    The gate is a sigmoid for each element of what a head adds, computed from what the layer reads (arXiv 2505.06708);
    it begins at a half. A sink logit, one a head, begins at 0.
    """
    from transformers import AttentionInterface, AttentionMaskInterface, LlamaForCausalLM

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, lambda *_, **__: None)
    config._attn_implementation = NAME
    model = LlamaForCausalLM(config)
    for layer in attention_layers(model):
        layer.design, layer.gate, layer.reads = design, None, None
        logits = nn.Parameter(torch.zeros(config.num_attention_heads)) if design == "sink_logit" else None
        layer.register_parameter("sink_logit", logits)
        if design == "gate":
            layer.gate = nn.Linear(config.hidden_size, layer.o_proj.in_features, bias=False)
            nn.init.normal_(layer.gate.weight, std=config.initializer_range)
            layer.register_forward_pre_hook(_note_what_is_read, with_kwargs=True)
    return model


def _note_what_is_read(layer: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
    layer.reads = named["hidden_states"] if "hidden_states" in named else args[0]


def attention_layers(model: PreTrainedModel) -> list[Any]:
    """The attention module of each layer."""
    return [layer.self_attn for layer in model.get_decoder().layers]


def design_of(model: PreTrainedModel) -> Attention | None:
    """The design of a model that `build` made, None for any other model."""
    if getattr(model.config, "_attn_implementation", None) != NAME:
        return None
    return cast(Attention, attention_layers(model)[0].design)


@contextmanager
def watched(model: PreTrainedModel) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Inside the block every pass appends, layer by layer, its attention (text, head, query, key) to the first list
    and its values (text, token, width) to the second."""
    attention: list[Tensor] = []
    values: list[Tensor] = []
    handles = []
    for layer in attention_layers(model):
        handles.append(layer.register_forward_hook(lambda _, __, output: attention.append(output[1])))
        handles.append(layer.v_proj.register_forward_hook(lambda _, __, output: values.append(output)))
    try:
        yield attention, values
    finally:
        for handle in handles:
            handle.remove()


def to_first(attention: Tensor) -> Tensor:
    """Attention to the first token, as a share of the row where a row adds up to more than one: (..., query).

    A row that adds up to less rests in part nowhere, so what it gives the first token counts as it is.
    """
    return attention[..., 0] / attention.sum(-1).clamp_min(1)


def read(model: PreTrainedModel, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One pass over texts (text, token).

    Returns:
        hidden  # (text, token, width), after the final norm
        first  # (layer, text, head, query), see `to_first`
        value_ratio  # (text, layer, head), value norm at the first token over the mean of the others
    """
    with watched(model) as (attention, values):
        hidden = run_decoder(model, ids)
    heads = attention[0].shape[1]
    norms = [value.float().unflatten(-1, (heads, -1)).norm(dim=-1).mT for value in values]  # (text, head, token)
    ratios = torch.stack(list(map(first_over_others, norms)), dim=1)
    return hidden, torch.stack(list(map(to_first, attention))), ratios
