"""What a record of losses and tasks without the first token says about models that were trained with BOS there."""

from __future__ import annotations

from firsttoken.estimates import JSON, interval
from firsttoken.records import Record, Verdict


def above_chance(values: JSON, arm: str) -> float:
    """Mean over tasks of (right - chance) / (1 - chance): 1 is perfect, 0 is guessing.

    Args:
        arm: one of `measures.ablations.ARMS`.
    """
    shares = [
        (task["arms"][arm]["value"] - task["chance"]) / (1 - task["chance"]) for task in values["tasks"].values()
    ]
    return sum(shares) / len(shares)


def judge(record: Record) -> Verdict:
    """The claim is about models trained with BOS in first place. For those: reproduced if deleting it surely costs
    half a nat per token and halves what the tasks show above chance, partly if it surely costs anything."""
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
    if increase["low"] > 0.5 and without < with_it / 2:
        return Verdict("reproduced", sentence)
    return Verdict("partly" if increase["low"] > 0 else "not reproduced", sentence)
