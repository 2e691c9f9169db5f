"""Path sums: how much can reach token j from token i through all attention maps at once.

With H heads, A^(l,h) the map of head h of layer l and

    abar^(l) = sum_h A^(l,h) + I / H,

the sum over all paths i = i_0 <= i_1 <= ... <= i_L = j of prod_l abar^(l)[i_l, i_(l-1)] is entry (j, i) of the
matrix product abar^(L) ... abar^(1). Every row of abar sums to H + 1/H, so a path sum divided by (H + 1/H)^L is a
probability: that a walk which starts at j and at each layer steps back along abar ends at i. A sink does not change
the total; it moves it from all sources to the first token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from firsttoken.models import LanguageModel
from firsttoken.models.out_of_memory import explain_out_of_memory
from firsttoken.probe import probe
from firsttoken.probe.attention import AttentionCall, attend
from firsttoken.probe.forward import run_decoder


def mean_map(maps: Tensor) -> Tensor:
    """abar of one layer from its maps.

    Args:
        maps: (..., head, query, key).

    Returns:
        abar  # (..., query, key)
    """
    heads, queries = maps.shape[-3:-1]
    return maps.sum(-3) + torch.eye(queries, dtype=maps.dtype, device=maps.device) / heads


def log_path_sums(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Natural logarithm of the products M^(l) ... M^(1) of matrices without negative entries, for l = 1, 2, ...

    Products of many layers overflow any float; each is kept as a matrix of ordinary size and a logarithm.

    Args:
        matrices: (query, key) each, first layer first.

    Returns:
        log P^(l)  # (query, key) each, -inf where no path leads
    """
    product = torch.eye(len(matrices[0]), dtype=torch.float64)
    scale = 0.0
    logs = []
    for matrix in matrices:
        product = matrix.double() @ product
        largest = float(product.max())
        product, scale = product / largest, scale + math.log(largest)
        logs.append(product.log() + scale)
    return logs


def walk(lm: LanguageModel, ids: Tensor, sources: Sequence[int]) -> Tensor:
    """Path sums as probabilities, after every layer of a model, without any T x T matrix.

    Attention with one-hot values is a column of the map, and attention is linear in its values: the product
    abar^(l) x for all sources x is one more attention call in each layer, O(T^2) time and O(T) memory.

    Args:
        ids: (text, token), BOS included where wanted.
        sources: columns i of `ids`.

    Returns:
        share  # (layer, text, token j, source), path sum / (H + 1/H)^l, float32, on the CPU
    """
    text, length = ids.shape
    x = torch.zeros(text, length, len(sources))
    x[:, list(sources), torch.arange(len(sources))] = 1.0
    state = {"x": x.to(lm.model.device)}
    shares: list[Tensor] = []

    def step(module: Any, call: AttentionCall) -> AttentionCall:
        now = state["x"].to(call.query.device)  # the layer before may lie on another one
        heads = call.query.shape[1]
        values = now[:, None].expand(-1, heads, -1, -1).to(call.query)
        moved, _ = attend(replace(call, value=values))
        state["x"] = (moved.float().sum(1) + now / heads) / (heads + 1 / heads)
        shares.append(state["x"].cpu())
        return call

    remedy = "give fewer or shorter texts, or fewer sources"
    with torch.inference_mode(), explain_out_of_memory(remedy), probe(lm.model, hook=step):
        run_decoder(lm.model, ids)
    return torch.stack(shares)
