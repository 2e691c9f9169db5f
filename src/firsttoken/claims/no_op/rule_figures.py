"""Figures of the heads that switch, in the chapter `no_op`: when each leaves the first token, and what that costs."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from textwrap import wrap
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from firsttoken.claims.no_op.figures import MARKERS
from firsttoken.estimates import JSON
from firsttoken.model_names import called, names_of, short_name
from firsttoken.plots import NEUTRAL, Display, figure, model_color, name_rows, reach, table
from firsttoken.records import Record


def rule_name(rule: JSON) -> str:
    """A rule as a phrase: when the head leaves the first token."""
    return f"off at “{rule['condition']}”" if rule["off_when_true"] else f"off except at “{rule['condition']}”"


def histograms(records: Sequence[Record], count: int = 3) -> Display:
    """How the attention of the heads with the clearest rules is spread between 0 and 1."""

    def draw(axes: Any) -> None:
        for row, record in zip(axes, records, strict=True):
            rules = record.values["search"]["rules"][:count]
            for ax, rule in zip(row, rules, strict=False):
                heights = 100 * np.array(rule["histogram"])
                left = np.arange(len(heights)) / len(heights)
                ax.bar(
                    left, heights, 1 / len(heights), align="edge", color=model_color(record.model), edgecolor="none"
                )
                title = f"{called(record)},\nlayer {rule['layer']} head {rule['head']}\n"
                ax.set_title(title + "\n".join(wrap(rule_name(rule), 30)), fontsize=9)
                ax.set(xlim=(0, 1), xlabel="attention to the first token")
            for ax in row[len(rules) :]:
                ax.set_axis_off()
            row[0].set_ylabel("queries (%)")

    return figure(
        draw,
        f"Histograms of attention to the first token of the heads whose rule explains most, for {names_of(records)}",
        "How the attention to the first token is spread over queries, in the heads whose rule explains most. A head "
        "that either rests or acts has two humps, one at each end; by the test for two humps, so many of those shown "
        "do: "
        + ", ".join(
            f"{sum(rule['bimodal'] for rule in shown)} of {len(shown)} in {called(record)}"
            for record in records
            for shown in [record.values["search"]["rules"][:count]]
        )
        + ".",
        nrows=len(records),
        ncols=count,
        squeeze=False,
        figsize=(8.2, 2.9 * len(records)),
    )


def rules(records: Sequence[Record]) -> Display:
    """Every head that switches: how often it is off the first token if its best condition holds, and if not."""

    def draw(ax: Axes) -> None:
        for number, record in enumerate(records):
            color = model_color(record.model)
            for named in (True, False):
                chosen = [r for r in record.values["search"]["rules"] if r["named"] == named]
                ax.plot(
                    [r["off_otherwise"] for r in chosen],
                    [r["off_if_condition"] for r in chosen],
                    linestyle="none",
                    marker=MARKERS[number % 4],
                    markersize=8 if named else 5,
                    color=color,
                    markerfacecolor=color if named else "none",
                    label=f"{called(record)}, {'rule named' if named else 'no clear rule'}",
                )
        gap = records[0].values["search"]["settings"]["separation"]
        ax.fill_between([0, 1], [-gap, 1 - gap], [gap, 1 + gap], color=NEUTRAL, alpha=0.15, linewidth=0)
        ax.plot([0, 1], [0, 1], color=NEUTRAL, linewidth=1)
        ax.set(
            xlabel="share of queries off the first token, condition not met",
            ylabel="share off the first token,\ncondition met",
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.02),
        )
        ax.legend(frameon=False)

    return figure(
        draw,
        "One point for each switching head among the first twenty of a model: share of queries off the first token "
        "when its best condition is met against when it is not; a grey band around the diagonal holds the heads "
        "without a clear rule; for " + names_of(records),
        "Above the diagonal, a head leaves the first token where its best condition is met; below, where it is not. "
        "Only outside the grey band is the condition a rule. Of the heads whose condition tells most, so many have "
        "one: "
        + ", ".join(
            f"{sum(rule['named'] for rule in of['rules'])} of {len(of['rules'])} in {called(record)}"
            for record in records
            for of in [record.values["search"]]
        )
        + ".",
        figsize=(5.4, 4.6),
    )


def rule_table(records: Sequence[Record], count: int = 6) -> Display:
    """The heads with the clearest rules in numbers: every named rule, and others up to `count` in all."""
    rows = []
    for record in records:
        for number, rule in enumerate(record.values["search"]["rules"]):
            if number >= count and not rule["named"]:
                continue
            rows.append(
                (
                    f"{called(record)} {rule['layer']}.{rule['head']}",
                    rule["condition"],
                    "two" if rule["bimodal"] else "one",
                    f"{rule['off_if_condition']:.0%}",
                    f"{rule['off_otherwise']:.0%}",
                    f"{rule['bits']:.3f}",
                    f"{rule['p']:.3g}",
                    "yes" if rule["named"] else "no",
                )
            )
    columns = ("head", "condition", "humps", "off, met", "off, else", "bits", "p", "rule")
    return table(rows, columns, "Heads that switch, and their best condition (p corrected)")


def search_table(records: Sequence[Record]) -> Display:
    """How many heads pass each step of the search."""
    rows = []
    for record in records:
        search = record.values["search"]
        rows.append(
            (called(record), *(str(search[name]) for name in ("heads", "switching", "bimodal", "named"))),
        )
    return table(rows, ("model", "heads", "switch", "of these with two humps", "with a named rule"), "The search")


def tokens(example: JSON, model: str) -> Display:
    """A stretch of text under one head. Each token carries its attention to the first token as a number and as a
    depth of colour; tokens that meet the head's condition stand in a frame."""
    pieces = []
    holds = example.get("holds") or [False] * len(example["tokens"])
    for token, attention, met in zip(example["tokens"], example["attention"], holds, strict=True):
        shown = escape(token).replace("\n", "↵").replace(" ", "·")
        frame = "outline:2px solid currentColor;outline-offset:-2px;" if met else ""
        pieces.append(
            f'<ruby style="white-space:nowrap;margin:0 1px"><span style="background:rgba(47,127,193,'
            f'{0.45 * attention:.2f});{frame}padding:0 3px;border-radius:3px">{shown}</span>'
            f'<rt style="font-size:70%">{100 * attention:.0f}</rt></ruby>'
        )
    if "condition" in example:
        what = f"{rule_name(example)}; framed: the condition holds"
    else:
        what = f"framed: the trigger {example['trigger']}"
    if "follows" in example:
        what += (
            f". It follows the rule at {example['follows']:.0%} of the tokens shown, the stretch chosen because it "
            f"shows the rule best, and at {example['follows_everywhere']:.0%} of all"
        )
    head = f"{short_name(model)}, layer {example['layer']}, head {example['head']}: {what}"
    html = (
        f'<div class="themed token-strip" role="group" aria-label="{escape(head)}">'
        f"<p><strong>{escape(head)}</strong>. Above each token: its attention to the first token, in percent.</p>"
        f'<p style="line-height:2.6">{"<wbr>".join(pieces)}</p></div>'
    )
    text = " ".join(f"{t!r}:{100 * a:.0f}" for t, a in zip(example["tokens"], example["attention"], strict=True))
    return Display(html, f"{head}\n{text}")


