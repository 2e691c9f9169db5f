"""Models by where the loss is in training, by context length and by seed, as the budgets of the lab have them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from firsttoken.estimates import JSON
from firsttoken.pretraining.packing import LossOn

LOSSES: tuple[LossOn, ...] = ("all", "second_half")
SEEDS = (0, 1)


def grid(lengths: Mapping[str, Sequence[int]], entry: Callable[[int, LossOn, int], JSON | None]) -> JSON:
    """{loss: {length: [an entry for each seed]}}.

    Args:
        lengths: of the windows, by where the loss is.
        entry: what is to be said of the model of a length, a loss and a seed; None for one that was not trained.
    """
    return {
        loss: {str(length): [entry(length, loss, seed) for seed in SEEDS] for length in lengths[loss]}
        for loss in LOSSES
    }


def in_order(of_length: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What is known of each context length, the shortest first."""
    return sorted(of_length.items(), key=lambda item: int(item[0]))


def each(of_grid: Mapping[str, Any]) -> Iterator[tuple[str, str, int, JSON | None]]:
    """Loss, length, seed and entry of every model of a grid that a record holds."""
    for loss, of_length in of_grid.items():
        for length, seeds in in_order(of_length):
            for seed, entry in enumerate(seeds or []):
                yield loss, length, seed, entry
