"""What quantisation costs, and how much of the cost is the first token's.

Literature: sinks carry massive activations, and a few tokens kept exact save most of the loss (IntactKV, arXiv
2403.01241; KVSink, arXiv 2508.04257). The paper discusses this as related work and measures none of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from firsttoken import statistics, texts
from firsttoken.claims.quantisation.verdict import HEADLINE_BITS, judge
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.measures.measurement import Measurement
from firsttoken.measures.rounding import (
    Grouping,
    Scope,
    check_exact_weights,
    put_back_first,
    remember_first,
    rounded_activations,
    rounded_cache,
    rounded_weights,
)
from firsttoken.models import BosPolicy, LanguageModel
from firsttoken.probe import probe
from firsttoken.probe.forward import in_batches, run_decoder
from firsttoken.probe.interventions import Hook
from firsttoken.probe.losses import mean_losses
from firsttoken.probe.residual_stream import residual_stream
from firsttoken.progress import tracked
from firsttoken.ranges import at_least, in_range

CACHE_BITS = (8, 4, 3, 2)
ACTIVATION_BITS = (8, 4, 3, 2)
WEIGHT_BITS = (4, 3)
GROUPINGS: tuple[Grouping, ...] = ("token", "channel")
SCOPES: tuple[Scope, ...] = ("token", "tensor")
CONTROL = 8  # where the ordinary tokens stand that are kept exact for comparison
STRIDE = 2  # the loss is taken at every other query, because logits cost more than all layers of a small model


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What is asked of rounding."""

    text_source: str = "passages"  # see `texts.texts_from`
    passages: int = 12  # how many texts
    length: int = 96  # tokens of each text, BOS included
    kept: int = 1  # how many first tokens are kept exact
    bos: BosPolicy = "auto"
    seed: int = 0
    batch_tokens: int = 2048

    def __post_init__(self) -> None:
        in_range(self)
        at_least(2, passages=self.passages)
        if self.kept < 1 or self.length < CONTROL + self.kept + 8:
            raise FirstTokenError(
                f"kept must be at least 1 and length at least {CONTROL + 8} more than it, not {self.kept} and "
                f"{self.length}."
            )


def run(lm: LanguageModel, parameters: Parameters, passages: Sequence[str]) -> JSON:
    """`loss` (nats per token, nothing rounded), `loss_saved` (by keeping the first tokens exact in a cache of 4 bits,
    one group a token) and `loss_saved_control` (by keeping as many others); `cache`, `activations` and `weights` with
    the increase of the loss for every setting; `outliers` by layer and `largest_at_first`.
    """
    ids = texts.encode(lm, passages, parameters.length, parameters.bos)
    check_exact_weights(lm.model)  # an error before anything runs
    plain = losses(lm, ids, parameters)
    return {
        "loss": asdict(statistics.bootstrap(plain, seed=parameters.seed)),
        **cache(lm, ids, plain, parameters),
        "activations": activations(lm, ids, plain, parameters),
        "weights": weights(lm, ids, plain, parameters),
        **outliers(lm, ids, parameters.seed),
    }


def losses(lm: LanguageModel, ids: Tensor, parameters: Parameters, hook: Hook | None = None) -> Tensor:
    """Mean loss of each text, (text,), float64; every text predicts the same positions in every setting."""
    queries = torch.arange(1, ids.shape[1] - 1, STRIDE)
    return mean_losses(lm, ids, queries, parameters.batch_tokens, hook)


def keeping(kept: int) -> dict[str, tuple[int, ...]]:
    """Which tokens stay exact: none, the first ones, or as many ordinary ones."""
    return {"none": (), "first": tuple(range(kept)), "control": tuple(range(CONTROL, CONTROL + kept))}


def cache(lm: LanguageModel, ids: Tensor, plain: Tensor, parameters: Parameters) -> JSON:
    """The increase of the loss with a rounded key-value cache, and what keeping tokens exact saves of it."""
    increases: JSON = {}
    by_keeping: dict[tuple[str, int], dict[str, Tensor]] = {}
    for grouping in tracked(GROUPINGS):
        increases[grouping] = {}
        for bits in tracked(CACHE_BITS):
            increase = {
                name: losses(lm, ids, parameters, rounded_cache(bits, grouping, exact)) - plain
                for name, exact in keeping(parameters.kept).items()
            }
            by_keeping[grouping, bits] = increase
            increases[grouping][str(bits)] = _with_savings(increase, parameters.seed)
    headline = by_keeping["token", HEADLINE_BITS]
    return {
        "cache": increases,
        "loss_saved": asdict(statistics.bootstrap(headline["none"] - headline["first"], seed=parameters.seed)),
        "loss_saved_control": asdict(
            statistics.bootstrap(headline["none"] - headline["control"], seed=parameters.seed)
        ),
    }


