"""The rules by which heads leave the first token: what the search found, shown on a text, and tested by holding a head
on the sink or keeping it off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from firsttoken import statistics
from firsttoken.claims.no_op import search
from firsttoken.claims.no_op.search import Discovery, Modes, Rule
from firsttoken.estimates import JSON
from firsttoken.execution.shared_pass import together
from firsttoken.measures import attention_maps
from firsttoken.models import LanguageModel
from firsttoken.probe import probe
from firsttoken.probe.attention import AttentionCall
from firsttoken.probe.interventions import forbid_key_in_heads, in_layers, only_key
from firsttoken.probe.losses import predict
from firsttoken.texts.token_classes import TokenClasses

SHOWN = 40  # tokens of an example
LISTED = 20  # rules in a record, at least; every named one is there
FEWEST_SHOWN = 2  # of them where the rule says off, and where it says on
STRIDE = 2  # the loss is taken at every other query, because logits cost as much as the rest of a small model


def search_summary(
    attention: Tensor, two: Modes, rules: Sequence[Rule], discovery: Discovery, layers: Sequence[int]
) -> JSON:
    """What the search looked at and what it found, the most informative rules first.

    Args:
        layers: the numbers of the layers that the rows of `attention`, (text, layer, head, query), belong to.
    """
    heads_per_layer = attention.shape[2]
    shown = [
        {
            **{k: v for k, v in asdict(rule).items() if k != "head"},
            **_place(rule.head, heads_per_layer, layers),
            "share_off": float(two.share_off[rule.head]),
            "mean_off": float(two.mean_off[rule.head]),
            "mean_on": float(two.mean_on[rule.head]),
            "valley": float(two.valley[rule.head]),
            "bimodal": bool(two.bimodal[rule.head]),
            "histogram": _histogram(attention, rule.head, heads_per_layer, discovery.first_query),
        }
        for number, rule in enumerate(rules)
        if rule.named or number < LISTED
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


def _place(head: int, heads_per_layer: int, layers: Sequence[int]) -> dict[str, int]:
    return {"layer": layers[head // heads_per_layer], "head": head % heads_per_layer}


def _histogram(attention: Tensor, head: int, per_layer: int, start: int) -> list[float]:
    row, of_layer = divmod(head, per_layer)
    values = attention[:, row, of_layer, start:]
    counts = torch.histc(values, bins=20, min=0, max=1)
    return statistics.rounded(counts / counts.sum())


def example(
    rule: Rule,
    threshold: float,
    attention: Tensor,
    tokens: list[list[str]],
    classes: TokenClasses,
    layers: Sequence[int],
) -> JSON:
    """The stretch of a text that shows a rule best: the head is off the first token where the rule says so, and on it
    elsewhere, as often as in no other stretch; both sides count alike, and both occur at least twice.

    Args:
        threshold: attention to the first token above which the head is on it.

    Returns:
        besides the stretch, `follows`: the share of its queries that follow the rule, and `follows_everywhere`, of
        all queries of all texts
    """
    row, head = divmod(rule.head, attention.shape[2])
    weights = attention[:, row, head]  # (text, query)
    holds = classes.holds[classes.names.index(rule.condition)]
    says_off = holds if rule.off_when_true else ~holds
    follows = (weights <= threshold) == says_off
    start = Discovery().first_query
    size = min(SHOWN, weights.shape[1] - start)
    off, right = (x[:, start:].unfold(1, size, 1) for x in (says_off, follows))  # (text, stretch, query)
    of_side = [(right & side).sum(-1) / side.sum(-1).clamp_min(1) for side in (off, ~off)]
    both = (off.sum(-1) >= FEWEST_SHOWN) & ((~off).sum(-1) >= FEWEST_SHOWN)
    # Among equals the one that has most to show, so that it is not one lucky token.
    score = (of_side[0] + of_side[1]) / 2 + 1e-3 * off.sum(-1).clamp_max(size // 2) / size
    score = torch.where(both, score, score - 2)
    text, at = divmod(int(score.argmax()), score.shape[1])
    stretch = slice(start + at, start + at + size)
    return {
        **_place(rule.head, attention.shape[2], layers),
        "condition": rule.condition,
        "off_when_true": rule.off_when_true,
        "tokens": tokens[text][stretch],
        "attention": statistics.rounded(weights[text, stretch]),
        "holds": holds[text, stretch].tolist(),
        "follows": float(follows[text, stretch].double().mean()),
        "follows_everywhere": float(follows[:, start:].double().mean()),
    }


def rule_effect(
    lm: LanguageModel,
    ids: Tensor,
    rule: Rule,
    threshold: float,
    classes: TokenClasses,
    seed: int = 0,
    batch_tokens: int = 2048,
    execution: str = "resident",
    *,
    layers: Sequence[int],
) -> JSON:
    """Does the rule matter? The head is held on the sink, or kept off it, and the losses are compared.

    Args:
        ids: (text, token), the first of the texts of `classes`.
        threshold: attention to the first token above which the head is on the sink.
        layers: the numbers of the layers that have attention.

    Returns:
        change of the loss in nats at the queries where the rule says "off the sink", and at the others, for both
        interventions; and where the head looks when it is off, None where it never is in these texts
    """
    place = _place(rule.head, lm.config.get_text_config().num_attention_heads, layers)
    layer, head = place["layer"], place["head"]
    start = Discovery().first_query
    queries = torch.arange(start, ids.shape[1] - 1, STRIDE)
    holds = classes.holds[classes.names.index(rule.condition), : len(ids)][:, queries]
    off = holds if rule.off_when_true else ~holds

    def losses(lm: LanguageModel, change: Any = None) -> Tensor:
        hook = None if change is None else in_layers({layer: change})
        with probe(lm.model, hook=hook):
            return predict(lm, ids, queries, batch_tokens // 2, top=0).loss

    changes: dict[str, Callable[[AttentionCall], AttentionCall]] = {
        "held_on_the_sink": lambda call: only_key(call, heads=[head]),
        "kept_off_the_sink": lambda call: forbid_key_in_heads(call, [head]),
    }
    passes: dict[str, Callable[[LanguageModel], Tensor]] = {
        "intact": losses,
        "maps": partial(attention_maps.attention_maps, ids=ids, chosen=[(layer, head)]),
    }
    passes |= {name: partial(losses, change=change) for name, change in changes.items()}
    seen = together(lm, passes, execution)
    maps = seen["maps"][:, 0]
    leaves = maps[..., 0] <= threshold
    leaves[:, :start] = False
    about: JSON = {**place, "condition": rule.condition, "off_when_true": rule.off_when_true}
    about["targets"] = search.targets(maps, leaves)
    for name in changes:
        difference = (seen[name] - seen["intact"]).double()
        about[name] = {
            "rule_says_off": statistics.mean_where(difference, off, seed),
            "rule_says_on": statistics.mean_where(difference, ~off, seed),
        }
    return about
