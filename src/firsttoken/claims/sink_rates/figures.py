"""Figures of the chapter `sink_rates`, from records to pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from firsttoken.claims.sink_rates.verdict import judge
from firsttoken.estimates import interval
from firsttoken.measures import sinks
from firsttoken.model_names import called, names_of, short_name
from firsttoken.panels import lines_by_model, points_by_model
from firsttoken.plots import CATEGORIES, NEUTRAL, Display, Panels, band, figure, model_color, table
from firsttoken.records import Record, paper_numbers
from firsttoken.records.numbers import NOT_RUN
from firsttoken.records.paper_numbers import PAPER_EPSILON
from firsttoken.ticks import numbering


def paper_table(records: Sequence[Record]) -> Display:
    """The paper's three models, then every model that has a record, at the paper's threshold."""
    theirs = paper_numbers.paper()["llama"]
    measured = {record.model: record for record in records if not record.variant}
    names = {slug: f"LLaMa 3.1 {slug.rsplit('-', 1)[1].upper()}" for slug in theirs if slug.startswith("meta-llama")}
    rows: list[tuple[str, ...]] = []
    for model in [*names, *(slug for slug in measured if slug not in names)]:
        of_paper = f"{theirs[model]['sink_rate']:.2%}" if model in names else "not in the paper"
        record = measured.get(model)
        ours, status = NOT_RUN, NOT_RUN
        if record is not None:
            by_epsilon = record.values["by_epsilon"]
            ours = interval(by_epsilon["threshold_first"][by_epsilon["epsilon"].index(PAPER_EPSILON)], ".1%")
            status = judge(record).status
        rows.append((names.get(model) or short_name(model), of_paper, ours, status))
    columns = ("model", f"paper, ε = {PAPER_EPSILON}", f"here, ε = {PAPER_EPSILON} [95 % interval]", "verdict")
    return table(rows, columns, "Sink rate in the paper and here")


def by_layer(records: Sequence[Record]) -> Display:
    """Share of sink heads and first-token mass along the depth of each model."""

    def draw(axes: Any) -> None:
        for ax, record in zip(np.atleast_1d(axes), records, strict=True):
            values = record.values["by_layer"]
            layers = np.arange(len(values["mass"]))
            epsilon = record.parameters["epsilon"]
            width = 0.42
            ax.bar(layers - width / 2, values["sink_rate_0.3"], width, color=CATEGORIES[2], label="heads above 0.3")
            if epsilon != 0.3:
                ax.bar(
                    layers + width / 2, values["sink_rate"], width, color=CATEGORIES[3], label=f"heads above {epsilon}"
                )
            ax.plot(layers, values["mass"], color=NEUTRAL, marker=".", label="attention mass on the first token")
            ax.set(title=called(record), xlabel="layer", ylim=(0, 1.02), xlim=(-0.8, len(layers) - 0.2))
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.xaxis.set_major_formatter(numbering(record.layer_numbers(len(layers))))
        np.atleast_1d(axes)[0].set_ylabel("share")
        np.atleast_1d(axes)[-1].figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)

    return figure(
        draw,
        "Bars for every layer: share of heads that are sinks at two thresholds; a line: mean attention to the first "
        "token. One panel for each model: " + names_of(records),
        "Share of heads that are sinks, and attention mass on the first token, in each layer. The most sink heads "
        "above 0.3 are in "
        + ", ".join(
            f"layer {record.layer_numbers(len(rates))[int(np.argmax(rates))]} of {called(record)} ({max(rates):.0%})"
            for record in records
            for rates in [record.values["by_layer"]["sink_rate_0.3"]]
        )
        + ".",
        panels=Panels(count=len(records), height=3.4),
        sharey=True,
    )


NEVER = 0.01  # of a layer's heads, over all texts, above 0.3: a layer with fewer never sinks


def layers_without(records: Sequence[Record]) -> Display:
    """Which layers of each model never sink, and which come nearest to that."""
    rows = []
    for record in records:
        rates = record.values["by_layer"]["sink_rate_0.3"]
        of_layer = dict(zip(record.layer_numbers(len(rates)), rates, strict=True))
        never = [layer for layer, rate in of_layer.items() if rate < NEVER]
        least = min(of_layer, key=lambda layer: of_layer[layer])
        rows.append(
            (
                called(record),
                str(len(rates)),
                ", ".join(map(str, never)) or "none",
                *(f"{of_layer[layer]:.1%}" if layer in of_layer else "–" for layer in (0, 1)),
                f"{of_layer[least]:.1%} (layer {least})",
            )
        )
    columns = ("model", "layers", "never sink", "layer 0", "layer 1", "least of all layers")
    return table(rows, columns, f"Layers with less than {NEVER:.0%} of their heads above 0.3; beside them, some rates")


def by_epsilon(records: Sequence[Record]) -> Display:
    """Sink rate against the threshold, in both orders of averaging, with the paper's three numbers."""

    def draw(ax: Axes) -> None:
        for record in records:
            values = record.values["by_epsilon"]
            color = model_color(record.model)
            band(ax, values["epsilon"], values["threshold_first"], color=color, label=called(record))
            average = [e["value"] for e in values["average_first"]]
            ax.plot(
                values["epsilon"],
                average,
                color=color,
                linestyle=":",
                label=f"{called(record)}, average first",
            )
        table = paper_numbers.paper()["llama"]
        for size in ("8b", "70b", "405b"):
            rate = table[f"meta-llama-llama-3-1-{size}"]["sink_rate"]
            ax.plot(table["epsilon"], rate, marker="D", color=NEUTRAL, linestyle="none")
            # The rates of the two large ones are so near that their names would touch.
            lift = {"405b": 1, "70b": -9}.get(size, -3)
            ax.annotate(f"{size.upper()} (paper)", (table["epsilon"], rate), (7, lift), textcoords="offset points")
        ax.set(xlabel="threshold ε", ylabel="share of heads with α > ε", ylim=(0, 1.02), xlim=(0.05, 1.12))
        ax.set_xticks(np.arange(0.1, 1.0, 0.1))
        ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)

    return figure(
        draw,
        "Sink rate falling with the threshold for "
        + names_of(records)
        + "; three diamonds at threshold 0.8 are the paper's LLaMa 3.1 models, which lie higher for larger models",
        "Share of heads whose attention to the first token exceeds ε, against ε. At the paper's threshold of "
        f"{PAPER_EPSILON}: "
        + ", ".join(
            f"{called(record)} {interval(of['threshold_first'][of['epsilon'].index(PAPER_EPSILON)], '.1%')}"
            for record in records
            for of in [record.values["by_epsilon"]]
        )
        + ". Diamonds are the paper's models.",
        figsize=(7.6, 4.2),
    )


