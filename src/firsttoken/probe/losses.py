"""Next-token losses and predictions of a model at chosen positions, with or without interventions in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from firsttoken.errors import FirstTokenError
from firsttoken.models import LanguageModel
from firsttoken.models.out_of_memory import explain_out_of_memory
from firsttoken.probe.attention_probe import probe
from firsttoken.probe.forward import in_batches
from firsttoken.probe.interventions import Hook
from firsttoken.progress import tracked

TOP = 5
ROWS = 8  # of logits at a time


@dataclass(frozen=True)
class Predictions:
    """What a model predicts at some queries; position q predicts token q + 1."""

    loss: Tensor  # (text, query), nats
    top: Tensor  # (text, query, top), the most likely tokens, the likeliest first


def mean_losses(
    lm: LanguageModel, ids: Tensor, queries: Tensor, batch_tokens: int, hook: Hook | None = None
) -> Tensor:
    """Mean loss of each text over the given queries, with every attention call changed by `hook`: (text,), float64."""
    losses = []
    with explain_out_of_memory(f"lower batch_tokens (now {batch_tokens}) or length (now {ids.shape[1]})"):
        for batch in tracked(in_batches(ids, batch_tokens)):
            with probe(lm.model, hook=hook):
                losses.append(predict(lm, batch, queries, batch_tokens, top=0).loss)
    return torch.cat(losses).double().mean(1)


def logits_at(lm: LanguageModel, ids: Tensor, queries: Tensor) -> Tensor:
    """Logits over the vocabulary at the given queries of each text: (text, query, vocabulary), float32."""
    # Only these rows of the largest matrix of a small model are computed. A model on several devices moves the tensors
    # that it is given to the first, and its last hidden states lie on the last; numbers lie on none.
    kept = queries.tolist() if lm.device_map else queries.to(lm.model.device)
    out = lm.model(ids.to(lm.model.device), use_cache=False, logits_to_keep=kept)
    if out.logits.shape[1] != len(queries):
        raise FirstTokenError(f"{lm.name} cannot compute logits at chosen positions, which this measurement needs.")
    return out.logits.float()


def token_losses(logits: Tensor, goal: Tensor) -> Tensor:
    """-log p of the goals, in nats, each row of logits by itself.

    A few rows at a time: copies of all logits would cost more than the sums, where a vocabulary is large.

    Args:
        logits: (..., vocabulary), float32.
        goal: (...), token numbers.
    """
    rows = zip(logits.flatten(0, -2).split(ROWS), goal.flatten().split(ROWS), strict=True)
    return torch.cat([surprise(part, wanted) for part, wanted in rows]).view(goal.shape)


def surprise(logits: Tensor, goal: Tensor) -> Tensor:
    """The same of all rows at once, for logits of which there may be copies."""
    return logits.logsumexp(-1) - logits.gather(-1, goal[..., None])[..., 0]


def predict(
    lm: LanguageModel, ids: Tensor, queries: Sequence[int] | Tensor, batch_tokens: int = 1024, top: int = TOP
) -> Predictions:
    """Losses and likeliest tokens at the given queries.

    Args:
        ids: (text, token), without padding.
        queries: positions, each with a token after it.
        batch_tokens: how many logits exist at once; bounds memory and changes no number.
        top: how many likeliest tokens to find.
    """
    queries = torch.as_tensor(queries)
    if len(queries) == 0 or queries.max() >= ids.shape[1] - 1:
        raise FirstTokenError(f"A loss needs a token after each query; a text of {ids.shape[1]} tokens is too short.")
    rows = max(1, batch_tokens // len(queries))
    losses, tops = [], []
    with torch.inference_mode(), explain_out_of_memory(f"lower batch_tokens (now {batch_tokens}) or length"):
        for batch in ids.split(rows):
            logits = logits_at(lm, batch, queries)
            goal = batch[:, queries + 1].to(logits.device)
            losses.append(token_losses(logits, goal).cpu())
            tops.append(logits.topk(top, dim=-1).indices.cpu())
    return Predictions(torch.cat(losses), torch.cat(tops))
