"""Figures of the chapter `dose`: how spread follows the sink, what each dose costs, and what the controls do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes

from firsttoken.estimates import JSON, interval
from firsttoken.measures.matched_control import LEAST_COST, costly, covered
from firsttoken.model_names import called, names_of
from firsttoken.panels import lines_by_model
from firsttoken.plots import CATEGORIES, NEUTRAL, Display, Panels, figure, model_color, reach, table
from firsttoken.records import Record

XLABEL = "nats added to every head's score of the first key"


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
        f"the nats added to the score of the first key, with intervals, for {names_of(measured)}",
        "How far a change spreads, over how large it is at the edited token, against the dose; the band is the 95 % "
        "interval over texts: "
        + "; ".join(
            f"at {r.values['control_dose']:+g} nats it is {_at(r, 'outcome', '.2f')} times the untouched {called(r)}'s"
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
        f"{names_of(measured)}",
        "What a dose does to the sink, and what it costs: "
        + "; ".join(
            f"at {r.values['control_dose']:+g} nats the first key holds {_at(r, 'mass', '.0%')} of the attention of "
            f"{called(r)}, for {_at(r, 'loss_rise', '+.2f')} nats of loss"
            for r in measured
        )
        + ".",
        ncols=2,
        figsize=(9.4, 3.8),
    )


CONTROLS = {
    "noise": ("(i) noise on other scores", CATEGORIES[0], "o", "-"),
    "sharpened": ("(ii) other scores sharpened", CATEGORIES[1], "^", "--"),
    "flattened": ("(ii) other scores flattened", CATEGORIES[2], "v", ":"),
}


def _weaker(record: Record) -> list[int]:
    """Places of the doses below 0 that cost no more than the controls do, and of the untouched model."""
    values = record.values
    reached = max(values[name]["by_strength"][-1]["loss_rise"]["value"] for name in CONTROLS)
    rises = [rise["value"] for rise in values["by_dose"]["loss_rise"]]
    judged = rises[values["doses"].index(values["control_dose"])]
    return [
        place
        for place, dose in enumerate(values["doses"])
        if dose <= 0 and rises[place] <= max(1.15 * reached, judged)
    ]


def _decided(record: Record) -> str:
    values = record.values
    if not costly(values):
        return f"no dose of {called(record)} costs enough to be judged"
    if not covered(values["noise"]):
        return f"unmatched in {called(record)}"
    return f"{interval(values['noise']['dose_minus_control'], '+.2f')} in {called(record)}"


def controls(measured: Sequence[Record]) -> Display:
    """Outcome against the rise in loss, for doses below 0 and for each control, a panel for each model."""

    def path(ax: Axes, arms: Sequence[JSON], **line: Any) -> None:
        places = [(arm["loss_rise"]["value"], arm["outcome"]) for arm in arms]
        x, outcomes = [0.0, *(x for x, _ in places)], [outcome for _, outcome in places]
        ax.plot(x, [1.0, *(outcome["value"] for outcome in outcomes)], markersize=5, **line)
        bars = {"color": line["color"], "linestyle": "none", "linewidth": 1}
        ax.errorbar(x[1:], [o["value"] for o in outcomes], yerr=reach(*outcomes), **bars)

    def draw(axes: Any) -> None:
        for ax, record in zip(axes, measured, strict=True):
            values, color = record.values, model_color(record.model)
            by_dose, places = values["by_dose"], _weaker(record)
            arms = [{name: by_dose[name][place] for name in ("loss_rise", "outcome")} for place in places]
            path(ax, arms[1:], color=color, marker="s", linewidth=2)
            for place in places[1:]:
                at = (by_dose["loss_rise"][place]["value"], by_dose["outcome"][place]["value"])
                ax.annotate(
                    f"{values['doses'][place]:+g}", at, (-6, 6), textcoords="offset points", ha="right", color=color
                )
            for name, (label, own, marker, dash) in CONTROLS.items():
                path(ax, values[name]["by_strength"], color=own, marker=marker, linestyle=dash, label=label)
            ax.axvline(values["cost"]["value"], color=NEUTRAL, linestyle=":", linewidth=1)
            ax.axhline(1, color=NEUTRAL, linestyle="--", linewidth=1)
            ax.set(title=called(record), xlabel="rise in loss (nats per token)")
        axes[0].set_ylabel("spread / own, times untouched")
        # The doses are in the colours of the models, so the square of the legend is in the ink of the page.
        axes[0].plot([], [], color=mpl.rcParams["text.color"], marker="s", linewidth=2, label="weaker sink")
        axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)

    return figure(
        draw,
        "Spread over own, relative to the untouched model, against the rise in loss: a line through the doses below "
        "zero and one for each control, all from the untouched model on, with intervals. One panel for each model: "
        f"{names_of(measured)}",
        "How far a change spreads, by what the damage costs: doses of less sink (squares, with their nats) and three "
        "kinds of damage that leave the attention to the first key as it is; the dotted line is the dose that is "
        "judged. Doses that cost far more are left out, a line turns back where a larger dose costs less, and the "
        "panels have scales of their own. The dose minus noise of equal loss, the control that decides: "
        f"{'; '.join(map(_decided, measured))}.",
        panels=Panels(count=len(measured), height=3.8),
    )


def control_table(measured: Sequence[Record]) -> Display:
    """Each control at the loss of the judged dose, and that dose."""
    rows = []
    for record in measured:
        values = record.values
        place = values["doses"].index(values["control_dose"])
        of_dose = {name: by_dose[place] for name, by_dose in values["by_dose"].items()}
        cost = interval(of_dose["loss_rise"], "+.3f")
        name = f"first key {values['control_dose']:+g}"
        rows.append((called(record), name, cost, interval(of_dose["outcome"]), "", f"{of_dose['mass']['value']:.1%}"))
        for kind, (label, *_) in CONTROLS.items():
            control = values[kind]
            costs = " / ".join(f"{one['loss_rise']['value']:+.3f}" for one in control["by_strength"])
            level = interval(control["at_equal_loss"]) if covered(control) else "unmatched"
            rows.append(
                (
                    called(record),
                    label,
                    costs,
                    level,
                    interval(control["dose_minus_control"], "+.2f") if covered(control) else "",
                    f"{control['by_strength'][1]['mass']['value']:.1%}",
                )
            )
            if kind == "noise" and covered(control):
                rows.extend(
                    (
                        called(record),
                        f"seed {one['seed']} of the noise",
                        "",
                        interval(one["at_equal_loss"]),
                        interval(one["dose_minus_control"], "+.2f"),
                        "",
                    )
                    for one in control["by_seed"]
                )
        rows.extend(
            (
                called(record),
                f"(iii) another key {other['dose']:+g}",
                interval(other["loss_rise"], "+.3f"),
                f"{interval(other['outcome'])}, at its own loss",
                "",
                f"{other['mass']['value']:.1%}",
            )
            for other in values["other_key"]
        )
    columns = (
        "model",
        "arm",
        "rise in loss, nats (of three strengths)",
        "spread / own at the dose's loss, times untouched",
        "dose minus control",
        "mass on the first key",
    )
    return table(rows, columns, "The judged dose and its controls at equal loss [95 % interval over texts]")


def other_outcomes(measured: Sequence[Record]) -> Display:
    """Every dose by every outcome that is shown and not judged."""
    rows = [
        (
            called(record),
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
