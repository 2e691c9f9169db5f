"""Figures of the chapter `removal`, from records to pictures."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np

from firsttoken.estimates import interval
from firsttoken.measures.ablations import MEANING, NAMES, Ablation
from firsttoken.model_names import called, names_of
from firsttoken.plots import (
    CATEGORIES,
    INK,
    NEUTRAL,
    Display,
    Panels,
    band,
    figure,
    model_color,
    name_rows,
    reach,
    table,
)
from firsttoken.records import Record

# Shape and colour both name the arm, so that neither is needed alone.
LOOK: dict[Ablation, tuple[str, str]] = {
    "intact": (INK, "o"),
    "delete": (CATEGORIES[1], "X"),
    "replace": (CATEGORIES[3], "P"),
    "mask": (CATEGORIES[2], "v"),
    "zero_value": (CATEGORIES[0], "s"),
    "mean_value": (NEUTRAL, "D"),
    "mean_residual": (CATEGORIES[2], "^"),
}
# What is drawn together, so that few lines lie on each other and no two of them have one colour.
GROUPS: dict[str, Sequence[Ablation]] = {
    "no first token to see": ("intact", "delete", "replace", "mask"),
    "less to read from it": ("intact", "zero_value", "mean_value", "mean_residual"),
}
DASHES = {"o": "-", "X": "-", "P": "--", "v": ":", "s": "-", "D": "--", "^": ":"}  # by marker


def arms(records: Sequence[Record]) -> Display:
    """What each way of taking the first token away does to the loss, to the predictions and to the sink."""
    names = [arm for arm in NAMES if any(arm in record.values["arms"] for record in records)]
    panels = {
        "loss_increase": "increase of the loss\n(nats per token)",
        "top1_agreement": "same likeliest token\nas untouched (share)",
        "mass": "attention mass on\nposition 0 (share)",
    }

    def draw(axes: Any) -> None:
        for ax, (key, label) in zip(axes, panels.items(), strict=True):
            for number, record in enumerate(records):
                for place, arm in enumerate(names):
                    if arm not in record.values["arms"]:
                        continue
                    estimate = record.values["arms"][arm][key]
                    ax.errorbar(
                        estimate["value"],
                        place + (number - (len(records) - 1) / 2) * 0.24,
                        xerr=reach(estimate),
                        color=model_color(record.model),
                        marker="os^D"[number % 4],
                        capsize=2,
                        linestyle="none",
                        label=called(record) if place == 0 else None,
                    )
            ax.set_xlabel(label)
            name_rows(ax, [NAMES[arm] for arm in names])
        # Some arms cost a hundredth of a nat and others several; the scale is linear up to a tenth.
        axes[0].set_xscale("symlog", linthresh=0.1)
        axes[0].set_xticks([0, 0.1, 1, 10], ["0", "0.1", "1", "10"])
        axes[0].axvline(0, color=NEUTRAL, linewidth=1)
        axes[1].set_xlim(-0.02, 1.04)
        axes[2].set_xlim(-0.02, 1.04)
        axes[1].figure.legend(
            *axes[2].get_legend_handles_labels(), loc="outside lower center", ncols=min(4, len(records))
        )

    return figure(
        draw,
        "For each way of taking the first token away, three panels with intervals: increase of the loss, share of "
        "unchanged predictions, attention mass on position 0; for " + names_of(records),
        "What each way of taking the first token away does, with 95 % intervals. The further right in the first "
        "panel, the more it costs: "
        + "; ".join(
            f"deleting the token {_signed(record, 'delete')} and holding its state at the mean "
            f"{_signed(record, 'mean_residual')} nats in {called(record)}"
            for record in records
        )
        + ".",
        panels=Panels(count=len(panels), height=5.2),
    )


def _signed(record: Record, arm: str) -> str:
    return interval(record.values["arms"][arm]["loss_increase"], "+.2f")


def by_position(records: Sequence[Record]) -> Display:
    """Increase of the mean loss over the untouched model in doubling ranges of position."""

    def draw(axes: Any) -> None:
        for ax, (record, group) in zip(np.ravel(axes), itertools.product(records, GROUPS), strict=True):
            edges = record.values["by_position"]["edges"]
            middle = [(low * (high - 1)) ** 0.5 for low, high in itertools.pairwise(edges)]
            for arm in GROUPS[group]:
                color, marker = LOOK[arm]
                estimates = record.values["by_position"]["arms"][arm]
                shown = [(x, e) for x, e in zip(middle, estimates, strict=True) if e is not None]
                x, e = [x for x, _ in shown], [e for _, e in shown]
                look: dict[str, Any] = {"color": color, "marker": marker, "linestyle": DASHES[marker]}
                band(ax, x, e, markersize=5, label=NAMES[arm], **look)
            ax.set_xscale("log", base=2)
            ticks = [edge for edge in edges if edge > 1][:-1]
            ax.set_xticks(ticks, [str(tick) for tick in ticks])
            ax.minorticks_off()
            ax.set(title=f"{called(record)}:\n{group}", xlabel="position of the predicted token")
            ax.legend()
        for row in axes:
            row[0].set_ylabel("loss (nats)")

    return figure(
        draw,
        "Loss against the position in the text, one line for each way of taking the first token away, two panels for "
        "each model: " + names_of(records),
        "Loss along the text, with 95 % bands, without a first token to see, and with less to read from it. A "
        "line that comes down to that of the untouched model is a loss of the start of a text only. With the token "
        f"deleted, it is above the untouched one by {'; '.join(map(_start_and_end, records))}.",
        nrows=len(records),
        ncols=2,
        squeeze=False,
        figsize=(8.2, 3.4 * len(records)),
        sharey="row",
    )


def _start_and_end(record: Record) -> str:
    arms_ = record.values["by_position"]["arms"]
    above = [
        deleted["value"] - intact["value"]
        for deleted, intact in zip(arms_["delete"], arms_["intact"], strict=True)
        if deleted and intact
    ]
    if not above:
        return f"nothing that could be compared in {called(record)}"
    edges = record.values["by_position"]["edges"]
    return (
        f"{above[0]:.2f} nats at tokens {edges[0]} to {edges[1] - 1} and {above[-1]:.2f} from {edges[-2]} on in "
        f"{called(record)}"
    )


def long_texts(records: Sequence[Record]) -> Display:
    """Loss, mass on position 0 and retrieval against the length of the text."""

    def draw(axes: Any) -> None:
        for row, record in zip(np.atleast_2d(axes), records, strict=True):
            values = record.values
            lengths = values["length"]
            for arm in values["arms"]:
                color, marker = LOOK[arm]
                look: dict[str, Any] = {"color": color, "marker": marker, "linestyle": DASHES[marker]}
                look |= {"markersize": 5, "label": NAMES[arm]}
                band(row[0], lengths, values["arms"][arm]["loss"], **look)
                band(row[1], lengths, values["arms"][arm]["mass"], **look)
                # Records keep their keys in the order of text, where 1024 comes before 512.
                needles = {int(n): values["needle"][n]["arms"][arm] for n in sorted(values["needle"], key=int)}
                band(row[2], list(needles), list(needles.values()), **look)
            if values["needle"]:
                chance = next(iter(values["needle"].values()))["chance"]
                row[2].axhline(chance, color=mpl.rcParams["text.color"], linestyle=":")
            for ax, title in zip(row, ("loss (nats)", "mass on position 0", "retrieval"), strict=True):
                ax.set_xscale("log", base=2)
                ax.set_xticks(lengths, [str(n) for n in lengths], rotation=45)
                ax.minorticks_off()
                ax.set(title=f"{called(record)}:\n{title}", xlim=(lengths[0] * 0.85, lengths[-1] * 1.18))
            for ax in row[1:]:
                ax.set_ylim(-0.03, 1.03)
        for ax in np.ravel(axes):
            ax.set_xlabel("tokens T")
        np.atleast_2d(axes)[0, 0].figure.legend(
            *np.atleast_2d(axes)[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4
        )

    return figure(
        draw,
        "Against the number of tokens, for each model: loss, attention mass on position 0, and share of facts found "
        "again, one line for each way of taking the first token away",
        "The same on longer texts, with 95 % bands; the dotted line is guessing. Does the cost of a missing first "
        "token go away with the length? The loss is that of the stretch from one length to the next, at few places of "
        f"two texts: deleted, it is {'; '.join(map(_shortest_and_longest, records))}.",
        nrows=len(records),
        ncols=3,
        figsize=(8.2, 0.6 + 3.0 * len(records)),
    )


def _shortest_and_longest(record: Record) -> str:
    arms_, lengths = record.values["arms"], record.values["length"]
    above = [
        deleted["value"] - intact["value"]
        for deleted, intact in zip(arms_["delete"]["loss"], arms_["intact"]["loss"], strict=True)
    ]
    last = round(above[-1], 2) + 0  # no minus before a zero
    return f"{above[0]:+.2f} nats up to {lengths[0]} tokens and {last:+.2f} up to {lengths[-1]} in {called(record)}"


def meanings(records: Sequence[Record]) -> Display:
    """What each arm does, and whether heads may still rest on a first token in it."""
    rests: dict[Ablation, str] = {
        "intact": "yes",
        "delete": "on the next token, if the model can",
        "replace": "on another token, if the model can",
        "mask": "as where it is deleted",
        "zero_value": "yes, and they then add nothing",
        "mean_value": "yes, but they then add the mean",
        "mean_residual": "no: the sink's own state is gone",
        "mask_other": "yes",
        "add_bos": "yes",
    }
    names = [arm for arm in NAMES if any(arm in record.values["arms"] for record in records)]
    return table(
        [(NAMES[arm], MEANING[arm], rests[arm]) for arm in names],
        ("arm", "what is done", "may heads rest there?"),
        "The arms",
    )
