"""What is lost without the first token: losses, predictions, sinks and small tasks under every arm of
`measures.ablations`.

Paper: Gemma 7B, trained with BOS in first place, falls to chance on downstream tasks without it. The numbers are in
`results/paper.json`, key `removal`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from firsttoken import statistics, texts
from firsttoken.claims.removal.verdict import judge
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.execution.shared_pass import together
from firsttoken.measures import sinks, task_scores
from firsttoken.measures.ablations import (
    MEANING,
    Ablation,
    Means,
    Outcome,
    agreement,
    calibrated,
    first_attention,
    inputs,
    intervened,
    run_arm,
)
from firsttoken.measures.measurement import Measurement
from firsttoken.models import BosPolicy, LanguageModel
from firsttoken.probe.losses import predict
from firsttoken.ranges import at_least, in_range

TASK_ARMS: tuple[Ablation, ...] = ("intact", "delete", "replace", "zero_value", "mean_value", "mean_residual")
LONG_ARMS: tuple[Ablation, ...] = ("intact", "delete", "zero_value", "mean_value")
STRIDE = 2  # the loss is taken at every other query, because logits cost more than all layers of a small model
LONG_STRIDE = 16  # the loss of a long text is taken at every 16th query
SHORTEST = 64  # tokens of the shortest text of the length sweep; the next is twice as long
QUESTIONS = 12  # facts hidden in each text of the length sweep
SHORTEST_WITH_FACTS = 512  # tokens that hold so many facts


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What is asked of a model without its first token."""

    text_source: str = "passages"  # see `texts.texts_from`
    passages: int = 16  # how many texts
    length: int = 96  # tokens of each text, BOS included
    epsilon: float = 0.3
    needle_length: int = 512  # tokens of the retrieval task
    task_questions: int = 64  # of each task, where it has so many; its texts are taken whole
    bos: BosPolicy = "auto"
    seed: int = 0
    batch_tokens: int = 1024
    execution: str = "auto"  # resident, streamed; see `shared_pass.together`

    def __post_init__(self) -> None:
        in_range(self)
        sinks.check_epsilon(self.epsilon)
        at_least(1, needle_length=self.needle_length)
        at_least(2, passages=self.passages, task_questions=self.task_questions)
        if self.length < 8:
            raise FirstTokenError(
                f"Arms are compared at each position; give a length of 8 or more, not {self.length}."
            )


@dataclass(frozen=True, kw_only=True)
class LongTexts:
    """Parameters of the length sweep, on windows of one long document."""

    longest: int = 4096  # tokens of each window, BOS included
    windows: int = 2  # how many
    epsilon: float = 0.3
    bos: BosPolicy = "auto"
    seed: int = 0
    batch_tokens: int = 1024
    execution: str = "auto"

    def __post_init__(self) -> None:
        in_range(self)
        sinks.check_epsilon(self.epsilon)
        at_least(2, windows=self.windows)
        at_least(2 * SHORTEST, longest=self.longest)


def arms_for(lm: LanguageModel, bos: BosPolicy, length: int) -> list[Ablation]:
    """All arms; `add_bos` only where the model has a BOS token that the policy does not put first, and a position for
    it beside the `length` tokens of a text."""
    can_add = lm.tokenizer.bos_token_id is not None and not lm.prefix(bos)
    if lm.longest_input is not None:
        can_add = can_add and length < lm.longest_input
    return [arm for arm in MEANING if arm != "add_bos" or can_add]


def run(lm: LanguageModel, parameters: Parameters, passages: Sequence[str]) -> JSON:
    """`loss_increase` (nats per token, deleting the first token), `undone_by_resting` (the share of that increase
    which is not there when heads may rest on a first token of value zero), `arms` (loss, agreement, sinks),
    `by_position`, `tasks`, and whether the tokenizer itself puts BOS first.
    """
    ids = texts.encode(lm, passages, parameters.length, parameters.bos)
    # Made first: where a text is too short for its questions, nothing has been measured yet that would be lost.
    tasks = task_scores.standard_tasks(
        lm, parameters.bos, parameters.needle_length, parameters.task_questions, parameters.seed
    )
    means = calibrated(lm, parameters.bos, parameters.execution)
    queries = torch.arange(1, ids.shape[1] - 1, STRIDE)
    seed, batch_tokens = parameters.seed, parameters.batch_tokens

    def outcome(arm: Ablation) -> Callable[[LanguageModel], Outcome]:
        return lambda lm: run_arm(lm, ids, queries, arm, means, seed, batch_tokens)

    arms = arms_for(lm, parameters.bos, parameters.length)
    outcomes = together(lm, {arm: outcome(arm) for arm in arms}, parameters.execution)
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
        "tasks": task_scores.summary(lm, tasks, TASK_ARMS, means, batch_tokens, seed, parameters.execution),
    }


