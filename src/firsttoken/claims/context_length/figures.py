"""Figures of the chapter `context_length`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firsttoken.claims.context_length.measure import BOS_CHOICES
from firsttoken.estimates import interval
from firsttoken.plots import CATEGORIES, NEUTRAL, Display, band, figure, table
from firsttoken.pretraining.curves import BOS_WORDS
from firsttoken.pretraining.train import SHORT
from firsttoken.records import Record, paper_numbers
from firsttoken.records.numbers import NOT_RUN

PAPER_LENGTHS = (128, 256, 512, 1024, 2048)  # of its curve


def in_order(rows: Mapping[str, Any]) -> list[tuple[str, Any]]:
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
                (CATEGORIES[2], "sink_rate_0.3", "here, ε = 0.3"),
                (CATEGORIES[3], "sink_rate_0.8", "here, ε = 0.8"),
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
    kinds = [(bos, length, row) for bos in BOS_CHOICES for length, row in in_order(record.values["rows"][bos])]
    for bos, length, row in kinds:
        if row is None:
            cells.append((length, BOS_WORDS[bos], NOT_RUN, "–", "–", "–", "–"))
            continue
        own = row["trained_length"]
        cells.append(
            (
                length,
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


LOSS_WORDS = {"all": "loss everywhere", "second_half": "loss on the second half"}


def with_bos_fixed(record: Record) -> Display:
    """What the first token gets beyond an even share against the context length, a line for each seed: on short
    texts, and on the second half of texts as long as those of the training."""
    runs_of = record.values["runs_of"]
    lengths = sorted(int(length) for length in runs_of["all"])

    def draw(axes: Any) -> None:
        for ax, name, title in zip(
            axes,
            ("excess", "late_excess"),
            (f"texts of {SHORT} tokens", "second half of texts of the own length"),
            strict=True,
        ):
            for loss, (color, dash) in zip(LOSS_WORDS, ((CATEGORIES[2], "-"), (CATEGORIES[1], "--")), strict=True):
                for seed in range(len(next(iter(runs_of[loss].values())))):
                    shown = {int(n): seeds[seed] for n, seeds in in_order(runs_of[loss]) if seeds and seeds[seed]}
                    ax.plot(
                        list(shown), [run[name] for run in shown.values()], color=color, linestyle=dash,
                        marker="os^v"[seed], label=f"{LOSS_WORDS[loss]}, seed {seed}" if shown else None,
                    )  # fmt: skip
            ax.axhline(0, color=NEUTRAL, linewidth=1)
            ax.set_xscale("log", base=2)
            ax.set_xticks(lengths, [str(n) for n in lengths])
            ax.minorticks_off()
            ax.set(xlabel="context length in training", title=title)
        axes[0].set_ylabel("attention to the first token\nbeyond an even share")
        axes[0].legend(frameon=False, fontsize=8)

    return figure(
        draw,
        "Attention to the first token beyond an even share against the context length in training, BOS fixed, in two "
        "panels: on short texts, and on the second half of texts of the own length; a line for each seed",
        ncols=2,
        figsize=(9.4, 3.8),
        sharey=True,
    )


def runs_table(record: Record) -> Display:
    """Each of the ten models by itself."""
    cells = []
    for loss, of_length in record.values["runs_of"].items():
        for length, seeds in in_order(of_length):
            for seed, run in enumerate(seeds or []):
                numbers = (NOT_RUN, "–", "–", "–", "–", "–")
                if run:
                    numbers = (
                        f"{run['excess']:+.3f}", f"{run['excess_own']:+.3f}", f"{run['late_excess']:+.3f}",
                        f"{run['late_loss']:.2f}", f"{run['sink_rate']:.1%}", f"{run['windows']:,}",
                    )  # fmt: skip
                cells.append((length, LOSS_WORDS[loss], str(seed), *numbers))
    columns = (
        "context", "loss in training", "seed", f"beyond even, T = {SHORT}", "own T", "own T, second half",
        "loss there", "heads above 0.3", "windows, so BOS seen",
    )  # fmt: skip
    heads = next((run["heads"] for seeds in record.values["runs_of"]["all"].values() for run in seeds if run), 0)
    return table(cells, columns, f"Models trained with BOS fixed; one of {heads} heads is {1 / max(heads, 1):.2%}")


def without_bos(record: Record) -> Display:
    """Sink heads of each model that was trained without BOS on a graphics card, a line for each seed."""
    rates_of = record.values["rates_of"]
    lengths = sorted(int(length) for length in rates_of["all"])

    def draw(axes: Any) -> None:
        for ax, name, title in zip(
            axes, ("rate", "rate_own"), (f"texts of {SHORT} tokens", "texts of the own length"), strict=True
        ):
            for loss, (color, dash) in zip(LOSS_WORDS, ((CATEGORIES[2], "-"), (CATEGORIES[1], "--")), strict=True):
                for seed in range(len(next(iter(rates_of[loss].values())))):
                    shown = {int(n): seeds[seed] for n, seeds in in_order(rates_of[loss]) if seeds[seed]}
                    ax.plot(
                        list(shown), [run[name] for run in shown.values()], color=color, linestyle=dash,
                        marker="os^v"[seed], label=f"{LOSS_WORDS[loss]}, seed {seed}" if shown else None,
                    )  # fmt: skip
            ax.set_xscale("log", base=2)
            ax.set_xticks(lengths, [str(n) for n in lengths])
            ax.minorticks_off()
            ax.set(xlabel="context length in training", title=title)
        axes[0].set(ylabel="share of sink heads, ε = 0.3")
        axes[0].legend(frameon=False, fontsize=8)

    return figure(
        draw,
        "Share of sink heads against the context length in training, without BOS, in two panels: on short texts and "
        "on texts of the own length; a line for each seed",
        ncols=2,
        figsize=(9.4, 3.8),
        sharey=True,
    )


def rates_table(record: Record) -> Display:
    """Each of the models without BOS by itself."""
    cells = []
    for loss, of_length in record.values["rates_of"].items():
        for length, seeds in in_order(of_length):
            for seed, run in enumerate(seeds):
                numbers = (NOT_RUN, "–", "–", "–", "–")
                if run:
                    numbers = (
                        f"{run['rate']:.1%}", f"{run['rate_own']:.1%}", f"{run['mass']:.1%}", f"{run['loss']:.2f}",
                        f"{run['loss_own']:.2f}",
                    )  # fmt: skip
                cells.append((length, LOSS_WORDS[loss], str(seed), *numbers))
    columns = (
        "context", "loss in training", "seed", f"heads above 0.3, T = {SHORT}", "own T", f"mass, T = {SHORT}",
        f"loss, T = {SHORT}", "loss, own T",
    )  # fmt: skip
    return table(
        cells,
        columns,
        f"Models trained without BOS; one of {record.values['heads']} heads is {1 / record.values['heads']:.2%}",
    )
