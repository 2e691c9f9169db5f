"""What can be taken from chosen heads: all they add, all but the first token and a window, all but a few bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from firsttoken.measures.rounding import restored, round_to_bits
from firsttoken.models.anatomy import attention_blocks, keeps_in_out, output_weight
from firsttoken.probe.attention import AttentionCall
from firsttoken.probe.interventions import Hook, explicit_mask, without

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Treatment = Literal["remove", "shorten", "coarsen"]
Chosen = Mapping[int, Sequence[int]]  # layer -> heads


def removed(chosen: Chosen) -> Hook:
    """A hook under which the chosen heads add nothing."""

    def hook(module: Any, call: AttentionCall) -> AttentionCall:
        if heads := list(chosen.get(int(module.layer_idx), ())):
            # Keys and values come repeated for grouped queries, so that one head can lose its own.
            value = call.value.clone()
            value[:, heads] = 0.0
            return replace(call, value=value)
        return call

    return hook


def shortened(chosen: Chosen, window: int) -> Hook:
    """A hook under which the chosen heads read only the first token and the newest `window` tokens."""

    def hook(module: Any, call: AttentionCall) -> AttentionCall:
        if heads := list(chosen.get(int(module.layer_idx), ())):
            block = torch.zeros(call.query.shape[1], 1, 1, dtype=torch.bool, device=call.key.device)
            block[heads] = True
            far = call.query_positions()[:, None] - call.key_positions() >= window
            far = far & (call.key_positions() > 0)  # (query, key)
            return replace(call, mask=without(explicit_mask(call), (block & far)[None]), causal=False)
        return call

    return hook


def scores_left(chosen: Chosen, window: int, length: int, heads: int) -> float:
    """Share of the scores of a causal text of `length` tokens that are computed where the chosen of all `heads` are
    shortened."""
    whole = length * (length + 1) / 2
    short = sum(min(query + 1, window + 1) for query in range(length))
    shortened_heads = sum(map(len, chosen.values()))
    return 1 - shortened_heads / heads * (1 - short / whole)


@contextmanager
def coarsened(model: PreTrainedModel, chosen: Chosen, bits: int) -> Iterator[None]:
    """Inside the block, the output matrices of the chosen heads are rounded to nearest, one group for each head and
    output channel; after it, all are as before, bit by bit."""
    blocks = [block for block in attention_blocks(model) if chosen.get(block.index)]
    heads = model.config.get_text_config().num_attention_heads
    with restored([block.output for block in blocks]):
        with torch.no_grad():
            for block in blocks:
                by_head = output_weight(block, heads).clone()  # (head, value_dim, width)
                some = list(chosen[block.index])
                by_head[some] = round_to_bits(by_head[some], bits, 1)
                _put(block.output, by_head.flatten(0, 1))
        yield


def _put(output: nn.Module, rows: Tensor) -> None:
    """Rows (head * value_dim, width) into an output projection."""
    weight: Any = output.weight
    weight.copy_(rows if keeps_in_out(output) else rows.T)
