"""How evenly attention is spread, with a sink and without: entropy, effective number of tokens, spectrum of maps.

For one row p of an attention map (the attention of one query):

    Shannon entropy H = -sum p log p        effective number of tokens exp(H), from 1 to the row's length
    Renyi-2 entropy H2 = -log sum p^2       exp(H2) <= exp(H), insensitive to a tail of small weights

A row that puts most of itself on the first token has a low entropy for that reason alone. What the row does with the
rest is a question of its own: with a the weight of the first token and h(a) = -a log a - (1-a) log(1-a), the grouping
property of entropy gives the entropy of the rest, renormalised, as (H - h(a)) / (1 - a).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from firsttoken import statistics, texts
from firsttoken.claims.smoothing.verdict import judge
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON
from firsttoken.execution.by_layer import attention, through_layers
from firsttoken.execution.check import layer_numbers
from firsttoken.measures.attention_maps import every_map, pack
from firsttoken.measures.bos_arms import ARMS, Arm
from firsttoken.measures.bos_contrast import first_token_mass, start
from firsttoken.measures.measurement import Measurement
from firsttoken.measures.spectra import effective_rank, rest_entropy, singular_values
from firsttoken.models import LanguageModel
from firsttoken.probe import Probe
from firsttoken.probe.forward import in_batches
from firsttoken.progress import tracked
from firsttoken.ranges import at_least, in_range
from firsttoken.statistics import mean_estimates, ratio_of_sums

SHORTEST = 64  # text tokens of the shortest window of the length sweep


@dataclass(frozen=True)
class RowStatistics:
    """Statistics of every attention row; text queries only (the row of a BOS token is left out)."""

    entropy: Tensor  # (layer, text, head, query), nats
    renyi2: Tensor  # the same
    first: Tensor  # weight on the first token of the input, the same shape


def rows(
    lm: LanguageModel,
    ids: Tensor,
    arm: Arm,
    batch_tokens: int = 4096,
    renyi2: bool = True,
    execution: str = "resident",
) -> RowStatistics:
    """Run texts in one arm and keep the statistics of every row, without any attention map.

    The first token of the text is left out in both arms: without BOS it can attend only to itself.

    Args:
        ids: (text, token), text tokens without BOS.
        renyi2: whether to compute it; it costs one more attention call a layer, and is empty otherwise.
        execution: see `by_layer.through_layers`.
    """
    inputs, first = start(lm, ids, arm)
    batches = in_batches(inputs, batch_tokens)
    kinds: tuple[Literal["entropy", "renyi2"], ...] = ("entropy", "renyi2") if renyi2 else ("entropy",)

    def see(number: int, layer: int, v: Tensor, p: Probe) -> Tensor | None:
        if (weights := attention(p, layer)) is None:
            return None
        kept = [*(p.per_layer(kind)[layer - 1] for kind in kinds), weights[..., 0]]
        return torch.stack([part[..., first + 1 :].float() for part in kept], dim=1)  # (row, statistic, head, query)

    task = f"statistics of rows {kinds}, {arm}"
    seen = through_layers(lm, batches, see, entropy=True, renyi2=renyi2, execution=execution, task=task)
    entropy, *other, weight = torch.stack([torch.cat(parts) for parts in seen.values()]).unbind(2)
    return RowStatistics(entropy, other[0] if other else entropy[..., :0], weight)


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What is asked of the rows of attention."""

    text_source: str = "passages"  # see `texts.texts_from`
    passages: int = 24  # how many texts
    text_tokens: int = 64  # of each text, BOS not counted
    maps: int = 3  # heads whose maps are shown and whose spectra are kept for each arm
    seed: int = 0
    batch_tokens: int = 4096
    execution: str = "auto"  # resident, streamed; see `by_layer.through_layers`

    def __post_init__(self) -> None:
        in_range(self)
        at_least(1, maps=self.maps)
        at_least(2, passages=self.passages, text_tokens=self.text_tokens)


