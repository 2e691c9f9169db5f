"""Figures of the chapter `kv_cache`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from matplotlib.axes import Axes

from firsttoken.estimates import interval
from firsttoken.model_names import called, names_of
from firsttoken.plots import NEUTRAL, Display, figure, model_color, name_rows, reach, table
from firsttoken.records import Record

LABELS = {
    "full": "everything kept",
    "window": "the newest only",
    "sinks 1": "the first 1 + the newest",
    "sinks 2": "the first 2 + the newest",
    "sinks 4": "the first 4 + the newest",
    "sinks 8": "the first 8 + the newest",
    "sinks 4, original positions": "the first 4, original positions",
    "random 4": "4 random early ones + the newest",
    "heavy hitters": "the most attended + the newest",
    "recomputed": "no cache: the newest, computed anew",
    "window, sliding layers too": "the newest only, in sliding layers too",
    "sinks 4, sliding layers too": "the first 4 + the newest, in sliding layers too",
    "sliding layers see the first, original positions": "everything; sliding layers see the first too",
    "sliding layers see the first, cache positions": "the same, renumbered",
}


def policies(records: Sequence[Record]) -> Display:
    """Increase of the loss past the window under each policy, all models in one panel."""
    names = [
        name for name in LABELS if name != "full" and any(name in record.values["policies"] for record in records)
    ]

    def draw(ax: Axes) -> None:
        for number, record in enumerate(records):
            of, asked = record.values["policies"], record.parameters
            there = [place for place, name in enumerate(names) if name in of]
            increases = [of[names[place]]["increase"] for place in there]
            ax.errorbar(
                [increase["value"] for increase in increases],
                [place - 0.06 + 0.11 * number for place in there],
                xerr=reach(*increases),
                color=model_color(record.model),
                marker="osD^"[number % 4],
                markersize=4,
                capsize=2,
                linestyle="none",
                label=f"{called(record)}, {asked['windows']} texts of {asked['length']} tokens",
            )
        name_rows(ax, [LABELS[name] for name in names])
        ax.axvline(0, color=NEUTRAL, linewidth=0.8)
        ax.set_xscale("symlog", linthresh=0.1)
        ax.set_xlabel("increase of the loss over the full cache (nats)")
        ax.legend(frameon=False)

    windows = " or ".join(sorted({str(record.parameters["window"]) for record in records}))
    alt = (
        "Increase of the loss over the full cache under each policy, a row for each, with intervals; in each row a "
        f"mark for each model: {names_of(records)}"
    )
    losses = "; ".join(
        f"{called(record)} by {interval(of['window']['increase'])} and by {interval(of['sinks 4']['increase'])}"
        for record in records
        for of in [record.values["policies"]]
    )
    caption = (
        f"What a cache of {windows} tokens costs over one that keeps everything, with 95 % intervals over texts. The "
        f"newest tokens alone, and with the first four, raise the loss of {losses} nats."
    )
    return figure(draw, alt, caption, figsize=(4.9, 0.52 * len(names) + 0.8))


def perplexities(records: Sequence[Record]) -> Display:
    """Perplexity past the window under each policy."""
    rows = []
    for record in records:
        for name, label in LABELS.items():
            if name in record.values["policies"]:
                of = record.values["policies"][name]
                rows.append(
                    (
                        called(record),
                        label,
                        interval(of["perplexity"], ".1f"),
                        interval(of["increase"], ".3f"),
                    )
                )
    columns = ("model", "what the cache holds", "perplexity [95 % interval]", "increase of the loss (nats)")
    return table(rows, columns, "Loss of the tokens past the window")


def retrieval(records: Sequence[Record]) -> Display:
    """Share of facts found, most of which lie further back than the window reaches."""
    rows = []
    for record in records:
        for name in ("full", "window", "sinks 4", "heavy hitters"):
            e = record.values["retrieval"][name]
            rows.append((called(record), LABELS[name], f"{e['chance']:.0%}", interval(e, ".0%")))
    columns = ("model", "what the cache holds", "guessing", "found [95 % interval]")
    return table(rows, columns, "Facts hidden in a text, asked for at its end")


def streams(records: Sequence[Record]) -> Display:
    """Along a long generation, with four first tokens in the cache and with none: tokens in the cache, surprise and
    repetition."""
    panels = (
        ("cached", "tokens in\nthe cache"),
        ("surprise", "−log p of sampled\ntokens (nats)"),
        ("repeated", "4-grams\nseen before"),
    )

    def draw(axes: Any) -> None:
        for ax, (name, title) in zip(axes, panels, strict=True):
            for record in records:
                color = model_color(record.model)
                for of, style, what in (
                    (record.values, "-", "the first 4 + the newest"),
                    (record.values.get("window_only", {}), "--", "the newest only"),
                ):
                    if name in of:
                        label = f"{called(record)}: {what}"
                        ax.plot(of["tokens"], of[name], style, color=color, marker=".", label=label)
            ax.set(title=title, xlabel="tokens generated", ylim=(0, None if name != "repeated" else 1))
        axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)

    alt = (
        "Along a generation with a bounded cache, with the first four tokens in it and without: tokens in the cache, "
        "how unlikely the sampled tokens were, share of repeated 4-grams"
    )
    ends = "; ".join(f"{called(r)}: {max(r.values['cached']):.0f} tokens" for r in records)
    repeated = "; ".join(
        f"{_mean(r.values['repeated'])} with the first four and {_mean(r.values['window_only']['repeated'])} without "
        f"in {called(r)}"
        for r in records
        if "window_only" in r.values
    )
    caption = (
        "A long generation with a bounded cache, with the first four tokens in it and with the newest alone. The "
        f"cache never holds more than its bound ({ends}). A text that has lost the thread is unlikely or "
        "repeats itself" + (f": of its 4-grams, so many were there before: {repeated}." if repeated else ".")
    )
    return figure(draw, alt, caption, ncols=3, figsize=(8.2, 3.2))


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.0%}"


def excerpt(record: Record) -> Display:
    """The last words of a stream, and of the one without first tokens."""
    total = record.values["tokens"][-1]
    of = {"with the first four kept": record.values["text"]}
    if control := record.values.get("window_only"):
        of["with the newest alone"] = control["text"]
    quoted = "".join(
        f"<p>The last words of {total:,} tokens by {escape(called(record))}, {what}:</p>"
        f"<blockquote><p>{escape(text)}</p></blockquote>"
        for what, text in of.items()
    )
    return Display(f'<div class="themed">{quoted}</div>', "\n\n".join(of.values()))
