"""Figures of the chapter `packing`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from firsttoken import records
from firsttoken.claims.packing.rows import ROWS, Row
from firsttoken.claims.packing.verdict import SEEDS
from firsttoken.estimates import JSON, interval
from firsttoken.plots import NEUTRAL, Display, figure, name_rows, reach, table
from firsttoken.pretraining.checkpoint_probe import Input
from firsttoken.pretraining.curves import ARM_COLORS, BOS_WORDS, MASKING_WORDS
from firsttoken.pretraining.run_spec import CLAIM
from firsttoken.records import Record, paper_numbers
from firsttoken.records.numbers import NOT_RUN


def packing_table(record: Record) -> Display:
    """The paper's nine rows, its numbers beside ours."""
    of_seeds = record.parameters["seeds"] >= SEEDS
    cells = []
    for row, theirs, ours in zip(ROWS, paper_numbers.paper()["packing"]["rows"], record.values["rows"], strict=True):
        rate, loss, seeds = NOT_RUN, "–", "–"
        if ours:
            rate, loss = interval(ours["sink_rate_0.3"], ".1%"), f"{ours['loss']['value']:.2f}"
            shown = [f"{each['excess']:+.3f}" if of_seeds else f"{each['sink_rate_0.3']:.1%}" for each in ours["each"]]
            seeds = ", ".join(shown)
        cells.append(
            (
                MASKING_WORDS[row.masking],
                BOS_WORDS[row.bos],
                row.inference,
                f"{theirs['sink_rate']:.2%}",
                rate,
                seeds,
                f"{theirs['loss']:.2f}",
                loss,
            )
        )
    columns = (
        "masking",
        "BOS in training",
        "inference",
        "sinks, paper",
        "sinks, here",
        "each seed: attention beyond an even share" if of_seeds else "each seed",
        "loss, paper",
        "here",
    )
    head = next(row["head"] for row in record.values["rows"] if row)
    return table(
        cells,
        columns,
        f"Packing and BOS, the paper beside the budget {record.parameters['budget']} (one head of a model is "
        f"{head:.1%}; "
        "95 % intervals over texts, from the lowest end of a seed's to the highest)",
    )


def packing_rows(record: Record) -> Display:
    """Sink rate and loss of every row; the rows of one model are joined."""

    def draw(axes: Any) -> None:
        measured = [
            (place, row, ours) for place, (row, ours) in enumerate(zip(ROWS, record.values["rows"], strict=True))
        ]
        for ax, name, title in zip(
            axes, ("sink_rate_0.3", "loss"), ("share of sink heads (ε = 0.3)", "held-out loss (nats)"), strict=True
        ):
            for place, row, ours in measured:
                if ours is None:
                    ax.annotate(NOT_RUN, (0.02, place), xycoords=("axes fraction", "data"), va="center",
                                color=NEUTRAL, fontsize=9)  # fmt: skip
                    continue
                e = ours[name]
                ax.errorbar(e["value"], place, xerr=reach(e), color=ARM_COLORS[row.inference], marker="o", capsize=3)
            ax.set_title(title)
            name_rows(ax, [_row_name(row) for row in ROWS])
            if name == "sink_rate_0.3":
                ax.set_xlim(left=-0.03 * ax.get_xlim()[1])  # a marker at 0 whole

    return figure(
        draw,
        "Share of sink heads and held-out loss for the nine rows of the table, budget "
        f"{record.parameters['budget']}, with intervals; a row whose model was not trained has the words “not run”",
        "Sinks and loss of each way of packing, training with BOS and reading, with the table's intervals. Rows of "
        f"one model differ in how it is read only. {_extremes(record)}",
        ncols=2,
        figsize=(8.2, 4.6),
    )


def _row_name(row: Row) -> str:
    return f"{MASKING_WORDS[row.masking]}, {BOS_WORDS[row.bos]}: {row.inference}"


def _extremes(record: Record) -> str:
    rates = {
        _row_name(row): ours["sink_rate_0.3"]["value"]
        for row, ours in zip(ROWS, record.values["rows"], strict=True)
        if ours
    }
    least, most = min(rates, key=lambda name: rates[name]), max(rates, key=lambda name: rates[name])
    return f"Fewest sinks has “{least}” ({rates[least]:.1%} of the heads), most has “{most}” ({rates[most]:.1%})."


def heads(record: Record) -> Display:
    """Mean attention to the first token of every head, sorted, in both arms, one panel for each model."""
    alpha: Mapping[str, JSON] = record.values["alpha"]
    columns = 3

    def draw(axes: Any) -> None:
        panels = axes.ravel()
        for ax, (name, arms) in zip(panels, alpha.items(), strict=False):
            run = records.find(CLAIM, name)
            for arm, color in ARM_COLORS.items():
                values = np.sort(np.array(arms[arm]).ravel())[::-1]
                ax.plot(range(1, len(values) + 1), values, color=color, marker=".", label=f"read as {arm}")
            ax.axhline(0.3, color=NEUTRAL, linewidth=0.8, linestyle="--")
            ax.set(title=_short_title(run, name), ylim=(0, 1.02), xlabel="head, the strongest first")
            ax.title.set_fontsize(9)
        for ax in panels[len(alpha) :]:
            ax.set_axis_off()
        for ax in axes[:, 0]:
            ax.set_ylabel("attention to\nthe first token")
        panels[0].legend(frameon=False)

    rows = -(-len(alpha) // columns)
    return figure(
        draw,
        "Mean attention of every head to the first token, sorted, with BOS before the text and without, one panel for "
        "each trained model; a dashed line at the threshold 0.3",
        f"Budget {record.parameters['budget']}, one seed of each kind of model: attention of every head to the first "
        "token, the strongest first. Heads above the dashed line are sinks; read with BOS, "
        f"{_with_sinks(alpha, 'BOS+text')} of these {len(alpha)} models have one, without it "
        f"{_with_sinks(alpha, 'text')}.",
        nrows=rows,
        ncols=columns,
        figsize=(8.2, 2.9 * rows),
        squeeze=False,
        sharey=True,
    )


def _with_sinks(alpha: Mapping[str, JSON], arm: Input) -> int:
    return sum(bool(np.max(arms[arm]) > 0.3) for arms in alpha.values())


def _short_title(run: Record | None, name: str) -> str:
    if run is None:
        return name
    packing = run.parameters["packing"]
    return f"{MASKING_WORDS[packing['masking']]},\n{BOS_WORDS[packing['bos']]}"
