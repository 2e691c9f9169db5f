"""Ways to train `Smallest` that say something about the first token: one change each to texts, inputs or loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite

import torch
from torch import Tensor

from firsttoken.errors import FirstTokenError
from firsttoken.pretraining import backcopy
from firsttoken.pretraining.backcopy import BOS, Backcopy


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How training differs from plain training, which is `Recipe()`.

    Attributes:
        lengths: (first step, tokens of a text) of each stage, in order; none: the setting's length throughout. A step
            has as many tokens in every stage.
        first_penalty: added to the loss, times the mean attention to the first token, in nats; below 0 a reward.
        replaced: share of the tokens, BOS aside, that are replaced by a random symbol in what the model reads; what it
            has to predict stays.
        without_bos: share of the texts in which no BOS comes first.
    """

    lengths: tuple[tuple[int, int], ...] = ()
    first_penalty: float = 0.0
    replaced: float = 0.0
    without_bos: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.replaced < 1 or not 0 <= self.without_bos < 1:
            raise FirstTokenError("`replaced` and `without_bos` are shares, from 0 to below 1.")
        if not isfinite(self.first_penalty):
            raise FirstTokenError(f"`first_penalty` is a number of nats, not {self.first_penalty}.")
        if any(length < 1 for _, length in self.lengths):
            raise FirstTokenError("A stage of `lengths` has texts of one token or more.")
        steps = [step for step, _ in self.lengths]
        if self.lengths and (steps[0] != 0 or steps != sorted(set(steps))):
            raise FirstTokenError("The stages of `lengths` begin at step 0 and come one after the other.")

    def length(self, step: int, otherwise: int) -> int:
        """Tokens of a text at a step, from 0."""
        return next((length for first, length in reversed(self.lengths) if first <= step), otherwise)

    def draw(self, chains: Tensor, random: list[torch.Generator], count: int, length: int, task: Backcopy) -> Tensor:
        """Texts of each seed, (seed, text, token); `chains` as in `backcopy.texts`."""
        uniform = _uniform(random, count, length)
        ids = backcopy.texts(chains, uniform, task)
        if not self.without_bos:
            return ids
        bare = backcopy.texts(chains, uniform, replace(task, bos=False))
        return torch.where(_uniform(random, count, 1) < self.without_bos, bare, ids)

    def inputs(self, ids: Tensor, random: list[torch.Generator], task: Backcopy) -> Tensor:
        """What the model reads in place of the texts (seed, text, token)."""
        return replace_tokens(ids, self.replaced, random, task) if self.replaced else ids

    def penalty(self, attention: Tensor) -> Tensor:
        """What is added to the loss of each seed, (seed,); attention is (seed, text, head, query, key)."""
        return self.first_penalty * attention[..., 1:, 0].mean((1, 2, 3))


def replace_tokens(ids: Tensor, share: float, random: list[torch.Generator], task: Backcopy) -> Tensor:
    """Each token but BOS is, with a probability of `share`, replaced by one drawn from all symbols; (seed, text,
    token), with one generator for each seed."""
    count, length = ids.shape[1:]
    chosen = (_uniform(random, count, length) < share) & (ids != BOS)
    drawn = 1 + (_uniform(random, count, length) * task.symbols).long()
    return torch.where(chosen, drawn, ids)


def _uniform(random: list[torch.Generator], count: int, length: int) -> Tensor:
    return torch.stack([torch.rand(count, length, generator=own, dtype=torch.float64) for own in random])
