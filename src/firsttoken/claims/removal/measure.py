"""What is lost without the first token: losses, predictions, sinks and small tasks under every arm of
`without_first`.

Paper: Gemma 7B, trained with BOS in first place, falls to chance on downstream tasks without it. The numbers are in
`results/paper.json`, key `removal`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from firsttoken import records, statistics, texts
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON, interval
from firsttoken.execution.shared_pass import together
from firsttoken.measures import sinks, task_scores
from firsttoken.measures.ablations import (
    MEANING,
    Arm,
    Means,
    Outcome,
    agreement,
    calibrated,
    first_attention,
    inputs,
    intervened,
    run_arm,
)
from firsttoken.models import BosPolicy, LanguageModel
from firsttoken.probe.losses import predict
from firsttoken.records import Record, Verdict

TASK_ARMS: tuple[Arm, ...] = ("intact", "delete", "replace", "zero_value", "mean_value", "mean_residual")
LONG_ARMS: tuple[Arm, ...] = ("intact", "delete", "zero_value", "mean_value")
STRIDE = 2  # the loss is taken at every other query, because logits cost more than all layers of a small model
LONG_STRIDE = 16  # the loss of a long text is taken at every 16th query
VERSION = 1


@dataclass(frozen=True)
class Removal:
    """Parameters of the measurement."""

    texts: str = "passages"  # see `texts.texts_from`
    passages: int = 16
    length: int = 96  # tokens of each text, BOS included
    epsilon: float = 0.3
    needle_length: int = 512  # tokens of the retrieval task
    bos: BosPolicy = "auto"
    seed: int = 0
    batch_tokens: int = 1024
    execution: str = "auto"  # resident, streamed; see `shared_pass.together`


def arms_for(lm: LanguageModel, bos: BosPolicy) -> list[Arm]:
    """All arms; `add_bos` only where the model has a BOS token that the policy does not put first."""
    can_add = lm.tokenizer.bos_token_id is not None and not lm.prefix(bos)
    return [arm for arm in MEANING if arm != "add_bos" or can_add]


def measure(lm: LanguageModel, parameters: Removal, fresh: bool = False) -> Record:
    """The record `removal/<model>.json`.

    Its values: `loss_increase` (nats per token, deleting the first token), `undone_by_resting` (the share of that
    increase which is not there when heads may rest on a first token of value zero), `arms` (loss, agreement, sinks),
    `by_position`, `tasks`, and whether the tokenizer itself puts BOS first.
    """
    sinks.check_epsilon(parameters.epsilon)
    if parameters.length < 8:
        raise FirstTokenError(
            f"Arms are compared at each position; give a length of 8 or more, not {parameters.length}."
        )
    chosen = texts.exactly(parameters.texts, parameters.passages)
    return records.reuse_or_measure(
        "removal",
        model=lm,
        parameters=records.recorded(parameters),
        texts=texts.texts_hash(chosen),
        measure=lambda: _values(lm, chosen, parameters),
        judge=lambda values: judge(lm.slug, values),
        version=VERSION,
        fresh=fresh,
    )


def _values(lm: LanguageModel, chosen: Sequence[str], parameters: Removal) -> JSON:
    ids = texts.encode(lm, chosen, parameters.length, parameters.bos)
    means = calibrated(lm, parameters.bos, parameters.execution)
    queries = torch.arange(1, ids.shape[1] - 1, STRIDE)
    seed, batch_tokens = parameters.seed, parameters.batch_tokens

    def outcome(arm: Arm) -> Callable[[LanguageModel], Outcome]:
        return lambda lm: run_arm(lm, ids, queries, arm, means, seed, batch_tokens)

    outcomes = together(lm, {arm: outcome(arm) for arm in arms_for(lm, parameters.bos)}, parameters.execution)
    loss = {arm: outcome.predictions.loss.double() for arm, outcome in outcomes.items()}
    intact, delete, resting = (loss[arm].mean(1) for arm in ("intact", "delete", "zero_value"))
    # Where the sink moves to the next token, deletion has taken nothing away that could be given back.
    gone = outcomes["delete"].alpha.mean() < outcomes["intact"].alpha.mean() / 2
    return {
        "loss_increase": asdict(statistics.bootstrap(delete - intact, seed=seed)),
        "undone_by_resting": _undone(intact, delete, resting, seed) if gone else None,
        "prepends_bos": bool(lm.prefix(parameters.bos)),
        "arms": {
            arm: arm_summary(outcomes["intact"], outcome, parameters.epsilon, seed)
            for arm, outcome in outcomes.items()
        },
        "by_position": by_position(queries, loss, seed),
        "tasks": task_scores.summary(
            lm,
            task_scores.standard_tasks(lm, parameters.bos, parameters.needle_length, seed),
            TASK_ARMS,
            means,
            batch_tokens,
            seed,
            parameters.execution,
        ),
    }


def _undone(intact: Tensor, delete: Tensor, resting: Tensor, seed: int) -> JSON:
    """1 - (increase with a place to rest) / (increase without)."""
    pairs = torch.stack([resting - intact, delete - intact], dim=1)
    return asdict(statistics.bootstrap(pairs, lambda drawn: 1 - drawn[:, 0].sum() / drawn[:, 1].sum(), seed=seed))


def arm_summary(intact: Outcome, outcome: Outcome, epsilon: float, seed: int) -> JSON:
    """Everything that is said about one arm, each with an interval over texts."""
    change = outcome.predictions.loss - intact.predictions.loss
    top1, top5 = agreement(intact.predictions.top, outcome.predictions.top)
    return {
        "loss": asdict(statistics.bootstrap(outcome.predictions.loss, seed=seed)),
        "loss_increase": asdict(statistics.bootstrap(change, seed=seed)),
        "top1_agreement": asdict(statistics.bootstrap(top1, seed=seed)),
        "top5_agreement": asdict(statistics.bootstrap(top5, seed=seed)),
        "sink_rate": asdict(sinks.sink_rate_estimate(outcome.alpha, epsilon, seed=seed)),
        "mass": asdict(statistics.bootstrap(outcome.alpha, seed=seed)),
    }


def by_position(queries: Tensor, loss: dict[Arm, Tensor], seed: int) -> JSON:
    """Mean loss in doubling ranges of the position of the predicted token, first token = 0."""
    edges = [2]
    while edges[-1] < int(queries.max()) + 2:
        edges.append(min(edges[-1] * 2, int(queries.max()) + 2))
    found: JSON = {"edges": edges, "arms": {}}
    for arm, values in loss.items():
        ranges = []
        for low, high in itertools.pairwise(edges):
            inside = (queries + 1 >= low) & (queries + 1 < high)
            ranges.append(asdict(statistics.bootstrap(values[:, inside], seed=seed)) if inside.any() else None)
        found["arms"][arm] = ranges
    return found


# -- long texts ---------------------------------------------------------------------------------------------


def measure_long(
    lm: LanguageModel, parameters: Removal, longest: int, windows: int = 2, fresh: bool = False
) -> Record:
    """The record `removal/<model>--long.json`: from 64 tokens to `longest`.

    Because attention is causal, one window answers for every shorter length. Its values: `length`, and for each
    arm the loss at the tokens between the previous length and this one, sink rate and mass at that length; `needle`
    the retrieval task at lengths from 512.
    """
    limit = getattr(lm.config.get_text_config(), "max_position_embeddings", longest)
    if longest < 128 or longest > limit:
        raise FirstTokenError(f"longest must be from 128 to {limit} tokens for {lm.name}, not {longest}.")
    document = texts.long_text()

    def run() -> JSON:
        lengths = [64]
        while lengths[-1] * 2 <= longest:
            lengths.append(lengths[-1] * 2)
        ids = texts.windows(lm, document, lengths[-1], windows, parameters.bos)
        means = calibrated(lm, parameters.bos, parameters.execution)
        queries = torch.arange(1, lengths[-1] - 1, LONG_STRIDE)

        def of(arm: Arm) -> Callable[[LanguageModel], JSON]:
            return lambda lm: _long_arm(lm, ids, queries, arm, means, lengths, parameters)

        arms = together(lm, {arm: of(arm) for arm in LONG_ARMS}, parameters.execution)
        found: JSON = {"length": lengths, "windows": windows, "arms": arms, "needle": {}}
        for length in [n for n in lengths if n >= 512]:
            task = task_scores.needle(lm, parameters.bos, length, questions=12, seed=parameters.seed)
            found["needle"][str(length)] = task_scores.summary(
                lm, [task], LONG_ARMS, means, parameters.batch_tokens, parameters.seed, parameters.execution
            )[task.name]
        return found

    return records.reuse_or_measure(
        "removal",
        model=lm,
        parameters=records.recorded(parameters) | {"texts": "long text", "length": longest, "passages": windows},
        texts=texts.texts_hash([document]),
        measure=run,
        version=VERSION,
        variant="long",
        fresh=fresh,
    )


def _long_arm(
    lm: LanguageModel,
    ids: Tensor,
    queries: Tensor,
    arm: Arm,
    means: Means,
    lengths: Sequence[int],
    parameters: Removal,
) -> JSON:
    losses, alphas = [], []
    given, moved = inputs(lm, ids, arm, parameters.seed)
    for window in given.split(1):
        with intervened(lm, arm, means) as p:
            losses.append(predict(lm, window, queries + moved, parameters.batch_tokens, top=0).loss)
            alphas.append(torch.cat([first_attention(p.attention, n + moved) for n in lengths]))
    loss = torch.cat(losses).double()  # (window, query)
    alpha = torch.stack(alphas)  # (window, length, layer, head)
    seed = parameters.seed
    result: JSON = {"loss": [], "sink_rate": [], "mass": []}
    for i, n in enumerate(lengths):
        inside = (queries + 1 < n) & (queries + 1 >= (n // 2 if i else 1))
        result["loss"].append(asdict(statistics.bootstrap(loss[:, inside], seed=seed)))
        rate = sinks.sink_rate_estimate(alpha[:, i], parameters.epsilon, seed=seed)
        result["sink_rate"].append(asdict(rate))
        result["mass"].append(asdict(statistics.bootstrap(alpha[:, i], seed=seed)))
    return result


def remeasure(lm: LanguageModel, record: Record) -> Record:
    """Measure what a record of this claim holds once more, with its own parameters."""
    if record.variant == "long":
        chosen = {**record.parameters, "texts": "passages", "passages": 16, "length": 96}
        windows = record.parameters["passages"]
        return measure_long(lm, Removal(**chosen), record.parameters["length"], windows, fresh=True)
    return measure(lm, Removal(**record.parameters), fresh=True)


# -- verdict ------------------------------------------------------------------------------------------------


def above_chance(values: JSON, arm: Arm) -> float:
    """Mean over tasks of (right - chance) / (1 - chance): 1 is perfect, 0 is guessing."""
    shares = [
        (task["arms"][arm]["value"] - task["chance"]) / (1 - task["chance"]) for task in values["tasks"].values()
    ]
    return sum(shares) / len(shares)


def judge(model: str, values: JSON) -> Verdict:
    """The claim is about models trained with BOS in first place. For those: reproduced if deleting it surely costs
    half a nat per token and halves what the tasks show above chance, partly if it surely costs anything."""
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
            "not measured",
            f"The claim is about training with BOS in first place, where the tokenizer of {model} puts none. "
            + sentence,
        )
    if undone := values["undone_by_resting"]:
        sentence += (
            f" Giving back a first token of value zero, on which heads may rest, undoes {interval(undone, '.0%')} "
            "of the loss."
        )
    if increase["low"] > 0.5 and without < with_it / 2:
        return Verdict("reproduced", sentence)
    return Verdict("partly" if increase["low"] > 0 else "not reproduced", sentence)
