"""Configurations that no model has, refused before a model of that size is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from firsttoken.errors import FirstTokenError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# Modules are made one by one and tables row by row, so these are bounded before a model is made.
# The first part that is in a key counts: `vocab_size_per_layer_input` is a size, not a number of layers.
_LIMITS = {
    "_size": 1 << 26,
    "layer": 10_000,
    "expert": 100_000,
    "position": 1 << 28,
    "head_dim": 1 << 16,
    "head": 1 << 16,
}


def refuse_absurd(name: str, config: Mapping[str, Any]) -> None:
    """Refuse a configuration whose counts would fill the memory before any weight is compared with them.

    Raises:
        FirstTokenError: a count beyond what any model has.
    """
    for key, value in config.items():
        if isinstance(value, dict):
            refuse_absurd(name, value)
        elif isinstance(value, int) and any(part in key for part in _LIMITS):
            limit = next(limit for part, limit in _LIMITS.items() if part in key)
            if not -1 <= value <= limit:
                raise FirstTokenError(
                    f"{name} says {key} = {value}, which no model has; it is damaged, do not use it."
                )


def refuse_too_many_layers(name: str, config: PreTrainedConfig, tensors: int) -> None:
    """Refuse a configuration with more layers than its file has tensors; to make such a model takes minutes.

    Raises:
        FirstTokenError: it has.
    """
    layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    if isinstance(layers, int) and layers > tensors:
        raise FirstTokenError(
            f"{name}: the file holds {tensors} tensors, too few for the {layers} layers of its configuration; save or "
            "download the whole model again, or put the configuration right."
        )
