"""The loss that every part of the chapter takes, at every fourth query of a text, and how much text that needs."""

from __future__ import annotations

import torch
from torch import Tensor

from firsttoken.errors import FirstTokenError
from firsttoken.models import LanguageModel
from firsttoken.probe.interventions import Hook
from firsttoken.probe.losses import mean_losses

STRIDE = 4
FIRST_QUERY = 8


def losses(
    lm: LanguageModel, ids: Tensor, batch_tokens: int, hook: Hook | None = None, first: int = FIRST_QUERY
) -> Tensor:
    """Mean loss of each text, (text,), float64.

    Args:
        ids: (text, token).
        first: the first query that counts.
    """
    return mean_losses(lm, ids, torch.arange(first, ids.shape[1] - 1, STRIDE), batch_tokens, hook)


def enough_text(windows: int, length: int, window: int, kind: str = "") -> None:
    """Refuse texts too few for an interval, or too short to reach beyond a window.

    Args:
        kind: how the names of the first two parameters begin.
    """
    if windows < 2 or window < 8 or length < 2 * window:
        raise FirstTokenError(
            f"Give at least two {kind}windows, a window of at least 8 tokens and a {kind}length of at least twice "
            f"that, not {windows}, {window} and {length}."
        )
