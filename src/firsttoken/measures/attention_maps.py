"""Whole attention maps, of chosen heads or of all of them on a short text."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from firsttoken.errors import FirstTokenError
from firsttoken.execution.by_layer import attention, through_layers
from firsttoken.models import LanguageModel
from firsttoken.models.anatomy import attention_layers
from firsttoken.probe import Probe, probe
from firsttoken.probe.attention import AttentionCall, log_sum_exp, plain_scores
from firsttoken.probe.forward import run_decoder
from firsttoken.progress import tracked


def attention_maps(lm: LanguageModel, ids: Tensor, chosen: Sequence[tuple[int, int]], batch: int = 8) -> Tensor:
    """Whole attention maps of a few heads.

    Args:
        chosen: (layer, head) of each.

    Returns:
        maps  # (text, chosen, query, key), float32

    Raises:
        FirstTokenError: there is no such layer or head.
    """
    check_heads(lm, chosen)
    batches: list[Tensor] = []
    for part in tracked(ids.split(batch)):
        rows: dict[tuple[int, int], Tensor] = {}

        def hook(module: Any, call: AttentionCall, rows: dict[tuple[int, int], Tensor] = rows) -> AttentionCall:
            for layer, head in chosen:
                if layer == module.layer_idx:
                    one = one_head(call, head)
                    weights = plain_scores(one) - log_sum_exp(plain_scores(one), one.sink_logits)[..., None]
                    rows[layer, head] = weights.exp()[:, 0].cpu()
            return call

        with torch.inference_mode(), probe(lm.model, hook=hook):
            run_decoder(lm.model, part)
        batches.append(torch.stack([rows[pair] for pair in chosen], dim=1))
    return torch.cat(batches)


def one_head(call: AttentionCall, head: int) -> AttentionCall:
    """The call of a single head, with its dimension kept."""
    cut = slice(head, head + 1)
    mask = call.mask if call.mask is None or call.mask.shape[1] == 1 else call.mask[:, cut]
    sink = None if call.sink_logits is None else call.sink_logits[:, cut]
    return replace(
        call, query=call.query[:, cut], key=call.key[:, cut], value=call.value[:, cut], mask=mask, sink_logits=sink
    )


def check_heads(lm: LanguageModel, chosen: Sequence[tuple[int, int]]) -> None:
    """Raises `FirstTokenError` unless each (layer, head) exists in the model."""
    config = lm.config.get_text_config()
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    of_attention = attention_layers(lm.config)
    for layer, head in chosen:
        if not 0 <= layer < layers:
            raise FirstTokenError(f"{lm.name} has no layer {layer}; its layers are 0 to {layers - 1}.")
        if of_attention is not None and layer not in of_attention:
            raise FirstTokenError(
                f"Layer {layer} of {lm.name} has no attention to tokens; its layers that have are "
                f"{', '.join(map(str, of_attention))}."
            )
        if not 0 <= head < heads:
            raise FirstTokenError(f"{lm.name} has no head {head}; its heads are 0 to {heads - 1} in each layer.")


def every_map(lm: LanguageModel, ids: Tensor, execution: str = "resident") -> Tensor:
    """The attention maps of all heads on one short input.

    Args:
        ids: (1, token).
        execution: see `by_layer.through_layers`.

    Returns:
        maps  # (layer, head, query, key), float32; a hybrid's layers that have attention
    """

    def see(number: int, layer: int, v: Tensor, p: Probe) -> Tensor | None:
        return attention(p, layer)

    keys = range(ids.shape[1])
    by_layer = through_layers(lm, [ids], see, keys=keys, execution=execution, task="attention maps")
    return torch.cat([parts[0] for parts in by_layer.values()])


def pack(attention_map: Tensor) -> str:
    """A causal map as text: its lower triangle row by row, one byte an entry (255 is all of the attention)."""
    rows, columns = np.tril_indices(attention_map.shape[0])
    entries = attention_map.numpy()[rows, columns]
    return base64.b64encode(np.rint(entries * 255).astype(np.uint8).tobytes()).decode()


def unpack(packed: str) -> Tensor:
    """The map (query, key) that `pack` stored, to 1/510."""
    entries = np.frombuffer(base64.b64decode(packed), dtype=np.uint8).astype(np.float32) / 255
    size = int((2 * len(entries)) ** 0.5)
    attention_map = np.zeros((size, size), dtype=np.float32)
    attention_map[np.tril_indices(size)] = entries
    return torch.from_numpy(attention_map)
