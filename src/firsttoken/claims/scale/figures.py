"""Figures of the chapter `scale`, from records to pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from firsttoken.claims.scale.families import by_family
from firsttoken.claims.scale.measure import PAPER_SHAPES, paper_config
from firsttoken.claims.scale.measure import size as size_of
from firsttoken.claims.scale.pairs import Pair
from firsttoken.claims.scale.plan_rows import COLUMNS, row
from firsttoken.claims.scale.verdict import PAPER_MODEL, in_words
from firsttoken.estimates import interval
from firsttoken.execution import cost
from firsttoken.execution.cost import Load
from firsttoken.model_names import called, names_of, short_name
from firsttoken.models.machine import Machine
from firsttoken.plots import NEUTRAL, Display, figure, model_color, reach, table
from firsttoken.records import Record, paper_numbers
from firsttoken.records.numbers import NOT_RUN, quote
from firsttoken.records.paper_numbers import PAPER_EPSILON

_MEASURES = {
    "mass_first": "attention mass on the first token",
    "sink_rate_0.3": "share of heads with α > 0.3",
    "sink_rate": f"share of heads with α > {PAPER_EPSILON}",
}


def _points(ax: Axes, family: Sequence[Record], x: str, y: str) -> None:
    """The models of a family with their 95 % intervals, joined by a line that has the colour of none of them."""
    if len(family) > 1:
        line = [record.values[y]["value"] for record in family]
        ax.plot([record.values[x] for record in family], line, color=NEUTRAL, label="sizes of one family")
    for record in family:
        e, color = record.values[y], model_color(record.model)
        ax.errorbar(
            record.values[x], e["value"], yerr=reach(e), color=color, marker="o", capsize=3, linestyle="none",
            label=called(record),
        )  # fmt: skip


def by_size(records: Sequence[Record]) -> Display:
    """First-token mass and sink rates against the number of parameters, families as lines, the paper as diamonds."""
    families = by_family(records)
    paper = paper_numbers.paper()

    def draw(axes: Any) -> None:
        for ax, (name, label) in zip(axes, _MEASURES.items(), strict=True):
            for members in families.values():
                _points(ax, members, "parameters", name)
            for model in PAPER_SHAPES:
                parameters = size_of(paper_config(model))["parameters"]
                if name == "sink_rate":
                    rate = paper["llama"][model]["sink_rate"]
                elif name == "mass_first" and model == PAPER_MODEL:
                    rate = paper["mass_405b"]["value"]
                else:
                    continue
                ax.plot(parameters, rate, marker="D", color=NEUTRAL, linestyle="none")
                size = model.rsplit("-", 1)[1].upper()
                ax.annotate(size, (parameters, rate), (0, 7), textcoords="offset points", ha="center")
            ax.set_xscale("log")
            ax.set(
                xlabel="parameters",
                title="\n".join(wrap(label.replace(" > ", "\N{NO-BREAK SPACE}>\N{NO-BREAK SPACE}"), 22)),
                ylim=(0, 1.02),
                xlim=(3e7, 2e12),
            )
        # An empty diamond for the legend: the first panel may have none of the paper's models.
        axes[0].plot([], [], marker="D", color=NEUTRAL, linestyle="none", label="LLaMa 3.1 (paper)")
        axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)

    return figure(
        draw,
        "Three panels against the number of parameters: attention mass on the first token, and the share of sink "
        "heads at two thresholds, for " + ", ".join(families) + "; grey diamonds are the paper's LLaMa 3.1 models",
        "Sinks against size, models of one family joined; diamonds are the paper's. Between families much differs "
        f"besides size, so only within one is it size that a line follows. {_ends(records)}",
        ncols=3,
        figsize=(8.2, 3.4),
        sharey=True,
    )


def _ends(records: Sequence[Record]) -> str:
    """The models of the least and of the most attention to the first token."""
    least, *_, most = sorted([*records, *records], key=lambda record: record.values["mass_first"]["value"])
    ends = (f"{record.values['mass_first']['value']:.0%} in {called(record)}" for record in (least, most))
    return f"The attention mass lies between {' and '.join(ends)}."


def by_shape(records: Sequence[Record], measure: str = "mass_first") -> Display:
    """One measure against depth, width and heads per layer, which grow together in most families."""
    families = by_family(records)

    def draw(axes: Any) -> None:
        names = {"layers": "layers", "width": "width of the hidden states", "heads": "heads in each layer"}
        for ax, (name, label) in zip(axes, names.items(), strict=True):
            for members in families.values():
                _points(ax, members, name, measure)
            ax.set(xlabel=label, ylim=(0, 1.02))
            ax.set_xlim(0, 1.15 * max(record.values[name] for record in records))
        axes[0].set_ylabel(_MEASURES[measure])
        axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)

    return figure(
        draw,
        f"Three panels: {_MEASURES[measure]} against the number of layers, the width of the hidden states and the "
        "number of heads in each layer, for " + ", ".join(families),
        "The same attention mass against the depth, the width and the heads of a layer. The models differ "
        "in all three at once, and in family, so no panel says which of them counts. "
        f"{_ends(records)}",
        ncols=3,
        figsize=(8.2, 3.2),
        sharey=True,
    )


def pair_table(pairs: Sequence[Pair]) -> Display:
    """The larger model less the smaller one on the same passages, with what else differs between them."""
    if not pairs:
        return table([(NOT_RUN,)], ("pairs of one family",), "No two sizes of one family on the same passages")
    rows = []
    for pair in pairs:
        rows.append(
            (
                f"{called(pair.larger)} − {called(pair.smaller)}",
                pair.kind,
                _MEASURES[pair.measure],
                interval({name: 100 * number for name, number in asdict(pair.difference).items()}, "+.1f"),
                str(pair.difference.n),
            )
        )
    columns = ("one pair", "texts", "measure", "percentage points [95 % interval over passages]", "passages")
    return table(rows, columns, "The larger model less the smaller, passage by passage")


def pair_confounders(pairs: Sequence[Pair]) -> Display:
    """What differs between the models of a pair besides size."""
    models = {called(record): record for pair in pairs for record in (pair.smaller, pair.larger)}
    rows = [
        (
            name,
            in_words(record.values["parameters"]),
            str(record.values["layers"]),
            str(record.values["heads"]),
            str(record.values["width"] // record.values["heads"]),
            str(record.provenance["model"].get("quantisation") or "none"),
        )
        for name, record in models.items()
    ]
    columns = ("model", "parameters", "layers", "heads in each", "width over heads", "weights")
    return table(rows, columns, "What else differs within a pair")


def along_depth(records: Sequence[Record]) -> Display:
    """First-token mass in each layer, with depth as a share, so that models of different depth lie side by side."""
    ordered = sorted(records, key=lambda record: record.values["parameters"])

    def draw(ax: Axes) -> None:
        for record in ordered:
            mass = record.values["by_layer"]["mass"]
            depth = (np.arange(len(mass)) + 0.5) / len(mass)
            label = f"{called(record)} ({in_words(record.values['parameters'])}, {len(mass)} layers)"
            ax.plot(depth, mass, marker=".", color=model_color(record.model), label=label)
        ax.set(xlabel="depth, as a share of all layers", ylabel=_MEASURES["mass_first"], xlim=(0, 1), ylim=(0, 1.02))
        ax.legend(frameon=False)

    return figure(
        draw,
        "Attention mass on the first token in each layer against relative depth, one line for each of "
        + names_of(ordered),
        "Attention mass on the first token along the depth. Lines of one course would put the sink at one depth in "
        f"every model; here its peak is {', '.join(map(_peak, ordered))}.",
        figsize=(7.6, 3.8),
    )


def _peak(record: Record) -> str:
    mass = record.values["by_layer"]["mass"]
    return f"{max(mass):.0%} at {(int(np.argmax(mass)) + 0.5) / len(mass):.0%} of the depth in {called(record)}"


def shown(model: str) -> str:
    """A slug as tables show it: the paper's models by the paper's names."""
    return f"LLaMa 3.1 {model.rsplit('-', 1)[1].upper()}" if model in PAPER_SHAPES else short_name(model)


def paper_table(records: Sequence[Record]) -> Display:
    """The paper's three models with and without a record, then all others by size."""
    paper = paper_numbers.paper()
    measured = {record.model: record for record in records}
    others = [r.model for r in sorted(records, key=lambda r: r.values["parameters"]) if r.model not in PAPER_SHAPES]
    rows: list[tuple[str, ...]] = []
    for model in [*PAPER_SHAPES, *others]:
        record = measured.get(model)
        theirs = f"{paper['llama'][model]['sink_rate']:.2%}" if model in PAPER_SHAPES else "not in the paper"
        mass = quote("paper.mass_405b.value:.0%").text if model == PAPER_MODEL else "not given"
        shape = size_of(paper_config(model)) if record is None else record.values
        dimensions = f"{shape['layers']} × {shape['width']} × {shape['heads']}"
        ours = (NOT_RUN,) * 2
        if record is not None:
            ours = (interval(record.values["sink_rate"], ".1%"), interval(record.values["mass_first"], ".1%"))
        rows.append((shown(model), in_words(shape["parameters"]), dimensions, theirs, ours[0], mass, ours[1]))
    columns = ("model", "size", "layers × width × heads", "sink rate, paper", "here", "mass, paper", "here")
    caption = f"Sink rate (ε = {PAPER_EPSILON}) and attention mass on the first token, in the paper and here"
    return table(rows, columns, caption)