def tests(records: Sequence[Record]) -> Display:
    """Change of the loss when a head is held on the first token, and when it is kept off it."""
    names = {"held_on_the_sink": "held on the first token", "kept_off_the_sink": "kept off the first token"}

    def draw(axes: Any) -> None:
        for ax, (key, label) in zip(axes, names.items(), strict=True):
            rows = [(record, test) for record in records for test in record.values["tests"]]
            for place, (record, test) in enumerate(rows):
                for shift, side, filled in ((0.0, "rule_says_off", True), (0.2, "rule_says_on", False)):
                    estimate = test[key][side]
                    if estimate is None:
                        continue
                    color = model_color(record.model)
                    ax.errorbar(
                        estimate["value"],
                        place + shift,
                        xerr=reach(estimate),
                        color=color,
                        marker="o",
                        markerfacecolor=color if filled else "none",
                        capsize=3,
                    )
            ax.axvline(0, color=NEUTRAL, linewidth=1)
            ax.set(title=label, xlabel="change of the loss (nats per token)")
            heads = [f"{called(record)} {test['layer']}.{test['head']}:" for record, test in rows]
            name_rows(ax, [f"{head}\n{rule_name(test)}" for head, (_, test) in zip(heads, rows, strict=True)])
        ink = mpl.rcParams["text.color"]
        for fill, name in ((ink, "where its rule says off"), ("none", "everywhere else")):
            axes[1].plot([], [], marker="o", linestyle="none", color=ink, markerfacecolor=fill, label=name)
        axes[1].figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=2)

    count = sum(len(record.values["tests"]) for record in records)
    return figure(
        draw,
        "Change of the loss with intervals, for each tested head, at the tokens where its rule says off and at the "
        "others: in the first panel the head is held on the first token, in the second it is kept off it",
        "What a tested head is worth, with 95 % intervals. If acting by its rule matters, holding it on the first "
        "token costs loss where the rule says off (filled), and keeping it off costs loss elsewhere (hollow). The "
        "whole interval lies right of zero for holding (filled) in "
        f"{_costs(records, 'held_on_the_sink', 'rule_says_off')} and for keeping off (hollow) in "
        f"{_costs(records, 'kept_off_the_sink', 'rule_says_on')}.",
        ncols=2,
        figsize=(8.2, 1.4 + 0.8 * max(count, 1)),
    )


def _costs(records: Sequence[Record], change: str, side: str) -> str:
    estimates = [test[change][side] for record in records for test in record.values["tests"]]
    known = [estimate for estimate in estimates if estimate]
    return f"{sum(estimate['low'] > 0 for estimate in known)} of {len(known)} heads"


def target_table(records: Sequence[Record]) -> Display:
    """Where the tested heads look when they are off the first token."""
    tested = [(record, test) for record in records for test in record.values["tests"]]
    names = next((list(test["targets"]) for _, test in tested if test["targets"]), ["anywhere"])
    rows = []
    for record, test in tested:
        shares = [f"{share:.0%}" for share in (test["targets"] or {}).values()] or ["never off"] * len(names)
        rows.append((f"{called(record)}: {test['layer']}.{test['head']}", *shares))
    columns = ["layer.head", *names] if tested else ["head"]
    return table(rows, columns, "Where a head's attention goes when it is off the first token")
