"""All that a record says about the attention to the first token: sink rates, mass, by threshold, layer and passage."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from torch import Tensor

from firsttoken import statistics
from firsttoken.estimates import JSON
from firsttoken.measures import sinks
from firsttoken.models import BosPolicy
from firsttoken.records.paper_numbers import PAPER_EPSILON

EPSILONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class SinkRates:
    """Parameters of the measurement.

    `batch_tokens` and `execution` change no number beyond rounding, so they are not part of the record.
    """

    texts: str = "passages"  # see `texts.texts_from`
    passages: int = 170  # how many texts
    length: int = 64  # tokens of each text, BOS included
    epsilon: float = PAPER_EPSILON
    bos: BosPolicy = "auto"
    seed: int = 0  # of the bootstrap
    batch_tokens: int = 4096
    execution: str = "auto"  # see `execution.choose`


def summary(alpha: Tensor, epsilon: float, seed: int = 0) -> JSON:
    """All that a record says about alpha, (passage, layer, head)."""
    by_epsilon: JSON = {"epsilon": list(EPSILONS)}
    for order in ("threshold_first", "average_first"):
        by_epsilon[order] = [asdict(e) for e in sinks.rates_by_epsilon(alpha, EPSILONS, order, seed)]
    return {
        "sink_rate": asdict(sinks.sink_rate_estimate(alpha, epsilon, seed=seed)),
        "sink_rate_average_first": asdict(sinks.sink_rate_estimate(alpha, epsilon, "average_first", seed)),
        "mass": asdict(statistics.bootstrap(alpha, seed=seed)),
        "by_epsilon": by_epsilon,
        "by_layer": {
            "sink_rate": _rounded(sinks.sink_rate_by_layer(alpha, epsilon)),
            "sink_rate_0.3": _rounded(sinks.sink_rate_by_layer(alpha, 0.3)),
            "mass": _rounded(alpha.mean((0, 2))),
        },
        "by_passage": _rounded((alpha > epsilon).double().mean((1, 2))),
        "alpha": [_rounded(layer) for layer in alpha.mean(0)],
        "layers": alpha.shape[1],
        "heads": alpha.shape[2],
    }


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 5) for value in values.tolist()]
