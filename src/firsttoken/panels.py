"""Figures that several chapters share: a panel for each model with both arms, and estimates by model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes

from firsttoken.measures.bos_arms import ADDED, bos_was_added, called_with_arms
from firsttoken.model_names import called, names_of, short_name
from firsttoken.plots import CATEGORIES, NEUTRAL, Display, Estimates, Panels, band, figure, model_color
from firsttoken.records import Record
from firsttoken.records.frame import COLUMNS, table_of
from firsttoken.ticks import whole_numbers

if TYPE_CHECKING:
    import pandas as pd

ARM_COLORS = {"with_bos": CATEGORIES[0], "without_bos": CATEGORIES[1]}


def draw_arms(
    ax: Axes, x: Sequence[float], of_arm: Mapping[Any, Estimates], labels: Mapping[Any, str], **line: Any
) -> None:
    """The arms that `labels` names, in its order, as lines with their intervals; empty estimates are left out."""
    for arm, label in labels.items():
        if arm not in of_arm:
            continue
        pairs = [(a, estimate) for a, estimate in zip(x, of_arm[arm], strict=True) if estimate]
        band(ax, [a for a, _ in pairs], [e for _, e in pairs], color=ARM_COLORS[arm], label=label, **line)


Pick = Callable[[Record], tuple[Sequence[float], Mapping[Any, Estimates]]]


def at_the_end(records: Sequence[Record], pick: Pick, labels: Mapping[Any, str], form: Callable[[float], str]) -> str:
    """The last estimate of each arm of each model, as words for a caption."""

    def of(record: Record) -> str:
        of_arm = pick(record)[1]
        shown = ((label, [e for e in of_arm[arm] if e]) for arm, label in labels.items() if arm in of_arm)
        values = " and ".join(f"{form(estimates[-1]['value'])} {label}" for label, estimates in shown if estimates)
        return f"{values} in {called(record)}"

    return "; ".join(map(of, records))


def by_arm(
    records: Sequence[Record],
    pick: Pick,
    alt: str,
    xlabel: str,
    ylabel: str,
    labels: Mapping[Any, str],
    adjust: Callable[[Axes, Record], object] | None,
    caption: str,
) -> Display:
    """A panel for each model with both arms.

    Args:
        labels: of each arm, as `measures.bos_arms.LABELS`.
        pick: the x values and the estimates of each arm, from a record.
        adjust: called with each panel's axes at the end.
    """

    def draw(axes: Any) -> None:
        panels = np.atleast_1d(axes)
        for ax, record in zip(panels, records, strict=True):
            draw_arms(ax, *pick(record), labels)
            ax.set(title=called_with_arms(record, "\n"), xlabel=xlabel)
            if adjust:
                adjust(ax, record)
        panels[0].set_ylabel(ylabel)
        panels[0].legend(frameon=False)

    return figure(
        draw,
        f"{alt}. One panel for each model: {names_of(records)}",
        caption,
        panels=Panels(count=len(records), height=3.5),
    )


def ratio_by_layer(records: Sequence[Record], key: str, alt: str, ylabel: str, caption: str) -> Display:
    """The ratio without BOS / with it along the depth, a line for each model."""

    def draw(ax: Axes) -> None:
        longest = max((record.values["by_layer"][key] for record in records), key=len)
        lines_by_model(ax, records, f"by_layer.{key}", range(1, len(longest) + 1))
        ax.axhline(1, color=NEUTRAL, linestyle="--", linewidth=1, label="no difference")
        whole_numbers(ax)
        ax.set(xlabel="after layer", ylabel=ylabel)
        ax.legend(frameon=False)

    if added := names_of(filter(bos_was_added, records)):
        caption += f" {ADDED}: {added}."
    return figure(draw, f"{alt}, for {names_of(records)}", caption, figsize=(7, 3.6))


# Seaborn summarises rows; the median of an estimate and its two ends is the estimate, and their range is its interval.
_AS_RECORDED: dict[str, Any] = {"estimator": "median", "errorbar": ("pi", 100)}


def _ends(records: Sequence[Record]) -> pd.DataFrame:
    """Three rows for each estimate, its value and the two ends of its interval, in the column `at`."""
    columns = [name for name in COLUMNS if name not in ("value", "low", "high")]
    rows = table_of(records).melt(id_vars=columns, value_vars=["value", "low", "high"], value_name="at")
    return rows.assign(model=rows.model.map(short_name))


def _colors(records: Sequence[Record]) -> dict[str, str]:
    return {called(record): model_color(record.model) for record in records}


def lines_by_model(ax: Axes, records: Sequence[Record], path: str, x: Sequence[float], **line: Any) -> None:
    """A line through the list of estimates at `path` of each record, with intervals as bands, in its model's colour.

    Args:
        x: where the estimates stand, in the order of the list.
    """
    rows = _ends(records)
    rows = rows[rows.path.str.fullmatch(rf"{re.escape(path)}\.\d+")]
    places = [x[int(name.rsplit(".", 1)[1])] for name in rows.path]
    sns.lineplot(
        rows.assign(x=places), x="x", y="at", hue="model", palette=_colors(records), ax=ax, marker="o", markersize=4,
        markeredgewidth=0, err_kws={"linewidth": 0}, **_AS_RECORDED, **line,
    )  # fmt: skip
    if (legend := ax.get_legend()) is not None:
        legend.remove()  # a figure says where its legend stands
    ax.set(xlabel="", ylabel="")


def points_by_model(ax: Axes, records: Sequence[Record], labels: Mapping[str, str], **point: Any) -> None:
    """A point with its interval for each estimate that `labels` names by its path, the models beside each other."""
    rows = _ends(records)
    rows = rows[rows.path.isin(list(labels))]
    colors = _colors(records)
    sns.pointplot(
        rows.assign(label=rows.path.map(labels)), x="at", y="label", hue="model", order=list(labels.values()),
        palette=colors, ax=ax, linestyle="none", dodge=len(colors) > 1 and 0.3, capsize=0.08, markersize=5,
        linewidth=1.5, **_AS_RECORDED, **point,
    )  # fmt: skip
