"""How many heads are sinks: the paper's table for LLaMa 3.1, for any model.

Paper: sink rate of LLaMa 3.1 8B, 70B and 405B at epsilon = 0.8 over 170 passages of T = 64 tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from firsttoken import metrics, records, texts
from firsttoken.bundled import cache_folder
from firsttoken.errors import FirstTokenError, explain_out_of_memory
from firsttoken.execution import choose
from firsttoken.models import BosPolicy, LanguageModel
from firsttoken.probe import probe
from firsttoken.records import JSON, Estimate, Record, Verdict
from firsttoken.streaming import StreamedModel

EPSILONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
PAPER_EPSILON = 0.8
PAPER_LENGTH = 64


@dataclass(frozen=True)
class SinkRates:
    """Parameters of the measurement.

    `batch_tokens` and `execution` change no number beyond rounding, so they are not part of the record.
    """

    texts: str = "passages"  # see `texts.texts_from`
    passages: int = 170  # how many texts
    length: int = 64  # tokens of each text, BOS included
    epsilon: float = PAPER_EPSILON
    bos: BosPolicy = "auto"
    seed: int = 0  # of the bootstrap
    batch_tokens: int = 4096
    execution: str = "auto"  # see `execution.choose`

    def recorded(self) -> JSON:
        return {name: value for name, value in asdict(self).items() if name not in ("batch_tokens", "execution")}


def alphas(lm: LanguageModel, ids: Tensor, batch_tokens: int = 4096, execution: str = "auto") -> Tensor:
    """Attention to the first token of every head of a model, averaged over queries.

    Args:
        ids: (text, token), without padding.
        batch_tokens: how many tokens run at once.
        execution: `resident`, `streamed`, `tensor_parallel`, or `auto`: see `execution.choose`.

    Returns:
        alpha  # (text, layer, head), float32, on the CPU
    """
    return alphas_of_prefixes(lm, ids, [ids.shape[1]], batch_tokens, execution)[ids.shape[1]]


def alphas_of_prefixes(
    lm: LanguageModel, ids: Tensor, lengths: Sequence[int], batch_tokens: int = 4096, execution: str = "auto"
) -> dict[int, Tensor]:
    """The same for the first T tokens of each text, for several T from one forward pass.

    Attention is causal, so the rows of a short input are the first rows of a long one.

    Returns:
        {T: alpha}  # each (text, layer, head)
    """
    way = choose(lm, execution)
    remedy = f"lower batch_tokens (now {batch_tokens}) or length (now {ids.shape[1]}), or use dtype='bfloat16'"
    with torch.inference_mode(), explain_out_of_memory(remedy):
        if way == "streamed":
            return _streamed(lm, ids, lengths, batch_tokens)
        if way == "tensor_parallel":
            from firsttoken.tensor_parallel import gather_heads, sharded_model

            heads = lm.config.get_text_config().num_attention_heads
            found = _resident(sharded_model(lm), ids, lengths, batch_tokens)
            return {length: gather_heads(alpha, heads) for length, alpha in found.items()}
        return _resident(lm.model, ids, lengths, batch_tokens)


def _resident(model: PreTrainedModel, ids: Tensor, lengths: Sequence[int], batch_tokens: int) -> dict[int, Tensor]:
    found: dict[int, list[Tensor]] = {length: [] for length in lengths}
    decoder = model.get_decoder()
    for batch in ids.split(max(1, batch_tokens // ids.shape[1])):
        with probe(model, keys=[0]) as p:
            # The decoder alone: logits over the vocabulary are not needed and can be the largest tensor.
            decoder(batch.to(model.device), use_cache=False)
        for length in lengths:
            found[length].append(metrics.first_token_attention(p.attention[..., :length]).cpu())
    return {length: torch.cat(parts) for length, parts in found.items()}


def _streamed(lm: LanguageModel, ids: Tensor, lengths: Sequence[int], batch_tokens: int) -> dict[int, Tensor]:
    streamed = StreamedModel(lm)
    with probe(streamed.model, keys=[0]) as p:

        def observe(layer: int, hidden: Tensor) -> Tensor | None:
            """(row, head, length); None for a layer without attention."""
            seen = p.per_layer().get(layer)  # (row, head, query, 1)
            if seen is None:
                return None
            attention = seen[None, ..., 0]
            return torch.stack([metrics.first_token_attention(attention[..., :n])[:, 0] for n in lengths], dim=-1)

        task = f"first-token attention at {list(lengths)}"
        work = cache_folder() / "streaming"
        out = streamed.run(ids, observe, batch_tokens=batch_tokens, work=work, task=task)
    layers = [out.observed[layer] for layer in sorted(out.observed)]
    together = torch.stack(layers, dim=1)  # (text, layer, head, length)
    return {length: together[..., i].contiguous() for i, length in enumerate(lengths)}


def _texts(parameters: SinkRates) -> list[str]:
    found = texts.texts_from(parameters.texts, limit=parameters.passages)
    if len(found) < parameters.passages:
        raise FirstTokenError(
            f"{parameters.texts} holds {len(found)} texts, fewer than passages={parameters.passages}; lower it."
        )
    return found


def measure(lm: LanguageModel, parameters: SinkRates, fresh: bool = False) -> Record:
    """The sink rates of a model: the record `sink_rates/<model>.json`.

    Its values: `sink_rate` (threshold first, at epsilon) and `sink_rate_average_first`, `mass` (mean attention to
    the first token), `by_epsilon`, `by_layer`, `by_passage`, and `alpha`, (layer, head), averaged over passages.
    """
    metrics.check_epsilon(parameters.epsilon)
    chosen = _texts(parameters)

    def run() -> JSON:
        ids = texts.encode(lm, chosen, parameters.length, parameters.bos)
        return summary(
            alphas(lm, ids, parameters.batch_tokens, parameters.execution), parameters.epsilon, parameters.seed
        ) | {
            "first_tokens": len(set(ids[:, 0].tolist())),
            "prefix": lm.tokenizer.convert_ids_to_tokens(lm.prefix(parameters.bos)),
        }

    return records.reuse_or_measure(
        "sink_rates",
        model=lm,
        parameters=parameters.recorded(),
        texts=texts.texts_hash(chosen),
        measure=run,
        judge=lambda values: judge(lm.slug, parameters, values),
        fresh=fresh,
    )


def summary(alpha: Tensor, epsilon: float, seed: int = 0) -> JSON:
    """All that a record says about alpha, (passage, layer, head)."""
    by_epsilon: JSON = {"epsilon": list(EPSILONS)}
    for order in ("threshold_first", "average_first"):
        by_epsilon[order] = [asdict(e) for e in metrics.rates_by_epsilon(alpha, EPSILONS, order, seed)]
    return {
        "sink_rate": asdict(metrics.sink_rate_estimate(alpha, epsilon, seed=seed)),
        "sink_rate_average_first": asdict(metrics.sink_rate_estimate(alpha, epsilon, "average_first", seed)),
        "mass": asdict(metrics.bootstrap(alpha, seed=seed)),
        "by_epsilon": by_epsilon,
        "by_layer": {
            "sink_rate": _rounded(metrics.sink_rate_by_layer(alpha, epsilon)),
            "sink_rate_0.3": _rounded(metrics.sink_rate_by_layer(alpha, 0.3)),
            "mass": _rounded(alpha.mean((0, 2))),
        },
        "by_passage": _rounded((alpha > epsilon).double().mean((1, 2))),
        "alpha": [_rounded(layer) for layer in alpha.mean(0)],
        "layers": alpha.shape[1],
        "heads": alpha.shape[2],
    }


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 5) for value in values.tolist()]


# -- sensitivity --------------------------------------------------------------------------------------------


def lengths_up_to(lm: LanguageModel, longest: int) -> list[int]:
    """16, 32, 64 ... up to `longest` or to the longest input that the model was made for."""
    config = lm.config.get_text_config()
    limit = min(longest, getattr(config, "max_position_embeddings", longest))
    return [2**power for power in range(4, 31) if 2**power <= limit]


def window_plan(lengths: Sequence[int]) -> list[tuple[int, int, list[int]]]:
    """(window length, how many windows, lengths read from them): many short windows and few long ones, about
    16,384 tokens for each of up to three groups."""
    groups = [[n for n in lengths if low < n <= high] for low, high in ((0, 256), (256, 2048), (2048, 1 << 31))]
    return [(group[-1], max(2, min(64, 16384 // group[-1])), group) for group in groups if group]


def measure_by_length(lm: LanguageModel, parameters: SinkRates, longest: int, fresh: bool = False) -> Record:
    """Sink rate against the number of tokens, on windows of one long document, the first token of each included."""
    document = texts.long_text()

    def run() -> JSON:
        lengths = lengths_up_to(lm, longest)
        found: JSON = {"length": lengths, "sink_rate": [], "sink_rate_0.3": [], "mass": []}
        for window, count, group in window_plan(lengths):
            ids = texts.windows(lm, document, window, count, parameters.bos)
            by_length = alphas_of_prefixes(lm, ids, group, parameters.batch_tokens, parameters.execution)
            for alpha in by_length.values():
                for name, estimate in _three_numbers(alpha, parameters):
                    found[name].append(asdict(estimate))
        return found

    return records.reuse_or_measure(
        "sink_rates",
        model=lm,
        parameters=parameters.recorded() | {"texts": "long text", "length": longest, "passages": None},
        texts=texts.texts_hash([document]),
        measure=run,
        variant="length",
        fresh=fresh,
    )


def measure_by_bos(lm: LanguageModel, parameters: SinkRates, fresh: bool = False) -> Record:
    """Sink rate with the tokenizer's own BOS policy, with BOS in any case, and without."""
    chosen = _texts(parameters)

    def run() -> JSON:
        found: JSON = {}
        for bos in ("always", "never"):
            if bos == "always" and lm.tokenizer.bos_token_id is None:
                continue
            ids = texts.encode(lm, chosen, parameters.length, bos)
            alpha = alphas(lm, ids, parameters.batch_tokens, parameters.execution)
            found[bos] = {name: asdict(estimate) for name, estimate in _three_numbers(alpha, parameters)}
        found["auto"] = found["always" if lm.prefix("auto") else "never"]
        return found

    return records.reuse_or_measure(
        "sink_rates",
        model=lm,
        parameters=parameters.recorded() | {"bos": "all"},
        texts=texts.texts_hash(chosen),
        measure=run,
        variant="bos",
        fresh=fresh,
    )


