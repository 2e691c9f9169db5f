"""What a record of losses and tasks without the first token says about models that were trained with BOS there."""

from __future__ import annotations

import math

from firsttoken.estimates import JSON, Estimate, interval
from firsttoken.records import Record, Verdict

NORMAL = 1.96  # standard errors in half of a 95 % interval


def above_chance(values: JSON, arm: str) -> float:
    """Mean over tasks of (right - chance) / (1 - chance): 1 is perfect, 0 is guessing.

    Args:
        arm: one of `measures.ablations.ABLATIONS`.
    """
    shares = [
        (task["arms"][arm]["value"] - task["chance"]) / (1 - task["chance"]) for task in values["tasks"].values()
    ]
    return sum(shares) / len(shares)


def spare(values: JSON, arm: str) -> Estimate:
    """What an arm leaves of the tasks above half of what they show intact, in shares of the way from guessing to
    perfect: below 0 it leaves less than half.

    The interval is over questions, of each task in each arm apart, and normal. The same questions were asked in both
    arms, which makes differences more certain than that: the interval is too wide rather than too narrow.
    """
    of_tasks = values["tasks"].values()
    variance = 0.0
    for task in of_tasks:
        for name, weight in ((arm, 1.0), ("intact", 0.5)):
            of_arm = task["arms"][name]
            error = (of_arm["high"] - of_arm["low"]) / (2 * NORMAL)
            variance += (weight * error / (1 - task["chance"]) / len(of_tasks)) ** 2
    value = above_chance(values, arm) - above_chance(values, "intact") / 2
    reach = NORMAL * math.sqrt(variance)
    return Estimate(value, value - reach, value + reach, sum(task["questions"] for task in of_tasks))


def judge(record: Record) -> Verdict:
    """The claim is about models trained with BOS in first place. For those: reproduced if deleting it surely costs
    half a nat per token and surely more than halves what the tasks show above chance, partly if it surely costs
    anything."""
    values = record.values
    increase = values["loss_increase"]
    with_it, without = above_chance(values, "intact"), above_chance(values, "delete")
    sentence = (
        f"Deleting the first token changes the loss by {interval(increase, '+.2f', ' nats per token')} "
        f"and the tasks from {with_it:.0%} of the way between "
        f"guessing and perfect to {without:.0%}."
    )
    held = values["arms"]["mean_residual"]["loss_increase"]
    sentence += (
        f" Holding the residual of the first token at the mean, so that no sink forms there, costs "
        f"{interval(held, unit=' nats')}."
    )
    if not values["prepends_bos"]:
        return Verdict(
            "inconclusive",
            "The claim is about training with BOS in first place, where the tokenizer of "
            f"{record.model} puts none. {sentence}",
        )
    if undone := values["undone_by_resting"]:
        sentence += (
            f" Giving back a first token of value zero, on which heads may rest, undoes {interval(undone, '.0%')} "
            "of the loss."
        )
    left = spare(values, "delete")
    if increase["low"] > 0.5 and left.high < 0:
        return Verdict("reproduced", sentence)
    if left.low < 0 <= left.high:
        sentence += f" Whether less than half of the tasks is left, {left.n} questions cannot tell."
    return Verdict("partly" if increase["low"] > 0 else "not reproduced", sentence)
