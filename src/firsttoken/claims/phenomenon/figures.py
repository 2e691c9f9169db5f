"""Figures of the chapter `phenomenon`: a map of all heads that opens the map of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from firsttoken.claims.phenomenon.head_map import read, whole
from firsttoken.measures.attention_maps import unpack
from firsttoken.model_names import called
from firsttoken.plots import COLORMAP, NEUTRAL, Cells, Display, figure, model_color, table
from firsttoken.records import Record
from firsttoken.ticks import numbering


def head_map(record: Record) -> Display:
    """Layers x heads, coloured by attention to the first token; choosing a head shows its attention map.

    In the book, `head-map.js` draws it; anywhere else the static grid inside it is shown.
    """
    return whole(record, all_heads(record))


def all_heads(record: Record, size: tuple[float, float] = (8, 2.6)) -> Display:
    """The grid of layers x heads as a still picture, so many inches wide and high."""
    alpha = np.array(record.values["alpha"])  # (layer, head)
    layers = record.layer_numbers(len(alpha))

    def draw(ax: Axes) -> None:
        image = ax.imshow(alpha.T, cmap=COLORMAP, vmin=0, vmax=1, aspect="auto", origin="lower")
        ax.set(xlabel="layer", ylabel="head", title=called(record))
        ax.xaxis.set_major_formatter(numbering(layers))
        ax.figure.colorbar(image, ax=ax, label="mean attention to the first token")

    strongest = record.values["strongest"]
    alt = (
        f"Grid of {alpha.shape[0]} layers and {alpha.shape[1]} heads of {called(record)}, coloured by mean attention "
        f"to the first token; the strongest is layer {strongest['layer']}, head {strongest['head']}"
    )
    layer, head = strongest["layer"], strongest["head"]
    caption = (
        f"Attention of every head of {called(record)} to the first token of one text. The strongest, layer {layer}, "
        f"head {head}, gives it {alpha.max():.0%}; all together {alpha.mean():.0%}."
    )
    return figure(draw, alt, caption, figsize=size)


def picture(records: Sequence[Record]) -> Display:
    """The grids of several models below one another: the picture at the top of the README (`make picture`)."""

    def draw(axes: Any) -> None:
        for ax, record in zip(np.atleast_1d(axes), records, strict=True):
            alpha = np.array(record.values["alpha"])
            image = ax.imshow(alpha.T, cmap=COLORMAP, vmin=0, vmax=1, aspect="equal", origin="lower")
            ax.set(xlabel="layer", ylabel="head", title=called(record))
            ax.xaxis.set_major_formatter(numbering(record.layer_numbers(len(alpha))))
        image.axes.figure.colorbar(image, ax=axes, label="attention to the first token", shrink=0.7)

    names = " and ".join(called(record) for record in records)
    alt = f"Grids of layers and heads of {names}, coloured by mean attention to the first token"
    caption = "A square for each head; the brighter, the more of its attention the first token gets."
    return figure(draw, alt, caption, wide=True, nrows=len(records), figsize=(8, 2.4 * len(records)))


def reader(record: Record) -> tuple[int, int, float]:
    """Row of the maps and head that read most by content, among those that do not rest, and how much: the mean over
    queries of the most attention on one key.

    Keys that need no reading do not count: the first token, the query itself and the token before it. From what is
    left, the most that a fixed distance or a fixed key gets is taken off, because a head that always looks as far back
    reads a position, and one that always looks at the same token rests there.
    """
    scores = {
        (row, head): _read(unpack(packed).numpy())
        for row, heads in enumerate(record.values["maps"])
        for head, packed in enumerate(heads)
    }
    alpha, epsilon = np.array(record.values["alpha"]), record.parameters["epsilon"]
    busy = [place for place in scores if alpha[place] <= epsilon]
    best = max(busy or scores, key=lambda place: scores[place][0])
    return (*best, scores[best][1])


def _read(weights: np.ndarray) -> tuple[float, float]:
    """How much attention goes to one distant token beyond what a fixed distance or key explains, and altogether."""
    size = len(weights)
    distance = np.subtract.outer(np.arange(size), np.arange(size))  # (query, key)
    distant = np.where((distance >= 2) & (np.arange(size) > 0), weights, 0)
    rows = distant[3:]  # the queries that have a distant key
    fixed = max(rows.mean(0).max(), *(np.diagonal(distant, -d).sum() / len(rows) for d in range(2, size)))
    most = float(rows.max(1).mean())
    return most - float(fixed), most


def sink_and_reader(record: Record) -> Display:
    """Two maps, one above the other: the head that attends most to the first token, and the one that reads most."""
    alpha = np.array(record.values["alpha"])
    layers = record.layer_numbers(len(alpha))
    # Rounded, several heads may be the strongest; the record says which is.
    strongest = record.values["strongest"]
    sink = (layers.index(strongest["layer"]), strongest["head"])
    row, head, most = reader(record)
    tokens = [token.strip() or repr(token)[1:-1] for token in record.values["tokens"]]
    maps = [unpack(record.values["maps"][at][which]).numpy() for at, which in (sink, (row, head))]
    titles = (f"rests: layer {layers[sink[0]]}, head {sink[1]}", f"reads: layer {layers[row]}, head {head}")

    def draw(axes: Any) -> None:
        for ax, weights, title in zip(axes, maps, titles, strict=True):
            image = ax.imshow(
                np.ma.masked_where(np.triu(np.ones_like(weights), 1) > 0, weights),
                cmap=COLORMAP,
                vmin=0,
                vmax=1,
                interpolation="nearest",
            )
            ax.set_title(title)
            ax.set_xticks(range(len(tokens)), tokens, rotation=90, fontsize=9)
            ax.set_yticks(range(len(tokens)), tokens, fontsize=9)
            ax.set_ylabel("query: the token that attends")
        axes[-1].set_xlabel("key: the token attended to")
        axes[0].figure.colorbar(image, ax=axes, label="attention", location="bottom", shrink=0.6, aspect=30)

    cells = [
        Cells(
            x="to",
            y="from",
            value="attention",
            columns=[f"{number}: {token}" for number, token in enumerate(tokens)],
            rows=[f"{number}: {token}" for number, token in enumerate(tokens)],
            texts=[
                [f"{weight:.1%}" if key <= query else "not seen yet" for key, weight in enumerate(row)]
                for query, row in enumerate(weights)
            ],
        )
        for weights in maps
    ]
    return figure(
        draw,
        f"Two attention maps of {called(record)}. Most attention is in the first column in one; in the other it goes "
        "to single tokens further back, at changing distances",
        f"Two heads of {called(record)}. Above, the one that rests most: {alpha[sink]:.0%} of its attention is on the "
        f"first token. Below, the one that reads most, with {alpha[row, head]:.0%} there: on average, each query "
        f"gives {most:.0%} to one token that is neither the first, nor itself, nor the one before it, and not always "
        "the same one or as far away.",
        cells,
        nrows=2,
        figsize=(4.9, 8.8),
    )


def by_passage(records: Sequence[Record], others: Sequence[Record]) -> Display:
    """Mass and sink rate of each model on each passage, and how much the passages agree on which heads rest."""
    further = {record.model: record for record in others}
    rows = []
    for record in records:
        seen = read(record, further.get(record.model))
        main = np.array(record.values["alpha"]).ravel()
        for title, values in seen:
            alike = np.corrcoef(main, np.array(values["alpha"]).ravel())[0, 1]
            strongest = values["strongest"]
            rows.append(
                (
                    called(record),
                    title,
                    f"{values['mass']:.1%}",
                    f"{values['sink_rate']:.1%}",
                    f"layer {strongest['layer']}, head {strongest['head']}",
                    "1" if values is record.values else f"{alike:.2f}",
                )
            )
    epsilon = records[0].parameters["epsilon"]
    columns = ("model", "passage", "mass", f"heads above {epsilon}", "strongest head", "correlation over heads")
    return table(rows, columns, "The same heads on other passages; correlation is with the first passage")


def mass_and_rate(records: Sequence[Record]) -> Display:
    """Every head's attention to the first token in order, with mass and share of sink heads marked."""

    def draw(ax: Axes) -> None:
        epsilon = records[0].parameters["epsilon"]
        for record in records:
            alpha = np.sort(np.array(record.values["alpha"]).ravel())[::-1]
            share = (np.arange(len(alpha)) + 0.5) / len(alpha)
            color = model_color(record.model)
            rate, mass = record.values["sink_rate"], record.values["mass"]
            ax.plot(share, alpha, color=color, label=f"{called(record)}: sink rate {rate:.0%}, mass {mass:.0%}")
            ax.plot(rate, epsilon, marker="o", color=color)
            ax.axhline(mass, color=color, linestyle=":", linewidth=1)
        ax.axhline(epsilon, color=NEUTRAL, linestyle="--", linewidth=1)
        ax.annotate(f"ε = {epsilon}", (1, epsilon), (4, -3), textcoords="offset points")
        ax.set(
            xlabel="heads, strongest first (share)", ylabel="attention to the first token α", xlim=(0, 1), ylim=(0, 1)
        )
        ax.legend(frameon=False)

    return figure(
        draw,
        "Attention to the first token of all heads, sorted. Where a curve crosses the threshold is the sink rate; its "
        "mean, a dotted line, is the mass",
        f"Every head, strongest first. Where a curve crosses ε = {records[0].parameters['epsilon']} is the sink rate, "
        "the dotted line is the mass. In this text, the first token holds "
        + " and ".join(f"{record.values['mass']:.0%} of the attention of {called(record)}" for record in records)
        + ".",
        figsize=(7, 3.8),
    )
