"""Figures of the chapter `robustness`, from records to pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np

from firsttoken.claims.robustness.attacks import MEANING
from firsttoken.claims.robustness.changes import KINDS
from firsttoken.claims.robustness.sensitivity import SINK_ARMS
from firsttoken.claims.robustness.verdict import in_nats
from firsttoken.estimates import interval
from firsttoken.measures.matched_control import covered, decides
from firsttoken.model_names import called, names_of
from firsttoken.plots import CATEGORIES, NEUTRAL, Display, Panels, figure, model_color, name_rows, reach, table
from firsttoken.records import Record

CONTROLS = {
    "noise": ("noise on other scores", CATEGORIES[2], "o", "-"),
    "sharpened": ("sharper attention to other tokens", CATEGORIES[1], "^", "--"),
}
NAMES = {"intact": "untouched", "weakened": "weakened", "forbidden": "masked", "no sink": "no sink"}
LOOK = {"weakened": (CATEGORIES[3], "D"), "forbidden": (CATEGORIES[2], "v"), "no sink": (CATEGORIES[1], "X")}


def sensitivity(records: Sequence[Record]) -> Display:
    """How much farther predictions move after a small change when the sink is weakened or gone."""

    def draw(axes: Any) -> None:
        for ax, record in zip(np.atleast_1d(axes), records, strict=True):
            for place, kind in enumerate(KINDS):
                for number, (arm, (color, marker)) in enumerate(LOOK.items()):
                    ratio = record.values["by_kind"][kind][arm]["ratio"]
                    ax.errorbar(
                        ratio["value"],
                        place + 0.2 * (number - 0.3),
                        xerr=reach(ratio),
                        color=color,
                        marker=marker,
                        markersize=6,
                        capsize=3,
                        linestyle="none",
                        label=NAMES[arm] if place == 0 else None,
                    )
            ax.axvline(1, color=NEUTRAL, linewidth=1)
            ax.set_xscale("log", base=2)
            ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
            ax.set(title=called(record), xlabel="divergence / that with the sink")
            name_rows(ax, [f"{kind}: {meaning}" for kind, meaning in KINDS.items()])
        first = np.atleast_1d(axes)[0]
        first.figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=1)

    return figure(
        draw,
        "Points with intervals: how far predictions move after a typo, a swap, a synonym and noise, relative to the "
        "untouched model, with the first token weakened, masked, and without a sink; right of one means more "
        "sensitive; one panel for each of " + names_of(records),
        "How far predictions move after a small change, as multiples of the untouched model's, with 95 % intervals "
        "over texts. Right of the line the damaged model is the more sensitive one; the whole interval is there in "
        f"{'; '.join(map(_more_sensitive, records))}.",
        panels=Panels(count=len(records), height=4.4),
    )


def _more_sensitive(record: Record) -> str:
    ratios = [record.values["by_kind"][kind][arm]["ratio"] for kind in KINDS for arm in LOOK]
    return f"{sum(ratio['low'] > 1 for ratio in ratios)} of {len(ratios)} cases in {called(record)}"


def equal_loss(records: Sequence[Record]) -> Display:
    """The weakened sink beside damage that leaves the sink, each where its loss is; a panel for each model."""

    def draw(axes: Any) -> None:
        for ax, record in zip(np.atleast_1d(axes), records, strict=True):
            values, color = record.values, model_color(record.model)
            for name, (label, own, marker, dash) in CONTROLS.items():
                arms = values[name]["by_strength"]
                x, ratios = [arm["loss_rise"]["value"] for arm in arms], [arm["ratio"] for arm in arms]
                ax.plot([0, *x], [1, *(ratio["value"] for ratio in ratios)], color=own, linestyle=dash, linewidth=1)
                bars = {"color": own, "marker": marker, "markersize": 5, "linestyle": "none", "capsize": 2}
                ax.errorbar(x, [r["value"] for r in ratios], yerr=reach(*ratios), label=label, **bars)
            cost, weak = values["cost"], values["weakened_ratio"]
            bars = {"color": color, "marker": "s", "markersize": 7, "linewidth": 1.5, "linestyle": "none", "zorder": 3}
            ax.errorbar(cost["value"], weak["value"], xerr=reach(cost), yerr=reach(weak), **bars)
            ax.axhline(1, color=NEUTRAL, linestyle="--", linewidth=1)
            ax.set_yscale("log", base=2)
            ax.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
            ax.set(title=f"{called(record)},\n{in_nats(values)} less", xlabel="rise in loss (nats per token)")
        first = np.atleast_1d(axes)[0]
        first.set_ylabel("divergence / untouched model's")
        # Squares are in the colours of the models, so the one of the legend is in the ink of the page.
        first.plot([], [], marker="s", linestyle="none", color=mpl.rcParams["text.color"], label="weakened sink")
        handles, labels = first.get_legend_handles_labels()
        first.figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)

    return figure(
        draw,
        "How far predictions move after a small change, relative to the untouched model, against the rise in loss: a "
        "square for the weakened sink, lines for noise and for sharper attention, with intervals; one panel for each "
        "of " + names_of(records),
        "How far predictions move, by what the damage costs: the weakened sink (square), and two kinds of damage that "
        "leave the attention to the first token as it is. A sink that protects puts the square above the noise. The "
        f"square minus the noise at its loss: {'; '.join(map(_decided, records))}.",
        panels=Panels(count=len(records), height=3.6),
    )


def _decided(record: Record) -> str:
    if not decides(record.values):
        return f"unmatched in {called(record)}"
    return f"{interval(record.values['beyond_control'], '+.2f')} in {called(record)}"


def attacks(records: Sequence[Record]) -> Display:
    """What each attack does to the attention on the first token and to the loss."""
    names = [name for name in MEANING if any(name in record.values["attacks"]["by_attack"] for record in records)]

    def draw(axes: Any) -> None:
        for ax, key, label in zip(
            axes,
            ("mass_change", "loss_change"),
            ("change of the attention\nto the first token (share)", "change of the loss\n(nats per token)"),
            strict=True,
        ):
            for number, record in enumerate(records):
                for place, name in enumerate(names):
                    if name not in record.values["attacks"]["by_attack"]:
                        continue
                    change = record.values["attacks"]["by_attack"][name][key]
                    ax.errorbar(
                        change["value"],
                        place + (number - (len(records) - 1) / 2) * 0.18,
                        xerr=reach(change),
                        color=model_color(record.model),
                        marker="os^D"[number % 4],
                        capsize=3,
                        linestyle="none",
                        label=called(record) if place == 0 else None,
                    )
            ax.axvline(0, color=mpl.rcParams["text.color"], linewidth=0.8)
            ax.set_xlabel(label)
            name_rows(ax, [f"{name}:\n{MEANING[name]}" for name in names])
        axes[0].figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(4, len(records))
        )

    return figure(
        draw,
        "Points with intervals for each attack: change of the attention to the first token, and of the loss, "
        "against the same text without the attack; for " + names_of(records),
        "What each attack does to the attention to the first token and to the loss, with 95 % intervals over texts. "
        "Left of zero it takes attention from the first place (where another token is put before BOS, its sink may "
        "only have moved); most of all does "
        f"{'; '.join(map(_strongest, records))}.",
        ncols=2,
        figsize=(8.2, 5.6),
    )


def _strongest(record: Record) -> str:
    by_attack = record.values["attacks"]["by_attack"]
    changes = {name: by_attack[name]["mass_change"] for name in MEANING if name in by_attack}
    name = min(changes, key=lambda attack: changes[attack]["value"])
    return f"“{name}” in {called(record)} ({100 * changes[name]['value']:+.0f} percentage points)"


def arms_table(records: Sequence[Record]) -> Display:
    """What each arm costs before anything is changed, and how far a change moves the predictions then."""
    rows = []
    for record in records:
        for arm in SINK_ARMS:
            kinds = [record.values["by_kind"][kind][arm]["divergence"]["value"] for kind in KINDS]
            loss = interval(record.values["arms"][arm]["loss"])
            rows.append((called(record), NAMES[arm], loss, *(f"{value:.3f}" for value in kinds)))
    columns = ("model", "sink", "loss, nats [95 % interval]", *(f"{kind}: divergence, nats" for kind in KINDS))
    return table(rows, columns, "Losses without a change, and divergences after one")


def control_table(records: Sequence[Record]) -> Display:
    """The weakened sink, and each control at its loss."""
    rows = []
    for record in records:
        values = record.values
        weak = interval(values["weakened_ratio"])
        rows.append((called(record), f"sink weakened by {in_nats(values)}", interval(values["cost"]), weak, ""))
        for name, (label, *_) in CONTROLS.items():
            for seed, one in [("", values[name]), *enumerate(values[name].get("by_seed", []))]:
                matched = covered(one)
                strongest = one["by_strength"][-1]
                rows.append(
                    (
                        called(record),
                        label if seed == "" else f"seed {seed} of the noise",
                        f"up to {strongest['loss_rise']['value']:.2f} at {strongest['strength']:.2f}",
                        interval(one["at_equal_loss"]) if matched else "unmatched",
                        interval(one["dose_minus_control"], "+.2f") if matched else "",
                    )
                )
    columns = (
        "model",
        "damage",
        "rise in loss, nats",
        "divergence at equal loss, times untouched",
        "sink minus control",
    )
    return table(rows, columns, "The weakened sink beside damage of equal loss [95 % interval over texts]")


def search_table(records: Sequence[Record]) -> Display:
    """What the search found, and how far it lowered the attention on the texts it searched with."""
    rows = []
    for record in records:
        part = record.values["attacks"]
        masses = " → ".join(f"{value:.1%}" for value in part["search"])
        rows.append((called(record), repr(part["suffix"]), masses))
    return table(
        rows,
        ("model", "tokens found", "attention to the first token, before and after each"),
        "The greedy search, on its own texts",
    )
