"""Figures of the chapter `no_op`: the first token beside the others, and what heads add at rest."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from firsttoken.claims.no_op.kinds import KINDS, LOW_RANK, SMALL
from firsttoken.estimates import interval
from firsttoken.model_names import called, names_of
from firsttoken.plots import NEUTRAL, Display, Panels, band, figure, model_color, table
from firsttoken.records import Record

MARKERS = "os^D"  # a model is told by its marker as well as by its colour


def norms(records: Sequence[Record]) -> Display:
    """Along the depth: values, keys and largest activations of the first token beside those of the others."""

    def draw(axes: Any) -> None:
        for number, record in enumerate(records):
            layer = record.values["by_layer"]
            look: dict[str, Any] = {
                "color": model_color(record.model),
                "marker": MARKERS[number % 4],
                "markersize": 4,
            }
            for ax, name in zip(axes, ("value", "key"), strict=False):
                first, others = np.array(layer[f"{name}_first"]), np.array(layer[f"{name}_others"])
                ax.plot(record.layer_numbers(len(first)), first / others, **look)
            depth = record.layer_numbers(len(layer["massive_first"]))
            axes[2].plot(depth, layer["massive_first"], label=f"{called(record)}, first token", **look)
            label = f"{called(record)}, others"
            axes[2].plot(depth, layer["massive_others"], linestyle=":", markerfacecolor="none", label=label, **look)
        for ax, name in zip(axes, ("value norm", "key norm"), strict=False):
            ax.axhline(1, color=NEUTRAL, linewidth=1)
            ax.set(title=f"{name}:\nfirst token / others", ylabel="ratio of mean norms", ylim=(0, None))
        axes[2].set_yscale("log")
        axes[2].set(title="largest activation /\nmedian", ylabel="ratio, logarithmic")
        for ax in axes:
            ax.set_xlabel("layer")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0].figure.legend(*axes[2].get_legend_handles_labels(), loc="outside lower center", ncols=2)

    return figure(
        draw,
        "Three panels against the layer: norm of the first token's value over that of the others, mostly well below "
        "one; the same for keys; largest activation of the residual stream over its median, at the first token "
        "and at the others, on a logarithmic scale; for " + names_of(records),
        "The first token beside the others, layer by layer. Below the line its value, or its key, is the smaller one: "
        "its value in "
        + ", ".join(
            f"{sum(a < b for a, b in pairs)} of {len(pairs)} layers of {called(record)}"
            for record in records
            for pairs in [
                list(zip(*(record.values["by_layer"][f"value_{which}"] for which in ("first", "others")), strict=True))
            ]
        )
        + ". A large activation at the first token goes with that up to "
        + ", ".join(f"{max(record.values['by_layer']['massive_first']):,.0f}" for record in records)
        + " times the median.",
        ncols=3,
        figsize=(8.2, 3.6),
    )


def quiet(records: Sequence[Record]) -> Display:
    """What a head adds against its attention to the first token, each head compared with itself."""

    def draw(ax: Axes) -> None:
        for number, record in enumerate(records):
            values = record.values["by_attention"]
            edges = values["edges"]
            middle = [(low + high) / 2 for low, high in itertools.pairwise(edges)]
            shown = [(x, e) for x, e in zip(middle, values["relative_norm"], strict=False) if e is not None]
            if shown:
                band(
                    ax,
                    [x for x, _ in shown],
                    [e for _, e in shown],
                    color=model_color(record.model),
                    marker=MARKERS[number % 4],
                    label=f"{called(record)} ({values['heads']} heads that use both ends)",
                )
        ax.axhline(1, color=NEUTRAL, linewidth=1)
        ax.set(
            xlabel="attention to the first token",
            ylabel="norm of what the head adds,\nrelative to attention below 0.1",
            xlim=(0, 1),
            ylim=(0, 1.1),
        )
        ax.legend(frameon=False, loc="lower left")

    return figure(
        draw,
        "The norm of what a head adds to the residual stream falls as its attention to the first token rises, median "
        "over heads with a 95 % band, for " + names_of(records),
        "What a head adds while it attends to the first token this much, as a share of what the same head adds while "
        "it hardly does; median over heads with a 95 % band. A falling line means that attending there is a way to "
        "add little: at the right end it is "
        + ", ".join(
            f"{interval(known[-1], '.0%')} in {called(record)}"
            for record in records
            if (known := [e for e in record.values["by_attention"]["relative_norm"] if e])
        )
        + ".",
        figsize=(6.6, 3.8),
    )


def kinds(records: Sequence[Record]) -> Display:
    """Each sink head by the size of the first token's value and by the rank of what it adds at rest."""

    ratios = [head["value_ratio"] for record in records for head in record.values["by_head"]]
    widest = 1.05 * max([1.2 * SMALL, *ratios])

    def draw(axes: Any) -> None:
        for ax, record in zip(axes, records, strict=True):
            heads = record.values["by_head"]
            x, y = [head["value_ratio"] for head in heads], [head["stable_rank"] for head in heads]
            ax.scatter(x, y, s=14, color=model_color(record.model), alpha=0.7, linewidths=0)
            ax.axvline(SMALL, color=NEUTRAL, linewidth=1)
            ax.axhline(LOW_RANK, color=NEUTRAL, linewidth=1, linestyle=":")
            ax.set(
                title=called(record),
                xlabel="norm of W_O v: first token / others",
                xlim=(0, widest),
                yscale="log",
            )
            ax.yaxis.set_major_formatter(lambda rank, _: f"{rank:g}")
            ax.yaxis.set_minor_formatter(lambda rank, _: f"{rank:g}" if rank in (2, 3, 4, 6) else "")
        axes[0].set_ylabel("stable rank of what it adds at rest")

    shares = "; ".join(
        f"{interval(record.values['sink_share'], '.0%')} in {called(record)}"
        for record in records
        if record.values["heads"]
    )
    return figure(
        draw,
        "A point for each sink head: norm of the first token's value over that of the others, and stable rank of what "
        "the head adds while it rests, with lines at 0.5 and 2; one panel for each of " + names_of(records),
        "Sink heads by the size of the first token's value and by the rank of what they add while they rest. Left of "
        "the line the value is small; below the dotted line what is added is nearly one vector. The first token's own "
        f"part of it, in the median head: {shares}.",
        sharey=True,
        panels=Panels(count=len(records), height=3.4),
    )


def kinds_table(records: Sequence[Record]) -> Display:
    """How many heads are of each kind, and the medians."""
    rows: list[tuple[str, ...]] = []
    for record in records:
        values = record.values
        if not values["heads"]:
            rows.append((called(record), "0", *("–",) * 6))
            continue
        medians = [interval(values[name]) for name in ("value_ratio", "stable_rank")]
        share = interval(values["sink_share"], ".0%")
        of_kind = [interval(values["kinds"][kind], ".0%") for kind in KINDS]
        rows.append((called(record), str(values["heads"]), *medians, share, *of_kind))
    columns = ("model", "sink heads", "value behind W_O, first / others", "stable rank", "first token's part", *KINDS)
    return table(
        rows,
        columns,
        "Sink heads at rest: medians over heads, and the share of each kind [95 % interval over texts]. "
        + "; ".join(f"{kind}: {meaning}" for kind, meaning in KINDS.items()),
    )
