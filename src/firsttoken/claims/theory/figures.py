"""Figures of the chapter `theory`: a toy model, the bound on real ones, collapse along the depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from firsttoken.claims.theory.linear_model import Sweep
from firsttoken.estimates import interval
from firsttoken.measures.bos_arms import ARMS, LABELS, called_with_arms
from firsttoken.model_names import called
from firsttoken.panels import at_the_end, by_arm, draw_arms
from firsttoken.plots import CATEGORIES, NEUTRAL, Display, Panels, band, figure, table
from firsttoken.records import Record
from firsttoken.ticks import power, whole_numbers

_NAMES = {"sink": "sink strength s", "depth": "layers L", "heads": "heads H", "length": "tokens T"}


THEOREM = "bound of the theorem: one constant for every layer, times the paths"


def toy(sweeps: Sequence[Sweep]) -> Display:
    """Exact Jacobian and both bounds of the toy model, one panel for each quantity varied."""

    def draw(axes: Any) -> None:
        for ax, sweep in zip(axes.flat, sweeps, strict=True):
            ax.plot(sweep.values, sweep.theorem, color=CATEGORIES[3], marker=".", label=THEOREM)
            ax.plot(
                sweep.values, sweep.tight, color=CATEGORIES[2], marker=".", label="bound with the norm of each head"
            )
            ax.plot(sweep.values, sweep.exact, color=NEUTRAL, marker=".", label="exact Jacobian")
            ax.set_xlabel(_NAMES[sweep.name])
        for ax in axes[:, 0]:
            ax.set_ylabel("log10 of the norm,\nmean over later pairs")
        axes[0, 0].figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)

    alt = (
        "Exact Jacobian norm of a toy model and two upper bounds, against sink strength, depth, heads and length; all "
        "fall as the sink grows, and the bounds move away from the exact norm with depth"
    )
    gaps = ", ".join(
        f"by {sweep.theorem[-1] - sweep.exact[-1]:.1f} orders of magnitude at {sweep.values[-1]:g} {what}"
        for sweep in sweeps
        for what in [{"depth": "layers", "heads": "heads", "length": "tokens"}.get(sweep.name)]
        if what
    )
    caption = (
        "A toy model whose Jacobian is known exactly, beside two upper bounds. A bound lies above the grey line; the "
        f"nearer, the more it says. That of the theorem lies above it {gaps}."
    )
    return figure(draw, alt, caption, nrows=2, ncols=2, figsize=(8.2, 5.6))


def bounds(records: Sequence[Record]) -> Display:
    """log10 of bound and measured Jacobian along the depth of real models; why not, where no model has a bound."""
    compared = [record for record in records if "refused" not in record.values["bound"]]
    if not compared:
        rows = [(called(record), record.values["bound"]["refused"]) for record in records]
        return table(rows, ("model", "why it is not here"), "No bound beside a measured Jacobian")

    def draw(axes: Any) -> None:
        panels = np.atleast_1d(axes)
        for ax, record in zip(panels, compared, strict=True):
            of = record.values["bound"]["with_bos"]
            layers = range(1, len(of["log10_gain"]) + 1)
            for name, label, color in (
                ("log10_theorem", THEOREM, CATEGORIES[3]),
                ("log10_tight", "path sum of layer bounds", CATEGORIES[2]),
                ("log10_gain", "measured Jacobian", NEUTRAL),
            ):
                band(ax, layers, of[name], color=color, label=label)
            ax.set(title=called_with_arms(record, "\n") + ",\nwith BOS", xlabel="after layer")
            whole_numbers(ax)
        panels[0].set_ylabel("log10 of the norm,\nmean over later pairs")
        panels[0].legend(frameon=False)

    alt = (
        "Upper bounds and measured Jacobian after each layer; the bounds grow by orders of magnitude with every layer"
    )
    gaps = "; ".join(
        " and ".join(
            f"{last[name][-1]['value'] - last['log10_gain'][-1]['value']:.0f}"
            for name in ("log10_theorem", "log10_tight")
        )
        + f" orders of magnitude in {called(record)}"
        for record in compared
        for last in [record.values["bound"]["with_bos"]]
    )
    caption = (
        "Both bounds beside the measured Jacobian, with 95 % bands. A bound that lies far above says little about the "
        f"model: with BOS, after the last layer, they are above it by {gaps}."
    )
    return figure(draw, alt, caption, panels=Panels(count=len(compared), height=3.6), sharey=True)


def correlations(records: Sequence[Record]) -> Display:
    """Whether path sums order the pairs of tokens as the measured Jacobian does; one row says so for a model whose
    Jacobian was not compared."""
    names = {
        "abar": "path sum of ᾱ",
        "tight_bound": "path sum of layer bounds",
        "rollout": "rollout, (I + mean map) / 2",
    }
    rows = []
    for record in records:
        if "refused" in record.values["bound"]:
            rows.append((called(record), "", "", "not compared"))
            continue
        for arm in ARMS:
            for name, e in record.values["bound"][arm]["rank_correlation"].items():
                shown = interval(e) if e else "fewer than two texts have two pairs"
                rows.append((called_with_arms(record), LABELS[arm], names[name], shown))
    columns = ("model", "arm", "predictor", "rank correlation with the measured Jacobian [95 % interval]")
    return table(rows, columns, "Does a path sum know which pairs of tokens depend most on each other?")


def walk(records: Sequence[Record]) -> Display:
    """Share of the last token's paths that begin at text tokens, along the depth."""

    def pick(record: Record) -> Any:
        of_arm = record.values["walk"]
        return range(1, len(of_arm["with_bos"]) + 1), of_arm

    def adjust(ax: Axes, record: Record) -> None:
        whole_numbers(ax)
        ax.set_yscale("log")

    alt = "Share of all paths into the last token that begin at a text token other than the first, after each layer"
    ends = at_the_end(records, pick, LABELS, power)
    caption = (
        "Share of the paths into the last token that begin at a text token other than its first and last; the rest "
        "begin at those, or at BOS. The lower, the more the first token screens off the text. After all layers it is "
        f"{ends}."
    )
    return by_arm(records, pick, alt, "layers", "share of the path sum (logarithmic)", LABELS, adjust, caption)


