"""Statistics of the rows of an attention matrix, from one call of attention and without the matrix.

A kernel that computes the output of attention also knows the log-sum-exp of each row j, from which any column of the
matrix follows: A[j, s] = exp(scale * q_j . k_s - lse_j). Likewise

    entropy   H_j  = lse_j - scale * q_j . sum_s A[j, s] k_s       (one more attention call, with value = key)
    Renyi-2   H2_j = 2 * lse_j(scale) - lse_j(2 * scale)           (= -log sum_s A[j, s]^2)
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from firsttoken.errors import FirstTokenError
from firsttoken.probe.attention import AttentionCall, additive, attend, log_sum_exp, plain_scores, scores


def columns(call: AttentionCall, lse: Tensor, keys: Tensor) -> Tensor:
    """Columns of the attention matrix: the attention to the tokens at some places of the text.

    Args:
        lse: log-sum-exp of the rows, (batch, head, query).
        keys: (key,) or (batch, key).

    Returns:
        attention  # (batch, head, query, key), float32; 0 where the mask forbids, and to a token that has no key left
    """
    batch = call.query.shape[0]
    places = call.key_positions()
    length = int(places.max()) + 1 if call.positions is not None else call.key.shape[2]
    if keys.numel() and (keys.min() < 0 or keys.max() >= length):
        asked = int(keys.max() if keys.max() >= length else keys.min())
        raise FirstTokenError(f"The probe was asked for key {asked}, but the input has {length} tokens.")
    if keys.dim() == 2 and keys.shape[0] != batch:
        raise FirstTokenError(f"Keys were given for {keys.shape[0]} texts, but the input has {batch}.")
    if call.positions is None or not keys.numel():
        return _columns_at(call, lse, keys)
    there = keys[..., None] == places
    # A token may have several keys, each for other queries, as `interventions.set_first_value` makes them.
    most = max(1, int(there.sum(-1).max()))
    index = there.long().topk(most, dim=-1).indices
    by_copy = [
        _columns_at(call, lse, some).masked_fill(~real.view(-1, 1, 1, real.shape[-1]), 0.0)
        for some, real in zip(index.unbind(-1), there.gather(-1, index).unbind(-1), strict=True)
    ]
    return torch.stack(by_copy).sum(0)


def _columns_at(call: AttentionCall, lse: Tensor, keys: Tensor) -> Tensor:
    """The same of keys given by their index among those of the call."""
    batch, _, queries, _ = call.query.shape
    if keys.dim() == 1:
        chosen = call.key[:, :, keys]
    else:
        index = keys[:, None, :, None].expand(-1, call.key.shape[1], -1, call.key.shape[3])
        chosen = call.key.gather(2, index)
    logits = scores(call, chosen)
    positions = keys if keys.dim() == 2 else keys.expand(batch, -1)
    if call.mask is not None:
        mask = call.mask.expand(batch, -1, queries, -1)
        index = positions[:, None, None, :].expand(-1, mask.shape[1], queries, -1)
        logits = logits + additive(mask.gather(3, index))
    elif call.causal:
        later = positions[:, None, None, :] > torch.arange(queries, device=keys.device)[None, None, :, None]
        logits = logits.masked_fill(later, -torch.inf)
    return torch.exp(logits - lse.nan_to_num(neginf=0.0)[..., None])


def entropy(call: AttentionCall) -> Tensor:
    """Shannon entropy of each row in nats, (batch, head, query), float32."""
    if _is_linear(call):
        call = _in_float32(replace(call, value=call.key))
        mean_key, lse = attend(call)
        return (lse - call.scale * (call.query * mean_key).sum(-1)).clamp_min(0.0)
    return torch.cat([_row_entropy(part, order=1) for part in call.rows()], dim=2)


def renyi2(call: AttentionCall) -> Tensor:
    """Renyi entropy of order 2 of each row in nats, (batch, head, query), float32."""
    if _is_linear(call):
        call = _in_float32(replace(call, value=call.key))
        once, twice = attend(call)[1], attend(replace(call, scale=2 * call.scale))[1]
        return (2 * once - twice).clamp_min(0.0)
    return torch.cat([_row_entropy(part, order=2) for part in call.rows()], dim=2)


def _is_linear(call: AttentionCall) -> bool:
    # Both identities need scores that are scale * q . k and nothing else.
    only_mask = call.mask is None or call.mask.dtype == torch.bool
    return only_mask and call.softcap is None and call.sink_logits is None


def _in_float32(call: AttentionCall) -> AttentionCall:
    # In half precision the weighted mean of keys is rounded to three digits, and entropy is a difference of
    # numbers ten times as large as itself.
    return replace(call, query=call.query.float(), key=call.key.float(), value=call.value.float())


def _row_entropy(call: AttentionCall, order: int) -> Tensor:
    logits = plain_scores(call)
    if call.sink_logits is not None:
        virtual = call.sink_logits.float().expand(*logits.shape[:3], 1)
        logits = torch.cat([logits, virtual], dim=-1)
    log_p = logits - log_sum_exp(logits, None).nan_to_num(neginf=0.0)[..., None]
    p = torch.exp(log_p)
    if order == 2:
        return -torch.log((p * p).sum(-1))
    return -(p * log_p.masked_fill(p == 0, 0.0)).sum(-1)
