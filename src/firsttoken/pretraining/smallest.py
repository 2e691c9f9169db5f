"""The smallest model with a sink: one layer, one head, an MLP. `Smallest` is the whole of it.

Four other forms of attention can take the place of softmax, each of which lets a head do nothing without a sink:

- `gate`: the head's output is multiplied by sigmoid(x W), element by element (arXiv 2505.06708).
- `sink_logit`: a learned logit takes part in the softmax and has no value (as in gpt-oss).
- `off_by_one`: the same with that logit fixed at 0: exp(s) / (1 + sum of exp(s)).
- `sigmoid`: each weight is sigmoid(s), and a row adds up to whatever it likes (arXiv 2410.10781).

Three change the block around it, which has softmax attention otherwise:

- `two_heads`: two plain heads of half the width each, what the next one is compared with.
- `split_heads`: the first of two such heads has a learned sink logit, the second is plain.
- `depth_gate`: what the block adds to a token is multiplied by sigmoid(w x + b), its depth, before attention and MLP.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from firsttoken.errors import FirstTokenError

Attention = Literal["softmax", "gate", "sink_logit", "off_by_one", "sigmoid"]
Block = Literal["two_heads", "split_heads", "depth_gate"]
Variant = Attention | Block
ATTENTIONS: tuple[Attention, ...] = get_args(Attention)
BLOCKS: tuple[Block, ...] = get_args(Block)
VARIANTS: tuple[Variant, ...] = (*ATTENTIONS, *BLOCKS)


class Reading(NamedTuple):
    """What a model makes of some texts."""

    logits: Tensor  # (text, token, vocabulary)
    attention: Tensor  # (text, head, query, key)
    value: Tensor  # (text, head, token, value_dim), before attention and the output matrix
    depth: Tensor  # (text, token), the share that a token takes of what the block adds; 1 without a gate
    stream: Tensor  # (text, token, width), the residual stream behind the block


def weights(scores: Tensor, variant: Variant = "softmax", sink_logit: Tensor | None = None) -> Tensor:
    """Attention weights from scores, (..., query, key) both; a key after its query gets none.

    Args:
        scores: before the causal mask.
        sink_logit: one number for each head, (...), minus infinity for none; for `sink_logit` and `split_heads` only.
    """
    length = scores.shape[-1]
    future = torch.ones(length, length, dtype=torch.bool, device=scores.device).triu(1)
    if variant == "sigmoid":
        return scores.sigmoid().masked_fill(future, 0)
    scores = scores.masked_fill(future, -torch.inf)
    if variant not in ("sink_logit", "off_by_one", "split_heads"):
        return scores.softmax(-1)
    extra = torch.zeros_like(scores[..., :1])
    if sink_logit is not None:
        extra = extra + sink_logit[..., None, None]
    return torch.cat([extra, scores], dim=-1).softmax(-1)[..., 1:]


class Smallest(nn.Module):
    """One pre-norm transformer block between an embedding with learned positions and a linear layer."""

    def __init__(self, vocabulary: int, length: int, width: int = 64, variant: Variant = "softmax") -> None:
        if variant not in VARIANTS:
            raise FirstTokenError(f"There is no variant {variant!r} of attention; there are {', '.join(VARIANTS)}.")
        super().__init__()
        self.variant: Variant = variant
        self.token = nn.Embedding(vocabulary, width)
        self.place = nn.Embedding(length, width)
        self.before_head, self.before_mlp, self.before_logits = (nn.RMSNorm(width, eps=1e-6) for _ in range(3))
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate = nn.Linear(width, width) if variant == "gate" else None
        self.sink_logit = nn.Parameter(torch.zeros(())) if variant in ("sink_logit", "split_heads") else None
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.logits = nn.Linear(width, vocabulary, bias=False)
        self.depth = nn.Linear(width, 1) if variant == "depth_gate" else None
        self.heads = 2 if variant in ("two_heads", "split_heads") else 1
        for weight in self.parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, std=0.02)

    def forward(self, ids: Tensor) -> Reading:
        """Read texts (text, token)."""
        x = self.token(ids) + self.place.weight[: ids.shape[-1]]
        seen = self.before_head(x)
        depth = torch.ones_like(x[..., :1]) if self.depth is None else self.depth(seen).sigmoid()
        query, key, value = (self._by_head(part(seen)) for part in (self.query, self.key, self.value))
        scores = query @ key.mT / math.sqrt(key.shape[-1])
        attention = weights(scores, self.variant, self._sink_logits())
        mixed = (attention @ value).transpose(-3, -2).flatten(-2)
        if self.gate is not None:
            mixed = mixed * self.gate(seen).sigmoid()
        x = x + depth * self.out(mixed)
        x = x + depth * self.mlp(self.before_mlp(x))
        return Reading(self.logits(self.before_logits(x)), attention, value, depth[..., 0], x)

    def _by_head(self, x: Tensor) -> Tensor:
        """(text, token, width) -> (text, head, token, width / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def _sink_logits(self) -> Tensor | None:
        """One for each head, (head,)."""
        if self.sink_logit is None:
            return None
        none = torch.full_like(self.sink_logit, -torch.inf)
        return torch.stack([self.sink_logit, *[none] * (self.heads - 1)])


def losses(logits: Tensor, ids: Tensor) -> Tensor:
    """Loss of each token from the second on, in nats, at the token that predicts it: (text, token - 1)."""
    flat = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return flat.view(ids.shape[0], -1)
