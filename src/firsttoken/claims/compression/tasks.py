"""What removed heads cost in tasks: the questions of the chapter `removal`, answered without some of the heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from firsttoken import statistics
from firsttoken.claims.compression.choices import CHOICES, RANDOM, Choice, calibration, choose, rest
from firsttoken.claims.compression.treatments import removed
from firsttoken.estimates import JSON
from firsttoken.execution.check import layer_numbers
from firsttoken.measures import task_scores
from firsttoken.measures.measurement import Measurement
from firsttoken.models import BosPolicy, LanguageModel
from firsttoken.probe.interventions import Hook
from firsttoken.progress import tracked
from firsttoken.ranges import at_least, in_range

SHARES = (0.05, 0.2)  # of all heads


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What is asked of a model without some of its heads."""

    needle_length: int = 256  # tokens of the retrieval task
    task_questions: int = 64  # of each task, where it has so many; its texts are taken whole
    task_draws: int = 4  # random choices of heads
    bos: BosPolicy = "auto"
    seed: int = 0
    batch_tokens: int = 2048

    def __post_init__(self) -> None:
        in_range(self)
        at_least(1, needle_length=self.needle_length)
        at_least(2, task_draws=self.task_draws)


def run(lm: LanguageModel, parameters: Parameters, passages: Sequence[str]) -> JSON:
    """`tasks`, for each its number of `questions` and the share that blind guessing gets right (`chance`); `intact`,
    the share of right answers over all questions and by task; `heads`, the same for each share and choice of removed
    heads; `rest_minus_random`, by share and random choice, with intervals over questions and draws.
    """
    seed, batch_tokens = parameters.seed, parameters.batch_tokens
    # Made first: where a text is too short for its questions, nothing has been measured yet that would be lost.
    tasks = task_scores.standard_tasks(lm, parameters.bos, parameters.needle_length, parameters.task_questions, seed)
    mass = rest(lm, parameters.bos, batch_tokens)
    numbers = layer_numbers(lm, len(mass))

    def right(hook: Hook | None = None) -> Tensor:
        """(question,), of all tasks one after the other, float64."""
        return torch.cat([task_scores.score_under(lm, task, hook, batch_tokens) for task in tasks]).double()

    def described(answers: Tensor) -> JSON:
        """Of answers (draw, question)."""
        by_task = answers.mean(0).split([task.n for task in tasks])
        return {
            "right": asdict(statistics.bootstrap(answers.mean(0), seed=seed)),
            "by_task": {task.name: float(part.mean()) for task, part in zip(tasks, by_task, strict=True)},
        }

    answers: dict[tuple[float, Choice], Tensor] = {}
    for share, choice in tracked([(share, choice) for share in SHARES for choice in CHOICES]):
        draws = range(parameters.task_draws if choice in RANDOM else 1)
        chosen = [choose(mass, share, choice, numbers, seed + draw) for draw in draws]
        answers[share, choice] = torch.stack([right(removed(heads)) for heads in chosen])
    return {
        "tasks": {task.name: {"questions": task.n, "chance": task.chance} for task in tasks},
        "intact": described(right()[None]),
        "heads": [{"share": share, "choice": choice, **described(of)} for (share, choice), of in answers.items()],
        "rest_minus_random": [
            {
                "share": share,
                "choice": other,
                **asdict(statistics.over_both(answers[share, "most at rest"] - answers[share, other], seed)),
            }
            for share in SHARES
            for other in RANDOM
        ],
    }


MEASUREMENT = Measurement(
    claim="compression",
    parameters=Parameters,
    passages=lambda _: calibration(),
    run=run,
    variant="tasks",
)
