"""Entropies and spectra: how many tokens a row spreads over, how many directions a matrix has."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def binary_entropy(a: Tensor) -> Tensor:
    """h(a) in nats."""
    return torch.special.entr(a) + torch.special.entr(1 - a)


def rest_entropy(entropy: Tensor, first: Tensor, dim: int = -1) -> Tensor:
    """Mean entropy of what rows do not give to the first token, each row weighted by how much that is.

    Args:
        entropy, first: (..., query), entropy of each row in nats and its weight on the first token.

    Returns:
        sum_j (H_j - h(a_j)) / sum_j (1 - a_j), nats; a row wholly on the first token counts for nothing
    """
    weight = (1 - first).clamp_min(0)
    inner = (entropy - binary_entropy(first.clamp(0, 1))).clamp_min(0)
    return inner.sum(dim) / weight.sum(dim).clamp_min(1e-12)


def singular_values(maps: Tensor) -> Tensor:
    """Singular values of attention maps in descending order.

    Args:
        maps: (..., query, key).
    """
    return torch.linalg.svdvals(maps.double())


def effective_rank(singular: Tensor) -> Tensor:
    """exp of the entropy of the singular values as shares of their sum (Roy and Vetterli 2007): 1 for a map whose
    rows are all alike, n for the identity of n tokens.

    Args:
        singular: (..., value), not negative.
    """
    share = singular / singular.sum(-1, keepdim=True).clamp_min(1e-30)
    return torch.special.entr(share).sum(-1).exp()


def singular_values_by_gram(v: Tensor) -> Tensor:
    """Singular values of (..., token, width), descending, float64; those below 1e-8 of the largest are not exact."""
    v = v.double()
    gram = v @ v.mT if v.shape[-2] <= v.shape[-1] else v.mT @ v
    return torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().flip(-1)


def matrix_entropy(v: Tensor) -> Tensor:
    """Entropy of the eigenvalues of V V^T as shares of their sum, over log min(n, d): 0 for a matrix of rank one, 1
    for one whose directions all carry the same energy (von Neumann entropy, as in arXiv 2510.06477)."""
    energy = singular_values_by_gram(v).square()
    share = energy / energy.sum(-1, keepdim=True).clamp_min(1e-300)
    return torch.special.entr(share).sum(-1) / math.log(min(v.shape[-2:]))