def _undone(intact: Tensor, delete: Tensor, resting: Tensor, seed: int) -> JSON:
    """1 - (increase with a place to rest) / (increase without)."""
    return asdict(statistics.ratio_of_sums(torch.stack([delete - resting, delete - intact], dim=1), seed))


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


def by_position(queries: Tensor, loss: dict[Ablation, Tensor], seed: int) -> JSON:
    """Mean loss in doubling ranges of the position of the predicted token, first token = 0."""
    edges = [2]
    while edges[-1] < int(queries.max()) + 2:
        edges.append(min(edges[-1] * 2, int(queries.max()) + 2))
    by_arm: JSON = {}
    for arm, values in loss.items():
        ranges = []
        for low, high in itertools.pairwise(edges):
            inside = (queries + 1 >= low) & (queries + 1 < high)
            ranges.append(asdict(statistics.bootstrap(values[:, inside], seed=seed)) if inside.any() else None)
        by_arm[arm] = ranges
    return {"edges": edges, "arms": by_arm}


# -- long texts ---------------------------------------------------------------------------------------------


def as_long_as(lm: LanguageModel, parameters: LongTexts) -> LongTexts:
    """The same parameters.

    Raises:
        FirstTokenError: the model was made for shorter texts.
    """
    limit = getattr(lm.config.get_text_config(), "max_position_embeddings", parameters.longest)
    if parameters.longest > limit:
        raise FirstTokenError(
            f"longest must be from {2 * SHORTEST} to {limit} tokens for {lm.name}, not {parameters.longest}."
        )
    return parameters


def run_long(lm: LanguageModel, parameters: LongTexts, passages: Sequence[str]) -> JSON:
    """From 64 tokens to `longest`: `length`, and for each arm the loss at the tokens between the previous length and
    this one, sink rate and mass at that length; `needle`, the retrieval task at lengths from 512.

    Because attention is causal, one window answers for every shorter length.
    """
    lengths = [SHORTEST]
    while lengths[-1] * 2 <= parameters.longest:
        lengths.append(lengths[-1] * 2)
    ids = texts.windows(lm, passages[0], lengths[-1], parameters.windows, parameters.bos)
    # Made first, as in `run`.
    needles = {
        length: task_scores.needle(lm, parameters.bos, length, questions=QUESTIONS, seed=parameters.seed)
        for length in lengths
        if length >= SHORTEST_WITH_FACTS
    }
    means = calibrated(lm, parameters.bos, parameters.execution)
    queries = torch.arange(1, lengths[-1] - 1, LONG_STRIDE)

    def of(arm: Ablation) -> Callable[[LanguageModel], JSON]:
        return lambda lm: _long_arm(lm, ids, queries, arm, means, lengths, parameters)

    arms = together(lm, {arm: of(arm) for arm in LONG_ARMS}, parameters.execution)
    retrieved = {}
    for length, task in needles.items():
        scores = task_scores.summary(
            lm, [task], LONG_ARMS, means, parameters.batch_tokens, parameters.seed, parameters.execution
        )
        retrieved[str(length)] = scores[task.name]
    return {"length": lengths, "windows": parameters.windows, "arms": arms, "needle": retrieved}


def _long_arm(
    lm: LanguageModel,
    ids: Tensor,
    queries: Tensor,
    arm: Ablation,
    means: Means,
    lengths: Sequence[int],
    parameters: LongTexts,
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
    by_part: JSON = {"loss": [], "sink_rate": [], "mass": []}
    for i, n in enumerate(lengths):
        inside = (queries + 1 < n) & (queries + 1 >= (n // 2 if i else 1))
        by_part["loss"].append(asdict(statistics.bootstrap(loss[:, inside], seed=seed)))
        rate = sinks.sink_rate_estimate(alpha[:, i], parameters.epsilon, seed=seed)
        by_part["sink_rate"].append(asdict(rate))
        by_part["mass"].append(asdict(statistics.bootstrap(alpha[:, i], seed=seed)))
    return by_part


MEASUREMENT = Measurement(
    claim="removal",
    parameters=Parameters,
    passages=lambda parameters: texts.exactly(parameters.text_source, parameters.passages),
    run=run,
    judge=judge,
    version=2,  # 2: the task arm with a random first token draws it from all texts of a task
)
LONG_TEXTS = Measurement(
    claim="removal",
    parameters=LongTexts,
    passages=lambda _: [texts.long_text()],
    run=run_long,
    variant="long",
    version=2,  # 2: no hidden word is a place of its text
    on_demand="longest",
    fit=as_long_as,
)
MEASUREMENTS = (MEASUREMENT, LONG_TEXTS)