def cost_table(machine: Machine, load: Load, dtype: str = "bfloat16") -> Display:
    """Predicted cost of the paper's three models on a machine, one row for each way of running."""
    rows = []
    for model in PAPER_SHAPES:
        shape = cost.shape_of(paper_config(model), dtype)
        rows += [row(shown(model), plan) for plan in cost.plans(shape, machine, load)]
    caption = (
        f"Predicted cost of {load.passages} passages of {load.length} tokens in {dtype}: {machine.ram / 1e9:g} GB of "
        f"RAM, {machine.gpus} GPU(s) of {machine.gpu_memory / 1e9:g} GB, {machine.disk_rate / 1e9:g} GB/s, "
        f"{machine.compute_rate / 1e12:g} TFLOP/s"
    )
    return table(rows, COLUMNS, caption)


def prediction(record: Record) -> Display:
    """Prediction beside measurement for a streamed pass, from a record of `benchmarks/streaming.py`."""
    values = record.values
    streamed, predicted = values["streamed"], values["predicted"]
    pairs = (
        ("bytes read", streamed["bytes"] / 1e9, predicted["bytes_read"] / 1e9, "GB"),
        ("peak memory", streamed["peak_bytes"] / 1e9, predicted["memory"] / 1e9, "GB"),
        ("time", streamed["seconds"], predicted["seconds"], "s"),
    )
    rows = [
        (name, f"{theirs:.2f} {unit}", f"{ours:.2f} {unit}", f"{ours / theirs:.2f}")
        for name, ours, theirs, unit in pairs
    ]
    columns = ("quantity", "predicted", "measured", "measured / predicted")
    return table(rows, columns, f"Prediction and measurement, {called(record)}, on a CPU")


