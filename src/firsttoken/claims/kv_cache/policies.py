"""What a bounded cache may keep: the policies that the chapter compares, each as a change to attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

from firsttoken.errors import FirstTokenError
from firsttoken.measures.cache_masks import Kept, Policy, Positions, evicting
from firsttoken.models import LanguageModel
from firsttoken.models.anatomy import config_value, full_layers
from firsttoken.probe.attention import AttentionCall
from firsttoken.probe.interventions import Hook
from firsttoken.probe.rotary import rotary

SINKS = (1, 2, 4, 8)


def why_not_renumbered(lm: LanguageModel) -> str:
    """Why positions of kept tokens cannot be those of a cache, in a sentence; empty where they can."""
    try:
        rotary(lm.model)
    except FirstTokenError as error:
        return str(error)
    return ""


def policies(lm: LanguageModel, window: int) -> dict[str, Hook | None]:
    """Every policy of the chapter that is the same for all texts, by name. Only those whose names say so touch layers
    with a sliding window.

    First tokens that stay are renumbered where the model's positions allow it, and keep their own elsewhere.

    Raises:
        FirstTokenError: every layer has a sliding window of its own.
    """
    layers = full_layers(lm.model)
    if not layers:
        raise FirstTokenError(
            f"Every layer of {lm.name} slides over {config_value(lm.config, 'sliding_window')} tokens of its own, so "
            "there is no cache of the whole text to bound; choose a model with layers that see all of it."
        )
    depth = lm.config.get_text_config().num_hidden_layers
    renumbered: Positions = "original" if why_not_renumbered(lm) else "cache"
    both: tuple[Positions, ...] = get_args(Positions) if renumbered == "cache" else ("original",)

    def hook(*, kept: Kept, count: int = 0, positions: Positions = "original") -> Hook:
        return evicting(lm.model, Policy(window, kept, count, positions), layers)

    hooks: dict[str, Hook | None] = {"full": None, "window": hook(kept="none")}
    for count in SINKS:
        hooks[f"sinks {count}"] = hook(kept="sinks", count=count, positions=renumbered)
    if renumbered == "cache":
        hooks["sinks 4, original positions"] = hook(kept="sinks", count=4)
    hooks["heavy hitters"] = hook(kept="heavy")
    if len(layers) < depth:
        hooks["window, sliding layers too"] = evicting(lm.model, Policy(window))
        sliding = [layer for layer in range(depth) if layer not in layers]
        four = Policy(window, "sinks", 4, renumbered)
        hooks["sinks 4, sliding layers too"] = in_turn(
            bounded_sliding(lm, sliding, four), evicting(lm.model, four, layers)
        )
        for positions in both:
            hooks[f"sliding layers see the first, {positions} positions"] = first_for_sliding(lm, sliding, positions)
    return hooks


def first_for_sliding(lm: LanguageModel, layers: Sequence[int], positions: Positions) -> Hook:
    """The full layers as they are; the sliding ones see, beside their own window, the first token of the text."""
    return unhidden(evicting(lm.model, Policy(own_window(lm) + 1, "sinks", 1, positions), layers), layers)


def bounded_sliding(lm: LanguageModel, layers: Sequence[int], policy: Policy) -> Hook:
    """The full layers as they are; the sliding ones read what a cache under `policy` would hold, in no more tokens
    than their own window has."""
    return unhidden(evicting(lm.model, replace(policy, window=min(policy.window, own_window(lm))), layers), layers)


def own_window(lm: LanguageModel) -> int:
    """Tokens that a sliding layer sees, the newest included."""
    return int(lm.config.get_text_config().sliding_window)


def unhidden(hook: Hook, layers: Sequence[int]) -> Hook:
    """The hook in layers whose own mask, which hides the first tokens from late queries, is taken away before."""

    def changed(module: Any, call: AttentionCall) -> AttentionCall:
        return hook(module, replace(call, mask=None, causal=True) if module.layer_idx in layers else call)

    return changed


def in_turn(first: Hook, second: Hook) -> Hook:
    """Two hooks that change different layers, as one."""
    return lambda module, call: second(module, first(module, call))
