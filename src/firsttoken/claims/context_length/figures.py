"""Figures of the chapter `context_length`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firsttoken.claims.context_length.measure import BOS_CHOICES
from firsttoken.estimates import JSON, interval
from firsttoken.plots import NEUTRAL, PALETTE, Display, band, figure, table
from firsttoken.pretraining.curves import BOS_WORDS
from firsttoken.pretraining.train import SHORT
from firsttoken.records import Record, paper_numbers
from firsttoken.records.numbers import NOT_RUN

PAPER_LENGTHS = (128, 256, 512, 1024, 2048)  # of its curve


def in_order(rows: Mapping[str, JSON | None]) -> list[tuple[str, JSON | None]]:
    """Rows by context length, the shortest first."""
    return sorted(rows.items(), key=lambda item: int(item[0]))


def by_length(record: Record) -> Display:
    """Sink rate against the context length of training, without BOS and with a fixed one, beside the paper's curve."""
    rows = record.values["rows"]
    lengths = sorted({int(length) for of_bos in rows.values() for length in of_bos} | set(PAPER_LENGTHS))

    def draw(axes: Any) -> None:
        for ax, bos in zip(axes, BOS_CHOICES, strict=True):
            measured = {int(length): row for length, row in in_order(rows[bos]) if row}
            for color, name, label in (
                (PALETTE[0], "sink_rate_0.3", "here, ε = 0.3"),
                (PALETTE[1], "sink_rate_0.8", "here, ε = 0.8"),
            ):
                estimates = [row[name] for row in measured.values()]
                band(ax, list(measured), estimates, color=color, marker="o", label=label)
                at_own = [row["trained_length"][name]["value"] for row in measured.values()]
                ax.plot(
                    list(measured), at_own, color=color, linestyle=":", marker="s", markersize=4,
                    label=f"{label}, T = trained length",
                )  # fmt: skip
            if bos == "never":
                curve = paper_numbers.paper()["context_length"]
                ax.plot(
                    PAPER_LENGTHS, [curve[str(length)] for length in PAPER_LENGTHS], color=NEUTRAL, marker="D",
                    linestyle="none", label="paper (digitised)",
                )  # fmt: skip
            ax.set_xscale("log", base=2)
            ax.set_xticks(lengths, [str(n) for n in lengths])
            ax.minorticks_off()
            ax.set(xlabel="context length in training", title=BOS_WORDS[bos])
        axes[0].set_ylabel("share of sink heads")
        axes[0].legend(frameon=False, fontsize=8)

    return figure(
        draw,
        f"Share of sink heads against the context length in training, budget {record.parameters['budget']}, in two "
        "panels: without BOS, with the paper's five points, and with BOS fixed at the start",
        ncols=len(BOS_CHOICES),
        figsize=(9.4, 3.8),
        sharey=True,
    )


def length_table(record: Record) -> Display:
    """Every run of the chapter; those that were not trained say so."""
    cells = []
    kinds = [(bos, length, row, "") for bos in BOS_CHOICES for length, row in in_order(record.values["rows"][bos])]
    longest = max((int(length) for _, length, _, _ in kinds), default=0)
    kinds += [(bos, str(longest), record.values["long"][bos], ", long documents only") for bos in BOS_CHOICES]
    for bos, length, row, note in kinds:
        if row is None:
            cells.append((f"{length}{note}", BOS_WORDS[bos], NOT_RUN, "–", "–", "–", "–"))
            continue
        own = row["trained_length"]
        cells.append(
            (
                f"{length}{note}",
                BOS_WORDS[bos],
                interval(row["sink_rate_0.3"], ".1%"),
                f"{row['sink_rate_0.8']['value']:.1%}",
                f"{own['sink_rate_0.3']['value']:.1%}",
                f"{row['loss']['value']:.2f}",
                f"{own['loss']['value']:.2f}",
            )
        )
    columns = (
        "context",
        "BOS in training",
        f"ε = 0.3, T = {SHORT}",
        f"ε = 0.8, T = {SHORT}",
        "ε = 0.3, own T",
        f"loss, T = {SHORT}",
        "loss, own T",
    )
    return table(
        cells, columns, f"Sink rate and held-out loss by context length, budget {record.parameters['budget']}"
    )