@dataclass(frozen=True, kw_only=True)
class ByLength:
    """Parameters of the length sweep, on windows of one long document."""

    longest_text_tokens: int = 4096  # of each window, BOS not counted; the model may allow fewer
    windows: int = 4  # how many
    seed: int = 0
    batch_tokens: int = 4096
    execution: str = "auto"

    def __post_init__(self) -> None:
        in_range(self)
        at_least(2, windows=self.windows)
        at_least(SHORTEST, longest_text_tokens=self.longest_text_tokens)


def run(lm: LanguageModel, parameters: Parameters, passages: Sequence[str]) -> JSON:
    """`effective_tokens_ratio` (exp(H) without BOS / with it, mean over queries and heads) and the same of `renyi2`
    and of the `rest`; `by_layer` for each arm; `by_head`, exp(H) of each head; `shown`, maps of the heads that change
    most and spectra on one passage; `first_token_mass`.
    """
    execution = parameters.execution
    ids = texts.encode(lm, passages, parameters.text_tokens, "never")
    of_arm = {arm: rows(lm, ids, arm, parameters.batch_tokens, execution=execution) for arm in tracked(ARMS)}
    values = summary(of_arm, parameters.seed)
    values["shown"] = shown(lm, ids[0], heads_growth(values), parameters)
    values["first_token_mass"] = {arm: first_token_mass(lm, ids, arm, parameters.seed, execution) for arm in ARMS}
    return values


def summary(of_arm: dict[Arm, RowStatistics], seed: int = 0) -> JSON:
    """All that a record says about the rows of several texts in both arms."""
    count = of_arm["with_bos"].entropy.shape[1]
    of_text = torch.arange(count)
    by_text: dict[Arm, dict[str, Tensor]] = {}  # (text, layer, head)
    for arm, r in of_arm.items():
        by_text[arm] = {
            "effective_tokens": r.entropy.exp().mean(-1).transpose(0, 1),
            "effective_tokens_renyi2": r.renyi2.exp().mean(-1).transpose(0, 1),
            "effective_tokens_rest": rest_entropy(r.entropy, r.first).exp().transpose(0, 1),
        }
    values: JSON = {"by_layer": {arm: {} for arm in ARMS}, "texts": count}
    for name in by_text["with_bos"]:
        pairs = torch.stack([by_text[arm][name].mean((1, 2)) for arm in ("without_bos", "with_bos")], 1)
        values[f"{name}_ratio"] = asdict(ratio_of_sums(pairs, seed))
        for arm in ARMS:
            layers = mean_estimates(by_text[arm][name].mean(2), of_text, seed)
            values["by_layer"][arm][name] = [asdict(estimate) for estimate in layers]
            total = mean_estimates(by_text[arm][name].mean((1, 2))[:, None], of_text, seed)[0]
            values[f"{name}_{arm}"] = asdict(total)
    means = {arm: by_text[arm]["effective_tokens"].mean(0) for arm in ARMS}  # (layer, head)
    values["by_head"] = {arm: [[round(x, 3) for x in layer] for layer in mean.tolist()] for arm, mean in means.items()}
    return values


def shown(lm: LanguageModel, ids: Tensor, growth: Tensor, parameters: Parameters) -> JSON:
    """Maps of the heads whose effective number of tokens grows most without BOS, on the first text, and the
    effective rank of all maps on it.

    Args:
        ids: (token,), text tokens without BOS.
        growth: (layer, head), see `heads_growth`.
    """
    strongest = growth.flatten().argsort(descending=True)[: parameters.maps].tolist()
    heads = [divmod(number, growth.shape[1]) for number in strongest]
    numbers = layer_numbers(lm, len(growth), parameters.execution)
    values: JSON = {"heads": [{"layer": numbers[row], "head": head} for row, head in heads]}
    values["tokens"] = [lm.tokenizer.decode([token]) for token in ids.tolist()]
    for arm in ARMS:
        row, first = start(lm, ids[None], arm)
        maps = every_map(lm, row, parameters.execution)  # (layer, head, query, key), BOS among queries and keys
        singular = singular_values(maps)
        # How fast maps of this arm lose rank: the values as shares of the largest, averaged over all heads.
        mean = (singular / singular[..., :1]).mean((0, 1))
        values[arm] = {
            "maps": [pack(maps[row, head]) for row, head in heads],
            "offset": first,
            "spectrum": statistics.rounded(mean),
            "effective_rank": [round(value, 3) for value in effective_rank(singular).mean(1).tolist()],
        }
    return values


