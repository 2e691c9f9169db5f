"""Figures of the chapter `smallest`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from firsttoken.estimates import JSON, interval
from firsttoken.plots import CATEGORIES, NEUTRAL, Display, figure, reach, table
from firsttoken.pretraining.smallest_training import Run
from firsttoken.records import Record

PLACES = {"first": "the first token", "itself": "the query itself", "elsewhere": "elsewhere"}


def in_order(record: Record) -> list[tuple[int, JSON]]:
    """The counts by length of the text, the shortest first."""
    rows = ((int(length), row) for length, row in record.values["by_length"].items())
    return sorted(rows, key=lambda row: row[0])


def forming(runs: Sequence[Run]) -> Display:
    """How the sink forms: attention to the first token at triggers and away from them, its value norm, the loss."""

    def draw(axes: Any) -> None:
        for number, run in enumerate(runs):
            steps = [point["step"] for point in run.history]
            first = number == 0
            for ax, name, color, label in (
                (axes[0], "first_away", CATEGORIES[2], "away from triggers"),
                (axes[0], "first_at", CATEGORIES[1], "at triggers"),
                (axes[1], "value_norm", CATEGORIES[2], None),
                (axes[2], "loss_at", CATEGORIES[1], "at triggers"),
                (axes[2], "loss_away", CATEGORIES[2], "away from triggers"),
            ):
                ax.plot(
                    steps,
                    [point[name] for point in run.history],
                    color=color,
                    linestyle=("-", "--", ":")[number % 3],
                    label=label if first else None,
                )
        axes[0].set(title="attention to\nthe first token", ylim=(0, 1))
        axes[1].set(title="its value norm,\nover the others'", ylim=(0, None))
        axes[2].set(title="loss, nats", ylim=(0, None))
        for ax in axes:
            ax.set_xlabel("step")
        axes[0].legend(frameon=False)

    return figure(
        draw,
        f"Three curves over the steps of training of {len(runs)} models with one head, a line style for each seed: "
        "attention "
        "to the first token at triggers and away from them, the norm of its value, the loss at triggers and away",
        "How a sink forms, a line style for each seed. A head that rests gives the first token much away from "
        f"triggers and little at them: at the end {_last(runs, 'first_away')} and {_last(runs, 'first_at')}, on "
        f"average, with a value {_last(runs, 'value_norm')} times as long as the others'.",
        ncols=3,
        figsize=(8.2, 3.0),
    )


def _last(runs: Sequence[Run], name: str) -> str:
    return f"{sum(float(run.history[-1][name]) for run in runs) / len(runs):.2f}"


def by_length(record: Record) -> Display:
    """Share of the seeds that learnt the task whose head rests on the first token, against the length of the text."""
    rows = {length: row for length, row in in_order(record) if row["shares"]}

    ends = {length: rows[length]["shares"]["first"]["value"] for length in (min(rows), max(rows))} if rows else {}

    def draw(ax: Axes) -> None:
        shares = [row["shares"]["first"] for row in rows.values()]
        ax.errorbar(
            list(rows),
            [share["value"] for share in shares],
            yerr=reach(*shares),
            color=CATEGORIES[2],
            marker="o",
            capsize=3,
        )
        ax.axhline(0.5, color=NEUTRAL, linewidth=1)
        ax.set_xscale("log", base=2)
        ax.set_xticks(list(rows), [str(length) for length in rows])
        ax.minorticks_off()
        ax.set(xlabel="tokens of a text", ylabel="share of seeds", ylim=(0, 1.02))

    return figure(
        draw,
        "Share of seeds whose head rests on the first token, with 95 % intervals, against the length of the texts",
        "Of the seeds that learnt the task, how many rest on the first token, with 95 % intervals. Above the line "
        f"most do: {', '.join(f'{share:.0%} at {length} tokens' for length, share in ends.items())}.",
        figsize=(5.6, 3.2),
    )


def length_table(record: Record) -> Display:
    """Where the heads rest, by length of the text; the last row has no BOS token."""
    cells = []
    rows = [*in_order(record), ("64, no BOS", record.values["without_bos"])]
    for length, row in rows:
        learnt = [each for each in row["each"] if each["learnt"] is not None]
        strength = [each["first_away"] for each in learnt]
        cells.append(
            (
                str(length),
                f"{row['learnt']} of {row['seeds']}",
                *(str(row[place]) for place in PLACES),
                interval(row["shares"]["first"], ".0%") if row["shares"] else "–",
                f"{min(strength):.2f} to {max(strength):.2f}" if strength else "–",
            )
        )
    columns = ("tokens", "learnt", *PLACES.values(), "share on the first", "attention to it away from triggers")
    return table(cells, columns, "Where the heads of those seeds rest that learnt the task")
