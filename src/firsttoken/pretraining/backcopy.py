"""The bigram-backcopy task: the smallest text on which a head has something to do now and then, and else nothing.

Text is a random bigram chain over a few symbols, some of which are triggers: after a trigger comes, for certain, the
token that stands before it. A bigram table predicts all the rest, so that a model with one head needs it at triggers
only, and has to rest it somewhere everywhere else (Guo et al., arXiv 2410.13835, section 2).

>>> task = Backcopy(seed=0)
>>> ids = texts(task.cumulative()[None], torch.rand(1, 8, 64), task)[0]  # (text, token), BOS first

The paper's chain has the statistics of Shakespeare's characters, and its triggers are frequent ones. Here each seed
has a chain of its own, and a trigger is a few times as frequent as another symbol, so that the task is soon learnt.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from firsttoken.errors import FirstTokenError

BOS = 0  # symbols are 1, 2, ..., the triggers first


@dataclass(frozen=True, kw_only=True)
class Backcopy:
    """A task: how many symbols, how many of them triggers, and the seed of the chain.

    Without triggers it is a plain bigram chain, on which a head has nothing to do at all. Without `bos` the first
    token is a symbol like any other.
    """

    symbols: int = 64
    triggers: int = 3
    bos: bool = True
    trigger_weight: float = 4.0  # how much likelier a trigger is than another symbol
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.triggers <= self.symbols - 2:
            raise FirstTokenError(
                f"Of {self.symbols} symbols at most {self.symbols - 2} can be triggers, not {self.triggers}: "
                "two at least must be left for the chain."
            )

    @property
    def vocabulary(self) -> int:
        return self.symbols + 1

    def chain(self) -> Tensor:
        """Probability of the next token, (token, next token): each row is uniform on the simplex over all symbols,
        then weighted for triggers.

        Rows of triggers and of BOS go to every symbol but a trigger; those of triggers are never used, since what
        follows a trigger is the token before it. No trigger follows one, so no text is caught in a loop.
        """
        generator = torch.Generator().manual_seed(self.seed)
        rows = torch.empty(self.vocabulary, self.vocabulary, dtype=torch.float64).exponential_(generator=generator)
        rows[:, BOS] = 0
        rows[:, 1 : self.triggers + 1] *= self.trigger_weight
        rows[: self.triggers + 1, : self.triggers + 1] = 0
        return rows / rows.sum(1, keepdim=True)

    def cumulative(self) -> Tensor:
        """Sums of `chain` along each row, from which `texts` draws."""
        return self.chain().cumsum(1)


def is_trigger(ids: Tensor, task: Backcopy) -> Tensor:
    """Which tokens are triggers; bool of the shape of `ids`."""
    return (ids > BOS) & (ids <= task.triggers)


def texts(cumulative: Tensor, uniform: Tensor, task: Backcopy) -> Tensor:
    """Texts of several chains at once, a pure function of random numbers.

    Args:
        cumulative: (chain, token, next token), see `Backcopy.cumulative`.
        uniform: (chain, text, token), in [0, 1).
        task: for its triggers and its BOS; the chain is that of `cumulative`.

    Returns:
        (chain, text, token), int64
    """
    chains, count, length = uniform.shape
    uniform = uniform.to(cumulative.dtype)
    ids = torch.full((chains, count, length + 1), BOS)
    which = torch.arange(chains)[:, None]
    for place in range(1, length + 1):
        before = ids[..., place - 1]
        steps = cumulative[which, before]  # (chain, text, next token)
        drawn = (steps <= uniform[..., place - 1, None]).sum(-1).clamp(max=task.symbols)
        again = ids[..., max(place - 2, 0)]
        ids[..., place] = torch.where(is_trigger(before, task), again, drawn)
    return ids[..., :length] if task.bos else ids[..., 1:]
