"""How much attention each head gives to the first token: resident, streamed from disk, or over several processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from firsttoken.execution.check import answers_for_prefixes
from firsttoken.execution.choose import choose
from firsttoken.execution.streaming import StreamedModel
from firsttoken.execution.tensor_parallel import gather_heads, sharded_model
from firsttoken.files import cache_folder
from firsttoken.measures import sinks
from firsttoken.models import LanguageModel
from firsttoken.models.out_of_memory import explain_out_of_memory
from firsttoken.probe import probe
from firsttoken.probe.forward import in_batches, run_decoder
from firsttoken.progress import tracked

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def alphas(lm: LanguageModel, ids: Tensor, batch_tokens: int = 4096, execution: str = "auto") -> Tensor:
    """Attention to the first token of every head of a model, averaged over queries.

    Args:
        ids: (text, token), without padding.
        batch_tokens: how many tokens run at once.
        execution: `resident`, `streamed`, `tensor_parallel`, or `auto`: see `execution.choose`.

    Returns:
        alpha  # (text, layer, head), float32, on the CPU
    """
    return alphas_of_prefixes(lm, ids, [ids.shape[1]], batch_tokens, execution)[ids.shape[1]]


def alphas_of_prefixes(
    lm: LanguageModel, ids: Tensor, lengths: Sequence[int], batch_tokens: int = 4096, execution: str = "auto"
) -> dict[int, Tensor]:
    """The same for the first T tokens of each text, for several T from one forward pass.

    Where attention is causal, the rows of a short input are the first rows of a long one. Encoders and models whose
    rotary embeddings depend on the length of the text (longrope, dynamic NTK) run once for each T instead.

    Returns:
        {T: alpha}  # each (text, layer, head)
    """
    longest = ids.shape[1]
    if set(lengths) != {longest} and not answers_for_prefixes(lm, longest, execution):
        return {length: alphas(lm, ids[:, :length], batch_tokens, execution) for length in lengths}
    way = choose(lm, execution)
    with torch.inference_mode(), explain_out_of_memory(_remedy(ids, batch_tokens)):
        if way == "streamed":
            return _streamed(lm, ids, lengths, batch_tokens)
        if way == "tensor_parallel":
            heads = lm.config.get_text_config().num_attention_heads
            shares = _resident(sharded_model(lm), ids, lengths, batch_tokens)
            return {length: gather_heads(share, heads) for length, share in shares.items()}
        return _resident(lm.model, ids, lengths, batch_tokens)


def by_query(lm: LanguageModel, ids: Tensor, batch_tokens: int = 2048) -> Tensor:
    """Attention of every query to the first token, of a model in memory.

    Args:
        ids: (text, token), without padding.

    Returns:
        attention  # (text, layer, head, query), float32, on the CPU
    """
    with torch.inference_mode(), explain_out_of_memory(_remedy(ids, batch_tokens)):
        return torch.cat([seen.transpose(0, 1).cpu() for seen in _batches(lm.model, ids, batch_tokens)])


def _remedy(ids: Tensor, batch_tokens: int) -> str:
    return f"lower batch_tokens (now {batch_tokens}) or length (now {ids.shape[1]}), or use dtype='bfloat16'"


def _batches(model: PreTrainedModel, ids: Tensor, batch_tokens: int) -> Iterator[Tensor]:
    """Of each batch, (layer, text, head, query)."""
    for batch in tracked(in_batches(ids, batch_tokens)):
        with probe(model, keys=[0]) as p:
            run_decoder(model, batch)
        yield p.attention


def _resident(model: PreTrainedModel, ids: Tensor, lengths: Sequence[int], batch_tokens: int) -> dict[int, Tensor]:
    alphas_of: dict[int, list[Tensor]] = {length: [] for length in lengths}
    for attention in _batches(model, ids, batch_tokens):
        for length in lengths:
            alphas_of[length].append(sinks.first_token_attention(attention[..., :length]).cpu())
    return {length: torch.cat(parts) for length, parts in alphas_of.items()}


def _streamed(lm: LanguageModel, ids: Tensor, lengths: Sequence[int], batch_tokens: int) -> dict[int, Tensor]:
    streamed = StreamedModel(lm)
    with probe(streamed.model, keys=[0]) as p:

        def observe(layer: int, hidden: Tensor) -> Tensor | None:
            """(row, head, length); None for a layer without attention."""
            seen = p.per_layer().get(layer)  # (row, head, query, 1)
            if seen is None:
                return None
            attention = seen[None, ..., 0]
            return torch.stack([sinks.first_token_attention(attention[..., :n])[:, 0] for n in lengths], dim=-1)

        task = f"first-token attention at {list(lengths)}"
        work = cache_folder() / "streaming"
        out = streamed.run(ids, observe, batch_tokens=batch_tokens, work=work, task=task)
    layers = [out.observed[layer] for layer in sorted(out.observed)]
    together = torch.stack(layers, dim=1)  # (text, layer, head, length)
    return {length: together[..., i].contiguous() for i, length in enumerate(lengths)}
