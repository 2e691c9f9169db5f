"""All that a record says about the attention to the first token: sink rates, mass, by threshold, layer and passage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from torch import Tensor

from firsttoken import statistics, texts
from firsttoken.estimates import JSON
from firsttoken.measures import sinks
from firsttoken.measures.first_token_attention import alphas
from firsttoken.measures.measurement import Measurement
from firsttoken.models import BosPolicy, LanguageModel
from firsttoken.ranges import at_least, in_range
from firsttoken.records.paper_numbers import PAPER_EPSILON

EPSILONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What is asked of the attention to the first token; the claims `sink_rates` and `scale` ask it."""

    text_source: str = "passages"  # see `texts.texts_from`
    passages: int = 170  # how many texts
    length: int = 64  # tokens of each text, BOS included
    epsilon: float = PAPER_EPSILON
    bos: BosPolicy = "auto"
    seed: int = 0  # of the bootstrap
    batch_tokens: int = 4096
    execution: str = "auto"  # see `execution.choose`

    def __post_init__(self) -> None:
        in_range(self)
        sinks.check_epsilon(self.epsilon)
        at_least(2, passages=self.passages, length=self.length)


def passages(parameters: Parameters) -> list[str]:
    """The texts that the parameters choose."""
    return texts.exactly(parameters.text_source, parameters.passages)


def run(lm: LanguageModel, parameters: Parameters, chosen: Sequence[str]) -> JSON:
    """`summary` of a model on texts, the prefix that the policy puts first, and how many first tokens differ."""
    ids = texts.encode(lm, chosen, parameters.length, parameters.bos)
    alpha = alphas(lm, ids, parameters.batch_tokens, parameters.execution)
    return summary(alpha, parameters.epsilon, parameters.seed) | {
        "first_tokens": len(set(ids[:, 0].tolist())),
        "prefix": lm.tokenizer.convert_ids_to_tokens(lm.prefix(parameters.bos)),
    }


def summary(alpha: Tensor, epsilon: float, seed: int = 0) -> JSON:
    """All that a record says about alpha, (passage, layer, head).

    `sink_rate` (threshold first, at epsilon) and `sink_rate_average_first`, `mass` (mean attention to the first
    token), `by_epsilon`, `by_layer`, `by_passage` (the sink rate; beside it `by_passage_mass`, `by_passage_0.3`), and
    `alpha`, (layer, head), averaged over passages.
    """
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
        "by_passage_0.3": _rounded((alpha > 0.3).double().mean((1, 2))),
        "by_passage_mass": _rounded(alpha.mean((1, 2))),
        "alpha": [_rounded(layer) for layer in alpha.mean(0)],
        "layers": alpha.shape[1],
        "heads": alpha.shape[2],
    }


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 5) for value in values.tolist()]


MEASUREMENT = Measurement(claim="sink_rates", parameters=Parameters, passages=passages, run=run)
