"""A key-value cache that never grows: the first n tokens and the newest, renumbered by their place in the cache.

One of transformers' caches, for `model(..., past_key_values=cache)` with one new token at a time, without end:
StreamingLLM (arXiv 2309.17453). Positions never exceed the size of the cache, so a model can go on beyond the longest
text it was trained on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from firsttoken.errors import FirstTokenError
from firsttoken.models.anatomy import layer_kinds, rotations
from firsttoken.probe.rotary import Rotary, rotary

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class SinkWindowLayer(DynamicLayer):
    """One layer's keys and values: at most `window` of them are read, at most `window` - 1 stay for the next token.

    When the cache is full, the oldest token after the first `sinks` leaves, and those behind it move up by one place:
    their keys are turned back by one position.
    """

    def __init__(self, window: int, sinks: int, rotary: Rotary, one_back: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.window, self.sinks, self.rotary = window, sinks, rotary
        self.tokens_seen = 0
        self.cos, self.sin = one_back  # (dim,), of one position

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        keys, values = super().update(key_states, value_states)
        self.tokens_seen += key_states.shape[-2]
        if keys.shape[-2] > self.window:
            raise FirstTokenError(
                f"A cache of {self.window} tokens takes {self.window - 1} at once and then one at a time."
            )
        if keys.shape[-2] == self.window:
            moved = keys[:, :, self.sinks + 1 :]
            self.cos, self.sin = (part.to(moved.device) for part in (self.cos, self.sin))
            moved = self.rotary.turn(moved, self.cos, -self.sin)
            self.keys = torch.cat([keys[:, :, : self.sinks], moved], dim=2)
            self.values = torch.cat([values[:, :, : self.sinks], values[:, :, self.sinks + 1 :]], dim=2)
        return keys, values

    def text_positions(self, queries: int) -> Tensor:
        """The place in the text of each key that the next `queries` tokens will read, themselves included: (key,)."""
        kept = min(self.tokens_seen, self.window - 1)
        first = min(kept, self.sinks)
        newest = torch.arange(self.tokens_seen - (kept - first), self.tokens_seen + queries)
        return torch.cat([torch.arange(first), newest])


def sink_window_cache(model: PreTrainedModel, window: int, sinks: int = 4) -> Cache:
    """An empty cache for a model whose layers all see the whole text.

    Raises:
        FirstTokenError: no room, no rotary positions, or layers of another kind, as with a sliding window.
    """
    if not 0 <= sinks < window - 1:
        raise FirstTokenError(f"A cache of {window} tokens has no room for {sinks} sinks, a window and a new token.")
    config = model.config.get_text_config()
    turning = rotary(model)
    layers: list[Any] = []
    for number, kind in enumerate(layer_kinds(model)):
        if kind == "sliding_attention":
            raise FirstTokenError(
                f"Layers of {type(model).__name__} slide over {config.sliding_window} tokens of their own and count "
                "positions from the beginning; a renumbered cache would confuse them. Use a model without such layers."
            )
        if kind not in ("full_attention", "attention"):
            raise FirstTokenError(
                f"Layer {number} of {type(model).__name__} is of the kind {kind}, which keeps a state and no tokens; "
                "a bounded cache is for models whose layers all attend to tokens."
            )
        cos, sin = rotations(model, torch.ones(1, dtype=torch.long), number)
        layers.append(SinkWindowLayer(window, sinks, turning, (cos[0], sin[0])))
    return Cache(layers=layers)


def cache_bytes(cache: Cache) -> int:
    """Memory of all keys and values, in bytes."""
    total = 0
    for layer in cache.layers:
        if isinstance(layer, DynamicLayer) and layer.is_initialized:
            total += sum(part.numel() * part.element_size() for part in (layer.keys, layer.values) if part is not None)
    return total
