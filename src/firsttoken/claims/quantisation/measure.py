"""What quantisation costs, and how much of the cost is the first token's.

Literature: sinks carry massive activations, and a few tokens kept exact save most of the loss (IntactKV, arXiv
2403.01241; KVSink, arXiv 2508.04257). The paper discusses this as related work and measures none of it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from firsttoken import records, statistics, texts
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON, interval
from firsttoken.measures.rounding import (
    Grouping,
    Scope,
    put_back_first,
    remember_first,
    rounded_activations,
    rounded_cache,
    rounded_weights,
)
from firsttoken.models import BosPolicy, LanguageModel
from firsttoken.probe import probe
from firsttoken.probe.interventions import Hook
from firsttoken.probe.losses import mean_losses
from firsttoken.probe.residual_stream import residual_stream
from firsttoken.records import Record, Verdict

CACHE_BITS = (8, 4, 3, 2)
ACTIVATION_BITS = (8, 4, 3, 2)
WEIGHT_BITS = (4, 3)
GROUPINGS: tuple[Grouping, ...] = ("token", "channel")
SCOPES: tuple[Scope, ...] = ("token", "tensor")
HEADLINE_BITS = 4
CONTROL = 8  # where the ordinary tokens stand that are kept exact for comparison
VERSION = 2  # 2: activations at 3 and 2 bits too
STRIDE = 2  # the loss is taken at every other query, because logits cost more than all layers of a small model


@dataclass(frozen=True)
class Quantisation:
    """Parameters of the measurement. `batch_tokens` changes no number beyond rounding and is not recorded."""

    texts: str = "passages"  # see `texts.texts_from`
    passages: int = 12
    length: int = 96  # tokens of each text, BOS included
    kept: int = 1  # how many first tokens are kept exact
    bos: BosPolicy = "auto"
    seed: int = 0
    batch_tokens: int = 2048


def measure(lm: LanguageModel, parameters: Quantisation, fresh: bool = False) -> Record:
    """The record `quantisation/<model>.json`.

    Its values: `loss` (nats per token, nothing rounded), `loss_saved` (by keeping the first tokens exact in a cache of
    4 bits, one group a token) and `loss_saved_control` (by keeping as many others); `cache`, `activations` and
    `weights` with the increase of the loss for every setting; `outliers` by layer and `largest_at_first`.
    """
    if parameters.kept < 1 or parameters.length < CONTROL + parameters.kept + 8:
        raise FirstTokenError(
            f"kept must be at least 1 and length at least {CONTROL + 8} more than it, not {parameters.kept} and "
            f"{parameters.length}."
        )
    chosen = texts.exactly(parameters.texts, parameters.passages)

    def run() -> JSON:
        ids = texts.encode(lm, chosen, parameters.length, parameters.bos)
        plain = losses(lm, ids, parameters)
        values: JSON = {"loss": asdict(statistics.bootstrap(plain, seed=parameters.seed))}
        values |= cache(lm, ids, plain, parameters)
        values["activations"] = activations(lm, ids, plain, parameters)
        values["weights"] = weights(lm, ids, plain, parameters)
        values |= outliers(lm, ids, parameters.seed)
        return values

    return records.reuse_or_measure(
        "quantisation",
        model=lm,
        parameters=records.recorded(parameters),
        texts=texts.texts_hash(chosen),
        measure=run,
        judge=judge,
        version=VERSION,
        fresh=fresh,
    )


def remeasure(lm: LanguageModel, record: Record) -> Record:
    """Measure what a record of this claim holds once more, with its own parameters."""
    return measure(lm, Quantisation(**record.parameters), fresh=True)


def losses(lm: LanguageModel, ids: Tensor, parameters: Quantisation, hook: Hook | None = None) -> Tensor:
    """Mean loss of each text, (text,), float64; every text predicts the same positions in every setting."""
    queries = torch.arange(1, ids.shape[1] - 1, STRIDE)
    return mean_losses(lm, ids, queries, parameters.batch_tokens, hook)


def keeping(kept: int) -> dict[str, tuple[int, ...]]:
    """Which tokens stay exact: none, the first ones, or as many ordinary ones."""
    return {"none": (), "first": tuple(range(kept)), "control": tuple(range(CONTROL, CONTROL + kept))}


def cache(lm: LanguageModel, ids: Tensor, plain: Tensor, parameters: Quantisation) -> JSON:
    """The increase of the loss with a rounded key-value cache, and what keeping tokens exact saves of it."""
    found: JSON = {}
    by_keeping: dict[tuple[str, int], dict[str, Tensor]] = {}
    for grouping in GROUPINGS:
        found[grouping] = {}
        for bits in CACHE_BITS:
            increase = {
                name: losses(lm, ids, parameters, rounded_cache(bits, grouping, exact)) - plain
                for name, exact in keeping(parameters.kept).items()
            }
            by_keeping[grouping, bits] = increase
            found[grouping][str(bits)] = _with_savings(increase, parameters.seed)
    headline = by_keeping["token", HEADLINE_BITS]
    return {
        "cache": found,
        "loss_saved": asdict(statistics.bootstrap(headline["none"] - headline["first"], seed=parameters.seed)),
        "loss_saved_control": asdict(
            statistics.bootstrap(headline["none"] - headline["control"], seed=parameters.seed)
        ),
    }


def activations(lm: LanguageModel, ids: Tensor, plain: Tensor, parameters: Quantisation) -> JSON:
    """The increase of the loss with rounded inputs of all matrices."""
    found: JSON = {}
    for scope in SCOPES:
        found[scope] = {}
        for bits in ACTIVATION_BITS:
            increase = {}
            for name, exact in keeping(parameters.kept).items():
                with rounded_activations(lm.model, bits, scope, exact):
                    increase[name] = losses(lm, ids, parameters) - plain
            found[scope][str(bits)] = _with_savings(increase, parameters.seed)
    return found


def weights(lm: LanguageModel, ids: Tensor, plain: Tensor, parameters: Quantisation) -> JSON:
    """The increase of the loss with rounded weights, and with the first tokens' keys and values from exact ones."""
    found: JSON = {}
    for bits in WEIGHT_BITS:
        rounded = []
        intact = []
        for row in ids.split(max(1, parameters.batch_tokens // ids.shape[1])):
            store: dict[int, tuple[Tensor, Tensor]] = {}
            with torch.inference_mode(), probe(lm.model, hook=remember_first(store, parameters.kept)):
                lm.model.get_decoder()(row.to(lm.model.device), use_cache=False)
            with rounded_weights(lm.model, bits):
                rounded.append(losses(lm, row, parameters))
                intact.append(losses(lm, row, parameters, put_back_first(store)))
        increase = {"none": torch.cat(rounded) - plain, "first": torch.cat(intact) - plain}
        found[str(bits)] = _with_savings(increase, parameters.seed)
    return found


def _with_savings(increase: dict[str, Tensor], seed: int) -> JSON:
    """Estimates of each increase, of what the first tokens save, and of how much more that is than the control."""
    found: JSON = {name: asdict(statistics.bootstrap(change, seed=seed)) for name, change in increase.items()}
    found["saved"] = asdict(statistics.bootstrap(increase["none"] - increase["first"], seed=seed))
    if "control" in increase:
        found["more_than_control"] = asdict(statistics.bootstrap(increase["control"] - increase["first"], seed=seed))
    return found


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
    for row in ids:
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


def judge(values: JSON) -> Verdict:
    """The claim has two parts: the first token carries the outliers, and keeping it exact saves more of the loss than
    keeping another does.

    Reproduced where the largest activation is the first token's in most texts, and keeping it beats the control, with
    the whole interval, in caches of 4 and of 3 bits in both groupings. Partly where one part holds, or the second in
    some of these settings only.
    """
    settings = [(grouping, bits) for grouping in GROUPINGS for bits in (4, 3)]
    better = [
        (grouping, bits)
        for grouping, bits in settings
        if values["cache"][grouping][str(bits)]["more_than_control"]["low"] > 0
    ]
    share = values["largest_at_first"]["value"]
    named = ", ".join(f"{bits} bits by {grouping}" for grouping, bits in better) or "none"
    sentence = (
        f"The largest activation is the first token's in {share:.0%} of the texts. With a cache of {HEADLINE_BITS} "
        f"bits by token, keeping the first token exact saves {interval(values['loss_saved'], '.3f')} nats per token, "
        f"keeping another {interval(values['loss_saved_control'], '.3f')}. It saves clearly more than another in "
        f"{len(better)} of {len(settings)} caches ({named})."
    )
    outliers_there = share > 0.5
    if outliers_there and len(better) == len(settings):
        return Verdict("reproduced", sentence)
    return Verdict("partly" if outliers_there or better else "not reproduced", sentence)
