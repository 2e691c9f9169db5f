"""More or less of a sink without touching the input, and its controls, in the batches of a run.

Each change is one of `score_changes` in every layer and head; controls hold the attention to key 0 that the untouched
model has on the same batches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from firsttoken.measures.score_changes import add_noise, add_to_key, first_mass, noise, sharpen
from firsttoken.measures.spread import Batch
from firsttoken.probe.attention import AttentionCall
from firsttoken.probe.interventions import Hook

Change = Callable[[Batch], Hook]


class Masses:
    """Attention to key 0 in a run of the untouched model, for controls on the same batches to hold."""

    def __init__(self) -> None:
        self._of: dict[tuple[int, int], Tensor] = {}

    def note(self, batch: Batch) -> Hook:
        """A hook that changes nothing and remembers."""

        def hook(module: Any, call: AttentionCall) -> AttentionCall:
            self._of[batch.number, module.layer_idx] = first_mass(call)
            return call

        return hook

    def at(self, batch: Batch, layer: int) -> Tensor:
        """(row, head, query)."""
        return self._of[batch.number, layer]


def dosed(nats: float, keys: Tensor) -> Change:
    """Raise the score of one key of each text, (text,), in every layer and head."""

    def change(batch: Batch) -> Hook:
        of_row = keys[list(batch.text_of_row)]
        return lambda module, call: add_to_key(call, nats, of_row)

    return change


def noisy(sigma: float, seed: int, protected: Tensor, masses: Masses) -> Change:
    """`add_noise` in every layer.

    Args:
        protected: (text, key).
        masses: from the same batches.
    """

    def change(batch: Batch) -> Hook:
        def hook(module: Any, call: AttentionCall) -> AttentionCall:
            layer, heads, length = module.layer_idx, call.query.shape[1], call.key.shape[2]
            of_text = {text: noise(seed, text, layer, heads, length) for text in set(batch.text_of_row)}
            z = torch.stack([of_text[text] for text in batch.text_of_row])
            return add_noise(call, sigma, z, protected[list(batch.text_of_row)], masses.at(batch, layer))

        return hook

    return change


def sharpened(beta: float, protected: Tensor, masses: Masses) -> Change:
    """`sharpen` in every layer; arguments as for `noisy`."""

    def change(batch: Batch) -> Hook:
        of_row = protected[list(batch.text_of_row)]
        return lambda module, call: sharpen(call, beta, of_row, masses.at(batch, module.layer_idx))

    return change
