"""Figures of the chapter `design`."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean
from typing import Any

from matplotlib.axes import Axes

from firsttoken.claims.design.verdict import (
    BLOCKS,
    LEAST_EXCESS,
    LEAST_SINK,
    TEXT_DESIGNS,
    has_sink,
    heads,
    in_order,
    of_head,
    removes,
    some_head_has_one,
)
from firsttoken.estimates import interval, over_seeds, value_of
from firsttoken.plots import CATEGORIES, NEUTRAL, Display, figure, table
from firsttoken.pretraining.curves import (
    END_COLUMNS,
    LARGEST_ACTIVATION,
    SEED_COLUMNS,
    VALUE_NORM,
    end_cells,
    seed_cells,
)
from firsttoken.records import Record
from firsttoken.records.numbers import NOT_RUN

NAMES = {
    "softmax": "softmax",
    "gate": "gate behind attention",
    "sink_logit": "learned sink logit",
    "off_by_one": "off by one",
    "sigmoid": "sigmoid weights",
    "two_heads": "two plain heads",
    "split_heads": "split heads",
    "depth_gate": "gated depth",
}


STEP = "time of a step / softmax"
OVER_SEEDS = "numbers without a count are medians over seeds, in brackets the lowest and the highest seed"


def _seeds(counts: Mapping[str, Any]) -> str:
    """How many seeds each has, in words for a caption."""
    numbers = sorted({count["seeds"] for count in counts.values()})
    return f"{' or '.join(map(str, numbers))} seeds"


def _blocks(record: Record) -> dict[str, Any]:
    """The counts of each block, plain softmax first."""
    return {"softmax": record.values["softmax"], **{name: record.values["by_block"][name] for name in BLOCKS}}


def _share(each: dict[str, Any], head: int = 0) -> float:
    return of_head(each, "first_away", head) / max(of_head(each, "row_away", head), 1e-9)


def sinks(record: Record) -> Display:
    """What each seed's head gives the first token away from triggers, as a share of what its row adds up to."""
    counts = in_order(record)

    def draw(ax: Axes) -> None:
        for place, name in enumerate(counts):
            each = counts[name]["each"]
            heights = [_share(one) for one in each]
            places = [place + (n - (len(each) - 1) / 2) * 0.05 for n in range(len(each))]
            ax.plot(places, heights, "o", color=CATEGORIES[2], alpha=0.7)
        ax.axhline(LEAST_SINK, color=NEUTRAL, linewidth=1)
        ax.set_xticks(range(len(counts)), [NAMES[name].replace(" ", "\n") for name in counts])
        ax.set(ylabel="share on the first token,\naway from triggers", ylim=(0, 1.02))

    return figure(
        draw,
        "Share of a row's attention on the first token away from triggers, a point for each seed, by design of "
        "attention",
        "A point for each seed; above the line its head has a sink. So many seeds have one: "
        + ", ".join(
            f"{sum(map(has_sink, count['each']))} of {count['seeds']} with {NAMES[name]}"
            for name, count in counts.items()
        )
        + ".",
        figsize=(5.0, 3.4),
    )


def design_table(record: Record) -> Display:
    """Every design: sinks, what was learnt and how fast, and what its rows add up to where there is nothing to do."""
    cells = []
    for name, count in in_order(record).items():
        each = count["each"]
        steps = [one["learnt"] for one in each if one["learnt"] is not None]
        cells.append(
            (
                NAMES[name],
                f"{sum(map(has_sink, each))} of {count['seeds']}",
                "yes" if removes(count) else "no",
                f"{count['learnt']} of {count['seeds']}",
                over_seeds(steps, ".0f") if steps else "–",
                over_seeds([one["loss_at"] for one in each], ".3f"),
                over_seeds([one["loss_away"] for one in each], ".3f"),
                over_seeds([one["row_away"] for one in each]),
            )
        )
    columns = (
        "design", "seeds with a sink", "removes it", "learnt", "steps to it", "loss at triggers", "loss away",
        "row adds up to",
    )  # fmt: skip
    return table(cells, columns, f"{_seeds(record.values['by_variant'])} of each design; {OVER_SEEDS}")


def unjudged_table(record: Record) -> Display:
    """What no rule reads, of every design or block: the value norm of the first token, how far a replaced token's
    change spreads, the largest activation and the time of a training step. A record of an earlier version has the
    first of these alone."""
    of, counts = ("design", in_order(record)) if "by_variant" in record.values else ("block", _blocks(record))
    rows = []
    for name, count in counts.items():
        step = record.values.get("step", {}).get(name)
        rows.append((NAMES[name], *seed_cells(count["each"]), interval(step) if step else "–"))
    seeds = f"{_seeds(counts)} of each {of}"
    caption = f"{seeds}, unjudged; {OVER_SEEDS}; of a step's time, the 95 % interval over repetitions"
    return table(rows, (of, *SEED_COLUMNS, STEP), caption)


