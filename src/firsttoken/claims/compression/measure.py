"""What heads at rest, and the first token in a cache, are worth in loss and in bytes.

Literature: heads with much attention on the first token are reported to be redundant (arXiv 2601.06787). Here the same
share of heads loses one of three things, chosen by their rest or at random, and caches of a few bits keep the first
token exact or another.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from firsttoken import statistics, texts
from firsttoken.claims.compression.caches import BITS, CACHES, Cache
from firsttoken.claims.compression.choices import CHOICES, RANDOM, Choice, choose, rest
from firsttoken.claims.compression.losses import enough_text, losses
from firsttoken.claims.compression.probabilities import MEASUREMENT as PROBABILITIES
from firsttoken.claims.compression.skipping import MEASUREMENT as SKIPPING
from firsttoken.claims.compression.tasks import MEASUREMENT as TASKS
from firsttoken.claims.compression.treatments import Chosen, Treatment, coarsened, removed, scores_left, shortened
from firsttoken.claims.compression.verdict import judge
from firsttoken.estimates import JSON
from firsttoken.execution.check import layer_numbers
from firsttoken.measures.measurement import Measurement
from firsttoken.models import BosPolicy, LanguageModel
from firsttoken.progress import tracked
from firsttoken.ranges import at_least, in_range

SHARES = (0.05, 0.1, 0.2, 0.4)  # of all heads
DECIDING = 0.2
TREATMENTS: tuple[Treatment, ...] = ("remove", "shorten", "coarsen")
COARSE = 2  # bits of an output matrix


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What is asked of a model that is given less."""

    windows: int = 12  # texts of `length` tokens, cut from one long document
    length: int = 256
    window: int = 32  # tokens that a shortened head reads beside the first, and newest tokens of a bounded cache
    draws: int = 8  # random choices of heads where the verdict falls; elsewhere two at most
    removal_only: bool = False  # remove heads, and neither shorten nor coarsen them; less than half the work
    bos: BosPolicy = "auto"
    seed: int = 0
    batch_tokens: int = 2048

    def __post_init__(self) -> None:
        in_range(self)
        at_least(2, draws=self.draws)
        enough_text(self.windows, self.length, self.window)


def run(lm: LanguageModel, parameters: Parameters, passages: Sequence[str]) -> JSON:
    """`heads` (one entry for each treatment, share and choice: loss increase, share of scores left), `cache` (one for
    each policy: loss increase, bytes a token), `deciding` (the differences that the rule asks for, those to random
    heads with intervals over windows and draws), `removal_saving` (what choosing by rest saves when heads are
    removed), `loss` of the model as it is, `mass` (layer, head).
    """
    ids = texts.windows(lm, passages[0], parameters.length, parameters.windows, parameters.bos)
    mass = rest(lm, parameters.bos, parameters.batch_tokens)
    numbers = layer_numbers(lm, len(mass))
    plain = losses(lm, ids, parameters.batch_tokens)
    of_heads = heads_losses(lm, ids, mass, numbers, parameters)
    of_cache = {
        cache: losses(lm, ids, parameters.batch_tokens, cache.hook(lm, parameters.window)) for cache in tracked(CACHES)
    }

    def estimate(loss: Tensor) -> JSON:
        return asdict(statistics.bootstrap(loss, seed=parameters.seed))

    def against(difference: Tensor) -> JSON:
        return asdict(statistics.over_both(difference, seed=parameters.seed))

    deciding: JSON = {
        name: {
            other: against(of_heads[name, DECIDING, "most at rest"][0] - of_heads[name, DECIDING, other][0])
            for other in RANDOM
        }
        for name in treatments(parameters)
    }
    least = min(BITS)
    exact = of_cache[Cache(bits=least, exact="first")] - of_cache[Cache(bits=least, exact="another")]
    deciding |= {"share": DECIDING, "bits": least, "first_exact": estimate(exact)}
    return {
        "loss": estimate(plain),
        "heads": [
            {
                "treatment": name,
                "share": share,
                "choice": choice,
                "increase": estimate((loss - plain).mean(0)),
                "scores_left": left,
            }
            for (name, share, choice), (loss, left) in of_heads.items()
        ],
        "cache": [
            {
                "policy": cache.name,
                "increase": estimate(loss - plain),
                "bytes": cache.bytes_a_token(lm, parameters.length, parameters.window),
            }
            for cache, loss in of_cache.items()
        ],
        "deciding": deciding,
        "removal_saving": against(
            of_heads["remove", DECIDING, "random"][0] - of_heads["remove", DECIDING, "most at rest"][0]
        ),
        "mass": [[round(x, 4) for x in row] for row in mass.tolist()],
        "layers": numbers,
    }


def treatments(parameters: Parameters) -> tuple[Treatment, ...]:
    """What heads lose, one thing after the other."""
    return ("remove",) if parameters.removal_only else TREATMENTS


# -- heads --------------------------------------------------------------------------------------------------


def heads_losses(
    lm: LanguageModel, ids: Tensor, mass: Tensor, numbers: Sequence[int], parameters: Parameters
) -> dict[tuple[Treatment, float, Choice], tuple[Tensor, float]]:
    """Mean loss of each text, (draw, text), and the share of scores left, for every treatment, share and choice; a
    choice that is not random has one draw."""
    asked = [(name, share, choice) for name in treatments(parameters) for share in SHARES for choice in CHOICES]
    of_heads: dict[tuple[Treatment, float, Choice], tuple[Tensor, float]] = {}
    for name, share, choice in tracked(asked):
        most = parameters.draws if share == DECIDING else min(2, parameters.draws)
        draws = range(most if choice in RANDOM else 1)
        chosen = [choose(mass, share, choice, numbers, parameters.seed + draw) for draw in draws]
        loss = torch.stack([treated(lm, ids, name, heads, parameters) for heads in chosen])
        left = 1.0
        if name == "shorten":
            left = scores_left(chosen[0], parameters.window, ids.shape[1], mass.numel())
        of_heads[name, share, choice] = loss, left
    return of_heads


def treated(lm: LanguageModel, ids: Tensor, name: Treatment, chosen: Chosen, parameters: Parameters) -> Tensor:
    """Mean loss of each text, (text,), where the chosen heads lose what the treatment takes."""
    hook = {"remove": removed(chosen), "shorten": shortened(chosen, parameters.window), "coarsen": None}[name]
    with coarsened(lm.model, chosen, COARSE) if name == "coarsen" else nullcontext():
        return losses(lm, ids, parameters.batch_tokens, hook)


MEASUREMENT = Measurement(
    claim="compression",
    parameters=Parameters,
    passages=lambda _: [texts.long_text()],
    run=run,
    judge=judge,
)
MEASUREMENTS = (MEASUREMENT, SKIPPING, PROBABILITIES, TASKS)
