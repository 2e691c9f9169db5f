"""Curves of models in training, shared by the chapters on pretraining."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from firsttoken.estimates import interval, over_seeds, value_of
from firsttoken.measures.sinks import even_share
from firsttoken.plots import CATEGORIES, NEUTRAL, Display, figure
from firsttoken.pretraining.checkpoint_probe import Input
from firsttoken.pretraining.run_records import own_arm
from firsttoken.pretraining.run_spec import SHORT
from firsttoken.records import Record

BOS_WORDS = {"never": "no BOS", "documents": "BOS before each document", "fixed": "BOS fixed at the start"}
MASKING_WORDS = {"causal": "causal", "intra_document": "intra-document"}
ARM_COLORS: dict[Input, str] = {"BOS+text": CATEGORIES[0], "text": CATEGORIES[1]}


WIDEST_OF_TWO = 50  # letters of a label, of which two fit beside each other
QUANTITIES: dict[str, str] = {
    "sink_rate_0.3": "share of sink heads (ε = 0.3)",
    "mass": "attention mass on the first token",
    "value_norm_ratio": "value norm, first token / others",
    "loss": "held-out loss (nats)",
}


# Of the runs of a figure, in their order.
STYLES = [(color, dash) for dash in ("-", "--") for color in CATEGORIES]


END_COLUMNS = ("texts", "beyond even", "heads above 0.3", "loss", "cost of a missing BOS", "spread / own")


def end_cells(end: Mapping[str, Any]) -> tuple[str, ...]:
    """What `END_COLUMNS` name, from `run_records.end_of` a model; records of an earlier version have no intervals."""

    def cell(name: str, form: str) -> str:
        measured = end[name]
        return interval(measured, form) if isinstance(measured, Mapping) else format(measured, form)

    return (
        str(end["loss"]["n"]) if isinstance(end["loss"], Mapping) else "–",
        cell("excess", "+.3f"),
        f"{value_of(end['sink_rate']):.1%}",
        cell("loss", ".3f"),
        cell("missing", "+.3f"),
        cell("spread_over_own", ".3f"),
    )


VALUE_NORM = "value norm of the first"
LARGEST_ACTIVATION = "largest activation / median"
SEED_COLUMNS = (VALUE_NORM, "spread / own", LARGEST_ACTIVATION)


def seed_cells(seeds: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What `SEED_COLUMNS` name, from the `smallest_outcomes` of models that differ in their seed; records of an
    earlier version have the first alone."""
    forms = {"value_norm": ".2f", "spread_over_own": ".4f", "largest_activation": ".1f"}
    return tuple(
        over_seeds([seed[name] for seed in seeds], form) if all(name in seed for seed in seeds) else "–"
        for name, form in forms.items()
    )


def during_training(
    runs: Sequence[Record], label: Callable[[Record], str], quantities: Sequence[str] = tuple(QUANTITIES)
) -> Display:
    """Curves of single runs against training tokens, read as each was trained (with BOS if it had one)."""

    def draw(axes: Any) -> None:
        for ax, name in zip(np.atleast_1d(axes).ravel(), quantities, strict=True):
            for (color, dash), record in zip(STYLES, runs, strict=False):
                arm, curve = _own_arm(record), record.values["curve"]
                per_step = record.values["tokens"] / curve[-1]["step"]
                tokens = [point["step"] * per_step / 1e6 for point in curve]
                ax.plot(
                    tokens, [point[arm][name] for point in curve], color=color, linestyle=dash, label=label(record)
                )
            if name == "mass":
                draw_even(ax)
            if name == "value_norm_ratio":
                ax.axhline(1, color=NEUTRAL, linewidth=0.8, linestyle="--")
            if name.startswith("sink_rate"):
                ax.set_ylim(bottom=0)
            ax.set(title=QUANTITIES[name], xlabel="training tokens (millions)")
        handles, labels = ax.get_legend_handles_labels()
        ncols = 2 if max(map(len, labels)) <= WIDEST_OF_TWO else 1
        axes.ravel()[0].figure.legend(handles, labels, loc="outside lower center", ncols=ncols)

    rows = (len(quantities) + 1) // 2
    alt = f"Curves through training, {', '.join(QUANTITIES[name] for name in quantities)}, for: " + "; ".join(
        map(label, runs)
    )
    seeds = sorted({run.parameters["seed"] for run in runs})
    caption = (
        f"Curves through training at the budget {runs[0].parameters['budget']}, each run read as it was trained, "
        f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))} alone."
    )
    if name := next((name for name in ("sink_rate_0.3", "mass") if name in quantities), None):
        last = {label(run): run.values["curve"][-1][_own_arm(run)][name] for run in runs}
        most, least = (of(last, key=last.__getitem__) for of in (max, min))
        caption += (
            f" At the end, the {QUANTITIES[name]} is largest with “{most}” ({last[most]:.0%}) and smallest with "
            f"“{least}” ({last[least]:.0%})."
        )
    figsize = (8.2, 3.0 * rows + 0.6)
    return figure(draw, alt, caption, nrows=rows, ncols=2, figsize=figsize, squeeze=False)


def _own_arm(run: Record) -> Input:
    return own_arm(run.parameters["packing"]["bos"])


def draw_even(ax: Axes) -> None:
    even = even_share(SHORT)
    ax.axhline(even, color=NEUTRAL, linewidth=0.8, linestyle="--")
    ax.annotate("an even spread", (0.99, even), (0, 3), xycoords=("axes fraction", "data"),
                textcoords="offset points", color=NEUTRAL, fontsize=9, ha="right")  # fmt: skip


def packing_label(record: Record) -> str:
    """What was done in training, in a few words."""
    packing = record.parameters["packing"]
    long = f", documents of {record.parameters['least']} or more" if record.parameters["least"] else ""
    half = ", loss on the second half" if packing.get("loss") == "second_half" else ""
    return f"{MASKING_WORDS[packing['masking']]}, {BOS_WORDS[packing['bos']]}, {packing['length']} tokens{long}{half}"
