"""The approximate no-op: small values on the first token, heads that rest there, and the rules by which they leave it.

Paper: a head of Gemma 7B attends to an apostrophe where there is one and to BOS everywhere else; BOS has a small
value, so the head then adds almost nothing. The numbers are in `results/paper.json`, key `apostrophe_head`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from firsttoken import statistics, texts
from firsttoken.claims.no_op import search
from firsttoken.claims.no_op.apostrophe import Wanted, trigger_head, triggers
from firsttoken.claims.no_op.kinds import MEASUREMENT as KINDS
from firsttoken.claims.no_op.rules import example, rule_effect, search_summary
from firsttoken.claims.no_op.search import FEWEST_QUERIES, FEWEST_TEXTS, Discovery
from firsttoken.claims.no_op.verdict import judge
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.execution.check import layer_numbers
from firsttoken.execution.shared_pass import together
from firsttoken.measures import attention_maps, first_token_attention, head_norms
from firsttoken.measures.measurement import Measurement
from firsttoken.models import BosPolicy, LanguageModel
from firsttoken.ranges import at_least, in_range
from firsttoken.texts.token_classes import classes_of, decode

EDGES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)  # bins of attention to the first token


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What is asked of heads that may have nothing to do."""

    text_source: str = "passages"  # see `texts.texts_from`
    passages: int = 48  # texts in which heads are searched
    norm_passages: int = 12  # of these, texts on which norms and losses are measured
    length: int = 96  # tokens of each text, BOS included
    layer: int | None = None  # the apostrophe head; None: the paper's in the paper's model, else the nearest to it
    head: int | None = None
    trigger: str = "'"
    tested: int = 2  # heads whose rule is tested by intervention
    bos: BosPolicy = "auto"
    seed: int = 0
    batch_tokens: int = 2048
    execution: str = "auto"  # resident, streamed; see `shared_pass.together`

    def __post_init__(self) -> None:
        in_range(self)
        if (self.layer is None) != (self.head is None):
            raise FirstTokenError("layer and head name one head together: give both or neither.")
        if not 2 <= self.norm_passages <= self.passages:
            raise FirstTokenError(
                f"norm_passages must be from 2 to passages={self.passages}, not {self.norm_passages}."
            )
        at_least(FEWEST_TEXTS, passages=self.passages)
        at_least(Discovery().first_query + FEWEST_QUERIES, length=self.length)
        if not self.trigger:
            raise FirstTokenError("trigger is what the head looks for, at least one character of text.")


def of_this_model(lm: LanguageModel, parameters: Parameters) -> Parameters:
    """The same parameters.

    Raises:
        FirstTokenError: the model has no such head.
    """
    if parameters.layer is not None and parameters.head is not None:
        attention_maps.check_heads(lm, [(parameters.layer, parameters.head)])
    return parameters


