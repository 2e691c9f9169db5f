"""Figures of the chapter `phenomenon`: a map of all heads that opens the map of one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from firsttoken.measures.attention_maps import unpack
from firsttoken.plots import COLORMAP, Display, figure, model_color
from firsttoken.records import Record


def head_map(record: Record) -> Display:
    """Layers x heads, coloured by attention to the first token; choosing a head shows its attention map.

    In the book, `head-map.js` draws it; anywhere else the static grid inside it is shown.
    """
    values = record.values
    static = all_heads(record)
    data = {name: values[name] for name in ("tokens", "alpha", "maps", "strongest")} | {"model": record.model}
    # "</" would end the script element early.
    embedded = json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("</", "<\\/")
    label = f"Attention of every head of {record.model} to the first token"
    html = (
        f'<div class="head-map themed" role="group" aria-label="{escape(label)}"><div class="head-map-static">'
        f'{static.html}</div><script type="application/json">{embedded}</script></div>'
    )
    return Display(html, static.text, static.more)


def all_heads(record: Record) -> Display:
    """The grid of layers x heads as a still picture."""
    alpha = np.array(record.values["alpha"])  # (layer, head)

    def draw(ax: Axes) -> None:
        image = ax.imshow(alpha.T, cmap=COLORMAP, vmin=0, vmax=1, aspect="auto", origin="lower")
        ax.set(xlabel="layer", ylabel="head", title=record.model)
        ax.figure.colorbar(image, ax=ax, label="mean attention to the first token")

    strongest = record.values["strongest"]
    alt = (
        f"Grid of {alpha.shape[0]} layers and {alpha.shape[1]} heads of {record.model}, coloured by mean attention to "
        f"the first token; the strongest is layer {strongest['layer']}, head {strongest['head']}"
    )
    return figure(draw, alt, figsize=(8, 2.6))


def picture(records: Sequence[Record]) -> Display:
    """The grids of several models below one another: the picture at the top of the README (`make picture`)."""

    def draw(axes: Any) -> None:
        for ax, record in zip(np.atleast_1d(axes), records, strict=True):
            alpha = np.array(record.values["alpha"])
            image = ax.imshow(alpha.T, cmap=COLORMAP, vmin=0, vmax=1, aspect="equal", origin="lower")
            ax.set(xlabel="layer", ylabel="head", title=record.model)
        image.axes.figure.colorbar(image, ax=axes, label="attention to the first token", shrink=0.7)

    names = " and ".join(record.model for record in records)
    alt = f"Grids of layers and heads of {names}, coloured by mean attention to the first token"
    return figure(draw, alt, nrows=len(records), figsize=(8, 2.4 * len(records)))


def sink_and_reader(record: Record) -> Display:
    """Two maps side by side: the head that attends most to the first token, and the one that attends least."""
    alpha = np.array(record.values["alpha"])
    chosen = [np.unravel_index(alpha.argmax(), alpha.shape), np.unravel_index(alpha.argmin(), alpha.shape)]
    tokens = [token.strip() or repr(token)[1:-1] for token in record.values["tokens"]]

    def draw(axes: Any) -> None:
        for ax, (layer, head), kind in zip(axes, chosen, ("most", "least"), strict=True):
            weights = unpack(record.values["maps"][layer][head]).numpy()
            image = ax.imshow(np.ma.masked_equal(np.tril(weights + 1), 0) - 1, cmap=COLORMAP, vmin=0, vmax=1)
            ax.set_title(f"{kind} attention to the first token:\nlayer {layer}, head {head}", fontsize=10)
            ax.set_xticks(range(len(tokens)), tokens, rotation=90, fontsize=6)
            ax.set_yticks(range(len(tokens)), tokens, fontsize=6)
            ax.set_xlabel("key: the token attended to")
        axes[0].set_ylabel("query: the token that attends")
        axes[0].figure.colorbar(image, ax=axes, label="attention", shrink=0.8)

    return figure(
        draw,
        f"Two attention maps of {record.model}. Most attention is in the first column in one, "
        "and hardly any in the other",
        ncols=2,
        figsize=(9.4, 4.8),
    )


def mass_and_rate(records: Sequence[Record]) -> Display:
    """Every head's attention to the first token in order, with mass and share of sink heads marked."""

    def draw(ax: Axes) -> None:
        epsilon = records[0].parameters["epsilon"]
        for record in records:
            alpha = np.sort(np.array(record.values["alpha"]).ravel())[::-1]
            share = (np.arange(len(alpha)) + 0.5) / len(alpha)
            color = model_color(record.model)
            rate, mass = record.values["sink_rate"], record.values["mass"]
            ax.plot(share, alpha, color=color, label=f"{record.model}: sink rate {rate:.0%}, mass {mass:.0%}")
            ax.plot(rate, epsilon, marker="o", color=color)
            ax.axhline(mass, color=color, linestyle=":", linewidth=1)
        ax.axhline(epsilon, color="0.5", linestyle="--", linewidth=1)
        ax.annotate(f"ε = {epsilon}", (1, epsilon), (4, -3), textcoords="offset points")
        ax.set(
            xlabel="heads, strongest first (share)", ylabel="attention to the first token α", xlim=(0, 1), ylim=(0, 1)
        )
        ax.legend(frameon=False)

    return figure(
        draw,
        "Attention to the first token of all heads, sorted. Where a curve crosses the threshold is the sink rate; its "
        "mean, a dotted line, is the mass",
        figsize=(7, 3.8),
    )
