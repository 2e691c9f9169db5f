"""What "attention sink" means in numbers: pure functions of tensors.

Everything starts from alpha, the attention that a head pays to the first token on average over its queries
(in the paper, alpha_0(l, h) = 1/T sum_j A[l, h, j, 0], query 0 included, which attends only to itself and so
contributes 1/T for nothing).

Two numbers that are easily mixed up:

* sink rate: the share of *heads* whose alpha is above a threshold epsilon;
* first-token mass: the share of *attention* that goes to the first token, the mean of alpha over heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from firsttoken.errors import FirstTokenError
from firsttoken.estimates import Estimate
from firsttoken.statistics import bootstrap

Order = Literal["threshold_first", "average_first"]


def first_token_attention(attention: Tensor, real: Tensor | None = None) -> Tensor:
    """Mean attention of a head's queries to the first token.

    Args:
        attention: (layer, batch, head, query), as `probe(model, keys=[0])` gives it.
        real: (batch, query), true where a token is no padding; padding queries are left out.

    Returns:
        alpha  # (batch, layer, head), float32
    """
    if real is None:
        alpha = attention.mean(-1)
    else:
        weight = real.to(attention)[None, :, None, :]
        alpha = (attention * weight).nan_to_num().sum(-1) / weight.sum(-1)
    return alpha.transpose(0, 1).contiguous()


def even_share(length: int) -> float:
    """Mean attention to the first of `length` tokens if every query spread its attention evenly over what it sees."""
    return sum(1 / (j + 1) for j in range(length)) / length


def check_epsilon(epsilon: float) -> None:
    """Raises `FirstTokenError` unless 0 < epsilon < 1."""
    if not 0 < epsilon < 1:
        raise FirstTokenError(f"epsilon is a share of attention between 0 and 1, for example 0.3; not {epsilon}.")


def sink_rate(alpha: Tensor, epsilon: float, order: Order = "threshold_first") -> Tensor:
    """Share of heads that are sinks, per passage and in total.

    Args:
        alpha: (passage, layer, head).
        epsilon: a head is a sink where its alpha is greater than this.
        order: `threshold_first` decides for each passage which heads are sinks, then averages over passages (Gu et
            al., arXiv 2410.10781); `average_first` averages alpha over passages, then decides.

    Returns:
        rate  # a scalar tensor in [0, 1]
    """
    check_epsilon(epsilon)
    if order == "average_first":
        alpha = alpha.mean(0)
    return (alpha > epsilon).double().mean()


def sink_rate_by_layer(alpha: Tensor, epsilon: float) -> Tensor:
    """Share of sink heads in each layer, threshold first: (layer,)."""
    check_epsilon(epsilon)
    return (alpha > epsilon).double().mean((0, 2))


def sink_rate_estimate(alpha: Tensor, epsilon: float, order: Order = "threshold_first", seed: int = 0) -> Estimate:
    """`sink_rate` with its 95 % bootstrap interval over passages."""
    if order == "threshold_first":
        check_epsilon(epsilon)
        return bootstrap((alpha > epsilon).double(), seed=seed)
    return bootstrap(alpha, lambda drawn: sink_rate(drawn, epsilon, order), seed=seed)


def rates_by_epsilon(alpha: Tensor, epsilons: Sequence[float], order: Order, seed: int = 0) -> list[Estimate]:
    """Sink rate at each threshold."""
    return [sink_rate_estimate(alpha, epsilon, order, seed) for epsilon in epsilons]