def _three_numbers(alpha: Tensor, parameters: SinkRates) -> Iterator[tuple[str, Estimate]]:
    yield "sink_rate", metrics.sink_rate_estimate(alpha, parameters.epsilon, seed=parameters.seed)
    yield "sink_rate_0.3", metrics.sink_rate_estimate(alpha, 0.3, seed=parameters.seed)
    yield "mass", metrics.bootstrap(alpha, seed=parameters.seed)


def remeasure(lm: LanguageModel, record: Record) -> Record:
    """Measure what a record of this claim holds once more, with its own parameters."""
    if record.variant == "length":
        chosen = {**record.parameters, "texts": "passages", "passages": 170, "length": PAPER_LENGTH}
        return measure_by_length(lm, SinkRates(**chosen), record.parameters["length"], fresh=True)
    if record.variant == "bos":
        return measure_by_bos(lm, SinkRates(**{**record.parameters, "bos": "auto"}), fresh=True)
    return measure(lm, SinkRates(**record.parameters), fresh=True)


# -- verdict ------------------------------------------------------------------------------------------------


def judge(model: str, parameters: SinkRates, values: JSON) -> Verdict:
    """Compare with the paper's table where the model is in it; else say what the model does and does not show.

    A model of the table counts as reproduced within 5 points of the paper (other passages were used), as partly
    within 15. Any other model can show at most that sinks exist: partly, if more than a quarter of its heads are
    sinks at epsilon = 0.3 with 95 % confidence.
    """
    table = records.paper()["llama"]
    at = dict(zip(values["by_epsilon"]["epsilon"], values["by_epsilon"]["threshold_first"], strict=True))
    strict, loose = at[PAPER_EPSILON], at[0.3]
    if model in table:
        theirs = table[model]["sink_rate"]
        if parameters.length != PAPER_LENGTH:
            return Verdict("not measured", f"The paper's table is for {PAPER_LENGTH} tokens; set length to that.")
        gap = abs(strict["value"] - theirs)
        status: records.Status = "reproduced" if gap <= 0.05 else "partly" if gap <= 0.15 else "not reproduced"
        return Verdict(
            status, f"Sink rate at ε = {PAPER_EPSILON}: {_percent(strict)} here, {theirs:.2%} in the paper's table."
        )
    sentence = (
        f"{_percent(loose)} of the heads give the first token more than 0.3 of their attention and {_percent(strict)} "
        f"more than {PAPER_EPSILON}. "
    )
    if loose["low"] <= 0.25:
        return Verdict("not reproduced", sentence + "Sinks are no common feature of this model's heads.")
    smallest = table["meta-llama-llama-3-1-8b"]["sink_rate"]
    more = "fewer" if strict["value"] < smallest else "no fewer"
    return Verdict(
        "partly",
        sentence + f"Sinks are there, and at the paper's threshold {more} than in LLaMa 3.1 8B ({smallest:.2%} in the "
        "paper); this model is not in the paper's table, whose numbers it cannot confirm.",
    )


def _percent(estimate: JSON) -> str:
    return f"{estimate['value']:.1%} [{estimate['low']:.1%}, {estimate['high']:.1%}]"


def paper_table(found: Sequence[Record]) -> list[tuple[str, ...]]:
    """Rows for the chapter's table: the paper's three models, then every model measured, at epsilon = 0.8."""
    table = records.paper()["llama"]
    measured = {record.model: record for record in found if not record.variant}
    names = {slug: f"LLaMa 3.1 {slug.rsplit('-', 1)[1].upper()}" for slug in table if slug.startswith("meta-llama")}
    rows: list[tuple[str, ...]] = []
    for model in [*names, *(slug for slug in measured if slug not in names)]:
        theirs = f"{table[model]['sink_rate']:.2%}" if model in names else "not in the paper"
        record = measured.get(model)
        ours, status = "not measured yet", "not measured yet"
        if record is not None:
            by_epsilon = record.values["by_epsilon"]
            ours = _percent(by_epsilon["threshold_first"][by_epsilon["epsilon"].index(PAPER_EPSILON)])
            status = record.verdict.status if record.verdict else status
        rows.append((names.get(model, model), theirs, ours, status))
    return rows
