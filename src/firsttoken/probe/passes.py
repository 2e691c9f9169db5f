"""Which forward pass of a model is running: how many tokens it has, what its cache still holds, when it began.

An attention module knows neither. Without the pass, a layer number that comes twice (a shared block, a loop, two
calls, cross-attention) looks like the beginning of the next pass, and the keys of a cache that has dropped some look
like the first ones of the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from firsttoken.errors import FirstTokenError
from firsttoken.models.anatomy import decoder_of, find_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Held:
    """What one layer's cache held when the pass began."""

    seen: int  # tokens of the text that went before
    positions: Tensor | None  # (key,), the place in the text of each key that is left; None: all, from 0 on


@dataclass
class Passes:
    """The pass that is running, or the last one."""

    number: int = 0
    whole: bool = False  # of the model, not of a single layer that somebody runs by itself
    tokens: int | None = None  # in this pass
    cached: bool = False  # whether a cache was handed in
    held: dict[int, Held] = field(default_factory=dict)
    _depth: int = 0

    @contextmanager
    def watch(self, model: PreTrainedModel) -> Iterator[None]:
        """Follow the passes of `model`, of its decoder and of each of its layers inside the block."""
        whole = {id(part): part for part in (model, model.base_model, decoder_of(model))}.values()
        try:
            layers = list(find_layers(model)[1])
        except FirstTokenError:
            layers = []
        with ExitStack() as stack:
            for part in (*whole, *layers):
                stack.callback(
                    part.register_forward_pre_hook(self._enter(part not in layers), with_kwargs=True).remove
                )
                stack.callback(part.register_forward_hook(self._leave, always_call=True).remove)
            yield

    def outside(self) -> None:
        """An attention module was called by itself: that is a pass of its own."""
        if self._depth == 0:
            self._begin(whole=False)

    def _begin(self, whole: bool) -> None:
        self.number += 1
        self.whole, self.tokens, self.cached, self.held = whole, None, False, {}

    def _enter(self, whole: bool) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            outermost = self._depth == 0
            if outermost:
                self._begin(whole)
            self._depth += 1
            if whole or outermost:
                self._note(args, kwargs)

        return hook

    def _leave(self, *_: Any) -> None:
        self._depth = max(self._depth - 1, 0)

    def _note(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = [kwargs.get(name) for name in ("input_ids", "inputs_embeds", "hidden_states")]
        text = next((value for value in (*given, *args[:1]) if isinstance(value, Tensor) and value.dim() > 1), None)
        if text is not None:
            self.tokens = text.shape[1]
        cache = kwargs.get("past_key_values")
        cache = getattr(cache, "self_attention_cache", cache)
        if cache is not None and not self.cached and hasattr(cache, "layers"):
            self.cached = True
            self.held = {
                number: held
                for number, layer in enumerate(cache.layers)
                if (held := _held(layer, self.tokens or 1)) is not None
            }


def _held(layer: Any, queries: int) -> Held | None:
    """What a layer of transformers' caches holds; None for one that keeps no keys (the state of a recurrence)."""
    if hasattr(layer, "text_positions"):
        kept: Tensor = layer.text_positions(queries)
        return Held(int(layer.tokens_seen), kept)
    if not hasattr(layer, "get_mask_sizes"):
        return None
    seen = int(layer.get_seq_length())
    length, offset = (int(size) for size in layer.get_mask_sizes(queries))
    return Held(seen, torch.arange(offset, offset + length) if offset else None)
