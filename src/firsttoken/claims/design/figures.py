"""Figures of the chapter `design`."""

from __future__ import annotations

from statistics import median
from typing import Any

from matplotlib.axes import Axes

from firsttoken.claims.design.verdict import LEAST_SINK, has_sink, in_order, removes
from firsttoken.plots import CATEGORIES, NEUTRAL, Display, figure, table
from firsttoken.records import Record

NAMES = {
    "softmax": "softmax",
    "gate": "gate behind attention",
    "sink_logit": "learned sink logit",
    "off_by_one": "off by one",
    "sigmoid": "sigmoid weights",
}


def _share(each: dict[str, Any]) -> float:
    return float(each["first_away"] / max(each["row_away"], 1e-9))


def sinks(record: Record) -> Display:
    """What each seed's head gives the first token away from triggers, as a share of what its row adds up to."""
    counts = in_order(record)

    def draw(ax: Axes) -> None:
        for place, name in enumerate(counts):
            each = counts[name]["each"]
            heights = [_share(one) for one in each]
            places = [place + (n - (len(each) - 1) / 2) * 0.05 for n in range(len(each))]
            ax.plot(places, heights, "o", color=CATEGORIES[2], alpha=0.7)
        ax.axhline(LEAST_SINK, color=NEUTRAL, linewidth=1)
        ax.set_xticks(range(len(counts)), [NAMES[name].replace(" ", "\n", 1) for name in counts])
        ax.set(ylabel="share on the first token,\naway from triggers", ylim=(0, 1.02))

    return figure(
        draw,
        "Share of a row's attention on the first token away from triggers, a point for each seed, by design of "
        "attention",
        figsize=(7.2, 3.4),
    )


def design_table(record: Record) -> Display:
    """Every design: sinks, what was learnt and how fast, and what its rows add up to where there is nothing to do."""
    cells = []
    for name, count in in_order(record).items():
        each = count["each"]
        steps = [one["learnt"] for one in each if one["learnt"] is not None]
        cells.append(
            (
                NAMES[name],
                f"{sum(map(has_sink, each))} of {count['seeds']}",
                "yes" if removes(count) else "no",
                f"{count['learnt']} of {count['seeds']}",
                f"{median(steps):.0f}" if steps else "–",
                f"{median(one['loss_at'] for one in each):.3f}",
                f"{median(one['loss_away'] for one in each):.3f}",
                f"{median(one['row_away'] for one in each):.2f}",
                f"{median(one['value_norm'] for one in each):.2f}",
            )
        )
    columns = (
        "design", "seeds with a sink", "removes it", "learnt", "steps to it", "loss at triggers", "loss away",
        "row adds up to", "value norm of the first",
    )  # fmt: skip
    return table(cells, columns, "Ten seeds of each design; numbers without a count are medians over seeds")
