"""How many heads are sinks: the paper's table for LLaMa 3.1, for any model.

Paper: sink rate of LLaMa 3.1 8B, 70B and 405B at epsilon = 0.8 over 170 passages of T = 64 tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from torch import Tensor

from firsttoken import records, statistics, texts
from firsttoken.estimates import JSON, Estimate, interval
from firsttoken.measures import sinks
from firsttoken.measures.first_token_attention import alphas, alphas_of_prefixes
from firsttoken.measures.first_token_summary import EPSILONS, SinkRates, summary
from firsttoken.models import BosPolicy, LanguageModel
from firsttoken.records import Record, Verdict, paper_numbers
from firsttoken.records.paper_numbers import PAPER_EPSILON, PAPER_LENGTH


def measure(lm: LanguageModel, parameters: SinkRates, fresh: bool = False) -> Record:
    """The sink rates of a model: the record `sink_rates/<model>.json`.

    Its values: `sink_rate` (threshold first, at epsilon) and `sink_rate_average_first`, `mass` (mean attention to
    the first token), `by_epsilon`, `by_layer`, `by_passage`, and `alpha`, (layer, head), averaged over passages.
    """
    sinks.check_epsilon(parameters.epsilon)
    chosen = texts.exactly(parameters.texts, parameters.passages)

    def run() -> JSON:
        ids = texts.encode(lm, chosen, parameters.length, parameters.bos)
        alpha = alphas(lm, ids, parameters.batch_tokens, parameters.execution)
        return summary(alpha, parameters.epsilon, parameters.seed) | {
            "first_tokens": len(set(ids[:, 0].tolist())),
            "prefix": lm.tokenizer.convert_ids_to_tokens(lm.prefix(parameters.bos)),
        }

    return records.reuse_or_measure(
        "sink_rates",
        model=lm,
        parameters=records.recorded(parameters),
        texts=texts.texts_hash(chosen),
        measure=run,
        judge=lambda values: judge(lm.slug, parameters, values),
        fresh=fresh,
    )


# -- sensitivity --------------------------------------------------------------------------------------------


def lengths_up_to(lm: LanguageModel, longest: int) -> list[int]:
    """16, 32, 64 ... up to `longest` or to the longest input that the model was made for."""
    config = lm.config.get_text_config()
    limit = min(longest, getattr(config, "max_position_embeddings", longest))
    return [2**power for power in range(4, 31) if 2**power <= limit]


def window_plan(lengths: Sequence[int]) -> list[tuple[int, int, list[int]]]:
    """(window length, how many windows, lengths read from them): many short windows and few long ones, about
    8,192 tokens for each of up to three groups, and two windows at least."""
    groups = [[n for n in lengths if low < n <= high] for low, high in ((0, 256), (256, 2048), (2048, 1 << 31))]
    return [(group[-1], max(2, 8192 // group[-1]), group) for group in groups if group]


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
        parameters=records.recorded(parameters) | {"texts": "long text", "length": longest, "passages": None},
        texts=texts.texts_hash([document]),
        measure=run,
        version=2,
        variant="length",
        fresh=fresh,
    )


def measure_by_bos(lm: LanguageModel, parameters: SinkRates, counted: Record, fresh: bool = False) -> Record:
    """Sink rate with BOS in any case and without.

    Args:
        counted: the record that `measure` gave for these parameters; it answers for the policy that it used.
    """
    chosen = texts.exactly(parameters.texts, parameters.passages)

    def run() -> JSON:
        by_epsilon = counted.values["by_epsilon"]
        at_03 = by_epsilon["threshold_first"][EPSILONS.index(0.3)]
        known = {"sink_rate": counted.values["sink_rate"], "sink_rate_0.3": at_03, "mass": counted.values["mass"]}
        used = "always" if lm.prefix(parameters.bos) else "never"
        found: JSON = {"used": used, used: known}
        other: BosPolicy = "never" if used == "always" else "always"
        if other == "never" or lm.tokenizer.bos_token_id is not None:
            ids = texts.encode(lm, chosen, parameters.length, other)
            alpha = alphas(lm, ids, parameters.batch_tokens, parameters.execution)
            found[other] = {name: asdict(estimate) for name, estimate in _three_numbers(alpha, parameters)}
        return found

    return records.reuse_or_measure(
        "sink_rates",
        model=lm,
        parameters=records.recorded(parameters) | {"bos": "all"},
        texts=texts.texts_hash(chosen),
        measure=run,
        version=2,
        variant="bos",
        fresh=fresh,
    )


def _three_numbers(alpha: Tensor, parameters: SinkRates) -> Iterator[tuple[str, Estimate]]:
    yield "sink_rate", sinks.sink_rate_estimate(alpha, parameters.epsilon, seed=parameters.seed)
    yield "sink_rate_0.3", sinks.sink_rate_estimate(alpha, 0.3, seed=parameters.seed)
    yield "mass", statistics.bootstrap(alpha, seed=parameters.seed)


def remeasure(lm: LanguageModel, record: Record) -> Record:
    """Measure what a record of this claim holds once more, with its own parameters."""
    if record.variant == "length":
        fixed = {"texts": "passages", "passages": 170, "length": PAPER_LENGTH}
        return measure_by_length(
            lm, SinkRates(**{**record.parameters, **fixed}), record.parameters["length"], fresh=True
        )
    if record.variant == "bos":
        chosen = SinkRates(**{**record.parameters, "bos": "auto"})
        return measure_by_bos(lm, chosen, measure(lm, chosen, fresh=True), fresh=True)
    return measure(lm, SinkRates(**record.parameters), fresh=True)


# -- verdict ------------------------------------------------------------------------------------------------


def judge(model: str, parameters: SinkRates, values: JSON) -> Verdict:
    """Compare with the paper's table where the model is in it; else say what the model does and does not show.

    A model of the table counts as reproduced within 5 points of the paper (other passages were used), as partly
    within 15. Any other model can show at most that sinks exist: partly, if more than a quarter of its heads are
    sinks at epsilon = 0.3 with 95 % confidence.
    """
    table = paper_numbers.paper()["llama"]
    at = dict(zip(values["by_epsilon"]["epsilon"], values["by_epsilon"]["threshold_first"], strict=True))
    strict, loose = at[PAPER_EPSILON], at[0.3]
    if model in table:
        theirs = table[model]["sink_rate"]
        if parameters.length != PAPER_LENGTH:
            return Verdict("not measured", f"The paper's table is for {PAPER_LENGTH} tokens; set length to that.")
        gap = abs(strict["value"] - theirs)
        status: records.Status = "reproduced" if gap <= 0.05 else "partly" if gap <= 0.15 else "not reproduced"
        return Verdict(
            status,
            f"Sink rate at ε = {PAPER_EPSILON}: {interval(strict, '.1%')} here, {theirs:.2%} in the paper's table.",
        )
    sentence = (
        f"{interval(loose, '.1%')} of the heads give the first token more than 0.3 of their attention and "
        f"{interval(strict, '.1%')} more than {PAPER_EPSILON}. "
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


def paper_table(found: Sequence[Record]) -> list[tuple[str, ...]]:
    """Rows for the chapter's table: the paper's three models, then every model measured, at epsilon = 0.8."""
    table = paper_numbers.paper()["llama"]
    measured = {record.model: record for record in found if not record.variant}
    names = {slug: f"LLaMa 3.1 {slug.rsplit('-', 1)[1].upper()}" for slug in table if slug.startswith("meta-llama")}
    rows: list[tuple[str, ...]] = []
    for model in [*names, *(slug for slug in measured if slug not in names)]:
        theirs = f"{table[model]['sink_rate']:.2%}" if model in names else "not in the paper"
        record = measured.get(model)
        ours, status = "not measured yet", "not measured yet"
        if record is not None:
            by_epsilon = record.values["by_epsilon"]
            ours = interval(by_epsilon["threshold_first"][by_epsilon["epsilon"].index(PAPER_EPSILON)], ".1%")
            status = record.verdict.status if record.verdict else status
        rows.append((names.get(model, model), theirs, ours, status))
    return rows