def position_bins(longest: int) -> list[tuple[int, int]]:
    """Query positions in doubling bins from 16, (first, last): 16-31, 32-63 ... up to `longest` - 1."""
    return [(2**k, min(2 ** (k + 1), longest) - 1) for k in range(4, longest.bit_length()) if 2**k < longest]


def as_long_as(lm: LanguageModel, parameters: ByLength) -> ByLength:
    """The sweep up to the longest text that the model was made for, BOS in front of it.

    Raises:
        FirstTokenError: it was made for texts too short for a sweep.
    """
    limit = getattr(lm.config.get_text_config(), "max_position_embeddings", parameters.longest_text_tokens + 1) - 1
    if limit < SHORTEST:
        raise FirstTokenError(f"{lm.name} reads at most {limit} tokens of text; the length sweep needs {SHORTEST}.")
    return replace(parameters, longest_text_tokens=min(parameters.longest_text_tokens, limit))


def run_by_length(lm: LanguageModel, parameters: ByLength, passages: Sequence[str]) -> JSON:
    """Effective number of tokens against the length of the context, on windows of one long document.

    Attention is causal, so the row of query j in a long input is its row in an input of j + 1 tokens: one run at
    the longest length answers for all shorter ones.
    """
    ids = texts.windows(lm, passages[0], parameters.longest_text_tokens, parameters.windows, "never")
    bins = position_bins(parameters.longest_text_tokens)
    values: JSON = {"position": [(low + high + 1) // 2 for low, high in bins], "windows": len(ids)}
    # Query 0 of the text is not among the rows.
    parts = [slice(low - 1, high) for low, high in bins]
    for arm in ARMS:
        of_arm = rows(lm, ids, arm, parameters.batch_tokens, False, parameters.execution)
        binned = [(of_arm.entropy[..., part], of_arm.first[..., part]) for part in parts]
        by_name = {
            "effective_tokens": [entropy.exp().mean((0, 2, 3)) for entropy, _ in binned],
            "effective_tokens_rest": [rest_entropy(*pair).exp().mean((0, 2)) for pair in binned],
            "mass": [first.mean((0, 2, 3)) for _, first in binned],
        }  # for each bin, (window,)
        for name, samples in by_name.items():
            estimates = mean_estimates(torch.stack(samples, 1), torch.arange(len(ids)), parameters.seed)
            values.setdefault(name, {})[arm] = [asdict(estimate) for estimate in estimates]
    return values


def heads_growth(values: JSON) -> Tensor:
    """exp(H) without BOS / with it, of every head: (layer, head)."""
    return torch.tensor(values["by_head"]["without_bos"]) / torch.tensor(values["by_head"]["with_bos"])


MEASUREMENT = Measurement(
    claim="smoothing",
    parameters=Parameters,
    passages=lambda parameters: texts.exactly(parameters.text_source, parameters.passages),
    run=run,
    judge=judge,
    copies=frozenset({"maps"}),
)
BY_LENGTH = Measurement(
    claim="smoothing",
    parameters=ByLength,
    passages=lambda _: [texts.long_text()],
    run=run_by_length,
    variant="length",
    on_demand="longest_text_tokens",
    fit=as_long_as,
)
MEASUREMENTS = (MEASUREMENT, BY_LENGTH)
