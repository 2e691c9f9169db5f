"""Figures of the chapter `emergence`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes

from firsttoken.claims.emergence.measure import variants
from firsttoken.estimates import interval
from firsttoken.plots import CATEGORIES, Display, figure, table
from firsttoken.pretraining.curves import draw_even
from firsttoken.pretraining.run_records import own_arm
from firsttoken.records import Record
from firsttoken.records.numbers import NOT_RUN


def variant_table(record: Record) -> Display:
    """One row for each variant of the training."""
    cells = []
    for name in variants(record.parameters["budget"]):
        variant = record.values["variants"].get(name)
        if variant is None:
            cells.append((name, NOT_RUN, "–", "–", "–", "–"))
            continue
        onset = variant["onset"]
        cells.append(
            (
                name,
                interval(variant["sink_rate_0.3"], ".1%"),
                interval(variant["mass"], ".1%"),
                f"{variant['loss']['value']:.2f}",
                "never" if onset is None else f"step {onset['step']}, loss {onset['loss']:.2f}",
                str(variant["seeds"]),
            )
        )
    columns = (
        "training",
        "sink heads (ε = 0.3)",
        "mass on the first token",
        "loss at the end",
        "onset (first seed)",
        "seeds",
    )
    return table(cells, columns, f"One thing changed at a time, budget {record.parameters['budget']}")


def mass_against_loss(runs: Sequence[Record], label: Callable[[Record], str]) -> Display:
    """First-token mass against held-out loss through training: is the sink a matter of steps or of what is learnt?"""

    def draw(ax: Axes) -> None:
        for color, record in zip(CATEGORIES, runs, strict=False):
            arm = own_arm(record.parameters["packing"]["bos"])
            curve = record.values["curve"]
            ax.plot(
                [point[arm]["loss"] for point in curve],
                [point[arm]["mass"] for point in curve],
                color=color, marker=".", label=label(record),
            )  # fmt: skip
        ax.invert_xaxis()
        draw_even(ax)
        ax.set(xlabel="held-out loss (nats); training goes to the right", ylabel="attention mass on the first token")
        ax.legend(frameon=False, fontsize=8)

    alt = "Attention mass on the first token against held-out loss through training, a line for each run"
    return figure(draw, alt, figsize=(7, 3.8))


def variant_label(record: Record) -> Callable[[Record], str]:
    """What a run of this chapter changed, for the legend."""
    names = {variant["run"]: name for name, variant in record.values["variants"].items() if variant}
    return lambda run: names[run.model]