def by_length(records: Sequence[Record]) -> Display:
    """Sink rate and first-token mass against the number of tokens."""

    def draw(axes: Any) -> None:
        names = {"sink_rate_0.3": "share of heads with α > 0.3", "mass": "attention mass on the first token"}
        for ax, (name, label) in zip(axes, names.items(), strict=True):
            longest = max((record.values["length"] for record in records), key=len)
            lines_by_model(ax, records, name, longest)
            lengths = np.array(records[0].values["length"])
            ax.set_xscale("log", base=2)
            ax.set_xticks(lengths, [str(n) for n in lengths], rotation=45)
            ax.minorticks_off()
            ax.set(xlabel="tokens T", title=label, ylim=(0, 1.02))
            if name == "mass":
                even = [sinks.even_share(n) for n in lengths]
                ax.plot(lengths, even, color=NEUTRAL, linestyle="--", label="attention spread evenly")
        axes[1].legend(frameon=False)

    return figure(
        draw,
        "Two panels against the number of tokens, logarithmic: the share of sink heads and the attention mass "
        "on the first token, for " + names_of(records),
        "Sink heads, and attention mass on the first token, for texts of different lengths. From the shortest to the "
        "longest the mass goes "
        + ", ".join(
            f"from {of['mass'][0]['value']:.0%} at {of['length'][0]} tokens to {of['mass'][-1]['value']:.0%} at "
            f"{of['length'][-1]} in {called(record)}"
            for record in records
            for of in [record.values]
        )
        + "; spread evenly it would fall as the dashed line.",
        ncols=2,
        figsize=(9.4, 3.8),
    )


def by_bos(records: Sequence[Record]) -> Display:
    """First-token mass and sink rate with BOS in any case and without it."""

    def draw(axes: Any) -> None:
        names = {"sink_rate_0.3": "share of heads with α > 0.3", "mass": "attention mass on the first token"}
        words = {"always": "with BOS", "never": "without BOS"}
        for ax, (name, label) in zip(axes, names.items(), strict=True):
            points_by_model(ax, records, {f"{bos}.{name}": word for bos, word in words.items()}, legend=True)
            handles = ax.get_legend_handles_labels()
            ax.get_legend().remove()
            ax.set(xlabel=label, ylabel="", xlim=(-0.02, 1))
        axes[0].figure.legend(*handles, loc="outside lower center", ncols=min(4, len(records)))

    return figure(
        draw,
        "Points with intervals, with and without a BOS token for each model: share of sink heads, and attention mass "
        "on the first token",
        "The first token with BOS and without it, 95 % intervals over texts. Its attention mass without BOS: "
        + ", ".join(
            f"{interval(record.values['never']['mass'], '.1%')} in {called(record)}"
            for record in records
            if "never" in record.values
        )
        + ".",
        ncols=2,
        figsize=(8.2, 2.6),
        sharey=True,
    )
