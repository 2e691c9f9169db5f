"""Figures of the chapter `dose` about changes as small as can be: exact derivatives at every dose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl

from firsttoken.estimates import interval
from firsttoken.model_names import called, names_of
from firsttoken.plots import NEUTRAL, Display, Panels, figure, model_color, reach, table
from firsttoken.records import Record


def small_changes(gains: Sequence[Record], measured: Sequence[Record]) -> Display:
    """Spread over own along the dose for replaced words and for changes as small as can be, a panel for each model
    of `gains`."""
    of_words = {record.model: record for record in measured}

    def shown(record: Record) -> str:
        values = record.values
        place = values["doses"].index(of_words[record.model].values["control_dose"])
        return (
            f"{interval(values['later_over_own'][place])} in {called(record)} at {values['doses'][place]:+g} nats, "
            f"where the changed token itself moves {interval(values['own'][place])} times as far"
        )

    def draw(axes: Any) -> None:
        for ax, record in zip(axes, gains, strict=True):
            color = model_color(record.model)
            words = of_words[record.model].values
            # Side by side, so that both intervals can be seen.
            for doses, outcomes, aside, marker, dash in (
                (words["doses"], words["by_dose"]["outcome"], -0.09, "s", "-"),
                (record.values["doses"], record.values["later_over_own"], 0.09, "o", "--"),
            ):
                heights = [outcome["value"] for outcome in outcomes]
                places = [dose + aside for dose in doses]
                ax.errorbar(places, heights, yerr=reach(*outcomes), color=color, marker=marker, linestyle=dash)
            ax.axhline(1, color=NEUTRAL, linestyle=":", linewidth=1)
            ax.set(title=called(record), xlabel="nats on the first key", xticks=record.values["doses"][::2])
        axes[0].set_ylabel("spread / own, times untouched")
        ink = mpl.rcParams["text.color"]
        axes[0].plot([], [], color=ink, marker="s", label="a replaced word")
        axes[0].plot([], [], color=ink, marker="o", linestyle="--", label="a change as small as can be")
        axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)

    return figure(
        draw,
        "Spread over own, relative to the untouched model, against the nats added to the score of the first key: for "
        "replaced words and, from exact derivatives, for small changes, with intervals. One panel for each model: "
        f"{names_of(gains)}",
        "The same outcome for two sizes of change: a word that is replaced, and, from exact derivatives, a change as "
        "small as can be in a random direction. The panels have scales of their own. For small changes, later tokens "
        f"over the changed one are, times untouched, {'; '.join(map(shown, gains))}.",
        panels=Panels(count=len(gains), height=3.6),
    )


def table_of(gains: Sequence[Record]) -> Display:
    """Gains at every dose."""
    rows = [
        (
            called(record),
            f"{dose:+g}",
            *(interval(record.values[name][place]) for name in ("later_over_own", "later", "own")),
            f"{record.values['monte_carlo_error'][place]:.0%}",
        )
        for record in gains
        for place, dose in enumerate(record.values["doses"])
    ]
    columns = (
        "model",
        "nats on the first key",
        "later / own",
        "later tokens",
        "changed token itself (own)",
        "error of one gain",
    )
    pairs = "; ".join(f"{record.values['pairs']} pairs of tokens in {called(record)}" for record in gains)
    return table(
        rows,
        columns,
        f"Relative gain of small changes, times untouched, mean over layers [95 % interval over texts]: {pairs}",
    )