def collapse(record: Record) -> Display:
    """Collapse measures along the depth beside the norm of the first token and the attention it gets."""
    panels = (
        ("first_norm", "norm of the first token / others", True),
        ("mass", "attention to the first token", False),
        ("from_mean", "‖V − M‖ / ‖V‖, all tokens", False),
        ("from_mean_text", "‖V − M‖ / ‖V‖, without the first", False),
        ("entropy", "matrix entropy, all tokens", False),
        ("entropy_text", "matrix entropy, without the first", False),
    )

    def draw(axes: Any) -> None:
        for ax, (name, title, logarithmic) in zip(axes.flat, panels, strict=True):
            of_arm = {arm: record.values["collapse"][arm][name] for arm in ARMS}
            first = 1 if name == "mass" else 0
            draw_arms(ax, range(first, first + len(of_arm["with_bos"])), of_arm, LABELS)
            ax.set_title(title, fontsize=10)
            whole_numbers(ax)
            if logarithmic:
                ax.set_yscale("log")
            else:
                ax.set_ylim(0, 1.02)
        for ax in axes.flat:
            ax.set_xlabel("after layer")
        axes[0, 0].legend(frameon=False)
        axes[0, 0].figure.suptitle(called_with_arms(record))

    alt = (
        f"Six panels along the layers of {called(record)}, with BOS and without: norm of the first token, attention "
        "to it, distance from the mean and matrix entropy with and without the first token"
    )
    of = record.values["collapse"]["with_bos"]
    layer = max(range(len(of["first_norm"])), key=lambda at: of["first_norm"][at]["value"])
    caption = (
        f"Collapse along the depth of {called(record)}: low entropy and a small distance from the mean mean that "
        f"tokens have become alike. With BOS, the first token is largest after layer {layer}, "
        f"{of['first_norm'][layer]['value']:.0f} times the others; the entropy is {of['entropy'][layer]['value']:.2f} "
        f"there with the first token's row and {of['entropy_text'][layer]['value']:.2f} when that is left out."
    )
    return figure(draw, alt, caption, nrows=3, ncols=2, figsize=(8.2, 7.6))


def last_two(records: Sequence[Record]) -> Display:
    """Distance of the last two tokens against how often a token was repeated."""

    def pick(record: Record) -> Any:
        values = record.values["last_two"]
        return values["repeats"], {arm: values[arm] for arm in ARMS}

    def adjust(ax: Axes, record: Record) -> None:
        repeats = record.values["last_two"]["repeats"]
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xticks(repeats, [str(n) for n in repeats])
        ax.axhline(2**-8, color=NEUTRAL, linestyle="--", linewidth=1, label="rounding of bfloat16")
        ax.minorticks_off()

    alt = "Relative distance of the last two of n equal tokens after the last layer, falling with n, both logarithmic"
    ends = at_the_end(records, pick, LABELS, "{:.2g}".format)
    caption = (
        "How far apart the last two of n equal tokens are after the last layer, relative to their norm, with 95 % "
        "bands. Below the dashed line the difference is of the size of rounding in bfloat16. After the most repeats "
        f"it is {ends}."
    )
    return by_arm(records, pick, alt, "repeats n", "‖v_n − v_(n−1)‖ / ‖v_n‖", LABELS, adjust, caption)
