"""Turning a model's queries and keys to another position, as its own rotary embeddings do.

Architectures pair the components of a head in two ways: 0 with d/2, 1 with d/2 + 1 ... (Llama, most others), or 0
with 1, 2 with 3 ... (Cohere, Helium, ERNIE 4.5, GLM). Some leave layers unturned. Neither can be read from a
configuration, so keys of one token at two positions are compared, in a small copy of the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from firsttoken.errors import FirstTokenError
from firsttoken.models.anatomy import rotate_half, rotation_length, rotations
from firsttoken.models.small_copy import small_copy
from firsttoken.probe.attention import AttentionCall
from firsttoken.probe.attention_probe import probe

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PLACES = (0, 5)  # of the token whose keys are compared
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Rotary:
    """How a model turns its heads."""

    interleaved: bool

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Queries or keys, (..., token, dim), turned by `rotations(...)`, (token, dim) each; back with -sin."""
        if not self.interleaved:
            return x * cos + rotate_half(x) * sin
        cos, sin = (part[..., : part.shape[-1] // 2].repeat_interleave(2, dim=-1) for part in (cos, sin))
        return x * cos + torch.stack([-x[..., 1::2], x[..., 0::2]], dim=-1).flatten(-2) * sin


_known: WeakKeyDictionary[PreTrainedModel, Rotary | str] = WeakKeyDictionary()


def rotary(model: PreTrainedModel) -> Rotary:
    """How `model` turns the queries and keys of every layer.

    Raises:
        FirstTokenError: it has no rotary positions over the whole head, leaves layers unturned, turns by angles that
            depend on the length of the text, or in planes of another kind.
    """
    if model not in _known:
        try:
            _known[model] = _compared(model)
        except FirstTokenError as error:
            _known[model] = str(error)
    known = _known[model]
    if isinstance(known, str):
        raise FirstTokenError(known)
    return known


def _compared(model: PreTrainedModel) -> Rotary:
    kind = type(model).__name__
    rotations(model, torch.arange(2), 0)
    if rotation_length(model.config) is not None:
        raise FirstTokenError(
            f"{kind} turns positions by angles that depend on the length of the text, so they cannot be renumbered."
        )
    copied = small_copy(model.config)
    if copied is None:
        if any(parameter.is_meta for parameter in model.parameters()):
            raise FirstTokenError(f"It is not known how {kind} turns its positions, so they cannot be renumbered.")
        copied = model
    before, after = (_keys(copied, place) for place in PLACES)
    # Latent attention turns a part of each key that is wider than the head of the configuration.
    whole = all(before[layer].shape[-1] == _angles(copied, layer)[0].shape[-1] for layer in before)
    for interleaved in (False, True) if whole else ():
        candidate = Rotary(interleaved)
        if all(
            torch.allclose(candidate.turn(before[layer], *_angles(copied, layer)), after[layer], atol=TOLERANCE)
            for layer in before
        ):
            return candidate
    raise FirstTokenError(
        f"{kind} does not turn all its layers in planes of a known kind, so positions cannot be renumbered."
    )


def _angles(model: PreTrainedModel, layer: int) -> tuple[Tensor, Tensor]:
    cos, sin = rotations(model, torch.tensor([PLACES[1] - PLACES[0]]), layer)
    return cos.float().cpu(), sin.float().cpu()


def _keys(model: PreTrainedModel, place: int) -> dict[int, Tensor]:
    """Keys of one token that stands alone at `place`, on the CPU: it attends to itself, so only its keys tell where it
    stands."""
    keys: dict[int, Tensor] = {}

    def hook(module: Any, call: AttentionCall) -> AttentionCall:
        keys[int(module.layer_idx)] = call.key.float().cpu()
        return call

    ids = torch.tensor([[5]], device=model.device)
    with torch.inference_mode(), probe(model, hook=hook):
        model(input_ids=ids, position_ids=torch.full_like(ids, place), use_cache=False)
    return keys
