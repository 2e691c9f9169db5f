"""Changes to one attention operation, to be passed to `probe(model, hook=...)`: forbid a key, allow only one,
replace a value.

Each is a pure function of an `AttentionCall`. Positions count from the start of the text, also when the call holds
only the newest queries of a cached text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from firsttoken.errors import FirstTokenError
from firsttoken.probe.attention import AttentionCall, additive

Hook = Callable[[Any, AttentionCall], AttentionCall]


def explicit_mask(call: AttentionCall) -> Tensor:
    """The call's mask with a causal one written out, broadcastable to (batch, head, query, key), bool or additive."""
    queries, keys = call.query.shape[2], call.key.shape[2]
    if call.mask is not None:
        return call.mask
    allowed = torch.ones(1, 1, queries, keys, dtype=torch.bool, device=call.key.device)
    return allowed.tril(keys - queries) if call.causal else allowed


def forbid_key(call: AttentionCall, key: int = 0) -> AttentionCall:
    """Every later query divides its attention among the other keys; the query at `key` itself keeps it, because
    the first one would otherwise have nothing to attend to."""
    mask = explicit_mask(call)
    position = call.query_positions()
    block = (position > key)[:, None] & (call.key_positions() == key)
    return replace(call, mask=without(mask, block[None, None]), causal=False)


def weaken_key(call: AttentionCall, nats: float, key: int = 0) -> AttentionCall:
    """Every later query sees the score of `key` lowered by `nats`: the odds of attending to it fall by exp(nats), and
    what is lost goes to the other keys in proportion."""
    mask = additive(explicit_mask(call))
    position = call.query_positions()
    at_key = (position > key)[:, None] & (call.key_positions() == key)
    return replace(call, mask=mask - nats * at_key.float()[None, None], causal=False)


def only_key(
    call: AttentionCall, key: int = 0, heads: Sequence[int] | None = None, where: Tensor | None = None
) -> AttentionCall:
    """The given heads attend to nothing but `key`, also where a sliding window has left it behind.

    Args:
        heads: which; all if None.
        where: (batch, query), true at the queries to change; all queries from `key` on if None.

    Raises:
        FirstTokenError: a cache has dropped the key.
    """
    mask = explicit_mask(call)
    position = call.query_positions()
    chosen = torch.ones(call.query.shape[1], dtype=torch.bool, device=position.device)
    if heads is not None:
        _check_heads(heads, call)
        chosen[:] = False
        chosen[list(heads)] = True
    rows = (position >= key)[None] if where is None else (position >= key)[None] & where.to(position.device)
    changed = rows[:, None, :, None] & chosen[None, :, None, None]
    at_key = call.key_positions() == key
    if not at_key.any() and changed.any():
        raise FirstTokenError(f"The cache has dropped key {key}, so no head can attend to it; run without a cache.")
    return replace(call, mask=_with(without(mask, changed & ~at_key), changed & at_key), causal=False)


def forbid_key_in_heads(call: AttentionCall, heads: Sequence[int], key: int = 0) -> AttentionCall:
    """`forbid_key` for the given heads alone."""
    _check_heads(heads, call)
    mask = explicit_mask(call)
    position = call.query_positions()
    chosen = torch.zeros(call.query.shape[1], dtype=torch.bool, device=position.device)
    chosen[list(heads)] = True
    at_key = call.key_positions() == key
    block = chosen[:, None, None] & (position > key)[:, None] & at_key
    return replace(call, mask=without(mask, block[None]), causal=False)


def set_first_value(call: AttentionCall, value: Tensor) -> AttentionCall:
    """Every later query reads `value`, (head, value_dim), from the first token; its attention stays as it is.

    The first token itself keeps its own value, so that its way through the layers does not change: a second copy of
    its key, which only it can see, is put behind the others. Where a cache has dropped the first token, nobody reads
    its value.
    """
    places, queries = call.key_positions(), call.query_positions()
    if call.positions is not None and places[0] != 0:
        return call
    mask = explicit_mask(call)
    first = queries == 0
    copied = call.value.clone()
    copied[:, :, 0] = value.to(copied)
    keys = torch.cat([call.key, call.key[:, :, :1]], dim=2)
    values = torch.cat([copied, call.value[:, :, :1]], dim=2)
    original = first[:, None] & (torch.arange(mask.shape[3], device=first.device) == 0)
    copy_of_first = without(mask[..., :1], ~first[None, None, :, None])
    wider = torch.cat([without(mask, original[None, None]), copy_of_first], dim=3)
    return replace(
        call,
        key=keys,
        value=values,
        mask=wider,
        causal=False,
        positions=torch.cat([places, places[:1]]),
        first_query=int(queries[0]),
    )


def in_every_layer(change: Callable[[AttentionCall], AttentionCall]) -> Hook:
    """A hook that applies `change` in all layers."""
    return lambda module, call: change(call)


def in_layers(changes: Mapping[int, Callable[[AttentionCall], AttentionCall]]) -> Hook:
    """A hook that applies `changes[layer]` where there is one."""

    def hook(module: Any, call: AttentionCall) -> AttentionCall:
        change = changes.get(getattr(module, "layer_idx", -1))
        return call if change is None else change(call)

    return hook


def without(mask: Tensor, block: Tensor) -> Tensor:
    """A mask, bool or additive, that also forbids what `block` marks."""
    if mask.dtype == torch.bool:
        return mask & ~block
    shape = torch.broadcast_shapes(mask.shape, block.shape)
    return mask.expand(shape).masked_fill(block, -torch.inf)


def _with(mask: Tensor, allowed: Tensor) -> Tensor:
    """A mask, bool or additive, that also allows what `allowed` marks. An additive one keeps its biases."""
    if mask.dtype == torch.bool:
        return mask | allowed
    # transformers forbids by the lowest finite number.
    forbidden = mask <= torch.finfo(mask.dtype).min / 2
    return mask.masked_fill(forbidden & allowed, 0.0)


def _check_heads(heads: Sequence[int], call: AttentionCall) -> None:
    there = call.query.shape[1]
    if bad := [head for head in heads if not 0 <= head < there]:
        raise FirstTokenError(f"There is no head {bad[0]}; this layer has heads 0 to {there - 1}.")
