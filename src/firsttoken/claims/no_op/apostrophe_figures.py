"""Figures of the head that attends to the apostrophe, or of the nearest to it, in the chapter `no_op`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from firsttoken.claims.no_op.rule_figures import tokens
from firsttoken.estimates import JSON, interval
from firsttoken.model_names import called, names_of
from firsttoken.plots import CATEGORIES, NEUTRAL, Display, Panels, figure, model_color, table
from firsttoken.records import Record


def trigger_table(records: Sequence[Record], paper: JSON) -> Display:
    """The apostrophe head: the paper's numbers and those of the head looked at in each model."""
    theirs = paper["apostrophe_head"]
    rows: list[tuple[str, ...]] = [
        (
            f"paper: {theirs['model']}",
            f"{theirs['layer']}.{theirs['head']}",
            "nearly all",
            "nearly all",
            f"about {theirs['bos_value_norm']:.0f}",
            f"about {theirs['apostrophe_value_norm']:.0f}",
            "between them",
        )
    ]
    for record in records:
        head = record.values["trigger_head"]
        rows.append(
            (
                f"{called(record)} ({head['chosen']})",
                f"{head['layer']}.{head['head']}",
                _estimate(head["attention_to_trigger"], ".0%"),
                _estimate(head["first_elsewhere"], ".0%"),
                _estimate(head["value_first"], ".3g"),
                _estimate(head["value_trigger"], ".3g"),
                _estimate(head["value_others"], ".3g"),
            )
        )
    columns = (
        "model",
        "layer.head",
        "attention to the trigger right after it",
        "to the first token elsewhere",
        "value norm: first",
        "trigger",
        "others",
    )
    return table(rows, columns, f"The head that attends to {records[0].values['trigger_head']['trigger']} or to BOS")


def trigger_example(record: Record) -> Display:
    """The text in which the apostrophe head, or the nearest to it, changes most."""
    head = record.values["trigger_head"]
    example = head["example"]
    given = {k: head[k] for k in ("layer", "head", "trigger")} | example
    given["holds"] = [head["trigger"] in token for token in example["tokens"]]
    return tokens(given, called(record))


def value_norms(records: Sequence[Record]) -> Display:
    """Value norms token by token in that text, the first token's as a line."""

    def draw(axes: Any) -> None:
        for ax, record in zip(axes, records, strict=True):
            head = record.values["trigger_head"]
            example = head["example"]
            place = np.arange(len(example["tokens"]))
            met = np.array([head["trigger"] in token for token in example["tokens"]])
            norms = np.array(example["value_norm"])
            color = model_color(record.model)
            ax.barh(place, norms, color=color, alpha=0.5)
            ax.barh(place[met], norms[met], color=CATEGORIES[1], hatch="//")
            ax.axvline(example["value_norm_first"], color=mpl.rcParams["text.color"], linestyle="--")
            shown = [token.replace("\n", "↵").strip() or "·" for token in example["tokens"]]
            ax.set_yticks(place, shown, fontsize=8)
            ax.set(
                title=f"{called(record)}, layer {head['layer']}, head {head['head']}",
                xlabel="norm of the value",
            )
            ax.set_ylim(len(place) - 0.3, -0.7)  # the text runs down
        # The bars of other tokens are in the colours of the models, so the legend is in none of them.
        ink = mpl.rcParams["text.color"]
        trigger = records[0].values["trigger_head"]["trigger"]
        keys = [
            Patch(facecolor=CATEGORIES[1], hatch="//", label=f"tokens with {trigger}"),
            Patch(facecolor=NEUTRAL, alpha=0.5, label="other tokens"),
            Line2D([], [], color=ink, linestyle="--", label="first token"),
        ]
        axes[0].figure.legend(handles=keys, loc="outside lower center", ncols=3)

    return figure(
        draw,
        "Bars: the norm of each token's value in one text; a dashed line marks the first token's norm; for "
        + names_of(records),
        "Norm of each token's value in the text where the head changes most. A trigger at which the head could rest "
        "as it does on the first token would end at the dashed line; over all texts the norm at the trigger is "
        + ", ".join(
            f"{head['value_trigger']['value'] / head['value_first']['value']:.1f} times that of the first token in "
            f"{called(record)}"
            for record in records
            for head in [record.values["trigger_head"]]
            if head["value_trigger"] and head["value_first"]
        )
        + ".",
        panels=Panels(count=len(records), height=6.2),
    )


def _estimate(value: JSON | None, form: str) -> str:
    return "none" if value is None else interval(value, form)
