"""Figures of the chapter `compression` on attention itself: queries that skip, probabilities in a few bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from firsttoken.estimates import interval
from firsttoken.model_names import called, names_of
from firsttoken.plots import CATEGORIES, NEUTRAL, Display, Panels, figure, reach, table
from firsttoken.records import Record

LOOK = {"at rest": (CATEGORIES[0], "o", "-"), "random": (NEUTRAL, "^", "--")}
EXACT = {
    "none": "none",
    "first": "the first token's",
    "another": "another token's",
    "largest": "the largest of each row",
}


def _of(record: Record, queries: str) -> list[dict[str, Any]]:
    arms = record.values["arms"]
    return sorted((one for one in arms if one["queries"] == queries), key=lambda one: one["scores_left"])


def skipping(records: Sequence[Record]) -> Display:
    """Increase of the loss against the scores left, for queries chosen by rest and at random."""

    def draw(axes: Any) -> None:
        for ax, record in zip(np.ravel(axes), records, strict=True):
            for queries, (color, marker, style) in LOOK.items():
                points = _of(record, queries)
                x = [100 * one["scores_left"] for one in points]
                increase = [one["increase"] for one in points]
                ax.errorbar(
                    x, [e["value"] for e in increase], yerr=reach(*increase),
                    color=color, marker=marker, linestyle=style, capsize=3, label=f"queries {queries}",
                )  # fmt: skip
            ax.axhline(0, color=NEUTRAL, linewidth=0.8)
            ax.set_xlim(0, 100)
            ax.set(title=called(record), xlabel="scores left (%)")
        panel = np.ravel(axes)[0]
        panel.set_ylabel("increase of the loss (nats)")
        panel.figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=2)

    savings = "; ".join(
        f"{one['scores_left']:.0%} of the scores at {interval(one['increase'], '+.3f')} nats in {called(record)}"
        for record in records
        for one in [_of(record, "at rest")[-1]]
    )
    return figure(
        draw,
        "Increase of the loss against the share of attention scores that are left where heads skip the keys between "
        "the first token and a window, for queries at which they rest and for random ones; one panel for each of "
        + names_of(records),
        "What skipping costs, with 95 % intervals over texts: each point is a threshold, further left a lower one. "
        f"The highest threshold leaves {savings}.",
        panels=Panels(count=len(records), height=3.8),
    )


def skipping_table(records: Sequence[Record]) -> Display:
    """The same in numbers, with the tiles that a kernel would have to compute."""
    rows = []
    for record in records:
        saved = {one["threshold"]: one for one in record.values["random_minus_rest"]}
        by_chance = {one["threshold"]: one for one in _of(record, "random")}
        for one in reversed(_of(record, "at rest")):
            at = one["threshold"]
            rows.append(
                (
                    called(record),
                    f"{at:.1f}",
                    f"{one['scores_left']:.0%}",
                    f"{one['blocks_left']:.0%}",
                    interval(one["increase"], "+.3f"),
                    interval(by_chance[at]["increase"], "+.3f"),
                    interval(saved[at], "+.3f"),
                    str(saved[at]["n"]),
                )
            )
    columns = (
        "model",
        "skips above",
        "scores left",
        "tiles of 64 × 64 left",
        "increase of the loss (nats)",
        "at random queries",
        "saved by the rule",
        "texts",
    )
    return table(rows, columns, "Queries that read only the first token and a window [95 % interval]")


def probabilities(records: Sequence[Record]) -> Display:
    """The cost of rounded attention probabilities, by bits and by which of them is exact."""
    rows = []
    for record in records:
        for bits in sorted({one["bits"] for one in record.values["arms"]}, reverse=True):
            cost = {one["exact"]: one["increase"] for one in record.values["arms"] if one["bits"] == bits}
            rows.append(
                (
                    called(record),
                    str(bits),
                    *(interval(cost[exact], "+.3f") for exact in EXACT),
                    str(cost["none"]["n"]),
                )
            )
    columns = ("model", "bits", *(f"exact: {name}" for name in EXACT.values()), "texts")
    return table(rows, columns, "Increase of the loss (nats) where attention is held in a few bits [95 % interval]")
