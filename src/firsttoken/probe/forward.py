"""One forward pass of the decoder alone: everything here that needs no logits runs through it.

Logits over the vocabulary are often the largest tensor of a pass, and no statistic of attention needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from firsttoken.errors import FirstTokenError
from firsttoken.models.anatomy import decoder_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def run_decoder(model: PreTrainedModel, ids: Tensor, **options: Any) -> Tensor:
    """The last hidden state, after the final norm, of texts without padding; probes and hooks see the pass.

    Args:
        ids: (text, token), on any device.
        options: passed to the decoder, such as `position_ids`.

    Returns:
        hidden  # (text, token, width), on the model's device

    Raises:
        FirstTokenError: the decoder cannot be run by itself.
    """
    out = decoder_of(model)(ids.to(model.device), use_cache=False, **options)
    if not isinstance(hidden := getattr(out, "last_hidden_state", None), Tensor):
        raise FirstTokenError(
            f"{type(model).__name__} has no decoder that can be run without its output head; choose another model."
        )
    return hidden


def in_batches(ids: Tensor, batch_tokens: int) -> tuple[Tensor, ...]:
    """The rows of (text, token), in order, at most `batch_tokens` tokens at once and at least one text."""
    return ids.split(max(1, batch_tokens // ids.shape[1]))
