"""Models by where the loss is in training, by context length and by seed, as the budgets of the lab have them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from firsttoken.estimates import JSON
from firsttoken.pretraining.packing import LossOn
from firsttoken.pretraining.run_spec import Training
from firsttoken.records import Record

LOSSES: tuple[LossOn, ...] = ("all", "second_half")
SEEDS = (0, 1)


def grid(
    lengths: Mapping[str, Sequence[int]],
    training: Callable[[int, LossOn, int], Training],
    trained: Mapping[Training, Record],
    entry: Callable[[Record, int], JSON],
) -> JSON:
    """{loss: {length: [an entry for each seed]}}; None in place of one that was not trained.

    Args:
        lengths: of the windows, by where the loss is.
        training: the run of a length, a loss and a seed.
        entry: what is to be said of a run and its length.
    """

    def of(length: int, loss: LossOn, seed: int) -> JSON | None:
        one = training(length, loss, seed)
        return entry(trained[one], length) if one in trained else None

    return {
        loss: {str(length): [of(length, loss, seed) for seed in SEEDS] for length in lengths[loss]} for loss in LOSSES
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
