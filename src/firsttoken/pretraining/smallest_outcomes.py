"""What a trained `Smallest` shows besides its loss and its sink, as `design_outcomes` says it of a larger model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from firsttoken.estimates import JSON
from firsttoken.pretraining.design_outcomes import EDITS, spread_and_own
from firsttoken.pretraining.smallest import Smallest, losses
from firsttoken.pretraining.smallest_training import HELD_OUT, PLAIN, Run, Setting
from firsttoken.pretraining.step_times import over_first

_EDITS = 4 << 20  # added to a seed, so that these texts and edits share no random bits with those of the training


def of_run(run: Run, setting: Setting) -> dict[str, float]:
    """The `outcomes` of one seed, on plain texts that neither its training nor its history has seen."""
    random = torch.Generator().manual_seed(run.seed + _EDITS)
    task = setting.task(run.seed)
    ids = PLAIN.draw(task.cumulative()[None], [random], HELD_OUT // setting.length, setting.length, task)[0]
    return outcomes(run.model, ids, random)


def outcomes(model: Smallest, ids: Tensor, random: torch.Generator) -> dict[str, float]:
    """One model on texts (text, token) of three tokens or more, whose first ones are never replaced.

    Returns:
        `spread_over_own`: how far one replaced token moves the later ones, over how far it moves itself: relative
        distances of the residual stream behind the block, sums over several edits of each text;
        `largest_activation`: of that residual stream, over its median size.
    """
    with torch.no_grad():
        before = model(ids).stream
        sizes = before.abs()
        moved = torch.zeros(2, dtype=torch.float64)
        for _ in range(EDITS):
            of_edit = spread_and_own(lambda rows: model(rows).stream[None], ids, before[None], ids, random)
            moved += of_edit.double().sum(0)
    return {
        "spread_over_own": float(moved[0] / moved[1]),
        "largest_activation": float(sizes.max() / sizes.median()),
    }


def step_times(settings: Mapping[str, Setting], threads: int, rounds: int = 12) -> JSON:
    """How long a training step of one model of each setting takes, over that of the first: forward and backward pass
    of a step's random tokens; with an interval over rounds (see `step_times.over_first`)."""

    def step(model: Smallest, ids: Tensor) -> None:
        losses(model(ids).logits, ids).mean().backward()
        model.zero_grad()

    random = torch.Generator().manual_seed(0)
    steps = {}
    for name, setting in settings.items():
        shape = setting.tokens_per_step // setting.length, setting.length
        steps[name] = partial(step, setting.model(0), torch.randint(setting.symbols + 1, shape, generator=random))
    return over_first(steps, threads, rounds)
