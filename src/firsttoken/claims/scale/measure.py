"""Sinks against the size of a model: the paper's table as a curve, for whatever models are given.

Paper: in LLaMa 3.1 405B about 80 % of all attention goes to BOS, and the sink rate grows from 8B over 70B to 405B.
Size is several things at once (depth, width, heads, training), so the record of a model holds each of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers import LlamaConfig, PreTrainedConfig

from firsttoken import records, texts
from firsttoken.claims.sink_rates import measure as sink_rates
from firsttoken.estimates import JSON, interval
from firsttoken.execution import cost
from firsttoken.execution.cost import Load, Plan
from firsttoken.measures.first_token_summary import SinkRates
from firsttoken.models import LanguageModel
from firsttoken.models.machine import Machine
from firsttoken.records import Record, Verdict, paper_numbers

PAPER_MODEL = "meta-llama-llama-3-1-405b"
# Configurations as published on the hub; the planner needs no weights and no network for them.
PAPER_SHAPES = {
    "meta-llama-llama-3-1-8b": (32, 4096, 14336, 32),
    "meta-llama-llama-3-1-70b": (80, 8192, 28672, 64),
    "meta-llama-llama-3-1-405b": (126, 16384, 53248, 128),
}
_SIZE = re.compile(r"[-_]\d+(\.\d+)?[mMbB](?=[-_.]|$)")


def measure(lm: LanguageModel, parameters: SinkRates, fresh: bool = False) -> Record:
    """The record `scale/<model>.json`: `mass_first`, `sink_rate` at the paper's epsilon and `sink_rate_0.3`, two of
    them by layer, and the size of the model in parameters, layers, width and heads.

    The attention is that of the record `sink_rates/<model>.json`, which is measured first if it is not there.
    """
    chosen = texts.exactly(parameters.texts, parameters.passages)

    def run() -> JSON:
        counted = sink_rates.measure(lm, parameters, fresh).values
        at = dict(zip(counted["by_epsilon"]["epsilon"], counted["by_epsilon"]["threshold_first"], strict=True))
        return {
            "mass_first": counted["mass"],
            "sink_rate": at[paper_numbers.PAPER_EPSILON],
            "sink_rate_0.3": at[0.3],
            "by_layer": {name: counted["by_layer"][name] for name in ("mass", "sink_rate_0.3")},
            **size(lm.config),
        }

    return records.reuse_or_measure(
        "scale",
        model=lm,
        parameters=records.recorded(parameters),
        texts=texts.texts_hash(chosen),
        measure=run,
        judge=lambda values: judge(lm.slug, parameters, values),
        fresh=fresh,
    )


def size(config: PreTrainedConfig) -> JSON:
    """What "large" means for a model, from its configuration alone."""
    shape, text = cost.shape_of(config), config.get_text_config()
    return {
        "parameters": shape.bytes // shape.itemsize,
        "parameters_in_layers": shape.layers_bytes // shape.itemsize,
        "layers": shape.layers,
        "width": shape.hidden,
        "heads": text.num_attention_heads,
    }


def remeasure(lm: LanguageModel, record: Record) -> Record:
    """Measure what a record of this claim holds once more, with its own parameters."""
    return measure(lm, SinkRates(**record.parameters), fresh=True)


def judge(model: str, parameters: SinkRates, values: JSON) -> Verdict:
    """The claim is about one model: LLaMa 3.1 405B counts as reproduced within 10 points of the paper's mass, as
    partly within 20. No other model, whatever it shows, can confirm or refute it."""
    mass, theirs = values["mass_first"], paper_numbers.paper()["mass_405b"]["value"]
    here = interval(mass, ".1%")
    if model != PAPER_MODEL:
        return Verdict(
            "not measured",
            f"The claim is about LLaMa 3.1 405B. Here, with {in_words(values['parameters'])} parameters, {here} of "
            f"the attention goes to the first token; the paper has about {theirs:.0%} for 405B.",
        )
    if parameters.length != paper_numbers.PAPER_LENGTH:
        return Verdict("not measured", f"The paper used {paper_numbers.PAPER_LENGTH} tokens; set length to that.")
    gap = abs(mass["value"] - theirs)
    status: records.Status = "reproduced" if gap <= 0.1 else "partly" if gap <= 0.2 else "not reproduced"
    return Verdict(status, f"Attention mass on the first token: {here} here, about {theirs:.0%} in the paper.")


def in_words(parameters: float) -> str:
    """A number of parameters as people write it: 135M, 7B, 405B."""
    unit, name = (1e9, "B") if parameters >= 1e9 else (1e6, "M")
    return f"{parameters / unit:.3g}{name}"


def shown(model: str) -> str:
    """A slug as tables show it: the paper's models by the paper's names."""
    return f"LLaMa 3.1 {model.rsplit('-', 1)[1].upper()}" if model in PAPER_SHAPES else model


def family(name: str) -> str:
    """A model's name without its size: `EleutherAI/pythia-1.4b` and `EleutherAI/pythia-70m` are one family."""
    return _SIZE.sub("", name, count=1)


