"""Which kind of sink each head has: one that adds nothing, or one that adds the same everywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache, partial

import torch
from torch import Tensor

from firsttoken import statistics, texts
from firsttoken.estimates import JSON
from firsttoken.execution.check import layer_numbers
from firsttoken.execution.shared_pass import together
from firsttoken.measures import sink_kinds
from firsttoken.measures.measurement import Measurement
from firsttoken.measures.sink_kinds import Kinds
from firsttoken.models import BosPolicy, LanguageModel
from firsttoken.ranges import at_least, in_range

SINK = 0.3  # mean attention to the first token, above which a head is a sink
SMALL = 0.5  # of the others' values, below which the first token's is small
LOW_RANK = 2.0  # stable rank, below which what a head adds is nearly one vector
FEWEST = 50  # resting queries, below which a head is of no kind
KINDS = {
    "NOP": "value less than half as long, so it adds little",
    "broadcast": "no small value, but nearly one vector",
    "neither": "no small value, more than one vector",
}
RESAMPLES = 200  # each reads a matrix of every head


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What is asked of resting heads."""

    text_source: str = "passages"  # see `texts.texts_from`
    norm_passages: int = 12  # texts
    length: int = 96  # tokens of each text, BOS included
    bos: BosPolicy = "auto"
    seed: int = 0
    execution: str = "auto"  # resident, streamed; see `shared_pass.together`

    def __post_init__(self) -> None:
        in_range(self)
        at_least(2, norm_passages=self.norm_passages)
        at_least(8, length=self.length)


def run(lm: LanguageModel, parameters: Parameters, passages: Sequence[str]) -> JSON:
    """Over the heads that are sinks and rest often enough: `value_ratio`, `stable_rank` and `sink_share`, medians over
    heads with intervals over texts; `kinds`, the share of each; `heads`, how many; and `by_head`, one row for each.

    A head whose values are all zero adds nothing anywhere and has none of the three; it is left out.
    """
    ids = texts.encode(lm, passages, parameters.length, parameters.bos)
    rests = together(lm, {"rests": partial(sink_kinds.observe, ids=ids)}, parameters.execution)["rests"]
    attention = rests.attention.mean(0)
    sinks = (attention > SINK) & (rests.queries.sum(0) >= FEWEST)  # (layer, head)
    sinks[sinks.clone()] = known(sink_kinds.kinds(rests, sinks, torch.arange(len(ids))))
    layers = layer_numbers(lm, sinks.shape[0], parameters.execution)
    places = sinks.nonzero().tolist()
    if not places:
        return {"heads": 0, "by_head": []}

    @cache
    def of(drawn: tuple[int, ...]) -> Kinds:
        return sink_kinds.kinds(rests, sinks, torch.tensor(drawn))

    def estimate(statistic: Callable[[Kinds], Tensor]) -> JSON:
        def in_draw(drawn: Tensor) -> Tensor:
            return statistic(of(tuple(drawn.long().tolist())))

        numbers = torch.arange(len(ids))
        return asdict(statistics.bootstrap(numbers, in_draw, resamples=RESAMPLES, seed=parameters.seed))

    def median(name: str) -> JSON:
        return estimate(lambda one: getattr(one, name).nanmedian())

    def share(kind: str) -> JSON:
        return estimate(lambda one: is_of(kind, one)[known(one)].double().mean())

    every = of(tuple(range(len(ids))))
    measured = {field.name: getattr(every, field.name).tolist() for field in fields(Kinds)}
    return {
        "heads": len(places),
        **{name: median(name) for name in measured},
        "kinds": {kind: share(kind) for kind in KINDS},
        "by_head": [
            {
                "layer": layers[layer],
                "head": head,
                "attention": round(float(attention[layer, head]), 4),
                **{name: round(numbers[place], 4) for name, numbers in measured.items()},
            }
            for place, (layer, head) in enumerate(places)
        ],
    }


def known(heads: Kinds) -> Tensor:
    """Which heads have all three numbers, (head,): in a draw of texts, those that rest in one of them."""
    return torch.stack([getattr(heads, field.name).isfinite() for field in fields(Kinds)]).all(0)


def is_of(kind: str, heads: Kinds) -> Tensor:
    """Which heads are of a kind, (head,)."""
    small, low = heads.value_ratio < SMALL, heads.stable_rank < LOW_RANK
    return {"NOP": small, "broadcast": ~small & low, "neither": ~small & ~low}[kind]


MEASUREMENT = Measurement(
    claim="no_op",
    parameters=Parameters,
    passages=lambda parameters: texts.exactly(parameters.text_source, parameters.norm_passages),
    run=run,
    variant="kinds",
)
