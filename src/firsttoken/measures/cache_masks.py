"""Keeping only some tokens in the key-value cache, as masks: what each query may still read.

A cache of fixed size W throws tokens away as a text goes on. For a text that is there from the beginning the same can
be had in one pass: query j sees exactly the keys that would be in the cache when token j is read.
`sink_window_cache.py` throws tokens away in earnest, and a test holds the two together.

Policies, all with room for W tokens in the cache, the newest included:

* window: the last W.
* sinks: the first n and the last W - n (StreamingLLM, arXiv 2309.17453).
* random: n tokens drawn from the first W, but for the very first, and the last W - n; the control for the sinks. What
  is drawn depends on the seed and on no text, so each text needs a seed of its own. Its place stays empty until it
  comes.
* heavy: the W / 2 tokens that were attended to most so far and the last W / 2 (H2O, arXiv 2306.14048), chosen for each
  head of keys. Where several query heads share one, what they attend to is added up, as they share its cache too.

A kept token can keep its *original* position, so that its distance to the newest grows without end, or be renumbered
by its place in the *cache*, so that no distance exceeds W.

A cache can also be cut only once, when a long context has been read, and grow again afterwards (`Pruning`): what
libraries do that compress a prompt.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from firsttoken.errors import FirstTokenError
from firsttoken.models.anatomy import rotations, shared_by
from firsttoken.probe.attention import AttentionCall, log_sum_exp, plain_scores
from firsttoken.probe.interventions import Hook, explicit_mask, without
from firsttoken.probe.rotary import rotary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Kept = Literal["none", "sinks", "random", "heavy"]
Positions = Literal["original", "cache"]
HEAVY_CHUNK = 32  # heavy hitters are chosen anew after this many queries, or sooner in a small cache


@dataclass(frozen=True)
class Policy:
    """Which tokens stay in a cache of `window` tokens, the newest included."""

    window: int
    kept: Kept = "none"
    count: int = 0  # of sinks or random tokens
    positions: Positions = "original"

    def check(self) -> None:
        """Raises `FirstTokenError` for a cache without room for its tokens."""
        if self.window < 2 or not 0 <= self.count < self.window:
            raise FirstTokenError(
                f"A cache of {self.window} tokens has no room for {self.count} kept ones and the newest."
            )
        if self.positions == "cache" and self.kept in ("random", "heavy"):
            raise FirstTokenError("Only a window with or without sinks can be renumbered.")


@dataclass(frozen=True)
class Pruning:
    """A cache that is cut once, after `context` tokens, to the first `sinks` and the newest, `kept` in all.

    Whatever is read afterwards stays.
    """

    context: int
    kept: int
    sinks: int = 0
    positions: Positions = "original"

    def check(self) -> None:
        """Raises `FirstTokenError` for a cache that cannot keep so many tokens."""
        if not 0 <= self.sinks <= self.kept <= self.context or self.kept < 1:
            raise FirstTokenError(
                f"A cache of {self.context} tokens cannot be cut to {self.kept} of which {self.sinks} are the first; "
                "give sinks <= kept <= context and kept of at least 1."
            )


def kept_keys(policy: Policy, length: int, seed: int = 0) -> Tensor:
    """The tokens that never leave, apart from the newest ones: (key,), bool. Random ones are the same for the same
    `seed` and length, and the first token is never among them."""
    kept = torch.zeros(length, dtype=torch.bool)
    if policy.kept == "sinks":
        kept[: policy.count] = True
    elif policy.kept == "random":
        generator = torch.Generator().manual_seed(seed)
        kept[1 + torch.randperm(min(policy.window, length) - 1, generator=generator)[: policy.count]] = True
    return kept


def allowed(policy: Policy, length: int, seed: int = 0) -> Tensor:
    """True where a query may read a key, (query, key), for every policy but `heavy`."""
    policy.check()
    query, key = torch.arange(length)[:, None], torch.arange(length)
    count = policy.count if policy.kept in ("sinks", "random") else 0
    recent = key > query - (policy.window - count)
    return (key <= query) & (recent | kept_keys(policy, length, seed))


def allowed_once(pruning: Pruning, length: int) -> Tensor:
    """True where a query may read a key, (query, key): everything before the cut, what was kept after it."""
    pruning.check()
    query, key = torch.arange(length)[:, None], torch.arange(length)
    gone = (key >= pruning.sinks) & (key < pruning.context - (pruning.kept - pruning.sinks))
    return (key <= query) & ~((query >= pruning.context) & gone)


def evicting(model: PreTrainedModel, policy: Policy, layers: Collection[int] | None = None, seed: int = 0) -> Hook:
    """A hook under which the given layers read what a cache under `policy` would hold.

    Args:
        layers: which; all if None. The others read what they always do. What a layer's own mask hides stays hidden.
        seed: of random tokens, which are the same in every text of a batch.

    Raises:
        FirstTokenError: the policy has no room, or renumbers positions in a model without rotary ones.
    """
    policy.check()
    if policy.positions == "cache":
        rotary(model)  # an error before anything runs

    def hook(module: Any, call: AttentionCall) -> AttentionCall:
        layer = int(module.layer_idx)
        if layers is not None and layer not in layers:
            return call
        if policy.kept == "heavy":
            return _heavy(call, policy, shared_by(module))
        length = call.key.shape[2]
        call = _reading(call, allowed(policy, length, seed))
        if policy.positions == "original":
            return call
        # The newest token's place in the cache is W - 1 from query W - 1 on.
        excess = (torch.arange(length) - (policy.window - 1)).clamp_min(0)
        return _renumber(model, call, kept_keys(policy, length, seed), excess, layer)

    return hook


def pruned_once(model: PreTrainedModel, pruning: Pruning) -> Hook:
    """A hook under which one pass over a whole text reads what a cache cut once would hold, in every layer.

    Queries of the context read all that is before them; later ones read the kept tokens of the context and all since.

    Raises:
        FirstTokenError: no such cut, or renumbered positions in a model without rotary ones.
    """
    pruning.check()
    if pruning.positions == "cache":
        rotary(model)  # an error before anything runs

    def hook(module: Any, call: AttentionCall) -> AttentionCall:
        length = call.key.shape[2]
        call = _reading(call, allowed_once(pruning, length))
        if pruning.positions == "original":
            return call
        position = torch.arange(length)
        excess = (position >= pruning.context) * (pruning.context - pruning.kept)
        return _renumber(model, call, position < pruning.sinks, excess, int(module.layer_idx))

    return hook


def _reading(call: AttentionCall, may: Tensor) -> AttentionCall:
    """The call with only those keys left to each query that `may`, (query, key), lets it read."""
    return replace(call, mask=without(explicit_mask(call), ~may.to(call.key.device)[None, None]), causal=False)


def _renumber(model: PreTrainedModel, call: AttentionCall, kept: Tensor, excess: Tensor, layer: int) -> AttentionCall:
    """Scores as if the `kept` keys, (key,), stood right before the window.

    A query's place in the cache is its position less its `excess`, (query,), which only changes its distance to the
    kept keys. So kept keys meet a query turned back by the difference, all others the query as it is; with twice the
    width, one product of queries and keys does both.
    """
    cos, sin = (part.to(call.query.device) for part in rotations(model, excess, layer))
    turned = rotary(model).turn(call.query, cos, -sin)
    kept = kept.to(call.key)[:, None]
    query = torch.cat([call.query, turned], dim=-1)
    key = torch.cat([call.key * (1 - kept), call.key * kept], dim=-1)
    return replace(call, query=query, key=key)


def _heavy(call: AttentionCall, policy: Policy, shared: int = 1) -> AttentionCall:
    """Heavy hitters for each key head, chosen from what is in its cache and never taken back: the keys that its query
    heads, `shared` in number, attended to most together.

    A choice is made for the queries until the next one: among the tokens chosen before and those that will leave the
    window by then, so that up to `HEAVY_CHUNK` - 1 of the chosen are still in the window too.
    """
    base = explicit_mask(call)
    length = call.key.shape[2]
    recent = policy.window // 2
    room = policy.window - recent
    # Whatever leaves the window must have been in it at a choice.
    every = min(HEAVY_CHUNK, recent)
    batch, heads = call.query.shape[:2]
    device = call.key.device
    kept = torch.zeros(batch, heads, length, dtype=torch.bool, device=device)
    total = torch.zeros(batch, heads, length, device=device)
    position = torch.arange(length, device=device)
    rows = []
    for start in range(0, length, every):
        stop = min(start + every, length)
        query = torch.arange(start, stop, device=device)[:, None]
        near = (position <= query) & (position > query - recent)
        may = near[None, None] | (kept[:, :, None] & (position <= query))
        part = base[:, :, start:stop] if base.shape[2] > 1 else base
        mask = without(part, ~may)
        rows.append(mask.expand(batch, heads, stop - start, length))
        logits = plain_scores(replace(call, query=call.query[:, :, start:stop], mask=mask, causal=False))
        sink = call.sink_logits
        if sink is not None and sink.shape[2] > 1:
            sink = sink[:, :, start:stop]
        weights = (logits - log_sum_exp(logits, sink)[..., None]).exp().nan_to_num().sum(2)  # (text, query head, key)
        total += weights.unflatten(1, (-1, shared)).sum(2).repeat_interleave(shared, dim=1)
        leaving = (position >= stop - recent) & (position < stop - recent + every)
        candidates = total.masked_fill(~(kept | leaving), -1.0)
        best = candidates.topk(min(room, length), dim=-1)
        kept = torch.zeros_like(kept).scatter_(2, best.indices, best.values >= 0)
    return replace(call, mask=torch.cat(rows, dim=2), causal=False)
