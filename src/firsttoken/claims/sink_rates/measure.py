"""How many heads are sinks: the paper's table for LLaMa 3.1, for any model.

Paper: sink rate of LLaMa 3.1 8B, 70B and 405B at epsilon = 0.8 over 170 passages of T = 64 tokens.

The main record is that of `measures.first_token_summary`; here are its two sensitivities, to the length of the text
and to the BOS token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from torch import Tensor

from firsttoken import statistics, texts
from firsttoken.claims.sink_rates.verdict import judge
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON, Estimate
from firsttoken.measures import first_token_summary, sinks
from firsttoken.measures.first_token_attention import alphas, alphas_of_prefixes
from firsttoken.measures.first_token_summary import EPSILONS, Parameters
from firsttoken.measures.measurement import Measurement
from firsttoken.models import BosPolicy, LanguageModel
from firsttoken.ranges import in_range
from firsttoken.records import Record
from firsttoken.records.paper_numbers import PAPER_EPSILON

SHORTEST = 16  # tokens of the shortest input of the length sweep


@dataclass(frozen=True, kw_only=True)
class ByLength:
    """Parameters of the length sweep, on windows of one long document."""

    longest: int = 8192  # tokens of the longest input, BOS included; the model may allow fewer
    sweep_tokens: int = 8192  # read at each of three scales of length; two windows at least
    epsilon: float = PAPER_EPSILON
    bos: BosPolicy = "auto"
    seed: int = 0
    batch_tokens: int = 4096
    execution: str = "auto"

    def __post_init__(self) -> None:
        in_range(self)
        sinks.check_epsilon(self.epsilon)
        if self.longest < SHORTEST:
            raise FirstTokenError(f"longest is the longest input in tokens, at least {SHORTEST}; not {self.longest}.")


def lengths_up_to(lm: LanguageModel, longest: int) -> list[int]:
    """16, 32, 64 ... up to `longest` or to the longest input that the model was made for."""
    config = lm.config.get_text_config()
    limit = min(longest, getattr(config, "max_position_embeddings", longest))
    return [2**power for power in range(4, 31) if 2**power <= limit]


def window_plan(lengths: Sequence[int], tokens: int) -> list[tuple[int, int, list[int]]]:
    """(window length, how many windows, lengths read from them): many short windows and few long ones, about as many
    `tokens` in each of up to three groups, and two windows at least."""
    groups = [[n for n in lengths if low < n <= high] for low, high in ((0, 256), (256, 2048), (2048, 1 << 31))]
    return [(group[-1], max(2, tokens // group[-1]), group) for group in groups if group]


def run_by_length(lm: LanguageModel, parameters: ByLength, passages: Sequence[str]) -> JSON:
    """Sink rate and mass against the number of tokens, the first token of each window included."""
    lengths = lengths_up_to(lm, parameters.longest)
    values: JSON = {"length": lengths, "sink_rate": [], "sink_rate_0.3": [], "mass": []}
    # All windows are cut before any is read: a text that is too short for one group is told at once.
    plan = [
        (texts.windows(lm, passages[0], window, count, parameters.bos), group)
        for window, count, group in window_plan(lengths, parameters.sweep_tokens)
    ]
    for ids, group in plan:
        by_length = alphas_of_prefixes(lm, ids, group, parameters.batch_tokens, parameters.execution)
        for alpha in by_length.values():
            for name, estimate in _three_numbers(alpha, parameters.epsilon, parameters.seed):
                values[name].append(asdict(estimate))
    return values


def run_by_bos(lm: LanguageModel, parameters: Parameters, passages: Sequence[str], counted: Record) -> JSON:
    """Sink rate with BOS in any case and without.

    Args:
        counted: the main record for these parameters; it answers for the policy that it used.
    """
    by_epsilon = counted.values["by_epsilon"]
    at_03 = by_epsilon["threshold_first"][EPSILONS.index(0.3)]
    used = "always" if lm.prefix(parameters.bos) else "never"
    values: JSON = {
        "used": used,
        used: {"sink_rate": counted.values["sink_rate"], "sink_rate_0.3": at_03, "mass": counted.values["mass"]},
    }
    other: BosPolicy = "never" if used == "always" else "always"
    if other == "never" or lm.tokenizer.bos_token_id is not None:
        ids = texts.encode(lm, passages, parameters.length, other)
        alpha = alphas(lm, ids, parameters.batch_tokens, parameters.execution)
        values[other] = {
            name: asdict(estimate) for name, estimate in _three_numbers(alpha, parameters.epsilon, parameters.seed)
        }
    return values


def _three_numbers(alpha: Tensor, epsilon: float, seed: int) -> Iterator[tuple[str, Estimate]]:
    yield "sink_rate", sinks.sink_rate_estimate(alpha, epsilon, seed=seed)
    yield "sink_rate_0.3", sinks.sink_rate_estimate(alpha, 0.3, seed=seed)
    yield "mass", statistics.bootstrap(alpha, seed=seed)


MEASUREMENT = replace(first_token_summary.MEASUREMENT, judge=judge)
BY_LENGTH = Measurement(
    claim="sink_rates",
    parameters=ByLength,
    passages=lambda _: [texts.long_text()],
    run=run_by_length,
    variant="length",
    version=2,
)
BY_BOS = Measurement(
    claim="sink_rates",
    parameters=Parameters,
    passages=first_token_summary.passages,
    run=run_by_bos,
    variant="bos",
    version=2,
    given=MEASUREMENT,
)
MEASUREMENTS = (MEASUREMENT, BY_LENGTH, BY_BOS)
