"""One text, two beginnings: after a BOS token and without one. The text tokens are the same in both arms."""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor

from firsttoken import statistics
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.execution.by_layer import attention, through_layers
from firsttoken.measures.bos_arms import Arm
from firsttoken.models import LanguageModel
from firsttoken.probe import Probe


def start(lm: LanguageModel, ids: Tensor, arm: Arm) -> tuple[Tensor, int]:
    """The input of one arm, and the column where the text begins in it.

    Args:
        ids: (text, token), text tokens without BOS.

    Raises:
        FirstTokenError: `with_bos` for a model whose tokenizer has no BOS token.
    """
    if arm == "with_bos" and lm.tokenizer.bos_token_id is None:
        raise FirstTokenError(
            f"{lm.name} has no BOS token in its tokenizer, so it cannot be compared with and without one; the "
            "chapters sink_rates, sink_position and removal do not need one."
        )
    prefix = lm.prefix("always" if arm == "with_bos" else "never")
    if not prefix:
        return ids, 0
    column = torch.tensor(prefix, dtype=ids.dtype).expand(len(ids), -1)
    return torch.cat([column, ids], dim=1), len(prefix)


def first_token_mass(lm: LanguageModel, ids: Tensor, arm: Arm, seed: int = 0, execution: str = "resident") -> JSON:
    """Mean attention to the first token of the input, whichever it is in this arm, as an estimate over texts.

    Args:
        ids: (text, token), text tokens without BOS; a few texts are enough.
        execution: see `by_layer.through_layers`.
    """
    rows, _ = start(lm, ids, arm)

    def see(number: int, layer: int, v: Tensor, p: Probe) -> Tensor | None:
        weights = attention(p, layer)
        return None if weights is None else weights[..., 0].mean(-1)  # (row, head)

    by_layer = through_layers(lm, [rows], see, execution=execution, task="first-token mass")
    alpha = torch.stack([torch.cat(parts) for parts in by_layer.values()], dim=1)  # (text, layer, head)
    return asdict(statistics.bootstrap(alpha, seed=seed))
