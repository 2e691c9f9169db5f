"""Rank collapse and representational collapse: measures of a matrix of token representations, and how they relate.

V is (token, width), one row v_j for each of n tokens; M = 1 mean(V)^T has the mean row in every row.

* Rank collapse: ||V - M||_F goes to zero, all tokens become one vector.
* Representational collapse: ||v_n - v_(n-1)||_2 goes to zero, the last two tokens become one vector.

**Proposition.** ||v_n - v_(n-1)||_2 <= sqrt(2) ||V - M||_F, and sqrt(2) is the best constant.

Proof. With a = v_n - mean, b = v_(n-1) - mean: ||a - b|| <= ||a|| + ||b|| <= sqrt(2) sqrt(||a||^2 + ||b||^2), and a
and b are two rows of V - M. Equality: rows v_n = x, v_(n-1) = -x and all others 0 have mean 0, Frobenius norm
sqrt(2) ||x|| and distance 2 ||x||. QED

So ||V - M||_F < D / sqrt(2) implies ||v_n - v_(n-1)||_2 < D; the weaker condition ||V - M||_F < D / 2, in which the
paper's Proposition 3.1 is usually quoted, does too. The converse fails: two equal last rows say nothing of the others.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from firsttoken.smoothing import effective_rank

SQRT2 = math.sqrt(2.0)


def distance_from_mean(v: Tensor) -> Tensor:
    """||V - M||_F of (..., token, width)."""
    return (v - v.mean(-2, keepdim=True)).flatten(-2).norm(dim=-1)


def last_two_distance(v: Tensor) -> Tensor:
    """||v_n - v_(n-1)||_2 of (..., token, width)."""
    return (v[..., -1, :] - v[..., -2, :]).norm(dim=-1)


def singular_values(v: Tensor) -> Tensor:
    """Singular values of (..., token, width), descending, float64."""
    return torch.linalg.svdvals(v.double())


def rank(v: Tensor) -> Tensor:
    """Effective rank, exp of the entropy of the singular values as shares of their sum; from 1 to min(n, d)."""
    return effective_rank(singular_values(v))


def matrix_entropy(v: Tensor) -> Tensor:
    """Entropy of the eigenvalues of V V^T as shares of their sum, over log min(n, d): 0 for a matrix of rank one, 1
    for one whose directions all carry the same energy (von Neumann entropy, as in arXiv 2510.06477)."""
    energy = singular_values(v).square()
    share = energy / energy.sum(-1, keepdim=True).clamp_min(1e-300)
    return torch.special.entr(share).sum(-1) / math.log(min(v.shape[-2:]))


def first_norm_ratio(v: Tensor) -> Tensor:
    """Norm of the first token over the mean norm of the others, of (..., token, width)."""
    norms = v.norm(dim=-1)
    return norms[..., 0] / norms[..., 1:].mean(-1)
