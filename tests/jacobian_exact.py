"""The exact Jacobian of a tiny model's residual stream, entry by entry, by reverse-mode differentiation."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from firsttoken.probe.residual_stream import watch


def exact_jacobian(model: PreTrainedModel, ids: Tensor, layer: int, first_key: float = 0.0) -> Tensor:
    """dv_j^(layer) / dv_i^(0) for one input.

    Args:
        ids: (1, token).
        first_key: nats on the score of the first key, in every head, for every query but the first.

    Returns:
        jacobian  # (token j, width, token i, width)
    """
    start: list[Tensor] = []
    with torch.no_grad(), watch(model, lambda number, v: start.append(v) if number == 0 else None):
        model.get_decoder()(ids, use_cache=False)

    length, width = start[0].shape[1:]
    # One row of a batch for every output entry: one backward pass gives all of them.
    rows = start[0].expand(length * width, -1, -1).detach().clone().requires_grad_()
    seen: dict[int, Tensor] = {}

    def see(number: int, v: Tensor) -> Tensor | None:
        seen[number] = v
        return rows if number == 0 else None

    # transformers takes a mask of four dimensions as it is.
    allowed = torch.ones(length, length, dtype=torch.bool).tril()
    mask = torch.zeros(length, length, dtype=rows.dtype).masked_fill(~allowed, -torch.inf)
    mask[1:, 0] += first_key
    dosed = {"attention_mask": mask.expand(len(rows), 1, -1, -1)} if first_key else {}
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with watch(model, see):
        model.get_decoder()(ids.expand(len(rows), -1), use_cache=False, **dosed)
    model.set_attn_implementation(before)
    outputs = seen[layer].reshape(length * width, -1).diagonal().sum()
    (gradient,) = torch.autograd.grad(outputs, rows)
    return gradient.reshape(length, width, length, width)
