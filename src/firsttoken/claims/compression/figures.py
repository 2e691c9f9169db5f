"""Figures of the chapter `compression`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from firsttoken.claims.compression.choices import RANDOM
from firsttoken.claims.compression.verdict import measured
from firsttoken.estimates import interval
from firsttoken.model_names import called, names_of
from firsttoken.plots import CATEGORIES, NEUTRAL, Display, Panels, band, figure, reach, table
from firsttoken.records import Record
from firsttoken.records.numbers import NOT_RUN

LOOK = {
    "most at rest": (CATEGORIES[0], "o", "-"),
    "least at rest": (CATEGORIES[1], "s", "-"),
    "random": (NEUTRAL, "^", "--"),
    "random, same layers": (NEUTRAL, "v", ":"),
}
WHAT = {"remove": "removed", "shorten": "first token and a window", "coarsen": "output matrix at two bits"}


def _of(record: Record, treatment: str, choice: str) -> list[dict[str, Any]]:
    heads = record.values["heads"]
    return sorted(
        (one for one in heads if (one["treatment"], one["choice"]) == (treatment, choice)),
        key=lambda one: one["share"],
    )


def heads(records: Sequence[Record]) -> Display:
    """Increase of the loss against the share of heads that lose something, by how they were chosen."""

    def draw(axes: Any) -> None:
        for row, record in zip(axes, records, strict=True):
            for ax, (treatment, what) in zip(row, WHAT.items(), strict=True):
                ax.set_title(f"{called(record)}\n{what}", fontsize=9)
                if treatment not in measured(record):
                    ax.text(0.5, 0.5, NOT_RUN, transform=ax.transAxes, ha="center", va="center")
                    ax.set(xticks=[], yticks=[], frame_on=False)
                    continue
                for choice, (color, marker, style) in LOOK.items():
                    points = _of(record, treatment, choice)
                    x = [one["share"] for one in points]
                    band(
                        ax, x, [one["increase"] for one in points],
                        color=color, marker=marker, markersize=5, linestyle=style, label=choice,
                    )  # fmt: skip
                ax.set_yscale("symlog", linthresh=0.1)
                ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))
                ax.set_xscale("log", base=2)
                ax.set_xticks(x, [f"{share:.0%}" for share in x])
                ax.minorticks_off()
                ax.set_xlabel("share of all heads")
            row[0].set_ylabel("increase of the loss (nats)")
        axes[0, 0].figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)

    costs = "; ".join(
        f"{interval(record.values['deciding']['remove']['random'], '+.2f')} nats in {called(record)}"
        for record in records
    )
    return figure(
        draw,
        "Increase of the loss against the share of heads that are removed, read less, or are stored coarsely; one "
        "line for the heads most at rest on the first token, one for those least, two for random ones; for each of "
        + names_of(records),
        "What it costs to take something from heads, by how they are chosen, with 95 % intervals over windows. "
        f"Removing a fifth of all heads, those most at rest cost more than random ones by {costs}.",
        nrows=len(records),
        ncols=3,
        squeeze=False,
        figsize=(8.2, 0.6 + 2.9 * len(records)),
    )


def deciding(records: Sequence[Record]) -> Display:
    """The differences that decide, in nats: below zero, choosing by rest is the better choice."""
    rows = []
    for record in records:
        values = record.values["deciding"]
        for name, word in measured(record).items():
            both = values[name]
            rows.append(
                (
                    called(record),
                    word,
                    interval(both["random"], "+.3f"),
                    interval(both["random, same layers"], "+.3f"),
                )
            )
        exact = interval(values["first_exact"], "+.2f")
        rows.append(
            (called(record), f"first token exact, not another, in a cache of {values['bits']} bits", exact, "–")
        )
    columns = ("model", "what is done", "against random", "against random of the same layers")
    return table(rows, columns, "Loss with heads at rest less that with others, in nats [95 % interval]")


def work(records: Sequence[Record]) -> Display:
    """How many scores are left where heads at rest read less, and what that costs."""
    rows = []
    for record in records:
        for one in _of(record, "shorten", "most at rest"):
            rows.append(
                (
                    called(record),
                    f"{one['share']:.0%}",
                    f"{one['scores_left']:.0%}",
                    interval(one["increase"], "+.3f"),
                )
            )
    columns = ("model", "heads shortened", "scores left", "increase of the loss (nats)")
    return table(rows, columns, "Heads most at rest that read only the first token and a window")


def heads_table(records: Sequence[Record]) -> Display:
    """Every share and choice in numbers."""
    rows = []
    for record in records:
        for name in measured(record):
            for choice in LOOK:
                points = _of(record, name, choice)
                costs = (interval(one["increase"], "+.2f") for one in points)
                rows.append((called(record), WHAT[name], choice, *costs, str(points[0]["increase"]["n"])))
    shares = (f"{one['share']:.0%}" for one in _of(records[0], "remove", "random"))
    columns = ("model", "what heads lose", "which heads", *shares, "texts")
    return table(rows, columns, "Increase of the loss (nats) by the share of heads [95 % interval]")


def tasks(records: Sequence[Record]) -> Display:
    """Questions that a model answers without some of its heads."""
    rows = []
    for record in records:
        values = record.values
        asked = sum(task["questions"] for task in values["tasks"].values())
        rows.append((called(record), "none", "", interval(values["intact"]["right"], ".0%"), "", "", str(asked)))
        against = {(one["share"], one["choice"]): one for one in values["rest_minus_random"]}
        for one in values["heads"]:
            rest = one["choice"] == "most at rest"
            rows.append(
                (
                    called(record),
                    f"{one['share']:.0%}",
                    one["choice"],
                    interval(one["right"], ".0%"),
                    *(interval(against[one["share"], other], "+.2f") if rest else "" for other in RANDOM),
                    str(asked),
                )
            )
    columns = (
        "model",
        "heads removed",
        "which",
        "right answers",
        "less random",
        "less random, same layers",
        "questions",
    )
    return table(rows, columns, "Right answers without some heads [95 % interval]")


def cache(records: Sequence[Record]) -> Display:
    """Every cache policy: bytes a token against the increase of the loss."""

    def draw(axes: Any) -> None:
        for ax, record in zip(np.ravel(axes), records, strict=True):
            for one in record.values["cache"]:
                first = "the first" in one["policy"]
                ax.errorbar(
                    one["bytes"],
                    one["increase"]["value"],
                    yerr=reach(one["increase"]),
                    color=CATEGORIES[0] if first else NEUTRAL,
                    marker="s" if "newest" in one["policy"] else "o",
                    markerfacecolor=None if first else "none",
                    capsize=3,
                    linestyle="none",
                )
            ax.set(xscale="log", title=called(record), xlabel="bytes a token (logarithmic)")
            ax.set_yscale("symlog", linthresh=0.05)
            ax.set_ylim(-0.02, 2 * max(one["increase"]["high"] for one in record.values["cache"]))
        np.ravel(axes)[0].set_ylabel("increase of the loss (nats)")
        panel = np.ravel(axes)[0]
        for marker, face, name in (
            ("o", None, "rounded, the first token exact"),
            ("o", "none", "rounded, no or another token exact"),
            ("s", None, "the first and the newest"),
            ("s", "none", "the newest"),
        ):
            color = NEUTRAL if face else CATEGORIES[0]
            panel.plot([], [], marker=marker, color=color, markerfacecolor=face, linestyle="none", label=name)
        panel.figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=2)

    return figure(
        draw,
        "Increase of the loss against the bytes that a cache needs for each token, one point for each policy; filled "
        "points keep the first token exact; one panel for each of " + names_of(records),
        "Memory of a cache against its cost, with 95 % intervals over windows. A filled point below the hollow ones "
        "at its memory means that keeping the first token pays. Against a cache that keeps another exact, it changes "
        "the loss by "
        + ", ".join(
            f"{interval(record.values['deciding']['first_exact'], '+.2f')} nats in {called(record)} "
            f"({record.values['deciding']['bits']} bits)"
            for record in records
        )
        + ".",
        panels=Panels(count=len(records), height=3.8),
    )


def cache_table(records: Sequence[Record]) -> Display:
    """The same in numbers."""
    rows = [
        (called(record), one["policy"], f"{one['bytes']:.0f}", interval(one["increase"], "+.3f"))
        for record in records
        for one in record.values["cache"]
    ]
    columns = ("model", "what the cache holds", "bytes a token", "increase of the loss (nats)")
    return table(rows, columns, "Cache policies, the few bytes of scales left out")
