"""Caches that keep less than all keys and values at full precision: what each keeps, and what that takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from firsttoken.measures.cache_masks import Policy, evicting
from firsttoken.measures.rounding import rounded_cache
from firsttoken.models import LanguageModel
from firsttoken.models.anatomy import full_layers, head_size, key_value_heads
from firsttoken.probe.attention import AttentionCall
from firsttoken.probe.interventions import Hook

BITS = (8, 4, 3, 2)  # of a rounded number
WHOLE = 16  # bits of a number that is not rounded


@dataclass(frozen=True, kw_only=True)
class Cache:
    """One way of keeping less.

    Attributes:
        bits: of each number; `WHOLE` where none is rounded.
        exact: a token that is not rounded, and in a bounded cache not dropped: the first, or as a control another.
        bounded: whether only the newest tokens are kept.
    """

    bits: int = WHOLE
    exact: Literal["none", "first", "another"] = "none"
    bounded: bool = False

    @property
    def name(self) -> str:
        """As it stands in records."""
        if self.bounded:
            kept = "the first and the newest" if self.exact == "first" else "the newest"
            return kept if self.bits == WHOLE else f"{kept}, {self.bits} bits"
        exact = {"none": "", "first": ", the first exact", "another": ", another exact"}[self.exact]
        return f"{self.bits} bits{exact}"

    def hook(self, lm: LanguageModel, window: int) -> Hook:
        """The cache as a change to every layer; `another` token is the one at half the window."""
        kept = {"none": [], "first": [0], "another": [another(window)]}[self.exact]
        rounded = rounded_cache(self.bits, "token", kept)
        if not self.bounded:
            return rounded
        evict = evicting(lm.model, Policy(window + 1, "sinks", len(kept)), full_layers(lm.model))
        return evict if self.bits == WHOLE else one_after_the_other(rounded, evict)

    def bytes_a_token(self, lm: LanguageModel, length: int, window: int) -> float:
        """Bytes of keys and values for each token of a text, without the few of scales; sliding layers are counted
        like the others."""
        config = lm.config.get_text_config()
        numbers = 2 * config.num_hidden_layers * key_value_heads(config) * head_size(config)
        held = min(length, window + 1) if self.bounded else length
        whole = int(self.exact != "none")
        return float(numbers * ((held - whole) * self.bits + whole * WHOLE) / 8 / length)


def another(window: int) -> int:
    """The token that is exact in place of the first, as a control."""
    return window // 2


CACHES = (
    *(Cache(bits=bits, exact=exact) for bits in BITS for exact in ("none", "first", "another")),
    *(Cache(bits=bits, exact=exact, bounded=True) for exact in ("none", "first") for bits in (WHOLE, 4)),
)  # fmt: skip


def one_after_the_other(first: Hook, second: Hook) -> Hook:
    def hook(module: Any, call: AttentionCall) -> AttentionCall:
        return second(module, first(module, call))

    return hook