def sinks_of_blocks(record: Record) -> Display:
    """What each seed's heads give the first token away from triggers, by what is changed of the block."""
    counts = record.values["by_block"]

    def draw(ax: Axes) -> None:
        for place, name in enumerate(BLOCKS):
            each = counts[name]["each"]
            places = [place + (n - (len(each) - 1) / 2) * 0.05 for n in range(len(each))]
            shares = [[_share(one, head) for head in heads(one)] for one in each]
            if name == "two_heads":  # which of two equals comes first means nothing
                shares = [sorted(of, reverse=True) for of in shares]
            for head, fill in enumerate(("full", "none")):
                if head < len(shares[0]):
                    own = [of[head] for of in shares]
                    ax.plot(places, own, "o", color=CATEGORIES[2], alpha=0.7, fillstyle=fill)
        ax.axhline(LEAST_SINK, color=NEUTRAL, linewidth=1)
        ax.set_xticks(range(len(BLOCKS)), [NAMES[name].replace(" ", "\n") for name in BLOCKS])
        ax.set(ylabel="share on the first token,\naway from triggers", ylim=(-0.02, 1.02))

    return figure(
        draw,
        "Share of each head's attention on the first token away from triggers, two points for each seed that has two "
        "heads, by block",
        "A column of points for each seed; above the line a head has a sink. Filled is the head that has more of one "
        "of two plain ones, and the head with a sink logit of two that are split; hollow is the other. So many seeds "
        "have a sink in some head: "
        + ", ".join(
            f"{sum(map(some_head_has_one, counts[name]['each']))} of {counts[name]['seeds']} with {NAMES[name]}"
            for name in BLOCKS
        )
        + ".",
        figsize=(5.0, 3.4),
    )


def block_table(record: Record) -> Display:
    """Every block, plain softmax first: sinks, what was learnt and how fast, and how deep tokens go."""
    cells = []
    for name, count in _blocks(record).items():
        each = count["each"]
        steps = [one["learnt"] for one in each if one["learnt"] is not None]
        cells.append(
            (
                NAMES[name],
                f"{sum(map(some_head_has_one, each))} of {count['seeds']}",
                f"{count['learnt']} of {count['seeds']}",
                over_seeds(steps, ".0f") if steps else "–",
                over_seeds([one["loss_at"] for one in each], ".3f"),
                over_seeds([one["loss_away"] for one in each], ".3f"),
                *(over_seeds([one.get(depth, 1.0) for one in each]) for depth in ("depth_at", "depth_away")),
            )
        )
    columns = (
        "block", "seeds with a sink", "learnt", "steps to it", "loss at triggers", "loss away",
        "depth at triggers", "depth away",
    )  # fmt: skip
    return table(cells, columns, f"{_seeds(record.values['by_block'])} of each block; {OVER_SEEDS}")


MARKS = "os^v"  # a seed each


def sinks_on_text(record: Record) -> Display:
    """What the first token gets beyond an even share, and what a changed token does to the others, by design: a mark
    for each seed."""
    entries = record.values["on_text"]
    means = [
        f"{NAMES[design]} {mean(value_of(one['excess']) for one in trained):+.3f} and "
        f"{mean(value_of(one['spread_over_own']) for one in trained):.2f}"
        for design in TEXT_DESIGNS
        if (trained := [one for one in entries[design] if one])
    ]

    def draw(axes: Any) -> None:
        panels = (
            ("excess", "attention to the first token\nbeyond an even share"),
            ("spread_over_own", "spread / own"),
        )
        for ax, (name, label) in zip(axes, panels, strict=True):
            for seed in range(len(entries["softmax"])):
                shown = {
                    place: value_of(entries[design][seed][name])
                    for place, design in enumerate(TEXT_DESIGNS)
                    if entries[design][seed]
                }
                ax.plot(
                    list(shown), list(shown.values()), MARKS[seed], color=CATEGORIES[2], alpha=0.8,
                    label=f"seed {seed}",
                )  # fmt: skip
            ax.set_xticks(range(len(TEXT_DESIGNS)), [NAMES[name].replace(" ", "\n") for name in TEXT_DESIGNS])
            ax.set(ylabel=label, xlim=(-0.5, len(TEXT_DESIGNS) - 0.5))
        axes[0].axhline(LEAST_EXCESS, color=NEUTRAL, linewidth=1)
        axes[1].set_ylim(bottom=0)
        axes[0].legend(frameon=False)

    return figure(
        draw,
        "Two panels by design of attention, a mark for each seed: attention to the first token beyond an even share, "
        "and how far a changed token moves the later ones over how far it moves itself",
        "A mark for each seed. In the first panel a model above the line has a sink; in the second, the higher, the "
        f"farther a changed token reaches. Means over seeds: {'; '.join(means)}.",
        ncols=2,
        figsize=(8.2, 3.4),
    )


def text_table(record: Record) -> Display:
    """Every model that was trained on text."""
    cells = []
    for design in TEXT_DESIGNS:
        step = interval(record.values["step"][design])
        for seed, one in enumerate(record.values["on_text"][design]):
            if one is None:
                cells.append((NAMES[design], str(seed), NOT_RUN, *"–" * 9))
                continue
            cells.append(
                (
                    NAMES[design],
                    str(seed),
                    *end_cells(one),
                    f"{value_of(one['row_sum']):.2f}",
                    f"{value_of(one['value_norm']):.2f}",
                    f"{one['largest_activation']:.0f}",
                    step,
                )
            )
    columns = (
        "design", "seed", *END_COLUMNS,
        "row adds up to", VALUE_NORM, LARGEST_ACTIVATION, STEP,
    )  # fmt: skip
    heads = record.values["heads"]
    return table(
        cells,
        columns,
        f"Models trained on text; one of {heads} heads is {1 / heads:.2%}. In brackets 95 % intervals over the texts "
        "of one model, of a step's time over repetitions",
    )
