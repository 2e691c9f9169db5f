"""What a model's own code passes to each of its layers: noted in a dry run whose layers compute nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from firsttoken.models.anatomy import decoder_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class LayerInput:
    """What one layer gets besides hidden states: masks, rotary embeddings ..."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _Recorded(Exception):
    """Ends a dry run at the last layer: what comes after needs weights that are not in memory."""


def dry_run(
    model: PreTrainedModel, layers: nn.ModuleList, ids: Tensor, as_tuple: bool
) -> tuple[Tensor, list[LayerInput]] | None:
    """Run the decoder with layers that note their input and pass hidden states on.

    Args:
        ids: (row, token), on the model's device.
        as_tuple: whether the layers return a tuple, as older ones do, or the hidden states alone.

    Returns:
        the hidden states (row, token, dim) that go into the first layer, and the other inputs of each layer; None
        where they did not get from layer to layer unchanged, or where layers share a container that they fill
    """
    states: list[Tensor] = []
    noted: list[LayerInput] = []

    def note(*args: Any, **kwargs: Any) -> Any:
        given = args[0] if args else kwargs.pop("hidden_states")
        states.append(given)
        noted.append(LayerInput(args[1:], kwargs))
        if len(noted) == len(layers):
            raise _Recorded
        return (given, None) if as_tuple else given

    with instead(layers, note):
        try:
            decoder_of(model)(ids, use_cache=False)
        except _Recorded:
            pass
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
            # The wrong convention breaks the decoder in its own way.
            return None
    if len(noted) != len(layers) or any(given is not states[0] for given in states):
        return None
    if any(isinstance(value, dict | list) for given in noted for value in given.kwargs.values()):
        return None
    return states[0], noted


def share(noted: list[LayerInput], first: list[LayerInput]) -> list[LayerInput]:
    """The inputs of a batch with those values that equal the first batch's replaced by them, to hold masks once."""

    def same(value: Any, model: Any) -> Any:
        if isinstance(value, Tensor) and isinstance(model, Tensor):
            return model if value.shape == model.shape and torch.equal(value, model) else value
        if isinstance(value, tuple) and isinstance(model, tuple) and len(value) == len(model):
            return tuple(map(same, value, model))
        return value

    return [
        LayerInput(same(now.args, then.args), {k: same(v, then.kwargs.get(k)) for k, v in now.kwargs.items()})
        for now, then in zip(noted, first, strict=True)
    ]


@contextmanager
def instead(layers: nn.ModuleList, forward: Callable[..., Any]) -> Iterator[None]:
    """Let layers answer with another function; they stay in place because decoders read attributes of theirs."""
    for layer in layers:
        layer.forward = forward
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
