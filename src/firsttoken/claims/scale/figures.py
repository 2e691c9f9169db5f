"""Figures of the chapter `scale`, from records to pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from firsttoken.claims.scale import measure as scale
from firsttoken.plots import NEUTRAL, Display, figure, model_color, reach
from firsttoken.records import Record, paper_numbers
from firsttoken.records.paper_numbers import PAPER_EPSILON

_MEASURES = {
    "mass_first": "attention mass on the first token",
    "sink_rate_0.3": "share of heads with α > 0.3",
    "sink_rate": f"share of heads with α > {PAPER_EPSILON}",
}


def _points(ax: Axes, family: Sequence[Record], x: str, y: str, label: str) -> None:
    """One family as a line with its 95 % intervals; a family of one is a point with the model's own name."""
    label = family[0].model if len(family) == 1 else label
    values = [record.values for record in family]
    estimates = [v[y] for v in values]
    middle = np.array([e["value"] for e in estimates])
    # The family's smallest model lends its colour, so that a bundled model keeps its own.
    color = model_color(family[0].model)
    ax.errorbar(
        [v[x] for v in values], middle, yerr=reach(*estimates), color=color, marker="o", capsize=3, label=label
    )


def by_size(found: Sequence[Record]) -> Display:
    """First-token mass and sink rates against the number of parameters, families as lines, the paper as diamonds."""
    families = scale.by_family(found)
    paper = paper_numbers.paper()

    def draw(axes: Any) -> None:
        for ax, (name, label) in zip(axes, _MEASURES.items(), strict=True):
            for family, members in families.items():
                _points(ax, members, "parameters", name, family)
            for model in scale.PAPER_SHAPES:
                parameters = scale.size(scale.paper_config(model))["parameters"]
                if name == "sink_rate":
                    rate = paper["llama"][model]["sink_rate"]
                elif name == "mass_first" and model == scale.PAPER_MODEL:
                    rate = paper["mass_405b"]["value"]
                else:
                    continue
                ax.plot(parameters, rate, marker="D", color=NEUTRAL, linestyle="none")
                size = model.rsplit("-", 1)[1].upper()
                ax.annotate(size, (parameters, rate), (0, 7), textcoords="offset points", ha="center")
            ax.set_xscale("log")
            ax.set(xlabel="parameters", title=label, ylim=(0, 1.02), xlim=(3e7, 2e12))
        # An empty diamond for the legend: the first panel may have none of the paper's models.
        axes[0].plot([], [], marker="D", color=NEUTRAL, linestyle="none", label="LLaMa 3.1 (paper)")
        axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)

    return figure(
        draw,
        "Three panels against the number of parameters: attention mass on the first token, and the share of sink "
        "heads at two thresholds, for " + ", ".join(families) + "; grey diamonds are the paper's LLaMa 3.1 models",
        ncols=3,
        figsize=(11, 3.8),
        sharey=True,
    )


def by_shape(found: Sequence[Record], measure: str = "mass_first") -> Display:
    """One measure against depth, width and heads per layer, which grow together in most families."""
    families = scale.by_family(found)

    def draw(axes: Any) -> None:
        names = {"layers": "layers", "width": "width of the hidden states", "heads": "heads in each layer"}
        for ax, (name, label) in zip(axes, names.items(), strict=True):
            for family, members in families.items():
                _points(ax, members, name, measure, family)
            ax.set(xlabel=label, ylim=(0, 1.02))
            ax.set_xlim(0, 1.15 * max(record.values[name] for record in found))
        axes[0].set_ylabel(_MEASURES[measure])
        axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)

    return figure(
        draw,
        f"Three panels: {_MEASURES[measure]} against the number of layers, the width of the hidden states and the "
        "number of heads in each layer, for " + ", ".join(families),
        ncols=3,
        figsize=(11, 3.6),
        sharey=True,
    )


def along_depth(found: Sequence[Record]) -> Display:
    """First-token mass in each layer, with depth as a share, so that models of different depth lie side by side."""
    ordered = sorted(found, key=lambda record: record.values["parameters"])

    def draw(ax: Axes) -> None:
        for record in ordered:
            mass = record.values["by_layer"]["mass"]
            depth = (np.arange(len(mass)) + 0.5) / len(mass)
            label = f"{record.model} ({scale.in_words(record.values['parameters'])}, {len(mass)} layers)"
            ax.plot(depth, mass, marker=".", color=model_color(record.model), label=label)
        ax.set(xlabel="depth, as a share of all layers", ylabel=_MEASURES["mass_first"], xlim=(0, 1), ylim=(0, 1.02))
        ax.legend(frameon=False)

    return figure(
        draw,
        "Attention mass on the first token in each layer against relative depth, one line for each of "
        + ", ".join(record.model for record in ordered),
        figsize=(7.6, 3.8),
    )
