"""The arguments of transformers' attention interface: which the probe understands, and all of them in one form."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

from torch import Tensor, nn

from firsttoken.probe.attention import AttentionCall
from firsttoken.probe.passes import Held

# Arguments of transformers' attention functions that the probe uses, or that only say what the mask already does.
UNDERSTOOD = {
    *("module", "query", "key", "value", "attention_mask", "scaling", "dropout", "is_causal"),
    *("softcap", "s_aux", "sinks", "position_bias", "sliding_window"),
}


@cache
def strange_arguments(module_class: type[nn.Module]) -> tuple[str, ...]:
    """Arguments that the model's own eager attention reads and the probe does not know."""
    eager = getattr(inspect.unwrap(module_class.forward), "__globals__", {}).get("eager_attention_forward")
    if eager is None:
        return ()
    named = [p.name for p in inspect.signature(eager).parameters.values() if p.kind is not p.VAR_KEYWORD]
    return tuple(name for name in named if name not in UNDERSTOOD)


def as_call(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float | None,
    is_causal: bool | None,
    kwargs: dict[str, Any],
    held: Held | None,
) -> AttentionCall:
    """The arguments of transformers' attention interface in one form."""
    from transformers.integrations.sdpa_attention import create_position_bias_mask, repeat_kv

    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    queries = query.shape[2]
    is_causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    causal = bool(queries > 1 and mask is None and is_causal)
    bias = kwargs.get("position_bias")
    if causal and key.shape[2] > queries:
        # An empty static cache: the slots after the last query hold nothing yet.
        key, value = key[:, :, :queries], value[:, :, :queries]
        bias = None if bias is None else bias[..., :queries]
    if mask is not None:
        mask = mask[..., : key.shape[2]]
    if bias is not None:
        mask, causal = create_position_bias_mask(bias, mask, causal, query, key), False
    sink = kwargs.get("s_aux")  # (head,)
    if sink is not None:
        sink = sink.view(1, -1, 1, 1)
    positions = None if held is None or held.positions is None else held.positions[: key.shape[2]]
    return AttentionCall(
        query,
        key,
        value,
        scale if scale is not None else query.shape[-1] ** -0.5,
        mask,
        causal,
        softcap=kwargs.get("softcap"),
        sink_logits=sink if sink is not None else kwargs.get("sinks"),
        positions=positions,
        first_query=None if held is None else held.seen,
    )
