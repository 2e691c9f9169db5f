"""How much of attention can be skipped where a head rests, by a rule that reads only what is computed anyway.

At each query a head scores the first token and the newest `window` keys. If the first token gets more than a threshold
of that attention, the head is taken to rest, and the keys between are not read. The control skips at as many queries
of each head and text, drawn at random. Work is counted: scores, and tiles of them, in which kernels compute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from firsttoken import statistics, texts
from firsttoken.claims.compression.losses import enough_text, losses
from firsttoken.estimates import JSON
from firsttoken.measures.measurement import Measurement
from firsttoken.models import BosPolicy, LanguageModel
from firsttoken.probe.attention import AttentionCall, additive, log_sum_exp, plain_scores
from firsttoken.probe.interventions import explicit_mask, without
from firsttoken.progress import tracked
from firsttoken.ranges import in_range

THRESHOLDS = (0.9, 0.7, 0.5, 0.3)  # of the attention to the first token and the window
BLOCK = 64  # queries and keys of a tile, which kernels compute whole or not at all
Queries = Literal["at rest", "random"]


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What is asked of heads that skip."""

    long_windows: int = 8  # texts of `long_length` tokens, cut from one long document
    long_length: int = 512  # tokens of each, BOS included
    window: int = 32  # newest tokens that every query reads, beside the first
    bos: BosPolicy = "auto"
    seed: int = 0  # of the random queries and the bootstrap
    batch_tokens: int = 2048

    def __post_init__(self) -> None:
        in_range(self)
        enough_text(self.long_windows, self.long_length, self.window, "long_")


def far_keys(call: AttentionCall, window: int) -> Tensor:
    """True at the keys between the first token and the newest `window`, (query, key)."""
    key = call.key_positions()
    return (call.query_positions()[:, None] - key >= window) & (key > 0)


def at_rest(call: AttentionCall, window: int, threshold: float) -> Tensor:
    """The queries at which the first token gets more than `threshold` of the attention to itself and the window.

    Returns:
        (batch, head, query), bool; false where there is nothing to skip
    """
    far = far_keys(call, window)
    near = plain_scores(call).masked_fill(far, -torch.inf)
    first = (near[..., 0] - log_sum_exp(near, call.sink_logits)).exp()
    return (first > threshold) & far.any(-1)


def at_random(resting: Tensor, far: Tensor, seed: int, first_text: int, layer: int) -> Tensor:
    """As many queries of each head and text as in `resting`, drawn among those with something to skip.

    Args:
        resting: (batch, head, query), bool.
        far: (query, key), bool.
        first_text: the number of the batch's first text among all.
    """
    free = far.any(-1)
    among = resting[..., free]
    # By text and layer, so that what is drawn does not depend on how many texts run at once.
    drawn_by_text = [
        np.random.default_rng([seed, first_text + row, layer]).random(among.shape[1:]) for row in range(len(among))
    ]
    order = torch.from_numpy(np.stack(drawn_by_text)).argsort(-1).to(resting.device)
    drawn = resting.clone()
    drawn[..., free] = among.gather(-1, order)
    return drawn


def skip(call: AttentionCall, window: int, queries: Tensor) -> AttentionCall:
    """The given queries read the first token and the newest `window` keys, the others what they did.

    Args:
        queries: (batch, head, query), bool.
    """
    return replace(call, mask=without(explicit_mask(call), queries[..., None] & far_keys(call, window)), causal=False)


class Skipping:
    """A hook under which heads skip, and how much of the work is left; for one run over texts, in their order."""

    def __init__(self, window: int, threshold: float, queries: Queries, seed: int = 0) -> None:
        self.window, self.threshold, self.queries = window, threshold, queries
        self.seed = seed
        self.texts_seen: Counter[int] = Counter()  # layer -> texts of the batches so far
        self.scores, self.computed, self.blocks, self.computed_blocks = 0, 0, 0, 0

    def __call__(self, module: Any, call: AttentionCall) -> AttentionCall:
        chosen = at_rest(call, self.window, self.threshold)
        if self.queries == "random":
            layer = int(module.layer_idx)
            far = far_keys(call, self.window)
            chosen = at_random(chosen, far, self.seed, self.texts_seen[layer], layer)
            self.texts_seen[layer] += len(chosen)
        skipping = skip(call, self.window, chosen)
        before, after = allowed(call), allowed(skipping)
        self.scores += int(before.sum())
        self.computed += int(after.sum())
        self.blocks += int(tiles(before).sum())
        self.computed_blocks += int(tiles(after).sum())
        return skipping

    @property
    def scores_left(self) -> float:
        """Computed scores, the rule's own included, as a share of all."""
        return self.computed / self.scores

    @property
    def blocks_left(self) -> float:
        """Tiles in which some score is computed, as a share of all."""
        return self.computed_blocks / self.blocks


def allowed(call: AttentionCall) -> Tensor:
    """The scores that a call computes, (batch, head, query, key), bool."""
    shape = (*call.query.shape[:3], call.key.shape[2])
    return (additive(explicit_mask(call)) > -torch.inf).expand(shape)


def tiles(read: Tensor, block: int = BLOCK) -> Tensor:
    """Tiles of `block` queries and keys of which at least one score is computed, (batch, head, tile, tile)."""
    queries, keys = (-size % block for size in read.shape[-2:])
    padded = F.pad(read, (0, keys, 0, queries))
    return padded.unflatten(-1, (-1, block)).unflatten(-3, (-1, block)).any(-1).any(-2)


def run(lm: LanguageModel, parameters: Parameters, passages: Sequence[str]) -> JSON:
    """`arms`, for each threshold and choice of queries: `increase` of the loss, `scores_left`, `blocks_left`;
    `random_minus_rest`, by threshold: what choosing the queries by rest saves; `loss` of the model as it is.
    """
    ids = texts.windows(lm, passages[0], parameters.long_length, parameters.long_windows, parameters.bos)

    def of_texts(hook: Skipping | None = None) -> Tensor:
        return losses(lm, ids, parameters.batch_tokens, hook, first=parameters.window)

    def estimate(loss: Tensor) -> JSON:
        return asdict(statistics.bootstrap(loss, seed=parameters.seed))

    plain = of_texts()
    loss: dict[tuple[float, Queries], Tensor] = {}
    arms = []
    choices: tuple[Queries, ...] = ("at rest", "random")
    for threshold, choice in tracked([(threshold, choice) for threshold in THRESHOLDS for choice in choices]):
        hook = Skipping(parameters.window, threshold, choice, parameters.seed)
        loss[threshold, choice] = of_texts(hook)
        arms.append(
            {
                "threshold": threshold,
                "queries": choice,
                "increase": estimate(loss[threshold, choice] - plain),
                "scores_left": hook.scores_left,
                "blocks_left": hook.blocks_left,
            }
        )
    return {
        "loss": estimate(plain),
        "arms": arms,
        "random_minus_rest": [
            {"threshold": threshold, **estimate(loss[threshold, "random"] - loss[threshold, "at rest"])}
            for threshold in THRESHOLDS
        ],
    }


MEASUREMENT = Measurement(
    claim="compression",
    parameters=Parameters,
    passages=lambda _: [texts.long_text()],
    run=run,
    variant="skipping",
    version=2,  # 2: random queries are drawn by text and layer
)
