"""Figures of the chapter `smoothing`: how many tokens a row of attention spreads over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm
from matplotlib.ticker import MaxNLocator

from firsttoken.claims.smoothing.measure import heads_growth
from firsttoken.estimates import interval
from firsttoken.measures.attention_maps import unpack
from firsttoken.measures.bos_arms import ARMS, LABELS, Arm, called_with_arms
from firsttoken.model_names import called, names_of
from firsttoken.panels import ARM_COLORS, at_the_end, by_arm, draw_arms
from firsttoken.plots import COLORMAP, NEUTRAL, Cells, Display, Panels, figure, table
from firsttoken.records import Record
from firsttoken.ticks import numbering, whole_numbers

MEASURES = {
    "effective_tokens": "all of the row, exp(H)",
    "effective_tokens_renyi2": "all of the row, Rényi-2",
    "effective_tokens_rest": "what the first token does not get",
}


def by_layer(records: Sequence[Record]) -> Display:
    """Effective number of tokens along the depth: whole rows, and rows without the first token."""

    def draw(axes: Any) -> None:
        grid = np.asarray(axes).reshape(len(records), 2)
        for row, record in zip(grid, records, strict=True):
            for ax, name in zip(row, ("effective_tokens", "effective_tokens_rest"), strict=True):
                of_arm = {arm: record.values["by_layer"][arm][name] for arm in ARMS}
                draw_arms(ax, record.layer_numbers(len(of_arm["with_bos"])), of_arm, LABELS)
                ax.set_title(called_with_arms(record, "\n") + f":\n{MEASURES[name]}")
                ax.set(xlabel="layer", ylim=0)
                whole_numbers(ax)
            row[0].set_ylabel("effective number of tokens")
        grid[0, 0].legend(frameon=False)

    alt = (
        "Effective number of tokens that a row of attention spreads over, in each layer, with BOS and without; "
        "of the whole row, and of the row without the first token"
    )
    ratios_ = "; ".join(
        f"{interval(of['effective_tokens_ratio'])} and {interval(of['effective_tokens_rest_ratio'])} "
        f"in {called(record)}"
        for record in records
        for of in [record.values]
    )
    caption = (
        "Over how many tokens a row of attention spreads, in effect: the whole row, and what the first token does "
        f"not get, with 95 % bands. Over all layers, it is so many times as many without BOS: "
        f"{ratios_}."
    )
    return figure(draw, alt, caption, nrows=len(records), ncols=2, figsize=(8.2, 3.2 * len(records)))


def ratios(records: Sequence[Record]) -> Display:
    """The three ratios without / with BOS."""
    rows = []
    for record in records:
        for name, label in MEASURES.items():
            with_bos, without = (f"{record.values[f'{name}_{arm}']['value']:.2f}" for arm in ARMS)
            e = record.values[f"{name}_ratio"]
            rows.append((called_with_arms(record), label, with_bos, without, interval(e)))
    columns = ("model", "measure", "with BOS", "without BOS", "ratio [95 % interval]")
    return table(rows, columns, "Effective number of tokens, mean over queries, heads and layers")


_BELOW: dict[str, Any] = {"location": "bottom", "shrink": 0.6, "aspect": 30}  # a colour bar that fits a telephone


def _change() -> Colormap:
    """Two colours around "no change": those of the arms, and of no model."""
    ends = [ARM_COLORS["with_bos"], "white", ARM_COLORS["without_bos"]]
    return LinearSegmentedColormap.from_list("change", ends)


def heads(records: Sequence[Record]) -> Display:
    """The change of each head: effective number of tokens without BOS over with it, layers by heads."""
    growth = [heads_growth(record.values).numpy() for record in records]  # (layer, head) each
    top = max(float(np.abs(np.log2(times)).max()) for times in growth)

    def draw(axes: Any) -> None:
        panels = np.ravel(axes)
        for ax, record, times in zip(panels, records, growth, strict=True):
            # Two colours around "no change".
            image = ax.imshow(
                np.log2(times),
                cmap=_change(),
                vmin=-top,
                vmax=top,
                aspect="auto",
                origin="lower",
                interpolation="nearest",
            )
            ax.set(title=called(record), xlabel="head", ylabel="layer")
            ax.set_xticks(range(times.shape[1]))
            ax.yaxis.set_major_locator(MaxNLocator(integer=True))
            ax.yaxis.set_major_formatter(numbering(record.layer_numbers(len(times))))
        ticks = range(-int(top), int(top) + 1)
        bar = panels[0].figure.colorbar(
            image, ax=panels, label="times as many tokens without BOS", ticks=list(ticks), **_BELOW
        )
        bar.set_ticklabels([f"{2.0**n:g}" for n in ticks])

    cells = [
        Cells(
            x="head",
            y="layer",
            value="times as many tokens:",
            columns=range(times.shape[1]),
            rows=record.layer_numbers(len(times))[::-1],
            texts=[[f"{value:.2f}" for value in row] for row in times[::-1]],
        )
        for record, times in zip(records, growth, strict=True)
    ]
    alt = (
        "Layers by heads, coloured by how many times as many tokens, in effect, a row attends to without BOS as with "
        f"it; one panel for each model: {names_of(records)}"
    )
    shares = ", ".join(
        f"{(times > 1).mean():.0%} of the heads of {called(record)}"
        for record, times in zip(records, growth, strict=True)
    )
    caption = (
        "How many times as many tokens, in effect, each head attends to without BOS as with it. "
        f"More than with it: {shares}."
    )
    return figure(
        draw, alt, caption, cells, nrows=len(records), squeeze=False, figsize=(5.0, 1.0 + 3.2 * len(records))
    )


def maps(record: Record) -> Display:
    """Maps of the heads whose number of tokens grows most, with BOS above and without below."""
    shown = record.values["shown"]

    def draw(axes: Any) -> None:
        grid = np.asarray(axes).reshape(2, len(shown["heads"]))
        for row, arm in zip(grid, ARMS, strict=True):
            for ax, head, packed in zip(row, shown["heads"], shown[arm]["maps"], strict=True):
                weights = unpack(packed).numpy()
                image = ax.imshow(
                    np.ma.masked_where(np.triu(np.ones_like(weights), 1) > 0, np.maximum(weights, 1e-3)),
                    cmap=COLORMAP,
                    norm=LogNorm(1e-3, 1),
                    interpolation="none",
                )
                ax.set_title(f"layer {head['layer']}, head {head['head']},\n{LABELS[arm]}")
                ax.set(xlabel="position of the key", ylabel="position of the query")
        grid[0, 0].figure.colorbar(image, ax=grid, label="attention (logarithmic)", **_BELOW)
        grid[0, 0].figure.suptitle(called_with_arms(record))

    alt = (
        f"Attention maps of the heads of {called(record)} whose number of tokens grows most when BOS is left out, "
        "with BOS and without"
    )
    first = {arm: np.mean([unpack(packed).numpy()[1:, 0].mean() for packed in shown[arm]["maps"]]) for arm in ARMS}
    caption = (
        f"The heads of {called(record)} whose number of tokens grows most. A bright first column is a sink; a row "
        "that is dark but for few points reads few tokens. The first column of these heads holds "
        + " and ".join(f"{share:.0%} of the attention {LABELS[arm]}" for arm, share in first.items())
        + "."
    )
    return figure(draw, alt, caption, nrows=2, ncols=len(shown["heads"]), figsize=(8.2, 6.8))


def spectrum(records: Sequence[Record]) -> Display:
    """Singular values of attention maps, averaged over all heads, and effective rank of each layer."""

    def draw(axes: Any) -> None:
        for ax, record in zip(np.atleast_1d(axes), records, strict=True):
            for arm in ARMS:
                values = record.values["shown"][arm]["spectrum"]
                ax.plot(range(1, len(values) + 1), np.maximum(values, 1e-4), color=ARM_COLORS[arm], label=LABELS[arm])
            ax.set(title=called_with_arms(record, "\n"), xlabel="singular value, largest first", yscale="log")
        np.atleast_1d(axes)[0].set_ylabel("share of the largest,\nmean over heads")
        np.atleast_1d(axes)[0].legend(frameon=False)

    alt = "Singular values of attention maps with BOS and without, as shares of the largest, on one passage"
    caption = (
        f"{alt}. The faster a curve falls, the more alike the rows are. So many values exceed a hundredth of the "
        "largest: "
        + "; ".join(f"{' and '.join(_large(record, arm) for arm in ARMS)} in {called(record)}" for record in records)
        + "."
    )
    return figure(draw, alt, caption, panels=Panels(count=len(records), height=3.3), sharey=True)


def _large(record: Record, arm: Arm) -> str:
    values = record.values["shown"][arm]["spectrum"]
    return f"{sum(value > 0.01 for value in values)} of {len(values)} {LABELS[arm]}"


def by_length(records: Sequence[Record]) -> Display:
    """Effective number of tokens against the position of the query, which is the length of what it sees."""

    def pick(record: Record) -> Any:
        return record.values["position"], record.values["effective_tokens"]

    def adjust(ax: Axes, record: Record) -> None:
        x = np.array(record.values["position"])
        ax.set_xscale("log", base=2)
        ax.set_yscale("log", base=2)
        ax.plot(x, x, color=NEUTRAL, linestyle="--", linewidth=1, label="all tokens evenly")
        ax.set_xticks(x, [str(n) for n in x])
        ax.yaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()

    alt = "Effective number of tokens against the length of the context, both logarithmic, with BOS and without"
    ends = at_the_end(records, pick, LABELS, "{:.0f}".format)
    caption = (
        "How many tokens a row spreads over, in effect, by how many it sees; a line that falls behind the dashed one "
        f"leaves more and more of the text out. Behind {max(records[0].values['position'])} tokens it is {ends}."
    )
    ylabel = "effective number of tokens"
    return by_arm(records, pick, alt, "tokens before the query", ylabel, LABELS, adjust, caption)
