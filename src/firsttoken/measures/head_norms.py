"""How a head switches itself off: norms of keys, values and of what each head adds to the residual stream.

A head is quiet when its output sum_j A_ij W_O v_j is small. It gets there by attending to a token whose value is
small. Three things are measured for that: ||v_k|| and ||k_k|| of every token, the norm of what each head adds at
every query beside its attention to the first token, and the largest activations of the residual stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from firsttoken.errors import FirstTokenError
from firsttoken.models import LanguageModel
from firsttoken.models.anatomy import Block, attention_blocks, head_outputs, shared_by
from firsttoken.models.out_of_memory import explain_out_of_memory
from firsttoken.probe import probe
from firsttoken.probe.attention import AttentionCall
from firsttoken.probe.forward import in_batches, run_decoder
from firsttoken.probe.residual_stream import watch
from firsttoken.progress import tracked


@dataclass(frozen=True)
class HeadTraces:
    """What heads did on some texts. Norms are Euclidean, in the model's own units; all float32 on the CPU.

    Keys are measured as attention uses them (after rotary embedding, which leaves norms alone, and after the key
    norm of models that have one). One column per key-value head, which several query heads may share.
    """

    attention: Tensor  # (text, layer, head, query), to the first token
    value_norm: Tensor  # (text, layer, kv_head, token)
    key_norm: Tensor  # (text, layer, kv_head, token)
    added_norm: Tensor  # (text, layer, head, query), of what the head adds to the residual stream
    largest: Tensor  # (text, layer, token), max_i |h_i| of the residual stream that the layer reads
    median: Tensor  # (text, layer), median of |h| over tokens and components


def trace_heads(lm: LanguageModel, ids: Tensor, batch_tokens: int = 2048) -> HeadTraces:
    """Run a model over texts and keep the norms.

    Args:
        ids: (text, token), without padding.
        batch_tokens: how many tokens run at once; bounds memory and changes no number.
    """
    blocks = attention_blocks(lm.model)
    remedy = f"lower batch_tokens (now {batch_tokens}) or length (now {ids.shape[1]}), or use dtype='bfloat16'"
    with torch.inference_mode(), explain_out_of_memory(remedy):
        parts = [_trace_batch(lm, batch, blocks) for batch in tracked(in_batches(ids, batch_tokens))]
    return HeadTraces(
        *(torch.cat([getattr(part, name) for part in parts]) for name in HeadTraces.__dataclass_fields__)
    )


def _trace_batch(lm: LanguageModel, ids: Tensor, blocks: Sequence[Block]) -> HeadTraces:
    value_norm: dict[int, Tensor] = {}
    key_norm: dict[int, Tensor] = {}
    added_norm: dict[int, Tensor] = {}
    heads: dict[int, int] = {}
    size: list[Tensor] = []  # |h| that each layer reads

    def hook(module: Any, call: AttentionCall) -> AttentionCall:
        layer = module.layer_idx
        heads[layer] = call.query.shape[1]
        # Keys and values come repeated for grouped queries; every `groups`-th is one key-value head.
        groups = shared_by(module)
        value_norm[layer] = call.value[:, ::groups].float().norm(dim=-1)
        key_norm[layer] = call.key[:, ::groups].float().norm(dim=-1)
        return call

    def watch_head_outputs(block: Block) -> Any:
        def see(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if block.index not in heads:
                return  # no attention layer: a state that is read by queries has an output projection too
            outputs = head_outputs(block, inputs[0], output, heads[block.index])
            added_norm[block.index] = outputs.norm(dim=-1).transpose(1, 2)

        return block.output.register_forward_hook(see)

    with ExitStack() as stack:
        for block in blocks:
            stack.callback(watch_head_outputs(block).remove)
        p = stack.enter_context(probe(lm.model, keys=[0], hook=hook))
        # What leaves the last layer is read by none.
        stack.enter_context(watch(lm.model, lambda layer, v: size.append(v.abs().float())))
        run_decoder(lm.model, ids)
    size.pop()
    if added_norm.keys() != value_norm.keys():
        raise FirstTokenError(
            f"{lm.name} has attention layers whose output projection is not found, so what a head adds cannot be "
            "measured; choose another model."
        )
    return HeadTraces(
        attention=p.attention.transpose(0, 1).cpu(),
        value_norm=_stack(value_norm),
        key_norm=_stack(key_norm),
        added_norm=_stack(added_norm),
        largest=torch.stack([h.amax(-1).cpu() for h in size], dim=1),
        median=torch.stack([h.flatten(1).median(dim=1).values.cpu() for h in size], dim=1),
    )


def _stack(by_layer: dict[int, Tensor]) -> Tensor:
    if len({t.shape for t in by_layer.values()}) > 1:
        raise FirstTokenError("The layers of this model differ in heads, so their norms cannot be put in one table.")
    return torch.stack([by_layer[layer].cpu() for layer in sorted(by_layer)], dim=1)


# -- summaries of traces ------------------------------------------------------------------------------------


def first_over_others(norms: Tensor) -> Tensor:
    """Norm at the first token over the mean norm of the other tokens, of (..., token)."""
    return norms[..., 0] / norms[..., 1:].mean(-1)


def added_by_attention(traces: HeadTraces, edges: Sequence[float], least: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    """What a head adds, sorted by its attention to the first token; query 0 is left out.

    Args:
        edges: limits of the bins of attention, from 0 to 1.
        least: a head is kept if it has that many queries in the first bin and in the last, so that each head is
            compared with itself.

    Returns:
        sums    # (text, kept head, bin), sum of the norm of what the head adds
        counts  # (text, kept head, bin), how many queries
        kept    # (kept head,), number of the head through all layers
    """
    attention = traces.attention[..., 1:].flatten(1, 2).contiguous()  # (text, layer * head, query)
    added = traces.added_norm[..., 1:].flatten(1, 2)
    index = torch.bucketize(attention, torch.tensor(edges[1:-1]).to(attention), right=True)
    bins = len(edges) - 1
    empty = torch.zeros(*attention.shape[:2], bins)
    counts = empty.scatter_add(2, index, torch.ones_like(attention))
    sums = empty.scatter_add(2, index, added)
    total = counts.sum(0)
    kept = ((total[:, 0] >= least) & (total[:, -1] >= least)).nonzero()[:, 0]
    return sums[:, kept], counts[:, kept], kept


def relative_to_off(sums_and_counts: Tensor) -> Tensor:
    """Mean norm in each bin over the mean in the first bin, the median over heads: (bin,).

    Args:
        sums_and_counts: (text, head, bin, 2), so that texts can be drawn again for an interval.
    """
    sums, counts = sums_and_counts.sum(0).unbind(-1)
    mean = sums / counts  # nan where a head has no query in a bin
    return (mean / mean[:, :1]).nanmedian(0).values


def massive_ratio(traces: HeadTraces) -> tuple[Tensor, Tensor]:
    """Largest activation over the median magnitude of the layer's input, at the first token and at the largest of
    the others (Sun et al., arXiv 2402.17762): both (text, layer)."""
    median = traces.median.clamp_min(1e-12)
    return traces.largest[..., 0] / median, traces.largest[..., 1:].amax(-1) / median
