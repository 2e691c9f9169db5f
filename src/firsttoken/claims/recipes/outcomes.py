"""What one trained head shows: what it learnt, where it rests, how far noise moves it, what a missing BOS costs it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from firsttoken.estimates import JSON
from firsttoken.pretraining import backcopy, smallest_outcomes
from firsttoken.pretraining.backcopy import Backcopy
from firsttoken.pretraining.recipe import replace_tokens
from firsttoken.pretraining.smallest import Smallest
from firsttoken.pretraining.smallest_training import HELD_OUT, Point, Run, Setting, look

_CHECKS = 3 << 20  # added to a seed, so that these texts share no random bits with those of the training
REPLACED = 0.05  # share of the tokens that are replaced to see how far predictions move


def outcomes(run: Run, setting: Setting, enough: float) -> JSON:
    """One seed after its training, on texts of the setting's length that begin with BOS.

    Returns:
        `learnt`: the first step of the history with a loss at triggers below `enough`, None if there was none;
        `loss_at`, `loss_away`: nats; `share`: of the attention away from triggers, what the first token gets;
        `share_without`: the same on texts without BOS; `value_norm`: of the first token over the mean of the others';
        `moved`: see `moved`; `missing`: how much the loss at triggers rises, in nats, when BOS is left out;
        `spread_over_own`, `largest_activation`: see `smallest_outcomes.outcomes`.
    """
    last = run.history[-1]
    task = setting.task(run.seed)
    random = torch.Generator().manual_seed(run.seed + _CHECKS)
    shape = 1, HELD_OUT // setting.length, setting.length
    uniform = torch.rand(shape, generator=random, dtype=torch.float64)
    chain = task.cumulative()[None]
    with_bos, without = (backcopy.texts(chain, uniform, one)[0] for one in (task, replace(task, bos=False)))
    noisy = replace_tokens(with_bos[None], REPLACED, [random], task)[0]
    seen, bare = (_seen(run.model, ids, task) for ids in (with_bos, without))
    numbers = {
        "loss_at": last["loss_at"],
        "loss_away": last["loss_away"],
        "share": _share(last),
        "share_without": _share(bare),
        "value_norm": last["value_norm"],
        "moved": moved(run.model, with_bos, noisy),
        "missing": bare["loss_at"] - seen["loss_at"],
        **smallest_outcomes.of_run(run, setting),
    }
    learnt = next((int(point["step"]) for point in run.history if point["loss_at"] < enough), None)
    return {"seed": run.seed, "learnt": learnt, **{name: float(f"{value:.4g}") for name, value in numbers.items()}}


def _seen(model: Smallest, ids: Tensor, task: Backcopy) -> Point:
    with torch.no_grad():
        return look(model(ids), ids, task)


def _share(point: Point) -> float:
    """Attention to the first token away from triggers, of all that is paid there."""
    return point["first_away"] / max(point["row_away"], 1e-9)


def moved(model: Smallest, ids: Tensor, noisy: Tensor) -> float:
    """How far replaced tokens move predictions that do not depend on them: mean KL divergence, in nats.

    The task needs a query's own token and the one before it and no other, so only queries where both are as they were
    count, behind the first replaced token of their text.

    Args:
        ids, noisy: (text, token), the same texts before and after.
    """
    with torch.no_grad():
        before, after = (model(rows).logits.double().log_softmax(-1) for rows in (ids, noisy))
    divergence = (before.exp() * (before - after)).sum(-1)  # (text, query)
    changed = ids != noisy
    untouched = ~changed[:, 1:] & ~changed[:, :-1]
    behind = changed.cumsum(1)[:, 1:] > 0
    return float(divergence[:, 1:][untouched & behind].mean())
