"""Figures of the chapter `sink_position`, from records to pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from firsttoken.claims.sink_position.measure import MEANING, READINGS
from firsttoken.model_names import called, names_of
from firsttoken.plots import CATEGORIES, NEUTRAL, Display, Panels, figure, model_color, name_rows, reach, table
from firsttoken.records import Record
from firsttoken.ticks import numbering

DASHES = {"as it is": "-", "without BOS": "--", "with BOS": ":"}


def readings(measured: Sequence[Record]) -> Display:
    """Attention to position 0, and to the second place of interest, in every reading of the same passages."""

    def draw(axes: Any) -> None:
        names = [name for name in READINGS if any(name in record.values["readings"] for record in measured)]
        for ax, record in zip(axes, measured, strict=True):
            color = model_color(record.model)
            for place, name in enumerate(names):
                reading = record.values["readings"].get(name)
                if reading is None:
                    ax.text(0.015, place, "not for this model", va="center", fontsize=9, color=NEUTRAL)
                    continue
                first = reading["first"]
                ax.barh(place, first["value"], color=color, height=0.26)
                ax.errorbar(first["value"], place, xerr=reach(first), color=mpl.rcParams["text.color"], capsize=3)
                if reading["second"] is not None:
                    ax.plot(
                        reading["second"]["value"],
                        place,
                        marker="D",
                        color=mpl.rcParams["text.color"],
                        markerfacecolor=CATEGORIES[3],
                        linestyle="none",
                    )
            ax.plot(
                [],
                [],
                marker="D",
                linestyle="none",
                color=mpl.rcParams["text.color"],
                markerfacecolor=CATEGORIES[3],
                label="the middle of the text, where something was put there",
            )
            ax.set(title=called(record), xlabel="attention mass (share of all)", xlim=(0, 1))
            name_rows(ax, [f"{name}:\n{MEANING[name]}" for name in names])
        # The bars are in the colours of the models, so the legend is in the ink of the page.
        handles, labels = axes[0].get_legend_handles_labels()
        bar = Patch(facecolor=mpl.rcParams["text.color"], label="position 0")
        axes[0].figure.legend([bar, *handles], ["position 0", *labels], loc="outside lower center", ncols=2)

    return figure(
        draw,
        "Bars with intervals: attention mass on position 0 in each reading of the same passages; diamonds: attention "
        "to the middle of the text where the first token or BOS was put there; one panel for each model: "
        + names_of(measured),
        "Attention to position 0 (bars, 95 % intervals) and to the middle of the text (diamonds) in each reading. If "
        "the place counts and not the token, the bar of “another first token” is as long as that of “as it is”: "
        + ", ".join(
            f"{readings_['another first token']['first']['value']:.0%} and "
            f"{readings_['as it is']['first']['value']:.0%} in {called(record)}"
            for record in measured
            for readings_ in [record.values["readings"]]
            if "another first token" in readings_
        )
        + ".",
        panels=Panels(count=len(measured), height=6.4),
    )


def profile(measured: Sequence[Record]) -> Display:
    """Mean attention to every key, over heads and over the queries after it."""

    def draw(ax: Axes) -> None:
        for record in measured:
            for name, values in record.values["profile"].items():
                ax.plot(
                    values[:-1],
                    color=model_color(record.model),
                    linestyle=DASHES[name],
                    label=f"{called(record)}, {name}",
                )
        ax.set_yscale("log")
        ax.set(xlabel="position k of the key", ylabel="mean attention of later queries, logarithmic")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend(frameon=False, fontsize=8)

    return figure(
        draw,
        "Mean attention to the key at each position, on a logarithmic scale: a peak at position 0, then a floor; with "
        "and without BOS, for " + names_of(measured),
        "Attention that a key gets from the queries after it, by its position, on average. Position 0 gets as many "
        "times the median of the other positions: "
        + ", ".join(
            f"{values[0] / np.median(values[1:-1]):.0f} in {called(record)} ({name})"
            for record in measured
            for name, values in record.values["profile"].items()
        )
        + ".",
        figsize=(7.6, 4.0),
    )


def secondary(measured: Sequence[Record]) -> Display:
    """Layer by layer: heads with a sink at position 0, and heads with one somewhere else."""

    def draw(axes: Any) -> None:
        for ax, record in zip(axes, measured, strict=True):
            values = record.values["secondary"]
            layers = np.arange(len(values["by_layer"]))
            ax.bar(
                layers - 0.21, values["first_by_layer"], 0.42, color=model_color(record.model), label="at position 0"
            )
            ax.bar(layers + 0.21, values["by_layer"], 0.42, color=NEUTRAL, hatch="//", label="at some other position")
            ax.set(title=called(record), xlabel="layer", ylim=(0, 1.02))
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.xaxis.set_major_formatter(numbering(record.layer_numbers(len(layers))))
        axes[0].set_ylabel("share of heads with α > ε")
        # The bars of position 0 differ in colour between the panels, so the legend is drawn in the ink of the page.
        ink = mpl.rcParams["text.color"]
        keys = [Patch(facecolor=ink, label="at position 0"), Patch(facecolor=NEUTRAL, hatch="//", label="elsewhere")]
        axes[0].figure.legend(handles=keys, loc="outside lower center", ncols=2)

    return figure(
        draw,
        "Bars for every layer: share of heads that have a sink at position 0, and share of heads that have one at "
        "some other position of a passage; one panel for each model: " + names_of(measured),
        "Share of heads with a sink at position 0, and with one elsewhere in a passage, in each layer. Most of the "
        f"latter: {'; '.join(map(_most_elsewhere, measured))}.",
        sharey=True,
        panels=Panels(count=len(measured), height=3.4),
    )


def _most_elsewhere(record: Record) -> str:
    shares = record.values["secondary"]["by_layer"]
    if not max(shares):
        return f"none of {called(record)}"
    layer = record.layer_numbers(len(shares))[int(np.argmax(shares))]
    return f"layer {layer} of {called(record)} ({max(shares):.0%} of its heads)"


def secondary_table(measured: Sequence[Record], count: int = 6) -> Display:
    """The tokens inside a text that most heads use as a sink."""
    rows = []
    for record in measured:
        for example in record.values["secondary"]["examples"][:count]:
            before = "".join(example["before"]).replace("\n", "↵")
            rows.append(
                (
                    called(record),
                    f"“{example['token']}”".replace("\n", "↵"),
                    f"…{before}",
                    str(example["position"]),
                    str(example["heads"]),
                )
            )
    columns = ("model", "token", "after", "position", "heads with a sink there")
    return table(rows, columns, "The strongest sinks inside the passages")


def identity(measured: Sequence[Record]) -> Display:
    """Does the state at position 0 still say which token stands there?"""
    measured = [record for record in measured if record.values["identity"]]
    if not measured:
        text = "No two passages have different tokens at a position, so there is nothing to compare."
        return Display(f"<p>{text}</p>", text)

    def draw(ax: Axes) -> None:
        for number, record in enumerate(measured):
            values = record.values["identity"]
            depth = np.arange(len(values["first"])) / (len(values["first"]) - 1)
            look: dict[str, Any] = {"color": model_color(record.model), "marker": "os^D"[number % 4], "markersize": 4}
            ax.plot(depth, values["first"], label=f"{called(record)}, position 0", **look)
            ax.plot(
                depth,
                values["ordinary"],
                linestyle=":",
                markerfacecolor="none",
                label=f"{called(record)}, a position inside",
                **look,
            )
        ax.set(
            xlabel="depth (0: embedding, 1: after the last layer)",
            ylabel="mean cosine between passages",
            ylim=(-0.05, 1.05),
        )
        ax.legend(frameon=False, fontsize=8)

    return figure(
        draw,
        "Mean cosine between the states of different passages at the same position against depth: at position 0, "
        "where each passage has another token, and at a position inside; for " + names_of(measured),
        "How alike the states of passages with different tokens are, at position 0 and inside. At one, a state no "
        "longer says which token stands there. At its most alike, position 0 has "
        + ", ".join(f"{max(record.values['identity']['first']):.2f} in {called(record)}" for record in measured)
        + "; a position inside with "
        + ", ".join(f"{max(record.values['identity']['ordinary']):.2f}" for record in measured)
        + ".",
        figsize=(7.2, 4.0),
    )
