"""How evenly attention is spread, with a sink and without: entropy, effective number of tokens, spectrum of maps.

For one row p of an attention map (the attention of one query):

    Shannon entropy H = -sum p log p        effective number of tokens exp(H), from 1 to the row's length
    Renyi-2 entropy H2 = -log sum p^2       exp(H2) <= exp(H), insensitive to a tail of small weights

A row that puts most of itself on the first token has a low entropy for that reason alone. What the row does with the
rest is a question of its own: with a the weight of the first token and h(a) = -a log a - (1-a) log(1-a), the grouping
property of entropy gives the entropy of the rest, renormalised, as (H - h(a)) / (1 - a).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from firsttoken import records, statistics, texts
from firsttoken.errors import FirstTokenError
from firsttoken.estimates import JSON, interval
from firsttoken.execution.by_layer import attention, through_layers
from firsttoken.measures.attention_maps import every_map, pack
from firsttoken.measures.bos_arms import ARMS, Arm, mass_sentence, sink_survives
from firsttoken.measures.bos_contrast import first_token_mass, start
from firsttoken.measures.spectra import effective_rank, rest_entropy, singular_values
from firsttoken.models import LanguageModel
from firsttoken.probe import Probe
from firsttoken.records import Record, Verdict
from firsttoken.statistics import mean_estimates, ratio_estimates


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
    batches = inputs.split(max(1, batch_tokens // inputs.shape[1]))
    kinds = ("entropy", "renyi2") if renyi2 else ("entropy",)

    def see(number: int, layer: int, v: Tensor, p: Probe) -> Tensor | None:
        if not layer:
            return None
        found = [*(attention(p, layer, kind) for kind in kinds), attention(p, layer)[..., 0]]
        return torch.stack([part[..., first + 1 :].float() for part in found], dim=1)  # (row, statistic, head, query)

    task = f"statistics of rows {kinds}, {arm}"
    seen = through_layers(lm, batches, see, entropy=True, renyi2=renyi2, execution=execution, task=task)
    entropy, *other, weight = torch.stack([torch.cat(parts) for parts in seen.values()]).unbind(2)
    return RowStatistics(entropy, other[0] if other else entropy[..., :0], weight)


@dataclass(frozen=True)
class Smoothing:
    """Parameters of the measurement. `batch_tokens` changes no number beyond rounding and is not recorded."""

    texts: str = "passages"  # see `texts.texts_from`
    passages: int = 24  # how many texts
    length: int = 64  # text tokens, BOS not counted
    maps: int = 3  # heads whose maps are shown and whose spectra are kept for each arm
    longest: int = 4096  # text tokens of the windows of the length sweep
    windows: int = 4  # how many such windows
    seed: int = 0
    batch_tokens: int = 4096
    execution: str = "auto"  # resident, streamed; see `by_layer.through_layers`


def measure(lm: LanguageModel, parameters: Smoothing, fresh: bool = False) -> Record:
    """The record `smoothing/<model>.json`.

    Its values: `effective_tokens_ratio` (exp(H) without BOS / with it, mean over queries and heads) and the same of
    `renyi2` and of the `rest`; `by_layer` for each arm; `by_head`, the change of exp(H) of each head; `maps` and
    `spectra` of the heads that change most on one passage; `first_token_mass`.
    """
    if parameters.maps < 1:
        raise FirstTokenError(f"maps is how many heads to show, at least one; not {parameters.maps}.")
    chosen = texts.exactly(parameters.texts, parameters.passages)

    def run() -> JSON:
        ids = texts.encode(lm, chosen, parameters.length, "never")
        found = {arm: rows(lm, ids, arm, parameters.batch_tokens, execution=parameters.execution) for arm in ARMS}
        values = summary(found, parameters.seed)
        values["shown"] = shown(lm, ids[0], heads_growth(values), parameters)
        values["first_token_mass"] = {
            arm: first_token_mass(lm, ids, arm, parameters.seed, parameters.execution) for arm in ARMS
        }
        return values

    return records.reuse_or_measure(
        "smoothing",
        model=lm,
        parameters=records.recorded(parameters) | {"longest": None, "windows": None},
        texts=texts.texts_hash(chosen),
        measure=run,
        judge=judge,
        fresh=fresh,
    )


def summary(found: dict[Arm, RowStatistics], seed: int = 0) -> JSON:
    """All that a record says about the rows of several texts in both arms."""
    count = found["with_bos"].entropy.shape[1]
    of_text = torch.arange(count)
    by_text: dict[Arm, dict[str, Tensor]] = {}  # (text, layer, head)
    for arm, r in found.items():
        by_text[arm] = {
            "effective_tokens": r.entropy.exp().mean(-1).transpose(0, 1),
            "effective_tokens_renyi2": r.renyi2.exp().mean(-1).transpose(0, 1),
            "effective_tokens_rest": rest_entropy(r.entropy, r.first).exp().transpose(0, 1),
        }
    values: JSON = {"by_layer": {arm: {} for arm in ARMS}, "texts": count}
    for name in by_text["with_bos"]:
        above, below = (by_text[arm][name].mean((1, 2))[:, None] for arm in ("without_bos", "with_bos"))
        values[f"{name}_ratio"] = asdict(ratio_estimates(above, below, of_text, seed)[0])
        for arm in ARMS:
            layers = mean_estimates(by_text[arm][name].mean(2), of_text, seed)
            values["by_layer"][arm][name] = [asdict(estimate) for estimate in layers]
            total = mean_estimates(by_text[arm][name].mean((1, 2))[:, None], of_text, seed)[0]
            values[f"{name}_{arm}"] = asdict(total)
    means = {arm: by_text[arm]["effective_tokens"].mean(0) for arm in ARMS}  # (layer, head)
    values["by_head"] = {arm: [[round(x, 3) for x in layer] for layer in mean.tolist()] for arm, mean in means.items()}
    return values


def shown(lm: LanguageModel, ids: Tensor, growth: Tensor, parameters: Smoothing) -> JSON:
    """Maps of the heads whose effective number of tokens grows most without BOS, on the first text, and the
    effective rank of all maps on it.

    Args:
        ids: (token,), text tokens without BOS.
        growth: (layer, head), see `heads_growth`.
    """
    strongest = growth.flatten().argsort(descending=True)[: parameters.maps].tolist()
    heads = [divmod(number, growth.shape[1]) for number in strongest]
    values: JSON = {"heads": [{"layer": layer, "head": head} for layer, head in heads]}
    values["tokens"] = [lm.tokenizer.decode([token]) for token in ids.tolist()]
    for arm in ARMS:
        row, first = start(lm, ids[None], arm)
        maps = every_map(lm, row, parameters.execution)  # (layer, head, query, key), BOS among queries and keys
        singular = singular_values(maps)
        # How fast maps of this arm lose rank: the values as shares of the largest, averaged over all heads.
        mean = (singular / singular[..., :1]).mean((0, 1))
        values[arm] = {
            "maps": [pack(maps[layer, head]) for layer, head in heads],
            "offset": first,
            "spectrum": statistics.rounded(mean),
            "effective_rank": [round(value, 3) for value in effective_rank(singular).mean(1).tolist()],
        }
    return values


def position_bins(longest: int) -> list[tuple[int, int]]:
    """Query positions in doubling bins from 16, (first, last): 16-31, 32-63 ... up to `longest` - 1."""
    return [(2**k, min(2 ** (k + 1), longest) - 1) for k in range(4, longest.bit_length()) if 2**k < longest]


def measure_by_length(lm: LanguageModel, parameters: Smoothing, fresh: bool = False) -> Record:
    """Effective number of tokens against the length of the context, on windows of one long document.

    Attention is causal, so the row of query j in a long input is its row in an input of j + 1 tokens: one run at
    the longest length answers for all shorter ones.
    """
    document = texts.long_text()
    config = lm.config.get_text_config()
    longest = min(parameters.longest, getattr(config, "max_position_embeddings", parameters.longest) - 1)
    if longest < 64 or parameters.windows < 2:
        raise FirstTokenError(
            f"The length sweep needs longest of 64 or more and at least two windows, not {longest} and "
            f"{parameters.windows}."
        )

    def run() -> JSON:
        ids = texts.windows(lm, document, longest, parameters.windows, "never")
        bins = position_bins(longest)
        values: JSON = {"position": [(low + high + 1) // 2 for low, high in bins], "windows": len(ids)}
        for arm in ARMS:
            found = rows(lm, ids, arm, parameters.batch_tokens, False, parameters.execution)
            # Query 0 of the text is not among the rows.
            parts = [slice(low - 1, high) for low, high in bins]
            tokens = torch.stack([found.entropy[..., part].exp().mean((0, 2, 3)) for part in parts], 1)
            rest = torch.stack(
                [rest_entropy(found.entropy[..., part], found.first[..., part]).exp().mean((0, 2)) for part in parts],
                1,
            )
            mass = torch.stack([found.first[..., part].mean((0, 2, 3)) for part in parts], 1)
            for name, samples in (("effective_tokens", tokens), ("effective_tokens_rest", rest), ("mass", mass)):
                estimates = mean_estimates(samples, torch.arange(len(ids)), parameters.seed)
                values.setdefault(name, {})[arm] = [asdict(estimate) for estimate in estimates]
        return values

    return records.reuse_or_measure(
        "smoothing",
        model=lm,
        parameters={"longest": longest, "windows": parameters.windows, "seed": parameters.seed},
        texts=texts.texts_hash([document]),
        measure=run,
        variant="length",
        fresh=fresh,
    )


def remeasure(lm: LanguageModel, record: Record) -> Record:
    """Measure what a record of this claim holds once more, with its own parameters."""
    chosen = {name: value for name, value in record.parameters.items() if value is not None}
    repeat = measure_by_length if record.variant == "length" else measure
    return repeat(lm, Smoothing(**chosen), fresh=True)


def judge(values: JSON) -> Verdict:
    """The claim is that attention is smoother without the sink: rows spread over more tokens.

    The paper names no measure. Shannon entropy decides, as the one that counts every token: reproduced where the
    whole interval of its ratio is above 1. Renyi-2, which looks at the largest weights only, is reported beside it
    and decides nothing.
    """
    shannon, renyi2, rest = (values[f"effective_tokens{name}_ratio"] for name in ("", "_renyi2", "_rest"))
    mass = values["first_token_mass"]
    sentence = (
        f"Without BOS a row attends to {interval(shannon)} times as many tokens in effect as with it by Shannon "
        f"entropy, {interval(renyi2)} times by Rényi-2; what it does not give to the first token is spread over "
        f"{interval(rest)} times as many. {mass_sentence(mass)}"
    )
    if sink_survives(mass):
        return Verdict("not measured", sentence)
    return Verdict("reproduced" if shannon["low"] > 1 else "not reproduced", sentence)


def heads_growth(values: JSON) -> Tensor:
    """exp(H) without BOS / with it, of every head: (layer, head)."""
    return torch.tensor(values["by_head"]["without_bos"]) / torch.tensor(values["by_head"]["with_bos"])
