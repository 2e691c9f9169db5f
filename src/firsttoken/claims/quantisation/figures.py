"""Figures of the chapter `quantisation`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from firsttoken.claims.quantisation.verdict import works
from firsttoken.estimates import JSON, interval
from firsttoken.model_names import called, names_of
from firsttoken.plots import CATEGORIES, NEUTRAL, Display, band, figure, model_color, reach, table
from firsttoken.records import Record
from firsttoken.ticks import whole_numbers

KEEPING = {
    "none": ("nothing kept exact", NEUTRAL, "o"),
    "first": ("the first token kept exact", CATEGORIES[0], "s"),
    "control": ("another token kept exact", CATEGORIES[1], "^"),
}
GROUPS = {
    "token": "one scale for each token",
    "channel": "one scale for each channel",
    "tensor": "one scale for the whole text",
}


def cache(records: Sequence[Record]) -> Display:
    """Increase of the loss against the bits of the key-value cache."""
    alt = (
        "Increase of the loss against the bits of the key-value cache, with nothing, the first or another token exact"
    )
    return _by_bits(records, "cache", alt, "bits of keys and values")


def activations(records: Sequence[Record]) -> Display:
    """Increase of the loss against the bits of what the matrices read."""
    alt = "Increase of the loss against the bits of activations, with nothing, the first or another token exact"
    return _by_bits(records, "activations", alt, "bits of activations")


def _by_bits(records: Sequence[Record], name: str, alt: str, xlabel: str) -> Display:
    groups = list(records[0].values[name])

    def draw(axes: Any) -> None:
        for row, record in zip(axes, records, strict=True):
            for ax, group in zip(row, sorted(groups, key=list(GROUPS).index), strict=True):
                _lines(ax, record.values[name][group])
                ax.set_title(f"{called(record)}:\n{GROUPS[group]}", fontsize=9)
            row[0].set_ylabel("increase of the loss (nats)")
        for ax in np.ravel(axes):
            ax.set_xlabel(xlabel)
        axes[0, 0].figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)

    return figure(
        draw,
        f"{alt}; one row for each model: {names_of(records)}",
        f"{alt}, with 95 % intervals. If the first token is what rounding harms, keeping it exact helps and keeping "
        f"another one does not. {_most_saved(records, name)}",
        nrows=len(records),
        ncols=len(groups),
        figsize=(8.2, 0.6 + 2.9 * len(records)),
        squeeze=False,
        sharey="row",
    )


def _most_saved(records: Sequence[Record], name: str) -> str:
    """Where keeping the first token saves most, of the settings in which the model works then."""
    costs = []
    for record in records:
        of = {(group, bits): e for group, by_bits in record.values[name].items() for bits, e in by_bits.items()}
        if not (whole := [place for place in of if works(of[place])]):
            continue
        group, bits = max(whole, key=lambda place: of[place]["saved"]["value"])
        none, first, control = (f"{of[group, bits][keeping]['value']:.2f}" for keeping in KEEPING)
        costs.append(
            f"with {GROUPS[group]} of {bits} bits in {called(record)}, from {none} to {first} nats (another token: "
            f"{control})"
        )
    return f"Where the model works then, it helps most {'; '.join(costs)}." if costs else ""


def _lines(ax: Axes, of_bits: JSON) -> None:
    bits = sorted(of_bits, key=int, reverse=True)
    for shift, (name, (label, color, marker)) in enumerate(KEEPING.items()):
        estimates = [of_bits[b][name] for b in bits]
        # Side by side, because the intervals of two settings often coincide.
        x = np.arange(len(bits)) + 0.12 * (shift - 1)
        y = [e["value"] for e in estimates]
        ax.errorbar(
            x, y, yerr=reach(*estimates), color=color, marker=marker, markersize=5, linewidth=1, label=label, capsize=2
        )
    ax.axhline(0, color=NEUTRAL, linewidth=0.8)
    ax.set_yscale("symlog", linthresh=0.01)
    ax.set_xticks(range(len(bits)), bits)


def savings(records: Sequence[Record]) -> Display:
    """What keeping the first token exact saves, and how much more that is than keeping another."""
    rows = []
    for record in records:
        for name in ("cache", "activations"):
            for group, of_bits in sorted(record.values[name].items(), key=lambda item: list(GROUPS).index(item[0])):
                for bits in sorted(of_bits, key=int, reverse=True):
                    of = of_bits[bits]
                    rows.append(
                        (
                            called(record),
                            f"{name}, {GROUPS[group]}",
                            bits,
                            interval(of["none"], ".3f"),
                            interval(of["saved"], ".3f"),
                            interval(of["more_than_control"], ".3f"),
                        )
                    )
    columns = (
        "model",
        "what is rounded",
        "bits",
        "increase of the loss",
        "saved by the first token",
        "more than another",
    )
    return table(rows, columns, "Loss (nats per token, 95 % interval) that keeping one token exact saves")


def weights(records: Sequence[Record]) -> Display:
    """Rounded weights, with the first token's keys and values from rounded and from exact ones."""
    rows = []
    for record in records:
        for bits in sorted(record.values["weights"], key=int, reverse=True):
            of = record.values["weights"][bits]
            rows.append((called(record), bits, *(interval(of[name], ".3f") for name in ("none", "first", "saved"))))
    columns = ("model", "bits", "increase of the loss", "with exact first keys and values", "saved")
    return table(rows, columns, "Rounded weights (nats per token, 95 % interval)")


def outliers(records: Sequence[Record]) -> Display:
    """Largest activation over the median and kurtosis of the residual stream: first token and all others."""
    panels = (
        ("first", "others", "largest activation / median"),
        ("kurtosis_first", "kurtosis_others", "kurtosis over channels"),
    )

    def draw(axes: Any) -> None:
        for row, record in zip(axes, records, strict=True):
            of = record.values["outliers"]
            for ax, (first, others, title) in zip(row, panels, strict=True):
                layers = range(len(of[first]))
                band(ax, layers, of[first], color=model_color(record.model))
                band(ax, layers, of[others], color=NEUTRAL, label="all others", linestyle="--")
                ax.set_title(f"{called(record)}:\n{title}")
                ax.set_yscale("log")
                whole_numbers(ax)
        for ax in np.ravel(axes):
            ax.set_xlabel("after layer")
        # The first token is in the colour of each model, so the legend has it in the ink of the page.
        axes[0, 0].plot([], [], color=mpl.rcParams["text.color"], label="first token")
        axes[0, 0].legend(frameon=False)

    alt = (
        "Largest activation over the median, and kurtosis, of the residual stream along the layers, for the first "
        f"token and for all others; one row for each model: {names_of(records)}"
    )
    most = ", ".join(
        f"{_most(record, 'first'):,.0f} times the median at the first token and {_most(record, 'others'):,.0f} times "
        f"at the others in {called(record)}"
        for record in records
    )
    caption = (
        "How far the largest activation stands out, and how heavy the tails are, along the layers. A gap between the "
        f"lines means that one token sets the scale for all: at most the largest activation is {most}."
    )
    return figure(draw, alt, caption, nrows=len(records), ncols=2, figsize=(8.2, 2.9 * len(records)), squeeze=False)


def _most(record: Record, name: str) -> float:
    return max(float(estimate["value"]) for estimate in record.values["outliers"][name])
