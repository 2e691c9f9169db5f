"""Damage that leaves the sink alone, to be held against a weakened sink that costs as much loss.

All scores but those for the first token, for the query's own and for the changed tokens are disturbed, while each
query's attention to the first token stays what it is when the untouched model reads the same input; see
`measures.score_changes`. One batch holds an input and a copy for each control: the first row is the untouched model,
from which the copies have the attention that they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from math import exp
from typing import Any, Literal

import torch
from torch import Tensor

from firsttoken.claims.robustness.changes import Pairs, noisy_embeddings, touched
from firsttoken.claims.robustness.sensitivity import Sensitivity, at_end, divergence, key, losses
from firsttoken.measures.score_changes import add_noise, first_mass, noise, sharpen
from firsttoken.models import LanguageModel
from firsttoken.probe import probe
from firsttoken.probe.attention import AttentionCall, additive
from firsttoken.probe.interventions import explicit_mask
from firsttoken.progress import tracked

Kind = Literal["noise", "sharpened"]


@dataclass(frozen=True, kw_only=True)
class Control:
    """One disturbance: `noise` of `strength` nats on scores, or scores times exp(`strength`), with their sum held."""

    kind: Kind
    strength: float
    seed: int = 0  # of noise


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Texts, their changes, and what no control may disturb.

    Attributes:
        ids: (text, token), without BOS.
        protected: (text, key), counted from the end of the text: true at keys that some change touches.
        seed: of the noise on embeddings.
    """

    ids: Tensor
    pairs: Pairs
    protected: Tensor
    seed: int

    @classmethod
    def of(cls, lm: LanguageModel, ids: Tensor, pairs: Pairs, seed: int) -> Inputs:
        """With the changed tokens of every kind protected."""
        of_text = [[of_kind[text] for of_kind in pairs.values()] for text in range(len(ids))]
        given = [[pair for pair in some if pair is not None] for some in of_text]
        longest = max(len(row) for some in given for pair in some for row in pair) + len(lm.prefix("auto"))
        protected = torch.zeros(len(ids), longest, dtype=torch.bool)
        for text, some in enumerate(given):
            for pair in some:
                protected[text, touched(pair)] = True
        return cls(ids=ids, pairs=pairs, protected=protected, seed=seed)


def controlled(
    lm: LanguageModel, text: int, inputs: Inputs, controls: Sequence[Control]
) -> AbstractContextManager[object]:
    """Inside, of a batch of equal rows the first is read by the untouched model, each other one under a control.

    Args:
        text: its number, by which noise is the same before a change and after.
    """
    protected = inputs.protected[text]

    def hook(module: Any, call: AttentionCall) -> AttentionCall:
        untouched = _row(call, 0)
        mass = first_mass(untouched)
        heads, queries = call.query.shape[1:3]
        masks = [additive(explicit_mask(untouched)).expand(1, heads, queries, -1)]
        some = protected[None, len(protected) - call.key.shape[2] :]
        for number, control in enumerate(controls, 1):
            copy = _row(call, number)
            if control.kind == "noise":
                z = _noise(control.seed, text, module.layer_idx, heads, len(protected))[None, :, -queries:, -queries:]
                disturbed = add_noise(copy, control.strength, z, some, mass)
            else:
                disturbed = sharpen(copy, exp(control.strength), some, mass)
            masks.append(disturbed.mask)  # type: ignore[arg-type]
        return replace(call, mask=torch.cat(masks), causal=False)

    return probe(lm.model, keys=[0], hook=hook)


def _row(call: AttentionCall, number: int) -> AttentionCall:
    """One row of a batch."""

    def of(tensor: Tensor | None) -> Tensor | None:
        return tensor if tensor is None or len(tensor) == 1 else tensor[number : number + 1]

    one = slice(number, number + 1)
    return replace(
        call, query=call.query[one], key=call.key[one], value=call.value[one], mask=of(call.mask),
        sink_logits=of(call.sink_logits),
    )  # fmt: skip


@lru_cache(maxsize=512)
def _noise(seed: int, text: int, layer: int, heads: int, length: int) -> Tensor:
    return noise(seed, text, layer, heads, length)


def rise(lm: LanguageModel, inputs: Inputs, control: Control) -> float:
    """How much a control adds to the loss of the texts, in nats."""
    added = []
    for text, row in tracked(list(enumerate(inputs.ids))):
        with controlled(lm, text, inputs, [control]):
            before, after = losses(lm, row.expand(2, -1))
        added.append(float(after - before))
    return sum(added) / len(added)


def under(lm: LanguageModel, inputs: Inputs, controls: Sequence[Control]) -> list[Sensitivity]:
    """How far predictions move after each change, under each of several controls."""
    rows, passages = 1 + len(controls), len(inputs.ids)
    shifts = {kind: torch.full((len(controls), passages), torch.nan, dtype=torch.float64) for kind in inputs.pairs}
    loss = torch.zeros(len(controls), passages, dtype=torch.float64)
    for text, row in tracked(list(enumerate(inputs.ids))):
        given = {kind: pair for kind, of_kind in inputs.pairs.items() if (pair := of_kind[text]) is not None}
        with controlled(lm, text, inputs, controls):
            loss[:, text] = losses(lm, row.expand(rows, -1))[1:]
            # Most kinds begin with the text as it is.
            befores = {key(before): before for before, _ in given.values()}
            clean = {name: at_end(lm, before.expand(rows, -1))[1:] for name, before in befores.items()}
            for kind, (before, after) in given.items():
                with noisy_embeddings(lm, inputs.seed) if kind == "noise" else nullcontext():
                    moved = at_end(lm, after.expand(rows, -1))[1:]
                shifts[kind][:, text] = divergence(clean[key(before)], moved).double()
    return [
        Sensitivity({kind: shifts[kind][number] for kind in shifts}, loss[number]) for number in range(len(controls))
    ]


def pooled(some: Sequence[Sensitivity]) -> Sensitivity:
    """The mean over seeds."""
    kinds = some[0].shifts
    return Sensitivity(
        {kind: torch.stack([one.shifts[kind] for one in some]).mean(0) for kind in kinds},
        torch.stack([one.loss for one in some]).mean(0),
    )
