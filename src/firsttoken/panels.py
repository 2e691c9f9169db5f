"""One panel for each model, one line for each arm: with BOS and without."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from firsttoken.plots import NEUTRAL, PALETTE, Display, Estimates, band, figure, model_color, whole_numbers
from firsttoken.records import Record

ARM_COLORS = {"with_bos": PALETTE[2], "without_bos": PALETTE[3]}


def draw_arms(
    ax: Axes, x: Sequence[float], of_arm: Mapping[Any, Estimates], labels: Mapping[Any, str], **line: Any
) -> None:
    """The arms that `labels` names, in its order, as lines with their intervals; empty estimates are left out."""
    for arm, label in labels.items():
        if arm not in of_arm:
            continue
        pairs = [(a, estimate) for a, estimate in zip(x, of_arm[arm], strict=True) if estimate]
        band(ax, [a for a, _ in pairs], [e for _, e in pairs], color=ARM_COLORS[arm], label=label, **line)


def by_arm(
    records: Sequence[Record],
    pick: Callable[[Record], tuple[Sequence[float], Mapping[Any, Estimates]]],
    alt: str,
    xlabel: str,
    ylabel: str,
    labels: Mapping[Any, str],
    adjust: Callable[[Axes, Record], object] | None = None,
) -> Display:
    """A panel for each model with both arms.

    Args:
        labels: of each arm, as `measures.bos_contrast.LABELS`.
        pick: the x values and the estimates of each arm, from a record.
        adjust: called with each panel's axes at the end.
    """

    def draw(axes: Any) -> None:
        panels = np.atleast_1d(axes)
        for ax, record in zip(panels, records, strict=True):
            draw_arms(ax, *pick(record), labels)
            ax.set(title=record.model, xlabel=xlabel)
            if adjust:
                adjust(ax, record)
        panels[0].set_ylabel(ylabel)
        panels[0].legend(frameon=False)

    return figure(
        draw, f"{alt}. One panel for each model: {_names(records)}", ncols=len(records), figsize=_size(records)
    )


def ratio_by_layer(records: Sequence[Record], key: str, alt: str, ylabel: str) -> Display:
    """The ratio without BOS / with it along the depth, a line for each model."""

    def draw(ax: Axes) -> None:
        for record in records:
            ratio = record.values["by_layer"][key]
            band(ax, range(1, len(ratio) + 1), ratio, color=model_color(record.model), marker=".", label=record.model)
        ax.axhline(1, color=NEUTRAL, linestyle="--", linewidth=1)
        ax.annotate("no difference", (1, 1), (0, -12), textcoords="offset points", color=NEUTRAL, fontsize=8)
        whole_numbers(ax)
        ax.set(xlabel="after layer", ylabel=ylabel)
        ax.legend(frameon=False)

    return figure(draw, f"{alt}, for {_names(records)}", figsize=(7, 3.6))


def _names(records: Sequence[Record]) -> str:
    return ", ".join(record.model for record in records)


def _size(records: Sequence[Record]) -> tuple[float, float]:
    return 4.7 * len(records), 3.5
