"""Figures of the chapter `recipes`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from matplotlib.axes import Axes

from firsttoken.claims.recipes.verdict import (
    PLAIN,
    PROMISES,
    SINK,
    TEXT_PROMISES,
    Seed,
    fate,
    held,
    held_on_text,
    pairs,
)
from firsttoken.estimates import over_seeds, value_of
from firsttoken.plots import CATEGORIES, NEUTRAL, Display, figure, table
from firsttoken.pretraining.curves import END_COLUMNS, SEED_COLUMNS, VALUE_NORM, end_cells, seed_cells
from firsttoken.records import Record
from firsttoken.records.numbers import NOT_RUN

NAMES = {
    "plain": "plain",
    "growing_context": "growing context",
    "sink_penalised": "sink penalised",
    "sink_rewarded": "sink rewarded",
    "tokens_replaced": "tokens replaced",
    "bos_in_half": "BOS in half the texts",
}
OVER_SEEDS = "medians over all seeds, in brackets the lowest and the highest seed"
LEAST = {"moved": 1e-8, "missing": 1e-5}  # nats; what is less lies at the edge of a logarithmic axis


def _median(record: Record, name: str, outcome: str) -> str:
    return f"{median(float(seed[outcome]) for seed in record.values['by_recipe'][name]):.2f}"


def _points(ax: Axes, record: Record, outcome: str) -> None:
    """A row for each recipe, a point for each seed: filled where it learnt the task."""
    for place, name in enumerate(NAMES):
        seeds = record.values["by_recipe"][name]
        color = NEUTRAL if name == PLAIN else CATEGORIES[2]
        for number, seed in enumerate(seeds):
            height = place + (number - (len(seeds) - 1) / 2) * 0.06
            face = color if seed["learnt"] is not None else "none"
            ax.plot(
                max(seed[outcome], LEAST.get(outcome, 0.0)),
                height,
                "o",
                color=color,
                markerfacecolor=face,
                markersize=5,
            )
    ax.set_yticks(range(len(NAMES)), list(NAMES.values()))
    ax.set_ylim(len(NAMES) - 0.5, -0.5)


def _two_panels(record: Record, labels: dict[str, str], alt: str, caption: str) -> Display:
    """Two outcomes by their labels: a share of attention with the threshold of a sink, and nats."""
    share, nats = labels

    def draw(axes: Any) -> None:
        _points(axes[0], record, share)
        axes[0].axvline(SINK, color=NEUTRAL, linestyle="--", linewidth=1)
        axes[0].set(xlabel=labels[share], xlim=(-0.03, 1.03))
        _points(axes[1], record, nats)
        axes[1].set(xlabel=labels[nats], xscale="log")

    return figure(draw, alt, caption, ncols=2, figsize=(8.2, 3.4))


def sinks_and_noise(record: Record) -> Display:
    """Where each seed's head rests, and how far noise moves its predictions."""

    weakest, most = (f"{NAMES[name]} {_median(record, name, 'share')}" for name in ("sink_penalised", "sink_rewarded"))
    return _two_panels(
        record,
        {
            "share": "attention to the first token,\naway from triggers",
            "moved": "how far noise elsewhere moves\npredictions (nats)",
        },
        "Two panels with a row for each recipe and a point for each seed, hollow where the task was not learnt: "
        "attention to the first token away from triggers, and how far replaced tokens elsewhere move predictions",
        "Where the head rests (beyond the dashed line it is a sink), and how far noise moves its predictions: "
        f"a point for each seed, hollow where the task was not learnt. The median share on the first token "
        f"is {_median(record, PLAIN, 'share')} after plain training; {weakest}, {most}.",
    )


def missing(record: Record) -> Display:
    """Where each seed's head rests, and what it loses, on texts without BOS."""

    return _two_panels(
        record,
        {
            "share_without": "attention to the first token\nwithout BOS, away from triggers",
            "missing": "rise of the loss at triggers\nwithout BOS (nats)",
        },
        "Two panels for texts without BOS, with a row for each recipe and a point for each seed, hollow where the "
        "task was not learnt: attention to the first token away from triggers, and how much the loss at triggers "
        "rises; rises of nothing lie at the edge",
        "The same heads on texts without BOS: where they rest, and what its absence costs (a rise of "
        f"nothing lies at the edge). Plain training leaves the first token {_median(record, PLAIN, 'share_without')} "
        f"of the attention then, BOS in half of the texts {_median(record, 'bos_in_half', 'share_without')}.",
    )


