"""What it costs to hold attention probabilities in a few bits, and whether the first token's must be exact.

Every row has one scale, set by the largest probability that is rounded. A head at rest gives most of its attention to
one key, so that the scale is wide and the small probabilities of all others fall to zero: then it should help to keep
the first token's exact, more than another's, and as much as keeping each row's largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import get_args

from torch import Tensor

from firsttoken import statistics, texts
from firsttoken.claims.compression.caches import another
from firsttoken.claims.compression.losses import enough_text, losses
from firsttoken.estimates import JSON
from firsttoken.measures.measurement import Measurement
from firsttoken.measures.rounding import Exact, rounded_attention
from firsttoken.models import BosPolicy, LanguageModel
from firsttoken.progress import tracked
from firsttoken.ranges import in_range

BITS = (8, 4, 2)


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What is asked of rounded probabilities."""

    windows: int = 12  # texts of `length` tokens, cut from one long document
    length: int = 256  # tokens of each, BOS included
    window: int = 32  # the other exact token is the one at half of it, as in the caches
    bos: BosPolicy = "auto"
    seed: int = 0
    batch_tokens: int = 2048

    def __post_init__(self) -> None:
        in_range(self)
        enough_text(self.windows, self.length, self.window)


def run(lm: LanguageModel, parameters: Parameters, passages: Sequence[str]) -> JSON:
    """`arms`, for each number of bits and exact probability: `increase` of the loss; `first_exact`, by bits: the loss
    with the first token's exact less that with another's; `loss` of the model as it is.
    """
    ids = texts.windows(lm, passages[0], parameters.length, parameters.windows, parameters.bos)

    def estimate(loss: Tensor) -> JSON:
        return asdict(statistics.bootstrap(loss, seed=parameters.seed))

    plain = losses(lm, ids, parameters.batch_tokens)
    asked: list[tuple[int, Exact]] = [(bits, exact) for bits in BITS for exact in get_args(Exact)]
    loss = {
        (bits, exact): losses(
            lm, ids, parameters.batch_tokens, rounded_attention(bits, exact, another(parameters.window))
        )
        for bits, exact in tracked(asked)
    }
    return {
        "loss": estimate(plain),
        "arms": [
            {"bits": bits, "exact": exact, "increase": estimate(of - plain)} for (bits, exact), of in loss.items()
        ],
        "first_exact": [{"bits": bits, **estimate(loss[bits, "first"] - loss[bits, "another"])} for bits in BITS],
    }


MEASUREMENT = Measurement(
    claim="compression",
    parameters=Parameters,
    passages=lambda _: [texts.long_text()],
    run=run,
    variant="probabilities",
)
