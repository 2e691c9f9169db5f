"""Two ways to rest on a token: to add next to nothing, or to add the same thing everywhere.

A head that attends to the first token alone adds a W_O v_0. If that value is small the head adds nothing: a *NOP*. If
it is not, every query that rests gets the same vector: the sink *broadcasts*, and what the head adds has a low rank.
The two traces, small values and low rank, are those of arXiv 2606.08105 (from its abstract), which looks at vision
models. There a sink may gather what it broadcasts from the whole image. In a causal model the first token sees
nothing but itself, so it can broadcast a constant and no more.

For each head, with o_i = sum_j A_ij W_O v_j what it adds at query i, before any norm behind the projection:

    value ratio   ||W_O v_0|| over the mean of ||W_O v_j|| over the other tokens
    stable rank   ||O||_F^2 / ||O||_2^2 of the matrix O with a row o_i for each resting query; 1 if all are parallel
    sink's share  sum of ||A_i0 W_O v_0||^2 over sum of ||o_i||^2, over resting queries
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from firsttoken.measures.score_changes import first_mass
from firsttoken.models import LanguageModel
from firsttoken.models.anatomy import Block, attention_blocks, output_weight
from firsttoken.models.out_of_memory import explain_out_of_memory
from firsttoken.probe import probe
from firsttoken.probe.attention import AttentionCall
from firsttoken.probe.forward import run_decoder
from firsttoken.progress import tracked

RESTING = 0.7  # of a query's attention on the first token, from which on it rests


@dataclass(frozen=True)
class Rests:
    """Sums over the queries of each text, float32 on the CPU; query 0 is left out."""

    attention: Tensor  # (text, layer, head), mean attention to the first token
    value_first: Tensor  # (text, layer, head), ||W_O v_0||
    value_others: Tensor  # (text, layer, head), mean over the other tokens
    queries: Tensor  # (text, layer, head), how many rest
    gram: Tensor  # (text, layer, head, value_dim, value_dim), sum of r r' over resting queries, with ||r|| = ||o_i||
    from_sink: Tensor  # (text, layer, head), sum of ||A_i0 W_O v_0||^2 over resting queries


def observe(lm: LanguageModel, ids: Tensor) -> Rests:
    """Read texts (text, token), without padding, one by one."""
    blocks = attention_blocks(lm.model)
    factors: dict[int, Tensor] = {}  # of each layer, the same for all texts
    with torch.inference_mode(), explain_out_of_memory("lower length, or use dtype='bfloat16'"):
        return _stacked([_of_text(lm, row[None], blocks, factors) for row in tracked(list(ids))])


def _of_text(lm: LanguageModel, row: Tensor, blocks: Sequence[Block], factors: dict[int, Tensor]) -> Rests:
    seen: dict[int, Rests] = {}
    masses: dict[int, Tensor] = {}  # attention to the first token, (head, query)
    values: dict[int, Tensor] = {}  # (head, key, value_dim)

    def hook(module: Any, call: AttentionCall) -> AttentionCall:
        masses[module.layer_idx], values[module.layer_idx] = first_mass(call)[0], call.value[0].float()
        return call

    def watch(block: Block) -> Any:
        def see(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            layer, value = block.index, values[block.index]
            if layer not in factors:
                factors[layer] = same_norms(output_weight(block, len(value)).float())
            seen[layer] = of_layer(masses[layer], value, inputs[0][0].float(), factors[layer])

        return block.output.register_forward_hook(see)

    with ExitStack() as stack:
        for block in blocks:
            stack.callback(watch(block).remove)
        stack.enter_context(probe(lm.model, keys=[0], hook=hook))
        run_decoder(lm.model, row)
    return _stacked([seen[layer] for layer in sorted(seen)])


def _stacked(parts: Sequence[Rests]) -> Rests:
    names = Rests.__dataclass_fields__
    return Rests(*(torch.stack([getattr(part, name).cpu() for part in parts]) for name in names))


def same_norms(weight: Tensor) -> Tensor:
    """R with ||R m|| = ||W_O m|| for every m, and the same angles, in value_dim numbers instead of the model's width.

    Args:
        weight: W_O by head, (head, value_dim, width).

    Returns:
        (head, value_dim, value_dim)
    """
    return torch.linalg.qr(weight.transpose(1, 2))[1]


def of_layer(first: Tensor, value: Tensor, mixed: Tensor, factor: Tensor) -> Rests:
    """One text in one layer.

    Args:
        first: attention to the first token, (head, query).
        value: (head, key, value_dim).
        mixed: sum_j A_ij v_j, the heads side by side, (query, head * value_dim).
        factor: of the output projection, see `same_norms`.

    Returns:
        as in `Rests`, without text and layer
    """
    rows = mixed.unflatten(-1, (len(value), -1)).transpose(0, 1)[:, 1:] @ factor.transpose(1, 2)
    norms = (value @ factor.transpose(1, 2)).norm(dim=-1)  # (head, key)
    resting = (first[:, 1:] >= RESTING).to(rows)
    kept = rows * resting[..., None]
    return Rests(
        attention=first[:, 1:].mean(-1),
        value_first=norms[:, 0],
        value_others=norms[:, 1:].mean(-1),
        queries=resting.sum(-1),
        gram=kept.transpose(1, 2) @ kept,
        from_sink=(resting * first[:, 1:] ** 2).sum(-1) * norms[:, 0] ** 2,
    )


@dataclass(frozen=True)
class Kinds:
    """The three numbers of chosen heads, (head,) each; NaN where a head never rests or adds nothing. A median over
    heads must pass these by (`nanmedian`): one of them would make it NaN."""

    value_ratio: Tensor
    stable_rank: Tensor
    sink_share: Tensor


def kinds(rests: Rests, heads: Tensor, drawn: Tensor) -> Kinds:
    """Of some heads in some texts.

    Args:
        heads: (layer, head), bool.
        drawn: (some,), numbers of texts, perhaps with repetition.
    """
    times = torch.bincount(drawn, minlength=len(rests.attention)).to(rests.gram)

    def total(sums: Tensor) -> Tensor:
        return torch.tensordot(times, sums[:, heads], dims=1)

    gram = total(rests.gram)
    added = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    return Kinds(
        value_ratio=total(rests.value_first) / total(rests.value_others),
        stable_rank=added / largest_eigenvalue(gram),
        sink_share=total(rests.from_sink) / added,
    )


def largest_eigenvalue(gram: Tensor, steps: int = 60) -> Tensor:
    """Of positive semidefinite matrices (matrix, n, n), by power iteration; far cheaper than all of them, and off by
    (second / first) to the power of 2 * `steps`."""
    vector = gram.sum(-1)
    for _ in range(steps):
        vector = torch.nn.functional.normalize((gram @ vector[..., None])[..., 0], dim=-1)
    return (vector * (gram @ vector[..., None])[..., 0]).sum(-1)