def promises(record: Record) -> Display:
    """What each recipe promised and in how many seeds it held."""
    fates = {"kept": "kept", "contradicted": "contradicted: in none", "open": "open"}
    rows = [
        (
            NAMES[name],
            promise.says,
            f"{held(record.values, name)} of {len(pairs(record.values, name))}",
            fates[fate(record.values, name)],
        )
        for name, promise in PROMISES.items()
    ]
    return table(rows, ("recipe", "promise", "seeds", "judged"), "Each promise, seed by seed beside plain training")


def _outcomes(seeds: Sequence[Seed], forms: Mapping[str, str]) -> tuple[str, ...]:
    """Outcomes of one recipe's seeds by their name, each in its form."""
    return tuple(over_seeds([float(seed[name]) for seed in seeds], form) for name, form in forms.items())


def recipe_table(record: Record) -> Display:
    """What every recipe's seeds learnt, where their heads rest and what noise does."""
    forms = {"loss_at": ".3f", "loss_away": ".3f", "share": ".2f", "moved": ".1g"}
    rows = []
    for name in NAMES:
        seeds = record.values["by_recipe"][name]
        steps = [seed["learnt"] for seed in seeds if seed["learnt"] is not None]
        learnt = (f"{len(steps)} of {len(seeds)}", over_seeds(steps, ".0f") if steps else "–")
        rows.append((NAMES[name], *learnt, *_outcomes(seeds, forms)))
    columns = (
        "recipe", "learnt", "steps to it", "loss at triggers", "loss away", "share on the first token",
        "moved by noise, nats",
    )  # fmt: skip
    return table(rows, columns, f"On texts with BOS: {OVER_SEEDS}; of the steps, over those that learnt the task")


def missing_table(record: Record) -> Display:
    """Where every recipe's heads rest without BOS, and what its absence costs."""
    forms = {"share": ".2f", "share_without": ".2f", "missing": ".3f"}
    rows = [(NAMES[name], *_outcomes(record.values["by_recipe"][name], forms)) for name in NAMES]
    columns = ("recipe", "share on the first token", "share without BOS", "cost of no BOS, nats")
    return table(rows, columns, f"With and without BOS: {OVER_SEEDS}")


def unjudged_table(record: Record) -> Display:
    """What no promise is about, of every recipe: the value norm of the first token, how far a replaced token's change
    spreads, and the largest activation."""
    by_recipe = record.values["by_recipe"]
    rows = [(NAMES[name], *seed_cells(by_recipe[name])) for name in NAMES]
    return table(
        rows, ("recipe", *SEED_COLUMNS), f"{len(by_recipe[PLAIN])} seeds of each recipe, unjudged: {OVER_SEEDS}"
    )


def text_table(record: Record) -> Display:
    """Every model that was trained on text, plain training first."""
    entries = record.values["on_text"]
    rows = []
    for name in (PLAIN, *TEXT_PROMISES):
        for seed, (one, plain) in enumerate(zip(entries[name], entries[PLAIN], strict=True)):
            if one is None:
                rows.append((NAMES[name], str(seed), NOT_RUN, *"–" * 7))
                continue
            promise = "–"
            if name != PLAIN and plain:
                promise = "kept" if held_on_text(name, one, plain) else "not kept"
            rows.append(
                (
                    NAMES[name],
                    str(seed),
                    promise,
                    *end_cells(one),
                    f"{value_of(one['value_norm']):.2f}",
                )
            )
    columns = (
        "recipe", "seed", "promise", *END_COLUMNS,
        VALUE_NORM,
    )  # fmt: skip
    heads = record.values["heads"]
    return table(
        rows,
        columns,
        f"Models trained on text; one of {heads} heads is {1 / heads:.2%}. In brackets 95 % intervals over the texts "
        "of one model",
    )
