"""Figures and tables of the small tasks in the chapter `removal`, and the paper's table of its own tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from firsttoken.claims.removal.figures import LOOK
from firsttoken.estimates import JSON, interval
from firsttoken.measures.ablations import NAMES
from firsttoken.model_names import called, names_of
from firsttoken.plots import Display, Panels, figure, reach, table
from firsttoken.records import Record


def tasks(records: Sequence[Record]) -> Display:
    """Share of right answers in the small tasks under each arm, with the share that guessing gets."""

    def draw(axes: Any) -> None:
        for ax, record in zip(np.atleast_1d(axes), records, strict=True):
            names = list(record.values["tasks"])
            for place, name in enumerate(names):
                task = record.values["tasks"][name]
                ax.hlines(task["chance"], place - 0.42, place + 0.42, color=mpl.rcParams["text.color"], linestyle=":")
                shown = [arm for arm in LOOK if arm in task["arms"]]
                for number, arm in enumerate(shown):
                    color, marker = LOOK[arm]
                    x = place + (number - (len(shown) - 1) / 2) * 0.13
                    label = NAMES[arm] if place == 0 else None
                    _point(ax, x, task["arms"][arm], color=color, marker=marker, markersize=5, label=label)
            short = [name.replace(", ", ",\n").replace(" tokens", "").replace(" choice", "\nchoice") for name in names]
            ax.set_xticks(range(len(names)), short, fontsize=9)
            ax.set(title=called(record), ylim=(-0.03, 1.03))
        np.atleast_1d(axes)[0].set_ylabel("share of right answers")
        np.atleast_1d(axes)[0].figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=4)

    return figure(
        draw,
        "Share of right answers in five tasks for each way of taking the first token away, with intervals and a "
        "dotted line where guessing would be; one panel for each model: " + names_of(records),
        "Small tasks under each arm, with 95 % intervals over questions; a dotted line is guessing. Deleting the "
        f"first token costs most in {'; in '.join(map(_worst_task, records))}.",
        panels=Panels(count=len(records), height=4.6),
        sharey=True,
    )


def _worst_task(record: Record) -> str:
    shares = {
        name: (task["arms"]["intact"]["value"], task["arms"]["delete"]["value"])
        for name, task in record.values["tasks"].items()
    }
    name = max(shares, key=lambda task: shares[task][0] - shares[task][1])
    return f"{called(record)} in {name}, from {shares[name][0]:.0%} to {shares[name][1]:.0%}"


def task_table(records: Sequence[Record]) -> Display:
    """The paper's question in numbers: every task as it is and without the first token, beside chance."""
    rows = []
    for record in records:
        for name, task in record.values["tasks"].items():
            arms_ = task["arms"]
            rows.append(
                (
                    f"{called(record)}: {name}",
                    f"{task['chance']:.1%}",
                    str(task["questions"]),
                    interval(arms_["intact"], ".0%"),
                    interval(arms_["delete"], ".0%"),
                )
            )
    columns = ("task", "chance", "questions", "untouched [95 % interval]", "deleted")
    return table(rows, columns, "Small tasks with and without the first token")


def paper_table(paper: JSON) -> Display:
    """The paper's own numbers, with and without BOS."""
    theirs = paper["removal"]
    rows = [
        (name, f"{both['with']:.2%}", f"{both['without']:.2%}")
        for name, both in theirs.items()
        if isinstance(both, dict)
    ]
    return table(rows, ("task", "with BOS", "without BOS"), f"The paper: {theirs['model']} (not measured here)")


def _point(ax: Axes, x: float, estimate: JSON, **look: Any) -> None:
    ax.errorbar(x, estimate["value"], yerr=reach(estimate), linestyle="none", capsize=2, **look)
