"""Which heads are chosen: those most at rest, those least, random ones, and random ones of the same layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from firsttoken import texts
from firsttoken.measures.first_token_attention import alphas
from firsttoken.models import BosPolicy, LanguageModel

Choice = Literal["most at rest", "least at rest", "random", "random, same layers"]
CHOICES: tuple[Choice, ...] = ("most at rest", "least at rest", "random", "random, same layers")
RANDOM: tuple[Choice, ...] = ("random", "random, same layers")
CALIBRATION = 24  # passages that tell which heads rest, none of them measured


def calibration() -> list[str]:
    """The passages that tell which heads rest."""
    return [passage.text for passage in texts.passages()[-CALIBRATION:]]


def rest(lm: LanguageModel, bos: BosPolicy, batch_tokens: int) -> Tensor:
    """Attention of every head to the first token, (layer, head), on passages that are not measured."""
    ids = texts.encode(lm, calibration(), 64, bos)
    return alphas(lm, ids, batch_tokens, "resident").mean(0)


def choose(mass: Tensor, share: float, choice: Choice, layers: Sequence[int], seed: int = 0) -> dict[int, list[int]]:
    """A share of all heads.

    Args:
        mass: attention to the first token, (layer, head).
        share: of all heads; at least one is chosen.
        layers: the number of each row's layer.
        seed: of the random choices.

    Returns:
        {layer: heads}, as many heads for every choice
    """
    count = max(1, round(share * mass.numel()))
    generator = torch.Generator().manual_seed(seed)
    order = mass.flatten().argsort(descending=True, stable=True)
    top = order[:count]
    if choice == "least at rest":
        top = order.flip(0)[:count]
    elif choice == "random":
        top = torch.randperm(mass.numel(), generator=generator)[:count]
    elif choice == "random, same layers":
        of_row = torch.bincount(top // mass.shape[1], minlength=len(mass)).tolist()
        drawn = [torch.randperm(mass.shape[1], generator=generator)[:n] for n in of_row]
        top = torch.cat([heads + row * mass.shape[1] for row, heads in enumerate(drawn)])
    chosen: dict[int, list[int]] = {}
    for number in sorted(top.tolist()):
        row, head = divmod(number, mass.shape[1])
        chosen.setdefault(layers[row], []).append(head)
    return chosen
