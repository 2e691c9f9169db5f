"""The loss that every part of the chapter takes: at every fourth query of a text."""

from __future__ import annotations

import torch
from torch import Tensor

from firsttoken.models import LanguageModel
from firsttoken.probe.interventions import Hook
from firsttoken.probe.losses import mean_losses

STRIDE = 4
FIRST_QUERY = 8


def losses(lm: LanguageModel, ids: Tensor, batch_tokens: int, hook: Hook | None = None) -> Tensor:
    """Mean loss of each text, (text,), float64.

    Args:
        ids: (text, token).
    """
    return mean_losses(lm, ids, torch.arange(FIRST_QUERY, ids.shape[1] - 1, STRIDE), batch_tokens, hook)