def run(lm: LanguageModel, parameters: Parameters, passages: Sequence[str]) -> JSON:
    """`value_norm_ratio`, `key_norm_ratio` (first token over the others), `quiet_ratio` (what a head adds on the sink
    over what it adds off it), `by_layer`, `by_attention`, `search` (counts and the rules found), `examples`, `tests`
    (interventions) and `trigger_head` (the apostrophe head).
    """
    ids = texts.encode(lm, passages, parameters.length, parameters.bos)
    tokens = decode(lm, ids)
    where = triggers(tokens, parameters.trigger)
    few = ids[: parameters.norm_passages]
    rest = ids[parameters.norm_passages :]
    passes: dict[str, Callable[[LanguageModel], Any]] = {
        "traces": partial(head_norms.trace_heads, ids=few, batch_tokens=parameters.batch_tokens)
    }
    if len(rest):
        passes["rest"] = partial(first_token_attention.by_query, ids=rest, batch_tokens=parameters.batch_tokens)
    seen = together(lm, passes, parameters.execution)
    traces = seen["traces"]
    attention = torch.cat([traces.attention, seen["rest"]]) if len(rest) else traces.attention
    classes = classes_of(tokens)
    discovery = Discovery(seed=parameters.seed)
    two, rules = search.discover(attention, classes, discovery)
    layers = layer_numbers(lm, attention.shape[1], parameters.execution)
    named = [rule for rule in rules if rule.named]
    return {
        **norm_summary(traces, parameters.seed),
        "search": search_summary(attention, two, rules, discovery, layers),
        "examples": [
            example(rule, float(two.threshold[rule.head]), attention, tokens, classes, layers) for rule in named[:3]
        ],
        "tests": [
            rule_effect(
                lm,
                few,
                rule,
                float(two.threshold[rule.head]),
                classes,
                parameters.seed,
                parameters.batch_tokens,
                parameters.execution,
                layers=layers,
            )
            for rule in named[: parameters.tested]
        ],
        "trigger_head": trigger_head(
            lm,
            ids,
            tokens,
            where,
            attention,
            Wanted(parameters.layer, parameters.head, parameters.trigger),
            parameters.seed,
            parameters.batch_tokens,
            parameters.execution,
            layers=layers,
        ),
    }


# -- norms --------------------------------------------------------------------------------------------------


def norm_summary(traces: head_norms.HeadTraces, seed: int) -> JSON:
    """Ratios of norms with intervals over texts, and their course through the layers."""
    value, key = head_norms.first_over_others(traces.value_norm), head_norms.first_over_others(traces.key_norm)
    massive = head_norms.massive_ratio(traces)
    sums, counts, kept = head_norms.added_by_attention(traces, EDGES)
    both = torch.stack([sums, counts], dim=-1)
    curve = []
    for i in range(len(EDGES) - 1):
        if len(kept):
            curve.append(statistics.known(statistics.bootstrap(both, partial(_in_bin, i), resamples=200, seed=seed)))
    return {
        "value_norm_ratio": asdict(statistics.bootstrap(_middle(value), seed=seed)),
        "key_norm_ratio": asdict(statistics.bootstrap(_middle(key), seed=seed)),
        "quiet_ratio": curve[-1] if curve else None,
        "smallest_value": asdict(statistics.bootstrap(_first_is_smallest(traces.value_norm), seed=seed)),
        "by_attention": {"edges": list(EDGES), "relative_norm": curve, "heads": len(kept)},
        "by_layer": {
            "value_first": statistics.rounded(traces.value_norm[..., 0].mean((0, 2))),
            "value_others": statistics.rounded(traces.value_norm[..., 1:].mean((0, 2, 3))),
            "key_first": statistics.rounded(traces.key_norm[..., 0].mean((0, 2))),
            "key_others": statistics.rounded(traces.key_norm[..., 1:].mean((0, 2, 3))),
            "massive_first": statistics.rounded(massive[0].mean(0)),
            "massive_others": statistics.rounded(massive[1].mean(0)),
        },
    }


def _middle(ratios: Tensor) -> Tensor:
    """Of (text, layer, kv_head), the median of each text over the heads that have a ratio; one whose values are all
    zero has none."""
    return ratios.flatten(1).nanmedian(1).values


def _in_bin(i: int, drawn: Tensor) -> Tensor:
    return head_norms.relative_to_off(drawn)[i]


def _first_is_smallest(value_norm: Tensor) -> Tensor:
    """Share of key-value heads in which the first token has the smallest value of all: (text,)."""
    return (value_norm.argmin(-1) == 0).double().flatten(1).mean(1)


MEASUREMENT = Measurement(
    claim="no_op",
    parameters=Parameters,
    passages=lambda parameters: texts.exactly(parameters.text_source, parameters.passages),
    run=run,
    judge=judge,
    version=4,  # 4: examples that show the rule; layers of hybrids by their number
    fit=of_this_model,
)
MEASUREMENTS = (MEASUREMENT, KINDS)
