"""The approximate no-op: small values on the first token, heads that rest there, and the rules by which they leave it.

Paper: a head of Gemma 7B attends to an apostrophe where there is one and to BOS everywhere else; BOS has a small
value, so the head then adds almost nothing. The numbers are in `results/paper.json`, key `apostrophe_head`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from firsttoken import heads, metrics, noop_heads, records, texts
from firsttoken.apostrophe import Wanted, trigger_head
from firsttoken.conditions import Conditions, conditions, decode
from firsttoken.errors import FirstTokenError, explain_out_of_memory
from firsttoken.interventions import forbid_key_in_heads, in_layers, only_key
from firsttoken.losses import predict
from firsttoken.models import BosPolicy, LanguageModel
from firsttoken.noop_heads import Discovery, Modes, Rule
from firsttoken.probe import probe
from firsttoken.records import JSON, Record, Verdict, interval

EDGES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)  # bins of attention to the first token
SHOWN = 40  # tokens of an example
STRIDE = 2  # the loss is taken at every other query, because logits cost as much as the rest of a small model
VERSION = 3


@dataclass(frozen=True)
class NoOp:
    """Parameters of the measurement."""

    texts: str = "passages"  # see `texts.texts_from`
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


def measure(lm: LanguageModel, parameters: NoOp, fresh: bool = False) -> Record:
    """The record `no_op/<model>.json`.

    Its values: `value_norm_ratio`, `key_norm_ratio` (first token over the others), `quiet_ratio` (what a head adds
    on the sink over what it adds off it), `by_layer`, `by_attention`, `search` (counts and the rules found),
    `examples`, `tests` (interventions) and `trigger_head` (the apostrophe head).
    """
    if (parameters.layer is None) != (parameters.head is None):
        raise FirstTokenError("layer and head name one head together: give both or neither.")
    if parameters.layer is not None and parameters.head is not None:
        heads.check_heads(lm, [(parameters.layer, parameters.head)])
    if not 2 <= parameters.norm_passages <= parameters.passages:
        raise FirstTokenError(f"norm_passages must be from 2 to passages={parameters.passages}.")
    chosen = texts.exactly(parameters.texts, parameters.passages)
    return records.reuse_or_measure(
        "no_op",
        model=lm,
        parameters=records.recorded(parameters),
        texts=texts.texts_hash(chosen),
        measure=lambda: _values(lm, texts.encode(lm, chosen, parameters.length, parameters.bos), parameters),
        judge=lambda values: judge(lm.slug, values),
        version=VERSION,
        fresh=fresh,
    )


def _values(lm: LanguageModel, ids: Tensor, parameters: NoOp) -> JSON:
    tokens = decode(lm, ids)
    few = ids[: parameters.norm_passages]
    traces = heads.trace_heads(lm, few, parameters.batch_tokens)
    rest = ids[parameters.norm_passages :]
    attention = traces.attention
    if len(rest):
        attention = torch.cat([attention, first_token_attention(lm, rest, parameters.batch_tokens)])
    found = conditions(tokens)
    discovery = Discovery(seed=parameters.seed)
    two, rules = noop_heads.discover(attention, found, discovery)
    named = [rule for rule in rules if rule.named]
    return {
        **norm_summary(traces, parameters.seed),
        "search": search_summary(attention, two, rules, discovery),
        "examples": [_example(rule, attention, tokens, found) for rule in named[:3]],
        "tests": [test_rule(lm, few, rule, two, found, parameters) for rule in named[: parameters.tested]],
        "trigger_head": trigger_head(
            lm,
            ids,
            tokens,
            attention,
            Wanted(parameters.layer, parameters.head, parameters.trigger),
            parameters.seed,
            parameters.batch_tokens,
        ),
    }


def first_token_attention(lm: LanguageModel, ids: Tensor, batch_tokens: int = 2048) -> Tensor:
    """Attention of every query to the first token, (text, layer, head, query), float32, on the CPU."""
    found = []
    remedy = f"lower batch_tokens (now {batch_tokens}) or length (now {ids.shape[1]}), or use dtype='bfloat16'"
    with torch.inference_mode(), explain_out_of_memory(remedy):
        for batch in ids.split(max(1, batch_tokens // ids.shape[1])):
            with probe(lm.model, keys=[0]) as p:
                lm.model.get_decoder()(batch.to(lm.model.device), use_cache=False)
            found.append(p.attention.transpose(0, 1).cpu())
    return torch.cat(found)


# -- norms --------------------------------------------------------------------------------------------------


def norm_summary(traces: heads.HeadTraces, seed: int) -> JSON:
    """Ratios of norms with intervals over texts, and their course through the layers."""
    value, key = heads.first_over_others(traces.value_norm), heads.first_over_others(traces.key_norm)
    massive = heads.massive_ratio(traces)
    sums, counts, kept = heads.added_by_attention(traces, EDGES)
    both = torch.stack([sums, counts], dim=-1)
    curve = []
    for i in range(len(EDGES) - 1):
        if len(kept):
            estimate = metrics.bootstrap(both, partial(_in_bin, i), resamples=200, seed=seed)
            curve.append(None if math.isnan(estimate.value) else asdict(estimate))
    return {
        "value_norm_ratio": asdict(metrics.bootstrap(value.flatten(1).median(1).values, seed=seed)),
        "key_norm_ratio": asdict(metrics.bootstrap(key.flatten(1).median(1).values, seed=seed)),
        "quiet_ratio": curve[-1] if curve else None,
        "smallest_value": asdict(metrics.bootstrap(_first_is_smallest(traces.value_norm), seed=seed)),
        "by_attention": {"edges": list(EDGES), "relative_norm": curve, "heads": len(kept)},
        "by_layer": {
            "value_first": _rounded(traces.value_norm[..., 0].mean((0, 2))),
            "value_others": _rounded(traces.value_norm[..., 1:].mean((0, 2, 3))),
            "key_first": _rounded(traces.key_norm[..., 0].mean((0, 2))),
            "key_others": _rounded(traces.key_norm[..., 1:].mean((0, 2, 3))),
            "massive_first": _rounded(massive[0].mean(0)),
            "massive_others": _rounded(massive[1].mean(0)),
        },
    }


def _in_bin(i: int, drawn: Tensor) -> Tensor:
    return heads.relative_to_off(drawn)[i]


def _first_is_smallest(value_norm: Tensor) -> Tensor:
    """Share of key-value heads in which the first token has the smallest value of all: (text,)."""
    return (value_norm.argmin(-1) == 0).double().flatten(1).mean(1)


# -- the search ---------------------------------------------------------------------------------------------


def search_summary(attention: Tensor, two: Modes, rules: Sequence[Rule], discovery: Discovery) -> JSON:
    """What the search looked at and what it found, the most informative rules first."""
    heads_per_layer = attention.shape[2]
    shown = [
        {
            **{k: v for k, v in asdict(rule).items() if k != "head"},
            **_place(rule.head, heads_per_layer),
            "share_off": float(two.share_off[rule.head]),
            "mean_off": float(two.mean_off[rule.head]),
            "mean_on": float(two.mean_on[rule.head]),
            "valley": float(two.valley[rule.head]),
            "bimodal": bool(two.bimodal[rule.head]),
            "histogram": _histogram(attention, rule.head, heads_per_layer, discovery.first_query),
        }
        for rule in rules[:20]
    ]
    return {
        "heads": int(two.bimodal.numel()),
        "switching": int(two.switches.sum()),
        "bimodal": int(two.bimodal.sum()),
        "named": sum(rule.named for rule in rules),
        "settings": asdict(discovery),
        "map": [[round(x, 3) for x in row] for row in attention[..., discovery.first_query :].mean((0, 3)).tolist()],
        "rules": shown,
    }


def _place(head: int, heads_per_layer: int) -> dict[str, int]:
    return {"layer": head // heads_per_layer, "head": head % heads_per_layer}


def _histogram(attention: Tensor, head: int, per_layer: int, start: int) -> list[float]:
    place = _place(head, per_layer)
    values = attention[:, place["layer"], place["head"], start:]
    counts = torch.histc(values, bins=20, min=0, max=1)
    return _rounded(counts / counts.sum())


def _example(rule: Rule, attention: Tensor, tokens: list[list[str]], found: Conditions) -> JSON:
    """A stretch of the text in which the head both rests and leaves most evenly."""
    place = _place(rule.head, attention.shape[2])
    rows = attention[:, place["layer"], place["head"]]
    holds = found.holds[found.names.index(rule.condition)]
    start = 8
    end = min(start + SHOWN, rows.shape[1])
    spread = rows[:, start:end].var(1)
    text = int(spread.argmax())
    return {
        **place,
        "condition": rule.condition,
        "off_when_true": rule.off_when_true,
        "tokens": tokens[text][start:end],
        "attention": _rounded(rows[text, start:end]),
        "holds": holds[text, start:end].tolist(),
    }


def test_rule(lm: LanguageModel, ids: Tensor, rule: Rule, two: Modes, found: Conditions, parameters: NoOp) -> JSON:
    """Does the rule matter? The head is held on the sink, or kept off it, and the losses are compared.

    Returns:
        change of the loss in nats at the queries where the rule says "off the sink", and at the others, for both
        interventions; and where the head looks when it is off
    """
    place = _place(rule.head, lm.model.config.get_text_config().num_attention_heads)
    layer, head = place["layer"], place["head"]
    start = Discovery().first_query
    queries = torch.arange(start, ids.shape[1] - 1, STRIDE)
    holds = found.holds[found.names.index(rule.condition), : len(ids)][:, queries]
    off = holds if rule.off_when_true else ~holds

    def losses(change: Any = None) -> Tensor:
        hook = None if change is None else in_layers({layer: change})
        with probe(lm.model, hook=hook):
            return predict(lm, ids, queries, parameters.batch_tokens // 2).loss

    intact = losses()
    maps = heads.attention_maps(lm, ids, [(layer, head)])[:, 0]
    leaves = maps[..., 0] <= two.threshold[rule.head]
    leaves[:, :start] = False
    result: JSON = {**place, "condition": rule.condition, "off_when_true": rule.off_when_true}
    result["targets"] = noop_heads.targets(maps, leaves)
    changes = {
        "held_on_the_sink": lambda call: only_key(call, heads=[head]),
        "kept_off_the_sink": lambda call: forbid_key_in_heads(call, [head]),
    }
    for name, change in changes.items():
        difference = (losses(change) - intact).double()
        result[name] = {
            "rule_says_off": metrics.mean_where(difference, off, parameters.seed),
            "rule_says_on": metrics.mean_where(difference, ~off, parameters.seed),
        }
    return result


def remeasure(lm: LanguageModel, record: Record) -> Record:
    """Measure what a record of this claim holds once more, with its own parameters."""
    return measure(lm, NoOp(**record.parameters), fresh=True)


# -- verdict ------------------------------------------------------------------------------------------------


def judge(model: str, values: JSON) -> Verdict:
    """Three parts of the claim, each with its interval: the first token's value is small, a head adds less while it
    rests there, and there are heads that leave it by a rule. Reproduced needs the paper's example too: in the paper's
    model its own head with both values in the paper's order, in another model at least one head of that kind."""
    value, quiet = values["value_norm_ratio"], values["quiet_ratio"]
    small = value["high"] < 0.5
    less = quiet is not None and quiet["high"] < 0.5
    ruled = values["search"]["named"] > 0
    parts = [
        f"The first token's value is {interval(value, unit=' times')} as long as the others'.",
        "No head uses both ends of the scale."
        if quiet is None
        else f"A head that rests on the first token adds {interval(quiet, unit=' times')} of what it adds otherwise.",
        f"{values['search']['named']} of {values['search']['heads']} heads leave it by a rule that can be named.",
    ]
    trigger = values["trigger_head"]
    if records.slug(records.paper()["apostrophe_head"]["model"]) == model:
        ordered = trigger["value_first"]["high"] < trigger["value_others"]["low"] and (
            trigger["value_trigger"]["low"] > trigger["value_others"]["high"]
        )
        parts.append(
            f"The paper's head attends to the trigger with {interval(trigger['attention_to_trigger'], '.0%')} right "
            f"after it; its value has norm {trigger['value_trigger']['value']:.1f}, the first token's "
            f"{trigger['value_first']['value']:.1f}."
        )
        good = ordered and trigger["is_one"]
    else:
        number = trigger["heads_of_that_kind"]
        parts.append(
            f"Heads of the paper's kind, which leave it for the trigger {trigger['trigger']} only: {number or 'none'}."
        )
        good = number > 0
    held = sum((small, less, ruled, good))
    status: records.Status = "reproduced" if held == 4 else "partly" if small or less else "not reproduced"
    return Verdict(status, " ".join(parts))


def _rounded(values: Tensor) -> list[float]:
    return [float(f"{value:.4g}") for value in values.tolist()]
