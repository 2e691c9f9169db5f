"""Changes to the scores of one attention call: a dose on one key, and controls that leave key 0 alone.

In every head, with s_jk the score of query j for key k and a_j the attention of query j to key 0:

    dose      s_j0 + c for every query but the one at key 0: the odds of attending to key 0 change by exp(c)
    noise     s_jk + sigma * z_jk on ordinary keys, while a_j stays what it is in the untouched model
    sharpen   ordinary scores times beta, while a_j and the share of all ordinary keys together stay

*Ordinary* keys are all but key 0, the query's own, and the protected ones, those whose token is edited. Each change
is a pure function of an `AttentionCall`; `z` depends on seed, text and layer alone, so it is the same for a text
before and after an edit. `dose` makes them in the batches of a run.

For fixed inputs a dose that takes a to a' multiplies what every other key contributes by (1 - a') / (1 - a).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from firsttoken.probe.attention import AttentionCall, additive, log_sum_exp, plain_scores
from firsttoken.probe.interventions import explicit_mask

# A float32 mass this close to one has an infinite log-odds in none of the roundings.
ALMOST_ONE = 1 - 2.0**-24


def add_to_key(call: AttentionCall, nats: float, keys: Tensor) -> AttentionCall:
    """Every later query sees the score of one key raised by `nats`; the query at the key itself does not.

    Args:
        keys: (row,), the key of each row of the batch.
    """
    queries, length = call.query.shape[2], call.key.shape[2]
    key = torch.arange(length, device=call.key.device)
    chosen = keys.to(key)[:, None, None, None]
    there = (key[length - queries :][:, None] > chosen) & (key == chosen)  # (row, 1, query, key)
    return replace(call, mask=additive(explicit_mask(call)) + nats * there, causal=False)


def ordinary_keys(call: AttentionCall, protected: Tensor) -> Tensor:
    """Which scores a control may change: (row, 1, query, key).

    Args:
        protected: (row, key), true at keys that stay as they are for every query.
    """
    queries, length = call.query.shape[2], call.key.shape[2]
    key = torch.arange(length, device=call.key.device)
    earlier = key < key[length - queries :][:, None]
    return earlier & (key > 0) & ~protected.to(key.device)[:, None, None, :]


def first_mass(call: AttentionCall) -> Tensor:
    """Attention of each query to key 0, (row, head, query), float32."""
    scores = plain_scores(call)
    return (scores[..., 0] - log_sum_exp(scores, call.sink_logits)).exp()


def add_and_hold(call: AttentionCall, bias: Tensor, mass: Tensor) -> AttentionCall:
    """Add `bias` to the scores of all keys but key 0, and give key 0 the score with which it gets `mass`.

    Args:
        bias: (row, head or 1, query, key).
        mass: (row, head, query), attention to key 0; it is kept at queries that can see nothing else.
    """
    rows, heads, queries, _ = call.query.shape
    mask = additive(explicit_mask(call)) + bias
    mask = mask.expand(rows, heads, queries, -1).clone()
    scores = plain_scores(replace(call, mask=mask, causal=False))
    rest = log_sum_exp(scores[..., 1:], call.sink_logits)
    mass = mass.to(scores).clamp(max=ALMOST_ONE)
    wanted = mass.log() - torch.log1p(-mass) + rest
    possible = rest.isfinite() & scores[..., 0].isfinite()
    mask[..., 0] += (wanted - scores[..., 0]).masked_fill(~possible, 0.0)
    return replace(call, mask=mask, causal=False)


def add_noise(call: AttentionCall, sigma: float, z: Tensor, protected: Tensor, mass: Tensor) -> AttentionCall:
    """Noise of standard deviation `sigma` nats on the scores of ordinary keys, `mass` on key 0.

    Args:
        z: (row, head, query, key), standard normal.
    """
    return add_and_hold(call, sigma * z.to(call.key.device) * ordinary_keys(call, protected), mass)


def sharpen(call: AttentionCall, beta: float, protected: Tensor, mass: Tensor) -> AttentionCall:
    """Ordinary scores times `beta` (below one: flattened), while the sum of exp over them stays; `mass` on key 0."""
    scores = plain_scores(call)
    some = ordinary_keys(call, protected) & scores.isfinite()
    inside = scores.masked_fill(~some, -torch.inf)
    shift = torch.logsumexp(beta * inside, dim=-1) - torch.logsumexp(inside, dim=-1)
    changed = beta * scores - shift.nan_to_num(0.0)[..., None]
    return add_and_hold(call, (changed - scores).masked_fill(~some, 0.0), mass)


def noise(seed: int, text: int, layer: int, heads: int, length: int) -> Tensor:
    """Standard normal numbers (head, query, key) of one text and layer, the same on every device."""
    generator = torch.Generator().manual_seed((seed * 100_003 + text) * 1_009 + layer)
    return torch.randn(heads, length, length, generator=generator)
