"""How far predictions at the end of a text move after a small change before it, with the sink as it is or not."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from firsttoken.claims.robustness.changes import TAIL, Pairs, noisy_embeddings
from firsttoken.errors import FirstTokenError
from firsttoken.measures.ablations import Means, intervened
from firsttoken.models import LanguageModel
from firsttoken.models.out_of_memory import explain_out_of_memory
from firsttoken.probe import probe
from firsttoken.probe.interventions import in_every_layer, weaken_key
from firsttoken.probe.losses import logits_at, predict
from firsttoken.progress import tracked

SINK_ARMS: dict[str, str] = {
    "intact": "as it is",
    "weakened": "odds of attending to the first token lowered",
    "forbidden": "attention to the first token forbidden",
    "no sink": "its residual held at the mean, so that no sink forms",
}
BATCH = 8  # texts that run at once; their logits are large where the vocabulary is


@dataclass(frozen=True)
class Sensitivity:
    """What an arm does to texts and their changes."""

    shifts: dict[str, Tensor]  # by kind of change, (text,): divergence at the last TAIL tokens, NaN without a change
    loss: Tensor  # (text,), nats per token of the whole text, before anything is changed


def sink_arm(lm: LanguageModel, arm: str, means: Means | None, nats: float) -> AbstractContextManager[object]:
    """The model with its sink as it is, weakened by `nats`, or gone."""
    if arm == "intact":
        return intervened(lm, "intact")
    if arm == "weakened":
        return probe(lm.model, keys=[0], hook=in_every_layer(partial(weaken_key, nats=nats)))
    if arm == "forbidden":
        return intervened(lm, "mask")
    if arm == "no sink":
        return intervened(lm, "mean_residual", means)
    raise FirstTokenError(f"There is no arm {arm!r}; there are {', '.join(SINK_ARMS)}.")


def log_probabilities(lm: LanguageModel, rows: Sequence[Tensor]) -> list[Tensor]:
    """Of the next token, at the last TAIL tokens of each text: (TAIL, vocabulary), float32, on the CPU.

    Args:
        rows: (token,) each, text tokens without BOS; texts of equal length run together.
    """
    of_row: dict[int, Tensor] = {}
    for length in tracked({len(row) for row in rows}):
        of_length = [n for n, row in enumerate(rows) if len(row) == length]
        for start in tracked(range(0, len(of_length), BATCH)):
            batch = of_length[start : start + BATCH]
            predicted = at_end(lm, torch.stack([rows[n] for n in batch]))
            of_row |= dict(zip(batch, predicted, strict=True))
    return [of_row[n] for n in range(len(rows))]


def at_end(lm: LanguageModel, rows: Tensor) -> Tensor:
    """Log-probabilities at the last TAIL tokens, (row, TAIL, vocabulary), of rows (row, token) without BOS."""
    given = with_prefix(lm, rows)
    with torch.inference_mode(), explain_out_of_memory("use a smaller model or another device"):
        logits = logits_at(lm, given, torch.arange(given.shape[1] - TAIL, given.shape[1]))
        return torch.log_softmax(logits, dim=-1).cpu()


def divergence(before: Tensor, after: Tensor) -> Tensor:
    """Mean over positions of the Kullback-Leibler divergence of what is predicted after a change from what was
    predicted before, in nats, from log-probabilities (..., position, vocabulary)."""
    return (before.exp() * (before - after)).sum(-1).mean(-1)


def losses(lm: LanguageModel, ids: Tensor) -> Tensor:
    """Nats per token of every text (text, token) without BOS, under whatever surrounds this call: (text,)."""
    rows = with_prefix(lm, ids)
    with torch.inference_mode(), explain_out_of_memory("use a smaller model or another device"):
        return predict(lm, rows, torch.arange(1, rows.shape[1] - 1), rows.numel(), top=1).loss.double().mean(1).cpu()


def with_prefix(lm: LanguageModel, ids: Tensor) -> Tensor:
    """Texts (text, token) with what the tokenizer puts before them, on the model's device."""
    prefix = torch.tensor(lm.prefix("auto"), dtype=torch.int64)
    return torch.cat([prefix.expand(len(ids), -1), ids], dim=1).to(lm.model.device)


def sensitivity(lm: LanguageModel, ids: Tensor, pairs: Pairs, seed: int) -> Sensitivity:
    """How far predictions move after each change, under whatever surrounds this call.

    Args:
        ids: (text, token), text tokens without BOS.
        seed: of the noise on embeddings.
    """
    # Most pairs begin with the text as it is, so that each is run once and not once for every kind.
    given = [pair for of_kind in pairs.values() for pair in of_kind if pair is not None]
    befores = {key(row): row for row, _ in given}
    clean = dict(zip(befores, log_probabilities(lm, list(befores.values())), strict=True))
    shifts: dict[str, Tensor] = {}
    for kind, of_kind in tracked(pairs.items()):
        there = [(text, pair) for text, pair in enumerate(of_kind) if pair is not None]
        with noisy_embeddings(lm, seed) if kind == "noise" else nullcontext():
            moved = log_probabilities(lm, [after for _, (_, after) in there])
        shifts[kind] = torch.full((len(ids),), torch.nan, dtype=torch.float64)
        for (text, (before, _)), after in zip(there, moved, strict=True):
            shifts[kind][text] = divergence(clean[key(before)], after)
    return Sensitivity(shifts, losses(lm, ids))


def key(row: Tensor) -> tuple[int, ...]:
    """A text as a key of a dictionary."""
    return tuple(row.tolist())
