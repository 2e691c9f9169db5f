"""One text, two beginnings: after a BOS token and without one. The text tokens are the same in both arms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor

from firsttoken import statistics
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.execution.by_layer import attention, through_layers
from firsttoken.models import LanguageModel
from firsttoken.probe import Probe

Arm = Literal["with_bos", "without_bos"]
ARMS: tuple[Arm, ...] = ("with_bos", "without_bos")
LABELS: dict[Arm, str] = {"with_bos": "with BOS", "without_bos": "without BOS"}


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
            "chapters sink_rates, where and removal do not need one."
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
        return attention(p, layer)[..., 0].mean(-1) if layer else None  # (row, head)

    found = through_layers(lm, [rows], see, execution=execution, task="first-token mass")
    alpha = torch.stack([torch.cat(parts) for parts in found.values()], dim=1)  # (text, layer, head)
    return asdict(statistics.bootstrap(alpha, seed=seed))


def sink_survives(mass: Mapping[str, Any]) -> bool:
    """Whether the first token keeps more than half of its attention when it is no BOS: then the two arms differ in a
    token but not in having a sink, and comparing them says nothing about sinks.

    Args:
        mass: arm -> estimate, see `first_token_mass`.
    """
    return bool(mass["without_bos"]["value"] > 0.5 * mass["with_bos"]["value"])


def mass_sentence(mass: Mapping[str, Any]) -> str:
    """The attention on the first token in both arms, and what it means for a comparison of the two."""
    found = (
        f"The first token gets {mass['with_bos']['value']:.0%} of the attention with BOS and "
        f"{mass['without_bos']['value']:.0%} without."
    )
    if sink_survives(mass):
        found += (
            " The sink outlives BOS: it moves to the first token of the text, so this model cannot show what happens "
            "without a sink."
        )
    return found
