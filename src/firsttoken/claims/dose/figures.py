"""Figures of the chapter `dose`: how spread follows the sink, what each dose costs, and what the controls do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from firsttoken.claims.dose.verdict import LEAST_COST, MATCH, matched
from firsttoken.estimates import JSON, interval
from firsttoken.panels import lines_by_model
from firsttoken.plots import NEUTRAL, Display, figure, model_color, reach, table
from firsttoken.records import Record

XLABEL = "nats added to every head's score of the first key"


def _names(measured: Sequence[Record]) -> str:
    return ", ".join(record.model for record in measured)


def _along_doses(ax: Axes, measured: Sequence[Record], name: str) -> None:
    lines_by_model(ax, measured, f"by_dose.{name}", measured[0].values["doses"])
    ax.set(xlabel=XLABEL, xticks=measured[0].values["doses"])


def _at(record: Record, name: str, form: str) -> str:
    """An outcome at the judged dose."""
    place = record.values["doses"].index(record.values["control_dose"])
    return interval(record.values["by_dose"][name][place], form)


def curve(measured: Sequence[Record]) -> Display:
    """Spread over own along the dose, relative to the untouched model."""

    def draw(ax: Axes) -> None:
        _along_doses(ax, measured, "outcome")
        ax.axhline(1, color=NEUTRAL, linestyle="--", linewidth=1)
        ax.set(ylabel="spread / own, times untouched")
        ax.legend(frameon=False)

    return figure(
        draw,
        "How far a change spreads over how large it is at the edited token, relative to the untouched model, against "
        f"the nats added to the score of the first key, with intervals, for {_names(measured)}",
        "How far a change spreads, over how large it is at the edited token, against the dose; the band is the 95 % "
        "interval over texts: "
        + "; ".join(
            f"at {r.values['control_dose']:+g} nats it is {_at(r, 'outcome', '.2f')} times the untouched {r.model}'s"
            for r in measured
        )
        + ".",
        figsize=(7, 3.8),
    )


def mass_and_loss(measured: Sequence[Record]) -> Display:
    """What a dose does to the sink, and what it costs."""

    def draw(axes: Any) -> None:
        _along_doses(axes[0], measured, "mass")
        axes[0].set(ylabel="attention mass on the first key", ylim=(0, 1))
        _along_doses(axes[1], measured, "loss_rise")
        enough = axes[1].axhline(LEAST_COST, color=NEUTRAL, linestyle="--", linewidth=1)
        axes[1].legend([enough], [f"{LEAST_COST} nats: enough for the rule"], frameon=False, loc="upper right")
        axes[1].set(ylabel="rise in loss (nats per token)")
        axes[0].legend(frameon=False)

    return figure(
        draw,
        "Two panels against the dose: attention mass on the first key, which grows with it, and the rise in loss, for "
        f"{_names(measured)}",
        "What a dose does to the sink (left) and what it costs (right): "
        + "; ".join(
            f"at {r.values['control_dose']:+g} nats the first key holds {_at(r, 'mass', '.0%')} of the attention of "
            f"{r.model}, for {_at(r, 'loss_rise', '+.2f')} nats of loss"
            for r in measured
        )
        + ".",
        ncols=2,
        figsize=(9.4, 3.8),
    )


def _arms(record: Record) -> Iterator[tuple[str, JSON]]:
    """The dose that is judged, then every control, with a name each."""
    values = record.values
    place = values["doses"].index(values["control_dose"])
    yield (
        f"first key {values['control_dose']:+g}",
        {name: by_dose[place] for name, by_dose in values["by_dose"].items()},
    )
    yield "(i) noise, three seeds", values["noise"]
    yield "(ii) others sharpened", values["sharpened"]
    yield "(ii) others flattened", values["flattened"]
    for other in values["other_key"]:
        yield f"(iii) another key {other['dose']:+g}", other


def controls(measured: Sequence[Record]) -> Display:
    """The outcome of the judged dose and of each control, a panel for each model."""

    def draw(axes: Any) -> None:
        panels = np.atleast_1d(axes)
        for ax, record in zip(panels, measured, strict=True):
            color = model_color(record.model)
            arms = list(_arms(record))
            for place, (_, arm) in enumerate(arms):
                estimate = arm["outcome"]
                here = color if place == 0 else NEUTRAL
                ax.errorbar(estimate["value"], place, xerr=reach(estimate), color=here, marker="o", capsize=3)
            for seed in record.values["noise"]["by_seed"]:
                ax.plot(seed["outcome"]["value"], 1.3, marker="|", markersize=8, color=NEUTRAL)
            ax.axvline(1, color=NEUTRAL, linestyle="--", linewidth=1)
            ax.set_yticks(range(len(arms)), [name for name, _ in arms])
            ax.set_ylim(len(arms) - 0.5, -0.5)
            ax.set(title=record.model, xlabel="spread / own, times untouched")

    return figure(
        draw,
        "Points with intervals: spread over own of the weakened sink and of each control at equal loss, relative to "
        f"the untouched model; short marks are the three seeds of the noise. One panel for each model: "
        f"{_names(measured)}",
        "The judged dose (coloured) and its controls at about equal loss, with 95 % intervals over texts. The dose "
        "minus the noise, the control that decides: "
        + "; ".join(f"{interval(r.values['noise']['dose_minus_control'], '+.2f')} in {r.model}" for r in measured)
        + ".",
        nrows=len(measured),
        figsize=(6.8, 2.7 * len(measured)),
    )


def control_table(measured: Sequence[Record]) -> Display:
    """Loss, mass, entropy and outcome of the judged dose and of each control."""
    rows = []
    for record in measured:
        for name, arm in _arms(record):
            to_match = "" if "strength" not in arm else "yes" if matched(arm) else "unmatched"
            difference = interval(arm["dose_minus_control"], "+.2f") if "strength" in arm else ""
            rows.append(
                (
                    record.model,
                    name,
                    interval(arm["loss_rise"], "+.3f"),
                    to_match,
                    interval(arm["mass"], ".1%"),
                    f"{arm['entropy']['value']:.2f}",
                    interval(arm["outcome"]),
                    difference,
                )
            )
    columns = (
        "model",
        "arm",
        "rise in loss, nats",
        f"within {MATCH:.0%} of the dose's",
        "mass on the first key",
        "entropy, nats",
        "spread / own, times untouched",
        "dose minus control",
    )
    return table(rows, columns, "The judged dose and its controls [95 % interval over texts]")


def other_outcomes(measured: Sequence[Record]) -> Display:
    """Every dose by every outcome that is shown and not judged."""
    rows = [
        (
            record.model,
            f"{dose:+g}",
            *(interval(record.values["by_dose"][name][place]) for name in ("outcome", "outcome_absolute")),
            interval(record.values["by_dose"]["outcome_last_layer"][place]),
            f"{record.values['by_dose']['mass'][place]['value']:.1%}",
            f"{record.values['by_dose']['entropy'][place]['value']:.2f}",
            interval(record.values["by_dose"]["loss_rise"][place], "+.3f"),
        )
        for record in measured
        for place, dose in enumerate(record.values["doses"])
    ]
    columns = (
        "model",
        "nats on the first key",
        "relative, mean over layers (judged)",
        "absolute, mean over layers",
        "relative, last layer",
        "mass",
        "entropy, nats",
        "rise in loss, nats",
    )
    return table(rows, columns, "Spread / own, times untouched, by three distances [95 % interval over texts]")
