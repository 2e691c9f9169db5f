"""More or less of a sink without touching the input: changes to scores, and controls that leave key 0 alone.

In every head, with s_jk the score of query j for key k and a_j the attention of query j to key 0:

    dose      s_j0 + c for every query but the one at key 0: the odds of attending to key 0 change by exp(c)
    noise     s_jk + sigma * z_jk on ordinary keys, while a_j stays what it is in the untouched model
    sharpen   ordinary scores times beta, while a_j and the share of all ordinary keys together stay

*Ordinary* keys are all but key 0, the query's own, and the protected ones, those whose token is edited. Each change
is a pure function of an `AttentionCall`; `z` depends on seed, text and layer alone, so it is the same for a text
before and after an edit.

For fixed inputs a dose that takes a to a' multiplies what every other key contributes by (1 - a') / (1 - a).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Mapping
from dataclasses import replace
from math import exp, log
from typing import Any, TypeVar

import torch
from torch import Tensor

from firsttoken.measures.spread import Batch
from firsttoken.probe.attention import AttentionCall, additive, log_sum_exp, plain_scores
from firsttoken.probe.interventions import Hook, explicit_mask

Change = Callable[[Batch], Hook]
# A float32 mass this close to one has an infinite log-odds in none of the roundings.
ALMOST_ONE = 1 - 2.0**-24


# -- pure functions of a call -------------------------------------------------------------------------------


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


# -- the same for the batches of a run ----------------------------------------------------------------------


class Masses:
    """Attention to key 0 in a run of the untouched model, for controls on the same batches to hold."""

    def __init__(self) -> None:
        self._of: dict[tuple[int, int], Tensor] = {}

    def note(self, batch: Batch) -> Hook:
        """A hook that changes nothing and remembers."""

        def hook(module: Any, call: AttentionCall) -> AttentionCall:
            self._of[batch.number, module.layer_idx] = first_mass(call)
            return call

        return hook

    def at(self, batch: Batch, layer: int) -> Tensor:
        """(row, head, query)."""
        return self._of[batch.number, layer]


def dosed(nats: float, keys: Tensor) -> Change:
    """Raise the score of one key of each text, (text,), in every layer and head."""

    def change(batch: Batch) -> Hook:
        of_row = keys[list(batch.text_of_row)]
        return lambda module, call: add_to_key(call, nats, of_row)

    return change


def noisy(sigma: float, seed: int, protected: Tensor, masses: Masses) -> Change:
    """`add_noise` in every layer.

    Args:
        protected: (text, key).
        masses: from the same batches.
    """

    def change(batch: Batch) -> Hook:
        def hook(module: Any, call: AttentionCall) -> AttentionCall:
            layer, heads, length = module.layer_idx, call.query.shape[1], call.key.shape[2]
            of_text = {text: noise(seed, text, layer, heads, length) for text in set(batch.text_of_row)}
            z = torch.stack([of_text[text] for text in batch.text_of_row])
            return add_noise(call, sigma, z, protected[list(batch.text_of_row)], masses.at(batch, layer))

        return hook

    return change


def sharpened(beta: float, protected: Tensor, masses: Masses) -> Change:
    """`sharpen` in every layer; arguments as for `noisy`."""

    def change(batch: Batch) -> Hook:
        of_row = protected[list(batch.text_of_row)]
        return lambda module, call: sharpen(call, beta, of_row, masses.at(batch, module.layer_idx))

    return change


Kind = TypeVar("Kind", bound=Hashable)


def matching_strength(
    rise: Callable[[float], float], target: float, start: float, *, tolerance: float = 0.02, tries: int = 10
) -> float:
    """The strength at which a loss rises by `target`: doubled or halved until the target is enclosed, then bisected.

    Bisection is of the logarithm, at the place where a straight line between the ends of log rise would put it, kept
    off the ends: rises grow about as a power of the strength, so this takes three or four tries.

    Args:
        rise: strength -> how much the loss rises.
        tries: how often `rise` is called at most; the strength that came nearest is returned then.

    Returns:
        strength  # 0 for a target that is not above 0, which no damage can match
    """
    only = matching_strengths(lambda at: {0: rise(at[0])}, target, {0: start}, tolerance=tolerance, tries=tries)
    return only[0]


def matching_strengths(
    rises: Callable[[dict[Kind, float]], Mapping[Kind, float]],
    target: float,
    starts: Mapping[Kind, float],
    *,
    tolerance: float = 0.02,
    tries: int = 10,
) -> dict[Kind, float]:
    """`matching_strength` of several kinds of damage, which are tried together, so that they can share a pass.

    Args:
        rises: strength of each kind that is still sought -> how much the loss rises under each.
    """
    seeks = {kind: _seek(target, start, tolerance, tries) for kind, start in starts.items()}
    strengths: dict[Kind, float] = {}
    here: Mapping[Kind, float] = {}
    while seeks:
        wanted: dict[Kind, float] = {}
        for kind, seek in list(seeks.items()):
            try:
                wanted[kind] = seek.send(here[kind]) if kind in here else next(seek)
            except StopIteration as end:
                strengths[kind] = end.value
                del seeks[kind]
        here = rises(wanted) if wanted else {}
    return {kind: strengths[kind] for kind in starts}


def _seek(target: float, start: float, tolerance: float, tries: int) -> Generator[float, float, float]:
    """Yields the strength to try next and is sent the rise there; returns the strength that matches."""
    if target <= 0:
        return 0.0
    low: tuple[float, float] | None = None  # strength, rise
    high: tuple[float, float] | None = None
    strength, nearest = start, (start, float("inf"))
    for _ in range(tries):
        here = yield strength
        if abs(here - target) < nearest[1]:
            nearest = strength, abs(here - target)
        if abs(here - target) <= tolerance * target:
            break
        if here < target:
            low = strength, here
        else:
            high = strength, here
        if low is None or high is None:
            strength *= 2 if high is None else 0.5
            continue
        share = 0.5
        if low[1] > 0:
            share = min(max(log(target / low[1]) / log(high[1] / low[1]), 0.1), 0.9)
        strength = exp(log(low[0]) + share * (log(high[0]) - log(low[0])))
    return nearest[0]