def ratios(record: Record) -> Display:
    """The benchmark's ratios with the goals they are held against."""
    values = record.values

    def with_range(name: str) -> str:
        every = [one[name] for one in values["rounds"]]
        return f"{values[name]:.2f} ({min(every):.2f} to {max(every):.2f})"

    rows = [
        ("peak memory / (two layers + activations)", f"{values['memory_ratio']:.2f}", "at most 1.3"),
        ("bytes read / bytes of the checkpoint", f"{values['bytes_ratio']:.3f}", "1.00 to 1.02"),
        ("read rate / plain sequential read", with_range("rate_ratio"), "at least 0.8"),
        ("share of the bytes that came from the disk, not a cache", f"{values['from_disk_ratio']:.2f}", "1"),
        ("share of the time spent waiting for the disk", f"{values['waiting_share']:.2f}", "no goal"),
        ("time, accelerate's disk offload / streamed", with_range("offload_time_ratio"), "above 1"),
        ("memory, accelerate's disk offload / streamed", f"{values['offload_memory_ratio']:.2f}", "no goal"),
        ("processes that ran or waited for a core (load)", f"{values['load_average']:.1f}", "below the cores"),
    ]
    columns = ("ratio within one run", "measured", "goal")
    return table(rows, columns, f"What streaming costs, {called(record)}, on a CPU")
