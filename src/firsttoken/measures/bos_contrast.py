"""One text, two beginnings: after a BOS token and without one. The text tokens are the same in both arms."""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor

from firsttoken import statistics
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.measures.bos_arms import Arm
from firsttoken.measures.first_token_attention import alphas
from firsttoken.models import LanguageModel


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
        execution: see `execution.choose`.
    """
    rows, _ = start(lm, ids, arm)
    alpha = alphas(lm, rows, rows.numel(), execution)
    return asdict(statistics.bootstrap(alpha, seed=seed))