def activations(lm: LanguageModel, ids: Tensor, plain: Tensor, parameters: Parameters) -> JSON:
    """The increase of the loss with rounded inputs of all matrices."""
    increases: JSON = {}
    for scope in tracked(SCOPES):
        increases[scope] = {}
        for bits in tracked(ACTIVATION_BITS):
            increase = {}
            for name, exact in keeping(parameters.kept).items():
                with rounded_activations(lm.model, bits, scope, exact):
                    increase[name] = losses(lm, ids, parameters) - plain
            increases[scope][str(bits)] = _with_savings(increase, parameters.seed)
    return increases


def weights(lm: LanguageModel, ids: Tensor, plain: Tensor, parameters: Parameters) -> JSON:
    """The increase of the loss with rounded weights, and with the first tokens' keys and values from exact ones."""
    increases: JSON = {}
    for bits in tracked(WEIGHT_BITS):
        rounded = []
        intact = []
        for row in in_batches(ids, parameters.batch_tokens):
            store: dict[int, tuple[Tensor, Tensor]] = {}
            with torch.inference_mode(), probe(lm.model, hook=remember_first(store, parameters.kept)):
                run_decoder(lm.model, row)
            with rounded_weights(lm.model, bits):
                rounded.append(losses(lm, row, parameters))
                intact.append(losses(lm, row, parameters, put_back_first(store)))
        increase = {"none": torch.cat(rounded) - plain, "first": torch.cat(intact) - plain}
        increases[str(bits)] = _with_savings(increase, parameters.seed)
    return increases


def _with_savings(increase: dict[str, Tensor], seed: int) -> JSON:
    """Estimates of each increase, of what the first tokens save, and of how much more that is than the control."""
    estimates: JSON = {name: asdict(statistics.bootstrap(change, seed=seed)) for name, change in increase.items()}
    estimates["saved"] = asdict(statistics.bootstrap(increase["none"] - increase["first"], seed=seed))
    if "control" in increase:
        estimates["more_than_control"] = asdict(
            statistics.bootstrap(increase["control"] - increase["first"], seed=seed)
        )
    return estimates


def kurtosis(x: Tensor) -> Tensor:
    """E (x - mean)^4 / variance^2 over the last dimension: 3 for a normal distribution, n for one number among n."""
    centred = x.double() - x.double().mean(-1, keepdim=True)
    return centred.pow(4).mean(-1) / centred.square().mean(-1).square().clamp_min(1e-300)


def outliers(lm: LanguageModel, ids: Tensor, seed: int = 0) -> JSON:
    """Where the largest activations of the residual stream are.

    For each layer, estimates over texts: `first`, the largest of the first token over the median of the text,
    `others` the same of all other tokens, `kurtosis_first` and `kurtosis_others`, means over tokens.
    `largest_at_first` is the share of texts in which the largest of all layers and tokens is the first token's.
    """
    samples: dict[str, list[Tensor]] = {}
    at_first = []
    for row in tracked(ids.unbind()):
        v = residual_stream(lm.model, row[None])[:, 0].cpu()  # (layer + 1, token, width)
        size = v.abs()
        median = size.flatten(1).median(1).values
        kurt = kurtosis(v)
        for name, part in (
            ("first", size[:, 0].amax(-1) / median),
            ("others", size[:, 1:].amax((1, 2)) / median),
            ("kurtosis_first", kurt[:, 0]),
            ("kurtosis_others", kurt[:, 1:].mean(1)),
        ):
            samples.setdefault(name, []).append(part)
        at_first.append(size.amax((0, 2)).argmax() == 0)
    by_layer = {
        name: [asdict(statistics.bootstrap(column, seed=seed)) for column in torch.stack(parts).double().T]
        for name, parts in samples.items()
    }
    share = statistics.bootstrap(torch.stack(at_first).double(), seed=seed)
    return {"outliers": by_layer, "largest_at_first": asdict(share)}


MEASUREMENT = Measurement(
    claim="quantisation",
    parameters=Parameters,
    passages=lambda parameters: texts.exactly(parameters.text_source, parameters.passages),
    run=run,
    judge=judge,
    version=2,  # 2: activations at 3 and 2 bits too
)
MEASUREMENTS = (MEASUREMENT,)