def by_family(found: Sequence[Record]) -> dict[str, list[Record]]:
    """Records grouped by family, each from small to large."""
    groups: dict[str, list[Record]] = {}
    for record in sorted(found, key=lambda record: record.values["parameters"]):
        groups.setdefault(family(record.provenance["model"]["name"]), []).append(record)
    return groups


def paper_table(found: Sequence[Record]) -> list[tuple[str, ...]]:
    """Rows for the chapter's table: the paper's three models with and without a record, then all others by size."""
    paper = paper_numbers.paper()
    measured = {record.model: record for record in found}
    others = [r.model for r in sorted(found, key=lambda r: r.values["parameters"]) if r.model not in PAPER_SHAPES]
    rows: list[tuple[str, ...]] = []
    for model in [*PAPER_SHAPES, *others]:
        record = measured.get(model)
        theirs = f"{paper['llama'][model]['sink_rate']:.2%}" if model in PAPER_SHAPES else "not in the paper"
        mass = f"about {paper['mass_405b']['value']:.0%}" if model == PAPER_MODEL else "not given"
        shape = size(paper_config(model)) if record is None else record.values
        dimensions = f"{shape['layers']} × {shape['width']} × {shape['heads']}"
        ours = ("not measured yet",) * 2
        if record is not None:
            ours = (interval(record.values["sink_rate"], ".1%"), interval(record.values["mass_first"], ".1%"))
        rows.append((shown(model), in_words(shape["parameters"]), dimensions, theirs, ours[0], mass, ours[1]))
    return rows


# -- cost ---------------------------------------------------------------------------------------------------


def paper_config(model: str) -> PreTrainedConfig:
    """The configuration of one of the paper's models, without a look at the hub."""
    layers, width, inner, heads = PAPER_SHAPES[model]
    return LlamaConfig(
        vocab_size=128256,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        tie_word_embeddings=False,
    )


def cost_table(machine: Machine, load: Load, dtype: str = "bfloat16") -> list[tuple[str, ...]]:
    """Predicted cost of the paper's three models on a machine, one row for each way of running."""
    rows = []
    for model in PAPER_SHAPES:
        shape = cost.shape_of(paper_config(model), dtype)
        rows += [plan_row(shown(model), plan) for plan in cost.plans(shape, machine, load)]
    return rows


def plan_row(name: str, plan: Plan) -> tuple[str, ...]:
    """One prediction as the chapter and `firsttoken plan` show it."""
    time = f"{plan.seconds / 60:.1f} min" if plan.seconds >= 60 else f"{plan.seconds:.1f} s"
    read, memory = f"{plan.bytes_read / 1e9:.1f} GB", f"{plan.memory / 1e9:.1f} GB"
    return (name, plan.way, read, memory, time if plan.fits else f"({time})", "yes" if plan.fits else "no")


PLAN_COLUMNS = ("model", "way", "read", "peak memory", "time", "fits")


def benchmark_rows(record: Record) -> list[tuple[str, ...]]:
    """Prediction beside measurement for a streamed pass, from a record of `benchmarks/streaming.py`."""
    values = record.values
    found, predicted = values["streamed"], values["predicted"]
    pairs = (
        ("bytes read", found["bytes"] / 1e9, predicted["bytes_read"] / 1e9, "GB"),
        ("peak memory", found["peak_bytes"] / 1e9, predicted["memory"] / 1e9, "GB"),
        ("time", found["seconds"], predicted["seconds"], "s"),
    )
    return [
        (name, f"{theirs:.2f} {unit}", f"{ours:.2f} {unit}", f"{ours / theirs:.2f}")
        for name, ours, theirs, unit in pairs
    ]


def ratio_rows(record: Record) -> list[tuple[str, ...]]:
    """The benchmark's ratios with the goals they are held against."""
    values = record.values

    def with_range(name: str) -> str:
        every = [one[name] for one in values["rounds"]]
        return f"{values[name]:.2f} ({min(every):.2f} to {max(every):.2f})"

    return [
        ("peak memory / (two layers + activations)", f"{values['memory_ratio']:.2f}", "at most 1.3"),
        ("bytes read / bytes of the checkpoint", f"{values['bytes_ratio']:.3f}", "1.00 to 1.02"),
        ("read rate / plain sequential read", with_range("rate_ratio"), "at least 0.8"),
        ("share of the bytes that came from the disk, not a cache", f"{values['from_disk_ratio']:.2f}", "1"),
        ("share of the time spent waiting for the disk", f"{values['waiting_share']:.2f}", "no goal"),
        ("time, accelerate's disk offload / streamed", with_range("offload_time_ratio"), "above 1"),
        ("memory, accelerate's disk offload / streamed", f"{values['offload_memory_ratio']:.2f}", "no goal"),
        ("processes that ran or waited for a core (load)", f"{values['load_average']:.1f}", "below the cores"),
    ]
