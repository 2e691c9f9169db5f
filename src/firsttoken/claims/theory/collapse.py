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
from dataclasses import asdict
from functools import partial

import torch
from torch import Tensor

from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.execution.shared_pass import together
from firsttoken.measures import sinks
from firsttoken.measures.bos_arms import ARMS, Arm
from firsttoken.measures.bos_contrast import start
from firsttoken.measures.head_norms import first_over_others
from firsttoken.measures.spectra import effective_rank, matrix_entropy, singular_values_by_gram
from firsttoken.models import LanguageModel
from firsttoken.probe import probe
from firsttoken.probe.residual_stream import residual_stream
from firsttoken.statistics import mean_estimates

SQRT2 = math.sqrt(2.0)
# The experiment on the last two tokens: a few tokens of text, then one of these words, cut to its first token.
PREFIX = 8
REPEATED = (" 1", " the", " and", " house", " of", " seven", " x", " water")


def distance_from_mean(v: Tensor) -> Tensor:
    """||V - M||_F of (..., token, width)."""
    return (v - v.mean(-2, keepdim=True)).flatten(-2).norm(dim=-1)


def last_two_distance(v: Tensor) -> Tensor:
    """||v_n - v_(n-1)||_2 of (..., token, width)."""
    return (v[..., -1, :] - v[..., -2, :]).norm(dim=-1)


def rank(v: Tensor) -> Tensor:
    """Effective rank, exp of the entropy of the singular values as shares of their sum; from 1 to min(n, d)."""
    return effective_rank(singular_values_by_gram(v))


def first_norm_ratio(v: Tensor) -> Tensor:
    """Norm of the first token over the mean norm of the others, of (..., token, width)."""
    return first_over_others(v.norm(dim=-1))


# -- on real models -----------------------------------------------------------------------------------------


def by_layer(lm: LanguageModel, ids: Tensor, arm: Arm, seed: int = 0, execution: str = "resident") -> JSON:
    """Collapse measures of the residual stream after every layer, as estimates over texts.

    `from_mean` is ||V - M||_F / ||V||_F, `entropy` the matrix entropy and `rank` the effective rank, each with a name
    in `_text` for all tokens but the first; `first_norm` the norm of the first token over the others'. `mass` is the
    attention of each layer to the first token (one entry fewer: the input has none).
    `broken` counts the cases in which the proposition fails: none can.

    Args:
        ids: (text, token), text tokens without BOS.
        execution: see `shared_pass.together`.
    """
    rows, _ = start(lm, ids, arm)
    by_text = together(
        lm, {text: partial(_of_text, row=row) for text, row in enumerate(rows)}, execution
    )  # each name -> (layer + 1,), mass (layer,)
    values: JSON = {"broken": sum(int(one.pop("broken")) for one in by_text.values())}
    of_text = torch.arange(len(rows))
    for name in by_text[0]:
        parts = torch.stack([one[name] for one in by_text.values()])
        values[name] = [asdict(estimate) for estimate in mean_estimates(parts, of_text, seed)]
    return values


def _of_text(lm: LanguageModel, row: Tensor) -> dict[str, Tensor]:
    with probe(lm.model) as p:
        v = residual_stream(lm.model, row[None])[:, 0].cpu()  # (layer + 1, token, width)
    measures = {}
    for name, part in (("", v), ("_text", v[:, 1:])):
        measures[f"from_mean{name}"] = distance_from_mean(part) / part.flatten(1).norm(dim=-1)
        measures[f"entropy{name}"] = matrix_entropy(part)
        measures[f"rank{name}"] = rank(part)
    measures["first_norm"] = first_norm_ratio(v)
    measures["mass"] = sinks.first_token_attention(p.attention)[0].mean(-1).cpu()
    limit = SQRT2 * distance_from_mean(v.double())
    measures["broken"] = (last_two_distance(v.double()) > limit * (1 + 1e-9)).sum()
    return measures


def check_repeats(lm: LanguageModel, ids: Tensor, repeats: int) -> None:
    """Raises `FirstTokenError` for a model with too few positions for the inputs of `last_two`."""
    _, begin = start(lm, ids[:1], "with_bos")
    longest, needed = lm.longest_input, begin + PREFIX + repeats
    if longest is not None and needed > longest:
        raise FirstTokenError(
            f"{lm.name} has {longest} positions and cannot read {needed} tokens, {repeats} of them repeated; lower "
            f"`repeats` to {longest - needed + repeats} or less."
        )


def last_two(lm: LanguageModel, ids: Tensor, repeats: int, seed: int = 0, execution: str = "resident") -> JSON:
    """||v_n - v_(n-1)||_2 / ||v_n||_2 after the last layer, where a few words of text are followed by one token
    repeated n times; estimates over texts.

    Attention is causal, so one run of the longest input gives all n. Words come first because an input of equal
    tokens and nothing else is a special case: with rotary positions all of its representations are equal, exactly,
    at every layer (each row of attention averages equal values).

    Args:
        ids: (text, token), text tokens without BOS.
    """
    counts = [2**k for k in range(1, repeats.bit_length()) if 2**k <= repeats]
    tokens = [lm.tokenizer(word, add_special_tokens=False).input_ids[0] for word in REPEATED]
    repeated = torch.tensor([tokens[row % len(tokens)] for row in range(len(ids))])[:, None]
    inputs = torch.cat([ids[:, :PREFIX], repeated.expand(-1, repeats)], dim=1)
    values: JSON = {"repeats": counts}
    at = PREFIX + torch.tensor(counts) - 1
    passages = range(len(inputs))
    given = {arm: start(lm, inputs, arm) for arm in ARMS}
    last = together(
        lm,
        {(arm, text): partial(_last, row=rows[text]) for arm, (rows, _) in given.items() for text in passages},
        execution,
    )
    for arm, (_, begin) in given.items():
        v = torch.cat([last[arm, text] for text in passages])[:, begin:]  # (text, token, width)
        distance = (v[:, at] - v[:, at - 1]).norm(dim=-1) / v[:, at].norm(dim=-1)  # (text, count)
        estimates = mean_estimates(distance, torch.arange(len(v)), seed)
        values[arm] = [asdict(estimate) for estimate in estimates]
    return values


def _last(lm: LanguageModel, row: Tensor) -> Tensor:
    """(1, token, width): the residual stream after the last layer."""
    return residual_stream(lm.model, row[None])[-1].cpu()
