"""What a model of some design shows besides its loss and its sink: mixing, rows, large activations, time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from firsttoken import statistics
from firsttoken.estimates import JSON
from firsttoken.measures.spread import distances, spread
from firsttoken.pretraining.budgets import Budget
from firsttoken.pretraining.checkpoint_probe import behind_bos, evaluating
from firsttoken.pretraining.designs import build, watched
from firsttoken.pretraining.run_spec import bf16_pays
from firsttoken.pretraining.step_times import over_first
from firsttoken.probe.forward import in_batches
from firsttoken.probe.residual_stream import residual_stream

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

EDITS = 4  # of each text, one token each


def outcomes(model: LlamaForCausalLM, texts: Tensor, seed: int = 0, batch_tokens: int = 16_384) -> JSON:
    """One trained model on held-out texts (text, token) that BOS precedes.

    Returns:
        `spread_over_own`: how far one replaced token moves the later ones, over how far it moves itself: relative
        distances of the residual stream, means over layers 1 to L, sums over all edits;
        `row_sum`: what the attention of a query adds up to;
        `largest_activation`: of the residual stream, over its median size, in the layer where that is largest.
        All but the last with intervals over texts.
    """
    random = torch.Generator().manual_seed(seed)
    rows = behind_bos(texts)

    def stream(ids: Tensor) -> Tensor:
        return residual_stream(model, ids)[1:].cpu()  # (layer, text, token, width), behind each layer

    pairs: list[Tensor] = []
    sums: list[Tensor] = []
    largest = torch.zeros(())
    with evaluating(model), torch.inference_mode():
        for batch in in_batches(rows, batch_tokens):
            with watched(model) as (attention, _):
                before = stream(batch)
            sums.append(torch.stack([each.sum(-1).mean((1, 2)) for each in attention], dim=1).mean(1))
            sizes = before.abs().flatten(1)  # (layer, text x token x width)
            largest = torch.maximum(largest, (sizes.amax(1) / sizes.median(1).values).max())
            of_batch = torch.zeros(len(batch), 2)
            for _ in range(EDITS):
                of_batch += spread_and_own(stream, batch, before, rows, random)
            pairs.append(of_batch)
    return {
        "spread_over_own": asdict(statistics.ratio_of_sums(torch.cat(pairs), seed=seed)),
        "row_sum": asdict(statistics.bootstrap(torch.cat(sums), seed=seed)),
        "largest_activation": round(float(largest), 2),
    }


def spread_and_own(
    stream: Callable[[Tensor], Tensor], batch: Tensor, before: Tensor, others: Tensor, random: torch.Generator
) -> Tensor:
    """How far one replaced token of each text moves the later ones, and how far it moves itself: relative distances,
    means over layers, (text, 2). Never the first token, and never the last, which has none behind it.

    Args:
        stream: gives the residual streams (layer, text, token, width) of texts (text, token).
        batch, before: the texts as they are, and their streams.
        others: what tokens are drawn from, see `replaced`.
    """
    position = torch.randint(1, batch.shape[1] - 1, (len(batch),), generator=random)
    after = stream(replaced(batch, position, others, random))
    relative = distances(before, after)[1].transpose(0, 1)  # (text, layer, token)
    own = relative[torch.arange(len(batch)), :, position]
    return torch.stack([spread(relative, position).mean(1), own.mean(1)], dim=1)


def replaced(batch: Tensor, position: Tensor, others: Tensor, random: torch.Generator) -> Tensor:
    """Copies of texts (text, token) with another token at one position of each, drawn from all tokens of `others` but
    the first of each text, until it is another."""
    pool = others[:, 1:].flatten()
    rows = torch.arange(len(batch))
    edited = batch.clone()
    while (same := edited[rows, position] == batch[rows, position]).any():
        drawn = pool[torch.randint(len(pool), (int(same.sum()),), generator=random)]
        edited[rows[same], position[same]] = drawn
    return edited


def step_times(settings: Budget, names: Sequence[str], threads: int, rounds: int = 12) -> JSON:
    """How long a training step of each design takes, over that of the first: forward and backward pass of a step of
    the budget on random tokens; with an interval over rounds (see `step_times.over_first`)."""
    ids = torch.randint(settings.corpus.vocabulary, (settings.tokens_per_step // settings.length, settings.length))

    def step(model: LlamaForCausalLM) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16_pays()):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        model.zero_grad()

    models = {name: build(settings.config(settings.length), name) for name in names}
    return over_first({name: partial(step, model) for name, model in models.items()}, threads, rounds)
