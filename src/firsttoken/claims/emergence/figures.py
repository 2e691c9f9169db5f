"""Figures of the chapter `emergence`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes

from firsttoken.claims.emergence.measure import variants
from firsttoken.estimates import interval
from firsttoken.plots import Display, figure, table
from firsttoken.pretraining.curves import STYLES, draw_even
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
        for (color, dash), record in zip(STYLES, runs, strict=False):
            arm = own_arm(record.parameters["packing"]["bos"])
            curve = record.values["curve"]
            ax.plot(
                [point[arm]["loss"] for point in curve],
                [point[arm]["mass"] for point in curve],
                color=color, linestyle=dash, marker=".", label=label(record),
            )  # fmt: skip
        ax.invert_xaxis()
        draw_even(ax)
        ax.set(xlabel="held-out loss (nats), training to the right", ylabel="attention mass on the first token")
        ax.legend(frameon=False)

    alt = "Attention mass on the first token against held-out loss through training, a line for each run"
    last = {label(run): run.values["curve"][-1][own_arm(run.parameters["packing"]["bos"])]["mass"] for run in runs}
    least, most = min(last, key=lambda run: last[run]), max(last, key=lambda run: last[run])
    caption = (
        "Strength of the sink against how well the model predicts, through training. Lines on each other would mean "
        f"that only the loss counts; at their ends, of the first seed of each, the mass goes from {last[least]:.0%} "
        f"(“{least}”) to {last[most]:.0%} (“{most}”)."
    )
    return figure(draw, alt, caption, figsize=(5.0, 3.8))


def variant_label(record: Record) -> Callable[[Record], str]:
    """What a run of this chapter changed, for the legend."""
    names = {variant["run"]: name for name, variant in record.values["variants"].items() if variant}
    return lambda run: names[run.model]
