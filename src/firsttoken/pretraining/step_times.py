"""How long a training step takes beside others."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict

import torch

from firsttoken import statistics
from firsttoken.estimates import JSON


def over_first(steps: Mapping[str, Callable[[], object]], threads: int, rounds: int = 12) -> JSON:
    """How long each step takes over the first of them: turn by turn, so that all suffer alike from whatever else
    runs.

    Returns:
        `threads`, and for each step the median of the rounds' ratios with an interval over rounds
    """
    seconds = torch.zeros(rounds + 1, len(steps), dtype=torch.float64)
    for turn, (column, step) in itertools.product(range(rounds + 1), enumerate(steps.values())):
        begun = time.perf_counter()
        step()
        seconds[turn, column] = time.perf_counter() - begun
    ratios = seconds[1:] / seconds[1:, :1]  # the first turn warms up
    return {
        "threads": threads,
        **{
            name: asdict(statistics.bootstrap(ratios[:, column], lambda draw: draw.median()))
            for column, name in enumerate(steps)
        },
    }
